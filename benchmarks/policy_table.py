"""The table of docs/policy.md: what video adds to a few labelled demonstrations, and how much of what labels would add.

    python -m benchmarks.policy_table --data DIR --work DIR --group headroom  # which tasks leave room
    python -m benchmarks.policy_table --data DIR --work DIR --group tuning    # modes, on tasks outside the table
    python -m benchmarks.policy_table --data DIR --work DIR --group recipe    # settings of training, on the same
    python -m benchmarks.policy_table --data DIR --work DIR --group better    # what the faults of the labels cost
    python -m benchmarks.policy_table --data DIR --work DIR                   # the table, hours; resumes
    python -m benchmarks.policy_table --print                                 # as Markdown

A run is one policy for all tasks: a family, a number of labelled demonstrations per task, what is made of the rest of
the 50 recordings (which then have no actions), a seed for motion model, policy and batches. Its trials go into
results/policy_runs.json as soon as they are done, and results/policy_table.json is made of these. Several processes may
share the work: --part 0/2, --part 1/2.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import better_labels, policy_gap
from benchmarks.command_line import parsed, table_parser
from benchmarks.episodes import load_episodes, save_episodes
from benchmarks.motion_table import PLACED_OPTIONS
from benchmarks.policy_gap import ALONE, ORACLE, SUPERVISED
from benchmarks.results import FOLDER, Row, alone, read_rows, share, write_rows
from benchmarks.supervised_idm import label as label_supervised
from como_core.config import with_options
from como_core.episode import Episode
from como_core.formats.labels import sha256_of
from como_core.formats.trials import Trial
from como_core.interface import load_interface
from como_core.motion.clip import label_clip
from como_core.motion.config import load_preset as load_motion_preset
from como_core.motion.model import load_motion
from como_core.motion.train import train as train_motion
from como_core.policy.checkpoint import load_policy
from como_core.policy.config import PolicyConfig
from como_core.policy.config import load_preset as load_policy_preset
from como_core.policy.train import train as train_policy
from como_core.resources import resource
from como_core.simulation.dataset import record_demonstrations
from como_core.simulation.rollout import run_trials

# Looked at for room between few labels and many, on start states of their own (docs/policy.md).
CANDIDATES = ("window-open-v3", "button-press-topdown-v3", "door-close-v3", "reach-v3", "coffee-button-v3",
              "reach-wall-v3", "faucet-close-v3", "door-unlock-v3", "button-press-wall-v3",
              "button-press-topdown-wall-v3", "dial-turn-v3", "handle-press-side-v3", "plate-slide-back-side-v3",
              "coffee-push-v3")
HARDER = ("door-lock-v3", "lever-pull-v3", "handle-pull-v3", "handle-pull-side-v3", "soccer-v3", "sweep-into-v3",
          "peg-unplug-side-v3", "plate-slide-back-v3", "hand-insert-v3", "stick-push-v3")
# Those of them in which 50 labels succeed half of the time or more, and 2 labels at least a quarter less often.
TASKS = ("window-open-v3", "button-press-topdown-v3", "door-close-v3", "door-unlock-v3",
         "button-press-topdown-wall-v3", "faucet-close-v3", "reach-wall-v3", "lever-pull-v3")
# What a motion model is trained on that shall never have seen the tasks of the table.
OTHERS = tuple(task for task in (*CANDIDATES, *HARDER) if task not in TASKS)
# Where modes and recipes are chosen: none of the above; the modes with one label each, which leaves room.
TUNING_TASKS = ("drawer-open-v3", "plate-slide-v3", "faucet-open-v3", "window-close-v3", "button-press-v3",
                "drawer-close-v3")
RECORDED = range(30_000, 30_050)
STARTS = range(40_000, 40_050)
TUNING_STARTS, RECIPE_STARTS, HEADROOM_STARTS = range(5000, 5020), range(5000, 5040), range(5100, 5120)
SEEDS = (0, 1, 2)
FAMILIES = ("diffusion", "autoregressive")
PLUS = "como-plus"
LATENTS = ("como", "rgb-difference", "vq", "continuous", PLUS)
ROBOT = "config/interfaces/metaworld.yaml"
RUNS, TABLE = FOLDER / "policy_runs.json", FOLDER / "policy_table.json"

# What was tried of settings that are the same in every mode.
RECIPES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("autoregressive", "80 % of inputs unseen", {}),
    ("autoregressive", "30 % of inputs unseen",
     {"autoregressive.input_noise": 0.2, "autoregressive.input_dropout": 0.3}),
    ("diffusion", "2000 steps", {}), ("diffusion", "4000 steps", {"training.steps": 4000}),
    ("diffusion", "8 noise draws", {"diffusion.noise_draws": 8}))

_LOOP = {"loop.steps": 3000}


@dataclass(frozen=True)
class Entry:
    """A policy of the table, but for its seed.

    method   "no video", "supervised IDM", "oracle", or the motion preset whose latents are used, and how
    labels   labelled demonstrations of each task
    options  dotted keys of the policy that differ from the preset
    motion   dotted keys of the motion model that do
    seen     tasks whose video the motion model learns from; empty: those of the policy
    """

    family: str
    method: str
    labels: int
    mode: str = "none"
    tasks: tuple[str, ...] = TASKS
    starts: range = STARTS
    options: dict[str, Any] = field(default_factory=dict)
    motion: dict[str, Any] = field(default_factory=dict)
    seen: tuple[str, ...] = ()

    @property
    def preset(self) -> str:
        """The motion preset; empty where the method has none."""
        name = self.method.partition(",")[0]
        return name if name in LATENTS else ""

    @property
    def better(self) -> str:
        """What its labels have that nobody could give them (better_labels.py); empty where they have nothing."""
        way = self.method.partition(", ")[2]
        return way if way in better_labels.WAYS else ""

    @property
    def key(self) -> tuple[str, str, int, int, int]:
        """What tells its runs from others, with the numbers of tasks and of start states."""
        return self.family, self.method, self.labels, len(self.tasks), len(self.starts)


def groups(mode: str = "decoded") -> dict[str, list[Entry]]:
    """What is run; `mode` is the one that tuning chose."""
    table: list[Entry] = []
    for labels, family in itertools.product((2, 5), FAMILIES):
        table += [Entry(family, ALONE, labels), Entry(family, PLUS, labels, mode),
                  Entry(family, SUPERVISED, labels, "decoded"), Entry(family, ORACLE, len(RECORDED)),
                  *(Entry(family, name, labels, mode) for name in LATENTS if name != PLUS)]
    modes = [Entry(family, f"como, {way}", 2, way)
             for family in FAMILIES for way in ("heads", "joint", "decoded") if way != mode]
    tuned: list[Entry] = []
    for family in FAMILIES:
        outside = partial(Entry, family, labels=1, tasks=TUNING_TASKS, starts=TUNING_STARTS)
        tuned += [outside(ALONE), outside(ORACLE, labels=len(RECORDED))]
        for way, settings in _tuning(family).items():
            tuned += [outside(f"como, {way}, {name}", mode=way, options=options) for name, options in settings.items()]
    headroom = [Entry("diffusion", method, labels, tasks=tasks, starts=HEADROOM_STARTS)
                for tasks in (CANDIDATES, HARDER)
                for method, labels in ((ORACLE, len(RECORDED)), (ALONE, 2), (ALONE, 5))]
    curve = [Entry("diffusion", method, labels, way) for labels in (1, 10, 20)
             for method, way in ((ALONE, "none"), (PLUS, mode), (SUPERVISED, "decoded"))]
    recipe = [Entry(family, f"{PLUS}, {name}", 2, "decoded", TUNING_TASKS, RECIPE_STARTS, settings)
              for family, name, settings in RECIPES]
    recipe += [Entry(family, f"{PLUS}, placed", 2, "decoded", TUNING_TASKS, RECIPE_STARTS, motion=PLACED_OPTIONS)
               for family in FAMILIES]
    recipe += [Entry(family, f"{PLUS}, other tasks", 2, "decoded", TUNING_TASKS, RECIPE_STARTS, seen=OTHERS)
               for family in FAMILIES]
    recipe += [Entry(family, method, labels, tasks=TUNING_TASKS, starts=RECIPE_STARTS)
               for method, labels in ((ALONE, 2), (ORACLE, len(RECORDED))) for family in FAMILIES]
    zero_shot = [Entry(family, f"{PLUS}, other tasks", labels, mode, seen=OTHERS)
                 for labels, family in itertools.product((2, 5), FAMILIES)]
    better = [Entry(family, f"{PLUS}, {way}", 2, "decoded") for family in FAMILIES for way in better_labels.WAYS]
    return {"headroom": headroom, "tuning": tuned, "table": _unique(table), "modes": modes, "curve": curve,
            "recipe": recipe, "zero-shot": zero_shot, "better": better}


def _tuning(family: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Four settings of each mode: the same effort for all three."""
    weight, share_of = "cotraining.latent_weight", "cotraining.video_share"
    weights = {f"latent weight {w:g}, share {s:g}": {weight: w, share_of: s}
               for w, s in ((0.1, 0.5), (0.3, 0.5), (1.0, 0.5))}
    less_video: dict[str, dict[str, Any]] = {"latent weight 0.3, share 0.25": {weight: 0.3, share_of: 0.25}}
    apart: dict[str, dict[str, Any]] = {
        "latent weight 0.3, split at the encoder": {weight: 0.3, "cotraining.split": "encoder"}}
    return {"heads": weights | (apart if family == "diffusion" else less_video),
            "joint": weights | less_video,
            "decoded": {f"share {s:g}": {share_of: s} for s in (0.25, 0.5, 0.75, 0.9)}}


