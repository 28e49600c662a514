"""Rows of a benchmark on disk: each run as soon as it is done, and the mean over its training seeds.

    results = Results("motion")          # results/motion_runs.json and results/motion_table.json
    results.add(rows)

An interval is 95 %: the half-width over recordings (bootstrap) and 1.96 standard errors over training seeds, added as
squares.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]

FOLDER = Path(__file__).parent / "results"
_SAME = ("preset", "split", "section", "features", "metric")


class Results:
    """Flat rows of `Evaluation.flat_rows`, each with the "seed" of its training."""

    def __init__(self, name: str) -> None:
        self.runs, self.table = FOLDER / f"{name}_runs.json", FOLDER / f"{name}_table.json"

    def done(self) -> set[tuple[str, int]]:
        """Name and seed of the runs that need not be done again."""
        return {(row["preset"], row["seed"]) for row in _read(self.runs)}

    def averaged(self) -> list[Row]:
        """The rows of the table."""
        return _read(self.table)

    def add(self, rows: list[Row]) -> None:
        """Put the rows of a run beside what other processes put there."""
        FOLDER.mkdir(exist_ok=True)
        with (FOLDER / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = _read(self.runs) + rows
            _write(self.runs, known)
            _write(self.table, averaged(known))


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
    row = {**same[0], "mean": mean, "low": mean - width, "high": mean + width, "seeds": len(same),
           "verdict": "/".join(verdicts) or None, "command": same[0]["command"].rpartition(" --seed")[0]}
    row.pop("seed")
    return row


def cell(row: Row | None) -> str:
    """A number with its interval, for Markdown."""
    return "" if row is None else f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _read(path: Path) -> list[Row]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def _write(path: Path, rows: list[Row]) -> None:
    part = path.with_suffix(".part")
    part.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")
    os.replace(part, path)
