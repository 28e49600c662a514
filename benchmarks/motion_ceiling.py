"""What keeps a linear probe of z below one of the true motion, as docs/motion.md tells it.

    python -m benchmarks.motion_ceiling --data DIR --work DIR      # trains como-plus as the main table does; probes
    python -m benchmarks.motion_ceiling --print

The same probe, on the same pairs of the test split, of z and of the hand's true displacement, each alone and beside
    place        products with where the hand is at frame t (its measured x, y, z): what the picture makes of a motion
                 depends on where it happens, and a linear probe of z cannot know
    seen place   products with where the picture changes, which needs no state: what `inverse.placed` makes z of
    neighbours   the same of the pairs 0.05 s before and after: an arm follows its commands with a delay
No z of the table is given any of these: they say where the rest lies, not how good z is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks import motion_data
from benchmarks.command_line import parsed, table_parser
from benchmarks.motion_table import PLUS, groups, trained
from benchmarks.results import Results, Row, cell
from como_core.motion.measure.eye import Eye, encode_all, look_at_pairs
from como_core.motion.measure.probe import run_probe
from como_core.motion.measure.question import Question
from como_core.motion.measure.recordings import Recordings
from como_core.motion.model import MotionModel
from como_core.motion.place import place
from como_core.motion.targets import Target

RESULTS = Results("motion_ceiling")
SPLIT = "test"
_NEIGHBOURS = 2  # frames, 0.025 s each
_HAND = 3  # the first values of the state: the hand's x, y, z
_CHUNK = 256  # pairs at a time


def probes(model: MotionModel, name: str, seed: int, data: Path, work: Path) -> list[Row]:
    """R2 of every probe, with its interval over recordings."""
    recordings = Recordings.of(model, motion_data.load(SPLIT, data), None, work / "cache")
    question = Question.of(recordings, list(motion_data.ACTIONS), Target())
    pairs, moved = recordings.pairs, recordings.displacement
    assert question is not None and recordings.state is not None and moved is not None, "it has actions and states"
    measured, seen = recordings.state[pairs.first, :_HAND], _seen_places(model, recordings)
    beside: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "": lambda values: values,
        " and place": lambda values: _products(values, measured),
        " and seen place": lambda values: _products(values, seen),
        " and neighbours": lambda values: np.concatenate(
            [values, *(values[_shifted(pairs.episode, k)] for k in (-_NEIGHBOURS, _NEIGHBOURS))], axis=1)}
    latent = encode_all(Eye(model), recordings.cache.frames, pairs).latent
    command = f"python -m benchmarks.motion_ceiling --only {name!r} --seed {seed}"
    rows = []
    for what, values in (("z", latent), ("true motion", moved[:, :_HAND])):
        for more, of in beside.items():
            found = run_probe(what + more, of(values)[question.rows], question.target, question.episode)
            score = found.r2()
            rows.append({"preset": name, "split": SPLIT, "section": "probe", "features": what + more, "metric": "r2",
                         "mean": score.mean, "low": score.low, "high": score.high, "n": question.recordings,
                         "seeds": 1, "verdict": None, "command": command, "seed": seed})
    return rows


def _products(values: np.ndarray, place: np.ndarray) -> np.ndarray:
    """values [P, D] and their products with each number of place [P, C], of unit spread: [P, D (1 + C)]."""
    scaled = (place - place.mean(axis=0)) / place.std(axis=0)
    return np.concatenate([values, *(values * column[:, None] for column in scaled.T)], axis=1)


def _seen_places(model: MotionModel, recordings: Recordings) -> np.ndarray:
    """Where each pair's picture changes, see `motion.place`: [P, 3]."""
    eye, frames, pairs = Eye(model), recordings.cache.frames, recordings.pairs
    chunks = np.array_split(np.arange(len(pairs)), len(pairs) // _CHUNK + 1)
    sides = (look_at_pairs(eye, frames, pairs.first[c], pairs.second[c]) for c in chunks)
    return torch.cat([place(first.features, second.features) for first, second in sides]).numpy()


def _shifted(episode: np.ndarray, by: int) -> np.ndarray:
    """For each pair, the pair `by` places on of the same recording, its last or first one at the ends: int [P]."""
    starts = np.searchsorted(episode, episode, side="left")
    ends = np.searchsorted(episode, episode, side="right") - 1
    return np.clip(np.arange(len(episode)) + by, starts, ends)


def main() -> None:
    """Probe what is not probed yet, or print the table."""
    parser = table_parser(__doc__, data="episodes, made where they are not there yet", work="caches and checkpoints")
    parser.add_argument("--only", default=PLUS, help="a row of the motion table by its name")
    options = parsed(parser)
    if options.show:
        print("| R2, linear | seeds | of | value |\n|---|---|---|---|")
        for row in RESULTS.averaged():
            print(f"| {row['features']} | {row['seeds']} | {row['preset']} | {cell(row)} |")
        return
    entry = next(entry for entries in groups().values() for entry in entries if entry.name == options.only)
    for seed in options.seed or (0,):
        if (entry.name, seed) not in RESULTS.done():
            model = trained(entry, seed, options.data, options.work)
            RESULTS.add(probes(model, entry.name, seed, options.data, options.work))


if __name__ == "__main__":
    main()