def _unique(entries: list[Entry]) -> list[Entry]:
    found: dict[tuple[str, str, int, int, int], Entry] = {}
    for entry in entries:
        found.setdefault(entry.key, entry)
    return list(found.values())


def load(tasks: tuple[str, ...], folder: Path) -> dict[str, list[Episode]]:
    """The recordings of each task, made where they are not below `folder` yet."""
    found = {}
    for task in tasks:
        path = folder / "policy" / f"{task}.npz"
        with alone(path.with_suffix(".lock")):
            if not path.is_file():
                save_episodes(path, record_demonstrations([task], RECORDED))
        found[task] = load_episodes(path)
    return found


def run(entry: Entry, seed: int, data: Path, work: Path) -> list[Trial]:
    """Train one policy and try it from every start state."""
    recorded = load(entry.tasks, data)
    if entry.preset:
        recorded = with_latents(recorded, entry, seed, data, work)
    demonstrations, rest = split(recorded, entry.labels)
    out = work / "policies" / file_name(f"{'-'.join(map(str, entry.key))}-{seed}")
    config, robot = _config(entry, seed), load_interface(resource(ROBOT))
    if entry.method == SUPERVISED:
        motion = load_motion_preset("como-v1")
        loop = dataclasses.replace(motion.loop, seed=seed, steps=1000)
        rest = label_supervised(demonstrations, rest, motion, config.cotraining.decoder.lags_s, loop, out / "idm")
    elif entry.better:
        rest = better_labels.label(entry.better, recorded, entry.labels, robot, config.cotraining)
    videos = rest if config.cotraining.mode != "none" else []
    train_policy(demonstrations, videos, robot, config, out, cache=work / "cache")
    return run_trials(partial(load_policy, out), [f"metaworld:{task}" for task in entry.tasks], entry.starts,
                      processes=1)


