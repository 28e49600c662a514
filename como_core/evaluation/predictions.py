"""What a policy predicts over recorded episodes, beside what was done: pictures for people to look at.

    figure = over_time(predict_along(policy, episode), names)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from como_core.action_chunk import ActionChunk, Observation, Policy, history_of, history_rows
from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.formats.source_files import printable
from como_core.interface import Action

ASK_EVERY_S = 0.1
FRAMES = 7
_ROUNDING_S = 1e-6
_DONE, _PREDICTED, _HELD, _MEAN = "#505a66", "#0072B2", "#E69F00", "#8a93a0"
_UNITS = {"linear": "m/s", "angular": "rad/s", "position": "m"}


@dataclass(frozen=True)
class Along:
    """A policy's chunks along one episode.

    steps   int [N], at which steps of the episode it was asked
    chunks  its N answers, each timed from the timestamp of its step
    """

    episode: Episode
    steps: np.ndarray
    chunks: list[ActionChunk]


def predict_along(policy: Policy, episode: Episode, every_s: float = ASK_EVERY_S) -> Along:
    """Ask a policy at every `every_s` seconds of an episode, about what the episode holds at that time.

    Raises ComoError, naming the episode, where it lacks a camera, the action, or what else the policy needs.
    """
    interface = policy.interface
    missing = [name for name in interface.cameras if name not in episode.images]
    if missing or episode.action is None or episode.action.shape[1] != interface.action.size:
        lack = (f"no camera {missing[0]!r} (has: {', '.join(episode.images) or 'none'})" if missing
                else "no actions" if episode.action is None
                else f"actions of {episode.action.shape[1]} values, the policy's interface has {interface.action.size}")
        raise ComoError(f"{episode.source}: {lack}; show the policy recordings of its own robot")
    if len(episode) < 2:
        raise ComoError(f"{episode.source}: {len(episode)} steps; predictions need two or more")
    times = np.arange(episode.timestamps[0], episode.timestamps[-1], every_s)
    steps = np.unique(np.searchsorted(episode.timestamps, times - _ROUNDING_S))
    try:
        chunks = [policy.predict(observation_at(episode, step, tuple(interface.cameras), history_of(policy)))
                  for step in steps.tolist()]
    except ComoError as error:
        raise ComoError(f"{episode.source}: {error}") from error
    return Along(episode, steps, chunks)


def observation_at(episode: Episode, step: int, cameras: Sequence[str], history_s: Sequence[float] = ()
                   ) -> Observation:
    """What a policy would have been given at a step of an episode; before the start there is only the start."""
    stamp_s = float(episode.timestamps[step])
    rows = history_rows(episode.timestamps, history_s, episode.timestamps[[step]])[0]
    now, *past = ({name: episode.images[name][row] for name in cameras} for row in rows.tolist())
    state = None if episode.state is None else episode.state[step]
    return Observation(stamp_s, now, state, episode.instruction, past=tuple(past))


def value_names(action: Action) -> list[str]:
    """What each value of an action vector is called in a picture, with its unit."""
    units = {"joint_position": "rad or m", "joint_velocity": "rad/s or m/s"}
    names = []
    for name in action.names:
        unit = units.get(action.kind) or _UNITS.get(name.partition(".")[0])
        names.append(f"{name}, {unit}" if unit else name)
    return names + ["gripper, 0 open"] * (action.gripper is not None)


def over_time(along: Along, names: Sequence[str]) -> Figure:
    """Recorded actions as lines, chunks from several times laid over them; above, what the camera showed then."""
    episode, done = along.episode, along.episode.action
    assert done is not None
    time_s = episode.timestamps - episode.timestamps[0]
    figure = Figure(figsize=(11, 2.0 + 1.35 * len(names)), layout="constrained")
    grid = figure.add_gridspec(1 + len(names), FRAMES, height_ratios=[1.4] + [1.0] * len(names))
    shown = np.linspace(0, len(episode) - 1, FRAMES).round().astype(int)
    frames = next(iter(episode.images.values()))
    for column, step in enumerate(shown.tolist()):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(frames[step])
        axes.set_title(f"{time_s[step]:.2f} s", fontsize=9)
        axes.axis("off")
    for row, name in enumerate(names):
        axes = figure.add_subplot(grid[1 + row, :])
        axes.plot(time_s, done[:, row], color=_DONE, linewidth=3, alpha=0.5, label="recorded")
        for number, (step, chunk) in enumerate(zip(along.steps.tolist(), along.chunks, strict=True)):
            first = "predicted, from the dot on" if number == 0 else None
            due = time_s[step] + chunk.times_s
            axes.plot(due, chunk.values[:, row], color=_PREDICTED, linewidth=1, alpha=0.8, label=first)
            axes.plot(due[0], chunk.values[0, row], ".", color=_PREDICTED, markersize=4)
        axes.set_ylabel(name, fontsize=9)
        axes.set_xlim(time_s[0], time_s[-1])
        axes.spines[["top", "right"]].set_visible(False)
        if row == 0:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=9)
    axes.set_xlabel("time, s")
    figure.suptitle(f"{printable(episode.source)}: {episode.instruction or 'no instruction'}", fontsize=10,
                    parse_math=False)
    return figure


def by_lead(alongs: Sequence[Along], names: Sequence[str]) -> Figure | None:
    """How far predictions are from what was done, by how far ahead they are; None where nothing varies.

    Root mean square over all chunks, as a share of the recorded standard deviation of each value, beside going on
    with the action at hand and beside the recordings' mean, which is at 1.
    """
    lead_s = alongs[0].chunks[0].times_s
    done = [along.episode.action for along in alongs if along.episode.action is not None]
    deviation = np.concatenate(done).std(axis=0)
    varied = np.flatnonzero(deviation > 1e-6)
    if not len(varied):
        return None
    predicted, held = _errors(alongs, len(lead_s))
    columns = min(4, len(varied))
    rows = -(-len(varied) // columns)
    figure = Figure(figsize=(0.6 + 2.7 * columns, 0.9 + 2.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[len(varied):]:
        axes.axis("off")
    for axes, value in zip(grid.flat, varied.tolist(), strict=False):
        axes.axhline(1, color=_MEAN, linewidth=1, linestyle=":", label="the recordings' mean")
        axes.plot(lead_s, held[:, value] / deviation[value], color=_HELD, label="the action at hand, held")
        axes.plot(lead_s, predicted[:, value] / deviation[value], color=_PREDICTED, linewidth=2, label="predicted")
        axes.set_title(names[value], fontsize=9)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("seconds ahead")
    for axes in grid[:, 0]:
        axes.set_ylabel("error / recorded spread")
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return figure


def _errors(alongs: Sequence[Along], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square error of predictions, and of holding the action at hand, by step ahead: [K, A] each."""
    predicted: list[np.ndarray] = []
    held: list[np.ndarray] = []
    for along in alongs:
        done, stamps = along.episode.action, along.episode.timestamps
        assert done is not None
        for step, chunk in zip(along.steps.tolist(), along.chunks, strict=True):
            due = stamps[step] + chunk.times_s
            truth = done[np.searchsorted(stamps, due + _ROUNDING_S, side="right") - 1].astype(np.float64)
            truth[due > stamps[-1] + _ROUNDING_S] = np.nan
            predicted.append(chunk.values[:steps] - truth[:steps])
            held.append(done[step] - truth[:steps])
    return tuple(np.sqrt(np.nanmean(np.square(errors), axis=0)) for errors in (predicted, held))  # type: ignore[return-value]
