"""The table of docs/motion.md: every preset of the motion model at equal budget and equal d_z, and the sweeps.

    python -m benchmarks.motion_table --data DIR --work DIR                  # all groups, hours; resumes
    python -m benchmarks.motion_table --data DIR --work DIR --group main     # the presets
    python -m benchmarks.motion_table --print                                # the table as Markdown

Each run (a row of the table, a training seed) goes into results/motion_runs.json as soon as it is done, and is not done
again. results/motion_table.json has the mean over seeds. Several processes may share the work: --part 0/2, --part 1/2.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import motion_data
from benchmarks.command_line import parsed, table_parser
from benchmarks.frozen_backbone import frozen_backbone
from benchmarks.motion_conditions import CONDITIONS, changed
from benchmarks.motion_pages import pages
from benchmarks.results import Results, Row, share
from como_core.config import with_options
from como_core.episode import Episode
from como_core.motion.config import MotionConfig, load_preset, presets
from como_core.motion.measure.evaluate import Measures, evaluate
from como_core.motion.mixture import Mixture
from como_core.motion.model import MotionModel
from como_core.motion.train import train

RESULTS = Results("motion")
SEEDS = (0, 1, 2)
PLUS = "como-plus"
WIDE = 256  # numbers of z where place is a part of it
PLACED = f"{PLUS}, placed, d_z {WIDE}"
PLACED_OPTIONS = {"inverse.placed": True, "latent_size": WIDE}
CONTRASTED = ("continuous", "como-v1", "como", PLUS)  # where Td and Tcl may show


@dataclass(frozen=True)
class Entry:
    """A row of the table: a preset, what differs from it, and where it is measured.

    labels     demonstrations per task whose actions training may read, beside the video
    condition  how the pictures of training and measuring are changed
    frozen     whether the backbone is a frozen vision model, instead of patches that are learned with the rest
    splits     of motion_data.SPLITS
    """

    name: str
    preset: str
    options: dict[str, Any] = field(default_factory=dict)
    labels: int = 0
    condition: str = "plain"
    frozen: bool = False
    splits: tuple[str, ...] = ("test",)

    def config(self, seed: int, **further: Any) -> MotionConfig:
        return with_options(load_preset(self.preset), **{"loop.seed": seed, **self.options, **further})


# Rows of the main table that are printed again at the head of a group, to compare with.
BESIDE = {"wide": (PLACED,), "labels": (PLUS,), "ablation": (PLUS, "como-v1"),
          "place": (PLUS, f"{PLUS}, d_z {WIDE}"), "latent size": (PLUS,), "gap": (PLUS,), "budget": (PLUS, PLACED),
          "contrast": ("como", "como-v1"), "conditions": CONTRASTED, "frozen features": CONTRASTED}
EVERYWHERE = ("test", "held-out tasks", "held-out camera", "other robot")


def groups() -> dict[str, list[Entry]]:
    """What is run, in the order in which it matters."""
    return {
        "main": [Entry(name, name, splits=EVERYWHERE) for name in presets()],
        "labels": [Entry(f"{PLUS}, {count} labels per task", PLUS, {"loss.action": 1.0}, count, splits=EVERYWHERE)
                   for count in (2, 5)],
        "ablation": [Entry(f"{PLUS}, not antisymmetric", PLUS, {"inverse.antisymmetric": False}, splits=EVERYWHERE),
                     Entry(f"{PLUS}, decoder of como-v1", PLUS, {"forward.kind": "conv"}, splits=EVERYWHERE)],
        "wide": [Entry(f"{name}, d_z {WIDE}", name, {"latent_size": WIDE}, splits=EVERYWHERE)
                 for name in presets() if name != PLUS],
        "place": [Entry(f"{PLUS}, placed", PLUS, {"inverse.placed": True}, splits=EVERYWHERE),
                  Entry(PLACED, PLUS, PLACED_OPTIONS, splits=EVERYWHERE)],
        "latent size": [Entry(f"{PLUS}, d_z {size}", PLUS, {"latent_size": size})
                        for size in (8, 16, 32, 128, 256, 512)],
        "gap": [Entry(f"{PLUS}, gap {gap:g} s", PLUS, {"gap_s": gap}) for gap in (0.05, 0.25, 0.5)],
        "budget": [Entry(f"{PLUS}, 9000 steps", PLUS, {"loop.steps": 9000}, splits=EVERYWHERE),
                   Entry(f"{PLACED}, 9000 steps", PLUS, {**PLACED_OPTIONS, "loop.steps": 9000}, splits=EVERYWHERE)],
        "contrast": [Entry("como, weight of Tcl 0.05", "como", {"loss.contrast": 0.05}),
                     Entry("como, weight of Tcl 0.05, negatives of the batch", "como",
                           {"loss.contrast": 0.05, "loss.negatives": "batch"})],
        "conditions": [Entry(f"{name}, {condition}", name, condition=condition)
                       for condition in CONDITIONS for name in CONTRASTED],
        "frozen features": [Entry(f"{name}, frozen MAE", name, frozen=True) for name in CONTRASTED],
    }


def trained(entry: Entry, seed: int, data: Path, work: Path) -> MotionModel:
    """The model of a row, trained where it is not below `work` yet."""
    condition = changed(entry.condition)
    out = work / "runs" / f"{entry.name.replace(' ', '_').replace(',', '')}-{seed}"
    video = [episode.as_video() for episode in condition(motion_data.load("train", data))]
    backbone = ({"backbone.kind": "pretrained", "backbone.model": str(frozen_backbone(video, work / "mae"))}
                if entry.frozen else {})
    demonstrations = motion_data.load("demonstrations", data) if entry.labels else []
    few = [episode for episodes in _by_task(condition(demonstrations)).values() for episode in episodes[:entry.labels]]
    # A quarter of each batch is labelled, where there are labels.
    mixture = Mixture(("video", "labelled"), np.repeat([0, 1], [len(video), len(few)]), (3.0, 1.0)) if few else None
    return train([*video, *few], entry.config(seed, **backbone), out, cache=work / "cache", mixture=mixture)[0]


def run(entry: Entry, seed: int, data: Path, work: Path) -> list[Row]:
    """Train and measure one row with one training seed: flat rows, see `Evaluation.flat_rows`."""
    command = f"python -m benchmarks.motion_table --only {entry.name!r} --seed {seed}"
    measured = {split: motion_data.load(split, data) for split in entry.splits}  # what lacks is said before the work
    condition, model = changed(entry.condition), trained(entry, seed, data, work)
    rows: list[Row] = []
    for split, episodes in measured.items():
        measures = Measures(audit=split == "test", seeds=1)
        report = evaluate(model, condition(episodes), motion_data.ACTIONS, cache=work / "cache",
                          measures=measures)
        rows += report.flat_rows(entry.name, split, command)
    return [{**row, "seed": seed} for row in rows]


def _by_task(episodes: list[Episode]) -> dict[str, list[Episode]]:
    found: dict[str, list[Episode]] = {}
    for episode in episodes:
        found.setdefault(episode.source.partition("#")[0], []).append(episode)
    return found


def _jobs(options: argparse.Namespace) -> Iterator[tuple[Entry, int]]:
    done = RESULTS.done()
    chosen = groups() if options.group is None else {options.group: groups()[options.group]}
    jobs = [(entry, seed) for entries in chosen.values() for seed in options.seed or SEEDS for entry in entries
            if options.only in (None, entry.name)]
    for entry, seed in share(jobs, options.part):
        if (entry.name, seed) not in done:
            yield entry, seed


def main() -> None:
    """Run what is not done yet, or print the table."""
    parser = table_parser(__doc__, data="episodes, made where they are not there yet", work="caches and checkpoints")
    parser.add_argument("--group", choices=list(groups()))
    parser.add_argument("--only", help="one row of the table by its name")
    options = parsed(parser)
    if options.show:
        rows = RESULTS.averaged()
        measured = {row["preset"] for row in rows}
        names = {group: [*BESIDE.get(group, ()), *(entry.name for entry in entries)]
                 for group, entries in groups().items() if measured.intersection(entry.name for entry in entries)}
        print(pages(rows, names, EVERYWHERE, whole=("main", "wide")))
        return
    for entry, seed in _jobs(options):
        print(f"== {entry.name}, seed {seed}", flush=True)
        RESULTS.add(run(entry, seed, options.data, options.work))


if __name__ == "__main__":
    main()