def split(recorded: dict[str, list[Episode]], labels: int) -> tuple[list[Episode], list[Episode]]:
    """The first `labels` recordings of each task as demonstrations, the others as video."""
    return ([e for group in recorded.values() for e in group[:labels]],
            [e.as_video() for group in recorded.values() for e in group[labels:]])


def file_name(name: str) -> str:
    """A name of rows for a file."""
    return name.replace(" ", "_").replace(",", "")


def _config(entry: Entry, seed: int) -> PolicyConfig:
    config = load_policy_preset(entry.family, entry.mode, seed=seed)  # type: ignore[arg-type]
    return with_options(config, **{"cotraining.guard_steps": 0, **entry.options})


def with_latents(recorded: dict[str, list[Episode]], entry: Entry, seed: int, data: Path, work: Path
                 ) -> dict[str, list[Episode]]:
    """The recordings with the latents of a motion model that was trained on video of `seen`; kept below `work`."""
    motion, stored = _motion_name(entry, seed), latents_file(entry, seed, work)
    episodes = [e for group in recorded.values() for e in group]
    with alone(stored.with_name(f"{motion}.lock")):  # a motion model may label several sets of recordings
        if not stored.is_file():
            seen = load(entry.seen, data) if entry.seen else recorded
            config = with_options(load_motion_preset(entry.preset), **{"loop.seed": seed, **_LOOP, **entry.motion})
            train_motion([e.as_video() for group in seen.values() for e in group], config, work / "motion" / motion,
                         cache=work / "cache")
            model = load_motion(work / "motion" / motion)
            labels = [label_clip(model, e.as_video()) for e in episodes]
            part = stored.with_suffix(".part.npz")
            np.savez(part, latent=np.concatenate([label.latent for label in labels]),
                     confidence=np.concatenate([label.confidence for label in labels]))
            part.rename(stored)
    found = np.load(stored)
    ends = np.cumsum([len(e) for e in episodes])[:-1]
    latents, confidences = np.split(found["latent"], ends), np.split(found["confidence"], ends)
    labelled = iter([dataclasses.replace(e, latent=z, confidence=c)
                     for e, z, c in zip(episodes, latents, confidences, strict=True)])
    return {task: [next(labelled) for _ in group] for task, group in recorded.items()}


