"""Rows of a benchmark on disk: each run as soon as it is done, and the mean over its training seeds.

    results = Results("motion")          # results/motion_runs.json and results/motion_table.json
    results.add(rows)

An interval is 95 %: the half-width over recordings (`como_core.intervals`) and 1.96 standard errors over training
seeds, added as squares.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Row = dict[str, Any]
Job = TypeVar("Job")

FOLDER = Path(__file__).parent / "results"
_SAME = ("preset", "split", "section", "features", "metric")
_RUN = ("preset", "seed", "command")
_COLUMNS = ("split", "section", "features", "metric", "mean", "low", "high", "n", "verdict")


class Results:
    """Flat rows of `Evaluation.flat_rows`, each with the "seed" of its training; on disk by run."""

    def __init__(self, name: str) -> None:
        self.runs, self.table = FOLDER / f"{name}_runs.json", FOLDER / f"{name}_table.json"

    def done(self) -> set[tuple[str, int]]:
        """Name and seed of the runs that need not be done again."""
        return {(run["preset"], run["seed"]) for run in read_rows(self.runs)}

    def averaged(self) -> list[Row]:
        """The rows of the table."""
        return read_rows(self.table)

    def add(self, rows: list[Row]) -> None:
        """Put the rows of a run beside what other processes put there."""
        with alone():
            known = read_rows(self.runs)
            there = {(run["preset"], run["seed"]) for run in known}  # two processes may have done the same run
            known += [run for run in _folded(rows) if (run["preset"], run["seed"]) not in there]
            write_rows(self.runs, known)
            write_rows(self.table, averaged([row for run in known for row in _unfolded(run)]))


def share(jobs: Sequence[Job], part: str) -> Sequence[Job]:
    """Those of `jobs` that are the share "0/2", "1/2" and so on of them."""
    number, _, parts = part.partition("/")
    return jobs[int(number)::int(parts)]


@contextmanager
def alone(lock_file: Path = FOLDER / ".lock") -> Iterator[None]:
    """No other process of a benchmark that asks for the same lock goes on meanwhile; by default none writes results."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _folded(rows: list[Row]) -> list[dict[str, Any]]:
    """Rows by the run that they are of, what is the same in all of a run said once."""
    runs: dict[tuple[Any, ...], list[list[Any]]] = {}
    for row in rows:
        runs.setdefault(tuple(row[key] for key in _RUN), []).append([_short(row[key]) for key in _COLUMNS])
    return [{**dict(zip(_RUN, run, strict=True)), "columns": list(_COLUMNS), "rows": found}
            for run, found in runs.items()]


def _short(value: Any) -> Any:
    """Six digits of a number: more than any interval here needs."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _unfolded(run: dict[str, Any]) -> list[Row]:
    return [{**{key: run[key] for key in _RUN}, "seeds": 1, **dict(zip(run["columns"], row, strict=True))}
            for row in run["rows"]]


def averaged(rows: list[Row]) -> list[Row]:
    """One row for each (preset, split, section, features, metric): mean and interval over the training seeds."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["mean"] is not None:
            found.setdefault(tuple(row[key] for key in _SAME), []).append(row)
    return [_average(same) for same in found.values()]


def _average(same: list[Row]) -> Row:
    means = np.array([row["mean"] for row in same])
    half = np.mean([(row["high"] - row["low"]) / 2 for row in same if row["low"] is not None] or [0.0])
    error = 1.96 * means.std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else 0.0
    width, mean = float(np.hypot(half, error)), float(means.mean())
    verdicts = sorted({row["verdict"] for row in same if row["verdict"]})
    high = min(mean + width, 1.0) if same[0]["metric"].endswith("r2") else mean + width
    row = {**same[0], "mean": mean, "low": mean - width, "high": high, "seeds": len(same),
           "verdict": "/".join(verdicts) or None, "command": same[0]["command"].rpartition(" --seed")[0]}
    row.pop("seed")
    return row


def cell(row: Row | None) -> str:
    """A number with its interval, for Markdown."""
    return "" if row is None else f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def read_rows(path: Path) -> list[Row]:
    """What stands in a file of results; nothing where there is none yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def write_rows(path: Path, rows: list[Row]) -> None:
    """Replace a file of results in one step: JSON, a row per line."""
    part = path.with_suffix(".part")
    part.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")
    os.replace(part, path)
