"""Data of the motion table: scripted Meta-World episodes, and others for what training never saw.

    python -m benchmarks.motion_data --data DIR      # make all of it (about ten minutes on two cores)

A split is episodes with pictures, state and actions; training reads only pictures and times. Each is made once, from
its seeds, into DIR/<split>/<task>.npz.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from benchmarks.episodes import load_episodes, save_episodes
from como_core.episode import Episode
from como_core.simulation.dataset import record_demonstrations

TRAIN_TASKS = (
    "reach-v3", "push-v3", "drawer-open-v3", "drawer-close-v3", "door-open-v3", "door-close-v3", "window-open-v3",
    "button-press-topdown-v3", "plate-slide-v3", "coffee-button-v3", "faucet-open-v3", "handle-press-v3")
HELD_OUT_TASKS = ("button-press-v3", "faucet-close-v3", "plate-slide-side-v3", "soccer-v3", "window-close-v3")
FETCH_TASKS = ("FetchReach", "FetchPush", "FetchPickAndPlace")

ACTIONS = ("linear.x", "linear.y", "linear.z")


@dataclass(frozen=True)
class Split:
    """Episodes of `tasks` from the start states of `seeds`."""

    tasks: tuple[str, ...]
    seeds: range


SPLITS = {
    "train": Split(TRAIN_TASKS, range(1000, 1048)),  # read as video
    "demonstrations": Split(TRAIN_TASKS, range(5)),  # the few labels of the rows that use some
    "development": Split(TRAIN_TASKS, range(3000, 3010)),  # for the search of como-plus
    "test": Split(TRAIN_TASKS, range(4000, 4024)),
    "held-out tasks": Split(HELD_OUT_TASKS, range(4000, 4024)),
    "held-out camera": Split(tuple(f"{task}@left" for task in TRAIN_TASKS), range(4000, 4010)),
    "other robot": Split(FETCH_TASKS, range(4000, 4040)),
}


def load(split: str, folder: Path, processes: int = 2) -> list[Episode]:
    """Episodes of a split, made where they are not below `folder` yet."""
    wanted = SPLITS[split]
    episodes: list[Episode] = []
    for task in wanted.tasks:
        path = folder / split.replace(" ", "_") / f"{task}.npz"
        if not path.is_file():
            save_episodes(path, _make(task, wanted.seeds, processes))
        episodes += load_episodes(path)
    return episodes


def _make(task: str, seeds: range, processes: int) -> list[Episode]:
    if task in FETCH_TASKS:
        from benchmarks.fetch import record

        return record(task, seeds)
    return record_demonstrations([task], seeds, processes)


def main() -> None:
    """Make every split."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    for split in SPLITS:
        episodes = load(split, options.data, options.processes)
        print(f"{split}: {len(episodes)} episodes, {sum(map(len, episodes))} frames", flush=True)


if __name__ == "__main__":
    main()
