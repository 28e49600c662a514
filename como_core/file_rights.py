"""Rights of files that another library writes: safetensors makes them for their owner alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def usual_rights(path: Path) -> Iterator[None]:
    """Whatever the block writes to `path` gets the rights of a file made here as usual, or of the one it replaces."""
    path.touch()
    mode = path.stat().st_mode
    yield
    path.chmod(mode)
