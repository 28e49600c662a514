"""episodes.jsonl: what was recorded into a folder, a line each, only ever appended to.

The last line of a name stands, so that a label given later is a further line. There is no default of success: null says
that nobody has said.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from como_core import config
from como_core.errors import ComoError

INDEX = "episodes.jsonl"
FORMAT = "como-episodes-1"


@dataclass(frozen=True)
class EpisodeEntry:
    """One recorded episode.

    name         of its bag in the folder
    written_utc  when this line was written, ISO 8601
    start_s      log time of the first message, seconds of the recorder's clock
    success      what the operator said, or None
    faults       what the audit found that makes the episode unfit as it is; warnings: what is to be looked at
    recovered    a crash cut it off, and this is what was saved
    """

    name: str
    start_s: float
    seconds: float
    messages: int
    instruction: str | None = None
    success: bool | None = None
    faults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    recovered: bool = False
    written_utc: str = ""


def append_entry(folder: Path, entry: EpisodeEntry) -> None:
    """Add a line to the index of `folder`, on the disk when this returns. Raises ComoError."""
    stamped = dataclasses.replace(entry, written_utc=datetime.now(UTC).isoformat(timespec="seconds"))
    line = json.dumps({"format": FORMAT, **dataclasses.asdict(stamped)})
    path = folder / INDEX
    try:
        with path.open("a+b") as file:
            # A line that a crash has cut off must not swallow this one.
            torn = file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
            file.write(("\n" * bool(torn) + line + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ComoError(f"{path}: cannot be written: {error.strerror}; the bag {entry.name} itself is kept") from error


def read_index(folder: Path) -> dict[str, EpisodeEntry]:
    """Name -> newest entry of the episodes of `folder`, in the order of recording; empty where there is no index.

    A line that is cut off is passed over. Raises ComoError, naming line and key, for any other that is no entry.
    """
    path = folder / INDEX
    found: dict[str, EpisodeEntry] = {}
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise ComoError(f"{path}: cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        try:
            data = json.loads(line)
        except ValueError:
            continue  # empty, or torn by a crash
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise ComoError(f"{path}:{number}: is not of the format {FORMAT!r}")
        entry = config.build(EpisodeEntry, data, f"{path}:{number}")
        found[entry.name] = entry
    return found


def label(folder: Path, name: str, success: bool) -> EpisodeEntry:
    """Say whether episode `name` of `folder` was a success. Raises ComoError where the index has no such episode."""
    entries = read_index(folder)
    if name not in entries:
        raise ComoError(f"{folder / INDEX}: no episode {name!r}; {config.nearest(name, entries)}")
    entry = dataclasses.replace(entries[name], success=success)
    append_entry(folder, entry)
    return entry
