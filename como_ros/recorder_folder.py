"""The folder that a recorder writes into: which episode comes next."""

from __future__ import annotations

import re
from pathlib import Path

from como_core.errors import ComoError

# What a crash has left counts too: its number is for what is recovered of it.
_EPISODE = re.compile(r"episode_(\d+)(\.part|\.recovered\.part)?")


def next_path(folder: str | Path) -> Path:
    """The next free episode_NNNN below `folder`. Raises ComoError where the folder cannot be used."""
    output = Path(folder).expanduser().absolute()
    try:
        output.mkdir(parents=True, exist_ok=True)
        numbers = [int(found[1]) for entry in output.iterdir() if (found := _EPISODE.fullmatch(entry.name))]
    except OSError as error:
        raise ComoError(f"output folder {output} cannot be used: {error.strerror}; set parameter 'output' of "
                        "recorder_node to a folder that can be written") from error
    return output / f"episode_{max(numbers, default=-1) + 1:04d}"
