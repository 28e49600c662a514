"""What all benchmarks share: interleaved repeats, the machine in words, a table and JSON.

The machine may be shared and its clock may vary: what is compared is measured in turns, and a ratio is the median of
the ratios of each turn.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from como_core import __version__
from como_core.formats.result_file import write_result

Turns = dict[str, np.ndarray]
"""What each case measured, in each turn: float64 [repeats]."""


@dataclass(frozen=True)
class Row:
    """One number with the range of its turns; `goal` is what it should reach or, with `at_most`, not exceed.

    note  what it was measured on
    """

    name: str
    value: float
    low: float
    high: float
    unit: str = ""
    goal: float | None = None
    at_most: bool = False
    note: str = ""

    @classmethod
    def of(cls, name: str, turns: np.ndarray, unit: str = "", goal: float | None = None, at_most: bool = False,
           note: str = "") -> Row:
        """The median of `turns`, and their range."""
        return cls(name, float(np.median(turns)), float(turns.min()), float(turns.max()), unit, goal, at_most, note)

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal


@dataclass(frozen=True)
class Report:
    """The rows of a benchmark, where and how they were measured."""

    name: str
    rows: tuple[Row, ...]
    machine: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def table(self) -> Table:
        """For a terminal."""
        table = Table(title=f"como bench {self.name}", title_justify="left")
        for heading in ("what", "median", "range", "goal", ""):
            table.add_column(heading, justify="left" if heading == "what" else "right")
        for row in self.rows:
            sign = "<=" if row.at_most else ">="
            goal = "" if row.goal is None else f"{sign} {row.goal:g}"
            met = "" if row.met is None else ("met" if row.met else "missed")
            table.add_row(row.name, f"{row.value:.4g} {row.unit}".strip(), f"{row.low:.4g} to {row.high:.4g}", goal,
                          met)
        return table

    def write(self, path: Path) -> None:
        """As JSON. Raises OutputError."""
        rows = [{**asdict(row), "met": row.met} for row in self.rows]
        content = {"bench": self.name, "machine": self.machine, "settings": self.settings, "rows": rows}
        write_result(path, content)


def in_turns(cases: Mapping[str, Callable[[], float]], repeats: int, warm_up: bool = True) -> Turns:
    """Call each case `repeats` times, in turns, and return what they measured, after one round that does not count."""
    for case in cases.values() if warm_up else ():
        case()
    turns: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, case in cases.items():
            turns[name].append(case())
    return {name: np.array(values) for name, values in turns.items()}


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def matmul_flops_per_s(dtype: torch.dtype, device: torch.device, size: int, least_s: float = 0.4) -> float:
    """Floating-point operations per second of square matrix products: what the machine can do at best."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < least_s or not count:
        a @ b
        count += 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return 2 * size**3 * count / passed


def machine() -> dict[str, Any]:
    """This machine in words: processor, cores, threads, memory, versions, and how busy it is."""
    return {"processor": _processor(), "cores": len(os.sched_getaffinity(0)), "torch_threads": torch.get_num_threads(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "load_at_start": round(os.getloadavg()[0], 2), "python": platform.python_version(),
            "torch": torch.__version__, "como": __version__}


def _processor() -> str:
    try:
        lines: Sequence[str] = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
