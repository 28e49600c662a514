"""Stages that run once: each leaves a small JSON when it is done, and a second run goes on behind it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

Result = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """One step of a pipeline: `run` does the work and returns what the report needs, as plain JSON values."""

    name: str
    title: str
    run: Callable[[], Result]


def run_stages(stages: Sequence[Stage], directory: Path, console: Console) -> dict[str, Result]:
    """Run the stages in order and return their results by name.

    A stage whose JSON lies in `directory`, with that of every stage before it, is not run again. The wall time of each
    stage is kept with it, over all its runs.
    """
    directory.mkdir(parents=True, exist_ok=True)
    results: dict[str, Result] = {}
    fresh = False
    for number, stage in enumerate(stages, start=1):
        marker = directory / f"{number}_{stage.name}.json"
        label = f"[bold]{number}/{len(stages)} {stage.title}[/bold]"
        done = None if fresh else read_json(marker)
        if done is not None:
            results[stage.name] = done
            console.print(f"{label}: done before ({done['seconds']:.0f} s)")
            continue
        fresh = True
        console.print(label)
        spent = _Stopwatch(marker.with_suffix(".seconds"))
        try:
            result = stage.run()
        finally:
            seconds = spent.stop()
        result = {**result, "seconds": seconds}
        write_json(marker, result)
        spent.forget()
        results[stage.name] = result
        console.print(f"    {seconds:.0f} s")
    return results


class _Stopwatch:
    """Wall time of a stage, kept on disk so that an interrupted run counts as well."""

    def __init__(self, path: Path) -> None:
        self._path, self._start = path, time.monotonic()
        self._before = float((read_json(path) or {}).get("seconds", 0.0))

    def stop(self) -> float:
        seconds = self._before + time.monotonic() - self._start
        write_json(self._path, {"seconds": seconds})
        return seconds

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or None where there is no whole one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all."""
    temporary = path.with_name(f"{path.name}.part")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
