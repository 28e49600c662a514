"""Does the guard foretell what video does to success? Its verdict beside the trials of each setting of the modes.

    python -m benchmarks.guard_foretells --data DIR --work DIR     # resumes
    python -m benchmarks.guard_foretells --print

Settings, recordings and trials are those of `policy_table --group tuning`, whose successes are read from
results/policy_runs.json. There one demonstration of each task has actions. The guard needs a second one to leave out,
and trains on the first: the same demonstrations with and without video.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from benchmarks.command_line import parsed, table_parser
from benchmarks.policy_gap import ALONE
from benchmarks.policy_table import ROBOT, Entry, file_name, groups, load, runs_done, split, with_latents
from benchmarks.results import FOLDER, Row, alone, read_rows, share, write_rows
from como_core.config import with_options
from como_core.interface import load_interface
from como_core.policy.config import load_preset
from como_core.policy.guard import Verdict
from como_core.policy.train import train
from como_core.resources import resource

RESULTS = FOLDER / "guard_foretells.json"
SEED = 0  # that of the trials
RESAMPLES = 5000


def settings() -> list[Entry]:
    """Those with video."""
    return [entry for entry in groups()["tuning"] if entry.preset]


def judge(entry: Entry, steps: int, data: Path, work: Path) -> Row:
    """Ask the guard about one setting."""
    recorded = with_latents(load(entry.tasks, data), entry, SEED, data, work)
    demonstrations, videos = split(recorded, labels=2)
    preset = load_preset(entry.family, entry.mode, seed=SEED)  # type: ignore[arg-type]
    config = with_options(preset, **{**entry.options, "cotraining.guard_steps": steps, "training.steps": 1})
    out = work / "guard" / file_name(f"{entry.family}-{entry.method}-{steps}")
    verdict = train(demonstrations, videos, load_interface(resource(ROBOT)), config, out, cache=work / "cache").verdict
    assert verdict is not None, "the guard was not asked"
    return {"family": entry.family, "method": entry.method, "mode": entry.mode, "guard_steps": steps, "seed": SEED,
            "with_video": round(verdict.with_video, 4), "without": round(verdict.without, 4),
            "low": round(verdict.low, 4), "high": round(verdict.high, 4), "worse": verdict.worse,
            "episodes": verdict.episodes, "says": _said(verdict),
            "command": f"python -m benchmarks.guard_foretells --family {entry.family} --guard-steps {steps}"}


def _said(verdict: Verdict) -> str:
    return ("harms" if verdict.harmful else "may harm" if verdict.doubtful else
            "helps" if verdict.helpful else "open")


def gains() -> dict[tuple[str, str], int]:
    """Successes with the video of a setting less those without: family and method -> of 120."""
    tried = {key: sum(row.count("1") for row in run["successes"].values()) for key, run in runs_done().items()}
    alone_of = {entry.family: tried[(*entry.key, SEED)] for entry in groups()["tuning"] if entry.method == ALONE}
    return {(entry.family, entry.method): tried[(*entry.key, SEED)] - alone_of[entry.family] for entry in settings()}


def markdown(rows: Sequence[Row]) -> str:
    """The settings, and how far the guard's differences go along with those of success."""
    known = gains()
    lines = ["| family | setting | guard: difference of the error | it says: video | successes gained of 120 |",
             "|---|---|---|---|---|"]
    for row in rows:
        difference = row["with_video"] - row["without"]
        lines.append(f"| {row['family']} | {row['method']} | {difference:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] "
                     f"| {row['says']} | {known[row['family'], row['method']]:+d} |")
    for family in dict.fromkeys(row["family"] for row in rows):
        mine = [row for row in rows if row["family"] == family]
        foretold = np.array([row["without"] - row["with_video"] for row in mine])
        gained = np.array([known[family, row["method"]] for row in mine])
        drawn = np.random.default_rng(0).integers(0, len(mine), (RESAMPLES, len(mine)))
        several = [draw for draw in drawn if np.ptp(gained[draw]) and np.ptp(foretold[draw])]
        low, high = np.percentile([spearmanr(foretold[draw], gained[draw])[0] for draw in several], [2.5, 97.5])
        alike = sum((a > 0) == (b > 0) for a, b in zip(foretold, gained, strict=True))
        lines += ["", f"{family}: rank correlation {spearmanr(foretold, gained)[0]:+.2f} [{low:+.2f}, {high:+.2f}], "
                      f"the same sign in {alike} of {len(mine)} settings"]
    return "\n".join(lines)


def main() -> None:
    """Ask what was not asked yet, or print."""
    parser = table_parser(__doc__, data="recordings, made where they are not there yet", work="caches and checkpoints")
    parser.add_argument("--family")
    parser.add_argument("--guard-steps", type=int, default=300, help="of each short training; the preset's by default")
    options = parsed(parser)
    if options.show:
        print(markdown([row for row in read_rows(RESULTS) if row["guard_steps"] == options.guard_steps]))
        return
    for entry in share([e for e in settings() if options.family in (None, e.family)], options.part):
        asked = {(row["family"], row["method"], row["guard_steps"]) for row in read_rows(RESULTS)}
        if (entry.family, entry.method, options.guard_steps) in asked:
            continue
        found = judge(entry, options.guard_steps, options.data, options.work)
        with alone():
            write_rows(RESULTS, [*read_rows(RESULTS), found])


if __name__ == "__main__":
    main()
