"""A folder for results, found to be writable before the work and not after it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from como_core.errors import OutputError


def writable_folder(folder: Path) -> Path:
    """`folder`, made where it was not there. Raises OutputError where nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}; choose another folder") from error
    return folder
