"""A real humanoid (Unitree G1, 20 episodes) and a person beside a robot: the motion model on recordings of its own.

    python -m benchmarks.motion_real --shared DIR --work DIR      # resumes
    python -m benchmarks.motion_real --print

Trained on 12 episodes, probed on 8 others for the commanded joints of the right side, at several gaps: their change
over the gap, and the commands as they are (the paper's humanoid column). A picture shows what was commanded earlier,
0.13 s for the arm and 0.3 to 0.4 s for the hand (where commanded and measured velocities correlate most), so commands
are taken that much earlier. The pair of clips shows the same task done by a person and by a robot: is z of the one
nearer to z of the other at the same phase than at another? Its model is measured on all real clips, too: S-PCFC and
the audit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.command_line import parsed, table_parser
from benchmarks.results import Results, Row, cell, share
from como_core.config import with_options
from como_core.episode import Episode
from como_core.formats.sources import open_sources
from como_core.motion.clip import label_clip
from como_core.motion.config import load_preset, presets
from como_core.motion.measure.evaluate import Measures, action_names, evaluate
from como_core.motion.targets import Target, TargetKind
from como_core.motion.train import train

RESULTS = Results("motion_real")
GAP_S = 0.4
OTHER_GAPS_S, THERE = (0.2, 0.8), ("como", "como-plus")
_KINDS: dict[str, TargetKind] = {"change of the command": "difference", "command": "absolute"}
SEEDS = (0, 1, 2)
TRAINED = 12
ARM, HAND = ("RightShoulder", "RightElbow", "RightWrist"), ("RightHand",)
TARGETS = {f"{what} of the {part}": (Target(kind, lag_s), joints)
           for part, joints, lag_s in (("arm", ARM, 0.13), ("hand", HAND, 0.35))
           for what, kind in _KINDS.items()}
RESAMPLES = 2000


def humanoid(preset: str, gap_s: float, seed: int, shared: Path, work: Path) -> list[Row]:
    """Rows of one preset at one gap with one training seed."""
    name = f"{preset}, gap {gap_s:g} s"
    command = f"python -m benchmarks.motion_real --only {name!r} --seed {seed}"
    episodes = open_sources([shared / "lerobot" / "g1_humanoid_v21"]).episodes
    config = with_options(load_preset(preset), **{"gap_s": gap_s, "loop.seed": seed})
    video = [e.as_video() for e in episodes[:TRAINED]]
    model, _ = train(video, config, work / "runs" / f"g1-{preset}-{gap_s:g}-{seed}", cache=work / "cache")
    rows: list[Row] = []
    held = episodes[TRAINED:]
    for what, (target, joints) in TARGETS.items():
        measures = Measures(target, joints, audit=not rows, seeds=1)
        report = evaluate(model, held, action_names(held), cache=work / "cache", measures=measures)
        rows += report.flat_rows(name, f"humanoid, {what}", command)
    return [{**row, "seed": seed} for row in rows]


def person_and_robot(preset: str, seed: int, shared: Path, work: Path) -> list[Row]:
    """How much nearer (in cosine) z of a person is to that of a robot at the same phase of a task than at others.

    Trained on the other real clips. The interval is of shifting one clip against the other by a random phase: a
    difference outside of it is more than the slow change of z explains.
    """
    name = f"{preset}, person and robot"
    clips = open_sources([shared / "video" / "robot", shared / "video" / "human"]).episodes
    pair = {who: next(e for e in clips if f"prompt_{who}" in e.source) for who in ("human", "robot")}
    others = [e for e in clips if "uniskill" not in e.source]
    config = with_options(load_preset(preset), **{"gap_s": 0.3, "loop.seed": seed})
    model, _ = train(others, config, work / "runs" / f"pair-{preset}-{seed}", cache=work / "cache")
    z = {who: _by_phase(label_clip(model, episode).latent, episode) for who, episode in pair.items()}
    same = _cosines(z["human"], z["robot"])
    shifts = np.random.default_rng(0).integers(1, len(z["human"]), RESAMPLES)
    floor = np.array([_cosines(z["human"], np.roll(z["robot"], shift, axis=0)) for shift in shifts])
    low, high = np.percentile(floor, [2.5, 97.5])
    command = f"python -m benchmarks.motion_real --only {name!r} --seed {seed}"
    row = {"preset": name, "split": "person and robot", "section": "phase", "features": "z", "n": 1, "seeds": 1,
           "verdict": None, "command": command, "seed": seed}
    rows = [{**row, "metric": "cosine_at_the_same_phase", "mean": same, "low": None, "high": None},
            {**row, "metric": "cosine_at_other_phases", "mean": float(floor.mean()), "low": float(low),
             "high": float(high)}]
    for split, shown in (("real clips of training", others), ("a person and a robot, unseen", list(pair.values()))):
        report = evaluate(model, shown, cache=work / "cache", measures=Measures(seeds=1))
        rows += [{**found, "seed": seed} for found in report.flat_rows(name, split, command)]
    return rows


def _by_phase(latent: np.ndarray, episode: Episode, phases: int = 50) -> np.ndarray:
    """z at evenly spread phases of a clip, less its mean: [phases, D]."""
    times = np.linspace(episode.timestamps[0], episode.timestamps[-1], phases)
    found = np.stack([np.interp(times, episode.timestamps, column) for column in latent.T], axis=1)
    return found - found.mean(axis=0)


def _cosines(a: np.ndarray, b: np.ndarray) -> float:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-9)).mean())


def markdown(rows: list[Row]) -> str:
    """R2 and LP-MSE of the humanoid by gap."""
    lines = ["| z of | target | LP-MSE | R2, linear | R2, MLP | seeds |", "|---|---|---|---|---|---|"]
    cells = {(r["preset"] if r["features"] == "z" else f"{r['features']}, {r['preset'].partition(', ')[2]}",
              r["split"], r["metric"]): r for r in rows if r["section"] == "probe"}
    for name, split in dict.fromkeys(key[:2] for key in cells if key[2] == "r2"):
        shown = [cell(cells.get((name, split, metric))) for metric in ("lp_mse", "r2", "mlp_r2")]
        lines.append(f"| {name} | {split.partition(', ')[2]} | {' | '.join(shown)} | "
                     f"{cells[name, split, 'r2']['seeds']} |")
    pairs = [r for r in rows if r["section"] == "phase"]
    return "\n".join([*lines, "", *(f"- {r['preset']}: {r['metric'].replace('_', ' ')} {cell(r)}" for r in pairs)])


def main() -> None:
    """Run what is not done yet, or print the tables."""
    parser = table_parser(__doc__, shared="the folder of example recordings", work="caches and checkpoints")
    parser.add_argument("--only", help="one row of the table by its name")
    options = parsed(parser)
    if options.show:
        print(markdown(RESULTS.averaged()))
        return
    for seed in options.seed or SEEDS:
        pairs = [(preset, GAP_S) for preset in presets()] + [(preset, gap) for gap in OTHER_GAPS_S for preset in THERE]
        jobs: dict[str, Callable[[], list[Row]]] = {
            f"{preset}, gap {gap:g} s": partial(humanoid, preset, gap, seed, options.shared, options.work)
            for preset, gap in pairs}
        jobs |= {f"{preset}, person and robot": partial(person_and_robot, preset, seed, options.shared, options.work)
                 for preset in THERE}
        for name, job in share(list(jobs.items()), options.part):
            if options.only in (None, name) and (name, seed) not in RESULTS.done():
                print(f"== {name}, seed {seed}", flush=True)
                RESULTS.add(job())


if __name__ == "__main__":
    main()