def latents_file(entry: Entry, seed: int, work: Path) -> Path:
    """Where the latents of its recordings are kept."""
    motion = _motion_name(entry, seed)
    return work / "latents" / (f"{motion}-of-{len(entry.tasks)}.npz" if entry.seen else f"{motion}.npz")


def _motion_name(entry: Entry, seed: int) -> str:
    variant = entry.method if entry.motion else entry.preset
    return file_name(f"{variant}-{len(entry.seen or entry.tasks)}-{seed}")


def add(group: str, entry: Entry, seed: int, trials: list[Trial], work: Path) -> None:
    """Put the trials of a run beside what other processes put there, and make the table anew.

    A motion model of the same seed that is trained on another machine need not be the same to the bit, so a row says by
    a digest which latents it stands on.
    """
    successes = {task: "".join("01"[t.success] for t in trials if t.env == f"metaworld:{task}") for task in entry.tasks}
    row = {"family": entry.family, "method": entry.method, "labels": entry.labels, "mode": entry.mode, "seed": seed,
           "options": entry.options, "first_start": entry.starts[0], "successes": successes,
           "command": command(group, entry, seed)}
    if entry.preset:
        row["latents"] = sha256_of(latents_file(entry, seed, work))[:12]
    with alone():
        if (*entry.key, seed) in runs_done():
            return  # two processes may have done the same run
        runs = [*read_rows(RUNS), row]
        write_rows(RUNS, runs)
        write_rows(TABLE, policy_gap.table(runs))


def command(group: str, entry: Entry, seed: int) -> str:
    """What makes this run again, but for the folders."""
    return (f"python -m benchmarks.policy_table --group {group} --family {entry.family} --method {entry.method!r} "
            f"--labels {entry.labels} --seed {seed}")


def runs_done() -> dict[tuple[str, str, int, int, int, int], Row]:
    """The runs that there are trials of, by the key of their entry and their seed."""
    return {(r["family"], r["method"], r["labels"], len(r["successes"]), len(next(iter(r["successes"].values()))),
             r["seed"]): r for r in read_rows(RUNS)}


def _jobs(options: argparse.Namespace) -> Iterator[tuple[str, Entry, int]]:
    """Group, entry and seed of each run that is asked for and not done yet."""
    every = groups(options.mode)
    wanted = ("table", "modes", "curve", "zero-shot") if options.group is None else (options.group,)
    chosen = [(group, entry) for group in wanted for entry in every[group]]
    jobs = [(group, entry, seed) for seed in options.seed or SEEDS for group, entry in chosen
            if options.family in (None, entry.family) and options.method in (None, entry.method)
            and options.labels in (None, entry.labels)]
    for group, entry, seed in share(jobs, options.part):
        if (*entry.key, seed) not in runs_done():
            yield group, entry, seed


def main() -> None:
    """Run what is not done yet, or print the table."""
    parser = table_parser(__doc__, data="recordings, made where they are not there yet", work="caches and checkpoints")
    parser.add_argument("--group", choices=list(groups()))
    parser.add_argument("--mode", default="decoded", help="the co-training mode that tuning chose")
    parser.add_argument("--family")
    parser.add_argument("--method")
    parser.add_argument("--labels", type=int)
    options = parsed(parser)
    if options.show:
        rows, methods = read_rows(TABLE), (ALONE, SUPERVISED, *LATENTS, ORACLE)
        print(policy_gap.markdown(rows))
        print(policy_gap.markdown_by_task(rows, len(TASKS), len(STARTS), methods))
        return
    for group, entry, seed in _jobs(options):
        print(f"== {entry.family}, {entry.method}, {entry.labels} labels, seed {seed}", flush=True)
        add(group, entry, seed, run(entry, seed, options.data, options.work), options.work)


if __name__ == "__main__":
    main()
