"""Rollouts for people to look at: large pictures, and where each chunk would have led the hand.

    draw([watch(policy, "metaworld:drawer-open-v3", seed) for seed in range(4)]).savefig("rollouts.png")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from como_core.action_chunk import Policy, history_of
from como_core.simulation.rollout import env_for
from como_core.simulation.trial import TrialRun

COLUMNS = 6
_PLANNED, _WENT = "#E69F00", "#56B4E9"  # Okabe and Ito's, for the colour-blind


@dataclass(frozen=True)
class Glance:
    """One moment at which the policy was asked.

    time_s   seconds since the start
    picture  uint8 [size, size, 3], what the first camera sees, in more pixels than the policy gets
    planned  float64 [K + 1, 2], column and row as shares of the picture: the hand, then where the chunk leads it
    went     float64 [M, 2], the same of the way that it then went, as far as the chunk plans
    """

    time_s: float
    picture: np.ndarray
    planned: np.ndarray
    went: np.ndarray


@dataclass(frozen=True)
class Watched:
    """A trial with a glance at each question to the policy."""

    env: str
    seed: int
    success: bool
    duration_s: float
    glances: list[Glance]


def watch(policy: Policy, name: str, seed: int, size: int = 240, horizon: int | None = None) -> Watched:
    """Run a trial in the environment `name`, and a second simulator of it beside the first for larger pictures.

    Raises as `env_for` does.
    """
    env, witness = env_for(policy.interface, name), env_for(policy.interface, name, size)
    try:
        run = TrialRun(env, seed, horizon, history_s=history_of(policy))
        witness.reset(seed)
        seen: list[tuple[float, np.ndarray, np.ndarray]] = []
        stay = np.zeros((0, env.interface.action.size))
        points = [witness.path(stay)[0]]
        while run.observation is not None:
            chunk = policy.predict(run.observation)
            seen.append((run.observation.stamp_s, witness.render(), env.path(chunk.values)))
            before = len(run.actions)
            run.answer(chunk)
            for action in run.actions[before:]:
                witness.step(action)
                points.append(witness.path(stay)[0])
        way, glances = np.stack(points), []
        for time_s, picture, planned in seen:
            first = round(time_s / env.period_s)
            glances.append(Glance(time_s, picture, witness.project(planned),
                                  witness.project(way[first:first + len(planned)])))
        done = run.result()
        return Watched(name, seed, done.success, done.periods * env.period_s, glances)
    finally:
        env.close()
        witness.close()


def draw(trials: Sequence[Watched]) -> Figure:
    """A row of glances for each trial: where the chunk would lead the hand, and where the hand then went."""
    figure = Figure(figsize=(0.3 + 2.1 * COLUMNS, 0.4 + 2.7 * len(trials)), layout="constrained")
    parts = figure.subfigures(1 + len(trials), 1, squeeze=False, height_ratios=[0.4] + [2.7] * len(trials))
    top, *rows = parts[:, 0]
    for row, trial in zip(rows, trials, strict=True):
        grid = row.subplots(1, COLUMNS)
        shown = np.linspace(0, len(trial.glances) - 1, min(COLUMNS, len(trial.glances))).round().astype(int)
        for axes in grid:
            axes.axis("off")
        for axes, index in zip(grid, shown.tolist(), strict=False):
            _glance(axes, trial.glances[index])
        outcome = f"{'success after' if trial.success else 'no success in'} {trial.duration_s:.2f} s"
        row.suptitle(f"{trial.env}, seed {trial.seed}: {outcome}", fontsize=10, fontweight="bold", x=0.005, ha="left")
    top.legend(handles=grid[0].get_lines()[:2], loc="center left", ncols=2, frameon=False, fontsize=10)
    return figure


def _glance(axes: Axes, glance: Glance) -> None:
    size = len(glance.picture)
    axes.imshow(glance.picture)
    for points, colour, label in ((glance.went, _WENT, "where the hand went"),
                                  (glance.planned, _PLANNED, "where the predicted chunk leads it")):
        axes.plot(points[:, 0] * size, points[:, 1] * size, color=colour, linewidth=2, marker=".", markersize=4,
                  markevery=(1, 1) if len(points) > 1 else None, label=label)
    axes.plot(*(glance.planned[0] * size), marker="o", markersize=6, markerfacecolor="none", markeredgecolor="white")
    axes.set(xlim=(0, size), ylim=(size, 0))
    axes.set_title(f"{glance.time_s:.2f} s", fontsize=9)
