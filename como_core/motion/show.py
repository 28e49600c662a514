"""Pictures of what a MotionModel has learned, for people to look at.

    for picture in show(model, episodes, ["linear.x", "linear.y", "linear.z"], cache="cache"):
        picture.figure.savefig(f"{picture.name}.png")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from como_core.episode import Episode
from como_core.formats.source_files import printable
from como_core.motion.flow import flow_of, mean_flow
from como_core.motion.measure.eye import Encoded, Eye, encode_all, spread
from como_core.motion.measure.metrics import cosine
from como_core.motion.measure.recordings import Recordings
from como_core.motion.model import MotionModel, to_frames
from como_core.motion.targets import Target, window_target

COLUMNS = 6
MAX_POINTS = 700
_COMPONENTS = 3
_STRONG = 0.9  # the quantile of change, within a recording, of the pairs that are shown
_MOVES = 0.35  # of the strongest movement; arrows are drawn from there on
_SEEN = 0.008  # of the picture's height; no arrow is drawn for less
_ARROWS = 12  # a side
_COLOURS = ("#0072B2", "#D55E00", "#009E73")  # Okabe and Ito's, for the colour-blind


@dataclass(frozen=True)
class Picture:
    """A figure with a name for its file, a heading, and a caption that says how to read it."""

    name: str
    heading: str
    caption: str
    figure: Figure


def show(model: MotionModel, episodes: Sequence[Episode], action_names: Sequence[str] = (),
         camera: str | None = None, cache: str | Path = "cache", target: Target | None = None) -> list[Picture]:
    """The pictures that these recordings allow, in reading order.

    action_names  names of the first action values, for those that have any
    target        what is made of the actions of the gap, one value for each; their sum where None

    A model that predicts features only has no reconstructions to show; one recording allows no transfer. Raises
    ComoError where no recording holds a pair.
    """
    data = Recordings.of(model, episodes, camera, Path(cache))
    eye = Eye(model)
    encoded = encode_all(eye, data.cache.frames, data.pairs)
    chosen = _strong_pairs(data, encoded)
    pictures = []
    if eye.predicts == "pixels":
        pictures.append(_reconstructions(eye, data, encoded, chosen))
        if len({int(data.pairs.episode[pair]) for pair in chosen}) > 1:
            pictures.append(_transfer(eye, data, encoded, chosen))
    names, target = list(action_names), target or Target()
    return [*pictures, _over_time(data, encoded, names, target), _map(data, encoded, names, target)]


def _strong_pairs(data: Recordings, encoded: Encoded) -> np.ndarray:
    """A pair with much change of COLUMNS recordings, of as many scenes as there are: indices of pairs."""
    episodes = np.unique(data.pairs.episode)
    scenes = data.scenes[episodes]
    rank = np.array([(scenes[:i] == scene).sum() for i, scene in enumerate(scenes)])
    order = episodes[np.lexsort((scenes, rank))]  # the first recording of every scene, then the second, ...
    first_round = order[:(rank == 0).sum()]
    wanted = spread(first_round, COLUMNS) if len(first_round) >= COLUMNS else order[:COLUMNS]
    chosen = []
    for episode in wanted:
        mine = np.flatnonzero(data.pairs.episode == episode)
        change = encoded.copying[mine]
        chosen.append(mine[np.abs(change - np.quantile(change, _STRONG)).argmin()])
    return np.array(chosen)


def _sides(data: Recordings, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = data.pairs.ends(chosen)
    return data.frames[first], data.frames[second]


def _predicted(eye: Eye, frames: np.ndarray, latent: np.ndarray) -> np.ndarray:
    """Frames uint8 [B, H, W, 3] that forward dynamics makes of frames and z [B, D]."""
    view = eye.look(frames)
    return to_frames(eye.predict(view, torch.from_numpy(latent).to(eye.model.device))).cpu().numpy()


def _reconstructions(eye: Eye, data: Recordings, encoded: Encoded, chosen: np.ndarray) -> Picture:
    first, second = _sides(data, chosen)
    made = _predicted(eye, first, encoded.latent[chosen])
    gap = data.pairs.gap_s
    rows = {"frame t": first, f"frame t + {gap:g} s": second, "predicted from\nframe t and z": made,
            "error of\ncopying frame t": _error(second, first), "error of\nthe prediction": _error(second, made)}
    figure = Figure(figsize=(1.4 + 1.55 * len(chosen), 1.6 * len(rows) + 0.3), layout="constrained")
    grid = figure.subplots(len(rows), len(chosen), squeeze=False)
    for axes_of_row, (name, pictures) in zip(grid, rows.items(), strict=True):
        axes_of_row[0].set_ylabel(name, fontsize=10)
        for axes, picture in zip(axes_of_row, pictures, strict=True):
            _image(axes, picture)
    for axes, pair in zip(grid[0], chosen, strict=True):
        axes.set_title(_name(data, int(data.pairs.episode[pair])), fontsize=9, parse_math=False)
    return Picture("reconstruction", "What z carries",
                   f"Pairs of frames with much change. z ({eye.model.config.latent_size} numbers) is made of the first "
                   "two rows; the third is made of the first row and z alone. Errors are dark where a pixel is wrong: "
                   "what is dark in the fourth row and light in the fifth was carried by z.", figure)


def _transfer(eye: Eye, data: Recordings, encoded: Encoded, chosen: np.ndarray) -> Picture:
    """Motion of a column applied to the scene of a row."""
    pairs = chosen[:4] if len(chosen) >= 4 else chosen
    first, second = _sides(data, pairs)
    count = len(pairs)
    figure = Figure(figsize=(1.2 + 2.0 * (count + 1), 2.05 * (count + 1) + 0.5), layout="constrained")
    grid = figure.subplots(count + 1, count + 1)
    grid[0, 0].axis("off")
    grid[0, 0].text(0.5, 0.5, "z of these motions →\n\napplied to\nthese frames ↓", ha="center", va="center")
    for column, pair in enumerate(pairs):
        _arrows(grid[0, column + 1], first[column], second[column])
        grid[0, column + 1].set_title(_name(data, int(data.pairs.episode[pair])), fontsize=9, parse_math=False)
        _image(grid[column + 1, 0], first[column])
        grid[column + 1, 0].set_ylabel(_name(data, int(data.pairs.episode[pair])), fontsize=9, parse_math=False)
        made = _predicted(eye, first, np.repeat(encoded.latent[pair][None], count, axis=0))
        again = eye.motion(eye.look(first), eye.look(made)).cpu().numpy()
        kept = cosine(np.repeat(encoded.latent[pair][None], count, axis=0), again)
        for row in range(count):
            axes = grid[row + 1, column + 1]
            _arrows(axes, first[row], made[row])
            axes.set_xlabel(f"cosine {kept[row]:.2f}", fontsize=8.5)
            if row == column:
                for spine in axes.spines.values():
                    spine.set(visible=True, color=_COLOURS[0], linewidth=2.5)
    return Picture("transfer", "Does the motion mean the same elsewhere?",
                   "Above: true motions, arrows are optical flow. Each cell: the frame at its left after the motion "
                   "above it, as forward dynamics paints it, with the flow from the frame to it. Framed: at home. If "
                   "arrows in a column point the same way, z means a motion and not a picture. The cosine is between z "
                   "and the z of frame and painted frame.", figure)


def _over_time(data: Recordings, encoded: Encoded, names: Sequence[str], target: Target) -> Picture:
    """The leading components of z of one recording, over its actions or, where it has none, over optical flow."""
    lengths = np.bincount(data.pairs.episode, minlength=len(data.episodes))
    with_action = [i for i, e in enumerate(data.episodes) if e.action is not None and names and lengths[i]]
    candidates = with_action or list(np.flatnonzero(lengths))
    index = int(sorted(candidates, key=lambda i: lengths[i])[len(candidates) // 2])
    mine = np.flatnonzero(data.pairs.episode == index)
    time_s = data.pairs.timestamps[data.pairs.first[mine]]
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    components = _components(encoded.latent, _COMPONENTS)[mine]
    _lines(upper, time_s - time_s[0], components, [f"component {i + 1}" for i in range(components.shape[1])], "z")
    if with_action:
        values = _actions(data, mine, names, target)
        busiest = np.sort(np.argsort(-values.std(axis=0), kind="stable")[:_COMPONENTS])
        _lines(lower, time_s - time_s[0], values[:, busiest], [names[i] for i in busiest], "actions")
        beside = f"{target}, which no training has seen"
    else:
        moved = np.stack([mean_flow(a, b) for a, b in zip(*_sides(data, mine), strict=True)])
        _lines(lower, time_s - time_s[0], moved, ["right", "down"], "optical flow, pixels")
        beside = "the mean optical flow of what moves, since there are no actions"
    lower.set_xlabel("time, s")
    return Picture("over_time", "z over time",
                   f"One recording ({_name(data, index)}). Above: the leading components of z, from those of all "
                   f"recordings. Below: {beside}. Peaks at the same times mean that z follows the motion; which "
                   "component goes with which line is chance.", figure)


def _lines(axes: Axes, time_s: np.ndarray, values: np.ndarray, labels: Sequence[str], what: str) -> None:
    for column, label, colour in zip(values.T, labels, _COLOURS, strict=False):
        axes.plot(time_s, column, color=colour, label=label)
    axes.axhline(0, color="#8a93a0", linewidth=0.7)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.97), fontsize="small", ncols=3, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylabel(what)


def _map(data: Recordings, encoded: Encoded, names: Sequence[str], target: Target) -> Picture:
    """z in two dimensions; each arrow is the direction of a pair's true motion or optical flow."""
    rows = spread(np.flatnonzero(encoded.copying >= np.median(encoded.copying)), MAX_POINTS)
    moved, what = _directions(data, rows, names, target)
    length = np.linalg.norm(moved, axis=1)
    keep = length >= np.quantile(length, 0.25)
    points, angle = _components(encoded.latent, 2)[rows][keep], np.arctan2(moved[keep, 1], moved[keep, 0])
    figure = Figure(figsize=(8.6, 5.6), layout="constrained")
    axes = figure.subplots()
    reach = np.quantile(np.abs(points), 0.99) * 1.1 or 1.0  # a single pair lies in the middle
    arrows = axes.quiver(points[:, 0], points[:, -1], np.cos(angle), np.sin(angle), angle, cmap="hsv", pivot="mid",
                         scale=34, width=0.0035, headwidth=4.5, alpha=0.85)
    arrows.set_clim(-np.pi, np.pi)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="component 1 of z",
             ylabel="component 2 of z")
    axes.axhline(0, color="#8a93a0", linewidth=0.6)
    axes.axvline(0, color="#8a93a0", linewidth=0.6)
    wheel = figure.add_axes((0.79, 0.62, 0.17, 0.26), projection="polar")
    around = np.linspace(-np.pi, np.pi, 181)
    wheel.pcolormesh(around, [0.6, 1], around[None, :-1], cmap="hsv", vmin=-np.pi, vmax=np.pi)
    wheel.set_xticks([0, np.pi / 2, np.pi, 3 * np.pi / 2], what)
    wheel.set_yticks([])
    wheel.spines["polar"].set_visible(False)
    source = "optical flow of what moves" if what[0] == "right" else "recorded actions"
    return Picture("map", "A map of z",
                   f"{len(points)} pairs of frames in which much changes, by the two leading components of z; arrow "
                   f"and colour are the direction of the {source}. Where arrows lie in order around the middle, "
                   "direction is the first thing that z says; where they are mixed, it is not, though it may lie in "
                   "other components.", figure)


