"""A JSON file of results: known before the work to take nobody's place, and written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from como_core.errors import OutputError


def require_replaceable(path: Path, verb: str, keys: Collection[str], figure: Path | None = None) -> None:
    """Raises OutputError unless `path` is a name for JSON that is free, or holds an earlier result of `como verb`.

    keys    what a result of that verb holds, by which it is known; of a list of rows, what each of them holds
    figure  a file that is written beside it, and overwritten only together with it
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; expected the name of a file, such as {path / 'metrics.json'}")
    if path.suffix != ".json":
        raise OutputError(f"{path}: expected a name that ends in .json for the numbers, such as "
                          f"{path.with_suffix('.json').name}")
    earlier = path.is_file() and _holds(path, keys)
    taken = [path] if path.exists() and not earlier else []
    if figure is not None and figure.exists() and not (earlier and figure.is_file()):
        taken.append(figure)
    if taken:
        raise OutputError(f"{taken[0]}: holds something else than a result of an earlier `como {verb}`, which would be "
                          "lost; move it away, or choose another name")


def write_result(path: Path, content: Any) -> None:
    """Write `content` as JSON, replacing an earlier file in one step. Raises OutputError."""
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}; choose another file") from error


def _holds(path: Path, keys: Collection[str]) -> bool:
    """Whether it is a JSON object with these keys, or a list of such."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    rows = found if isinstance(found, list) else [found]
    return bool(rows) and all(isinstance(row, dict) and row.keys() >= set(keys) for row in rows)
