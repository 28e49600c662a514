"""What an evaluation says: rows for JSON, tables for the terminal, sheets of film strips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from como_core.errors import ComoError
from como_core.evaluation.page import stacked
from como_core.evaluation.statistics import FEW_PAIRS
from como_core.evaluation.trials import Comparison, compare, rate
from como_core.formats.png import read_png
from como_core.formats.trials import Trial

Row = dict[str, str | int | float | None]

ALL = "all"
LOG_WIDTH = 132
STRIPS_EACH = 3  # successes, and as many failures, on a sheet
_STRIP_HEIGHT_PX = 96
_CAPTION_PX = 20
_INK = {True: (0, 114, 178), False: (213, 94, 0)}  # Okabe and Ito's blue and vermilion, RGB


def success_rows(trials: Sequence[Trial]) -> list[Row]:
    """A row for each environment, and one for all where there are several.

    success, low and high are shares of 1 with Wilson's 95 % interval; wall_s adds up the seconds of one process that
    the trials took, and inference_p50_ms and inference_p99_ms are of all chunks: None where no trial says.
    """
    groups = _by_env(trials)
    rows = [_success_row(env, group) for env, group in groups.items()]
    return rows + [_success_row(ALL, trials)] if len(groups) > 1 else rows


def comparison_rows(run: Sequence[Trial], against: Sequence[Trial]) -> list[Row]:
    """As `success_rows`, of two policies tried from the same start states: success of `run` minus that of `against`.

    low and high are the 95 % paired bootstrap interval of the difference, p is McNemar's exact test; only_run and
    only_against count the start states from which one alone succeeded. Raises ComoError as `compare` does.
    """
    ours, theirs = _by_env(run), _by_env(against)
    whole = compare(against, run)
    rows = [_comparison_row(env, compare(theirs[env], ours[env]), theirs[env], ours[env]) for env in ours]
    return rows + [_comparison_row(ALL, whole, against, run)] if len(ours) > 1 else rows


def success_table(title: str, rows: Sequence[Row]) -> Table:
    """The table of `success_rows`."""
    table = _table(title, "environment", "success", "k / n", "95 % Wilson", "process time", "ms a chunk, p50 / p99")
    for row in rows:
        wall = "-" if row["wall_s"] is None else f"{row['wall_s']:.1f} s"
        inference = ("-" if row["inference_p50_ms"] is None
                     else f"{row['inference_p50_ms']:.1f} / {row['inference_p99_ms']:.1f}")
        table.add_row(str(row["env"]), f"{row['success']:.1%}", f"{row['k']} / {row['n']}",
                      f"{row['low']:.1%} to {row['high']:.1%}", wall, inference)
    return table


def comparison_table(run: str, against: str, rows: Sequence[Row]) -> Table:
    """The table of `comparison_rows`."""
    table = _table(f"{run} minus {against}, same start states", "environment", "run", "against", "difference",
                   "95 % paired", "only run", "only against", "McNemar p")
    if any(int(row["n"] or 0) < FEW_PAIRS for row in rows):
        table.caption = f"With fewer than {FEW_PAIRS} trials the interval is too narrow: go by McNemar's p."
    for row in rows:
        table.add_row(str(row["env"]), f"{row['k']} / {row['n']}", f"{row['k_against']} / {row['n']}",
                      f"{_points(row['difference'])} points", f"{_points(row['low'])} to {_points(row['high'])}",
                      str(row["only_run"]), str(row["only_against"]), f"{row['p']:.2g}")
    return table


def strip_sheet(trials: Sequence[Trial], strips: Mapping[int, Path]) -> np.ndarray | None:
    """Film strips of the first successes and failures of one environment: uint8 [H, W, 3], each with a caption.

    strips  seed -> PNG of a trial's pictures in a row; a trial without one is passed over. None where none has one.
    """
    shown: list[Trial] = []
    for outcome in (True, False):
        filmed = [trial for trial in trials if trial.success is outcome and strips.get(trial.seed, Path()).is_file()]
        shown += filmed[:STRIPS_EACH]
    if not shown:
        return None
    return stacked([_captioned(read_png(strips[trial.seed]), trial) for trial in shown], gap_px=6)


def _captioned(strip: np.ndarray, trial: Trial) -> np.ndarray:
    factor = max(1, round(_STRIP_HEIGHT_PX / strip.shape[0]))
    large = cv2.resize(strip, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    band = np.full((_CAPTION_PX, large.shape[1], 3), 255, np.uint8)
    ended = "success after" if trial.success else "no success in"
    cv2.putText(band, f"{trial.env}, seed {trial.seed}: {ended} {trial.duration_s:.2f} s", (2, _CAPTION_PX - 6),
                cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK[trial.success], 1, cv2.LINE_AA)
    return np.concatenate([band, large])


def _success_row(env: str, trials: Sequence[Trial]) -> Row:
    found = rate(trials)
    inference = [ms for trial in trials for ms in trial.inference_ms]
    p50, p99 = np.percentile(inference, [50, 99]).tolist() if inference else (None, None)
    known = [trial.wall_s for trial in trials if trial.wall_s is not None]
    return {"env": env, "success": found.share, "low": found.interval.low, "high": found.interval.high,
            "k": found.successes, "n": found.trials, "wall_s": sum(known) if len(known) == len(trials) else None,
            "inference_p50_ms": p50, "inference_p99_ms": p99, "chunks": len(inference)}


def _comparison_row(env: str, found: Comparison, against: Sequence[Trial], run: Sequence[Trial]) -> Row:
    base = {trial.start: trial.success for trial in against}
    alone = [trial.success for trial in run if trial.success != base[trial.start]]
    return {"env": env, "difference": found.difference, "low": found.interval.low, "high": found.interval.high,
            "p": found.p_value, "k": found.other.successes, "k_against": found.base.successes, "n": found.base.trials,
            "only_run": sum(alone), "only_against": len(alone) - sum(alone)}


def _by_env(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    if not trials:
        raise ComoError("no trials: there is nothing to report")
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.env, []).append(trial)
    return groups


def _points(share: str | int | float | None) -> str:
    assert isinstance(share, (int, float))
    return f"{100 * share:+.1f}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for name in columns:
        first = name == columns[0]
        table.add_column(name, justify="left" if first else "right", overflow="fold", no_wrap=not first)
    return table


def print_table(table: Table) -> None:
    """Show a table on the terminal, and in full where there is none, as in a log."""
    console = Console()
    (console if console.is_terminal else Console(width=LOG_WIDTH)).print(table)