def _directions(data: Recordings, rows: np.ndarray, names: Sequence[str], target: Target
                ) -> tuple[np.ndarray, list[str]]:
    """Movement of each pair [R, 2] and what its axes are called: right, up, left, down, or the two busiest actions."""
    labelled = all(data.episodes[e].action is not None for e in np.unique(data.pairs.episode[rows]))
    if not labelled or len(names) < 2:
        flow = np.stack([mean_flow(a, b) for a, b in zip(*_sides(data, rows), strict=True)])
        return flow * [1, -1], ["right", "up", "left", "down"]
    values = _actions(data, rows, names, target)
    x, y = np.sort(np.argsort(-values.std(axis=0), kind="stable")[:2])
    return values[:, [x, y]], [f"+{names[x]}", f"+{names[y]}", f"-{names[x]}", f"-{names[y]}"]


def _actions(data: Recordings, rows: np.ndarray, names: Sequence[str], target: Target) -> np.ndarray:
    """What the actions of each of the pairs `rows` come to, [R, A]; all are of recordings with actions."""
    found = np.zeros((len(rows), len(names)))
    for index in np.unique(data.pairs.episode[rows]):
        mine, start = data.pairs.episode[rows] == index, data.pairs.offsets[index]
        known = data.episodes[index].action
        assert known is not None, "asked for recordings with actions only"
        found[mine], _ = window_target(known[:, :len(names)], data.episodes[index].timestamps,
                                       data.pairs.first[rows[mine]] - start, data.pairs.second[rows[mine]] - start,
                                       target)
    return found


def _components(latent: np.ndarray, count: int) -> np.ndarray:
    """The leading principal components of z [P, D]: [P, count]."""
    centred = latent - latent.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    leading: np.ndarray = centred @ vectors[:, ::-1][:, :count]
    return leading


def _error(truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Absolute difference as grey on white, uint8 [B, H, W, 3], dark where it is large."""
    difference = np.abs(truth.astype(np.float32) - guess).mean(axis=3)
    dark = np.clip(difference * 2.5, 0, 255)
    return np.repeat((255 - dark)[..., None], 3, axis=3).astype(np.uint8)


def _arrows(axes: Axes, first: np.ndarray, second: np.ndarray) -> None:
    """The second frame, with arrows of the flow to it where it is strong."""
    flow = flow_of(first, second)
    step = max(len(first) // _ARROWS, 1)
    y, x = np.mgrid[step // 2:len(first):step, step // 2:first.shape[1]:step]
    u, v = flow[y, x, 0], flow[y, x, 1]
    strong = np.hypot(u, v) >= max(_MOVES * np.hypot(u, v).max(), _SEEN * len(first))
    _image(axes, second)
    axes.quiver(x[strong], y[strong], u[strong], v[strong], angles="xy", scale_units="xy", scale=0.4, color="#ffea00",
                width=0.014, edgecolor="black", linewidth=0.5)


def _image(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _name(data: Recordings, episode: int) -> str:
    """What a recording is called in a picture, in one short line."""
    known = data.episodes[episode]
    words = known.instruction or printable(Path(known.source).stem)
    return words if len(words) <= 20 else words[:19] + "…"
