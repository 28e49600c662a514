"""Room for frame caches: which are in use, and which make way, the least recently used first.

A process that writes or maps a cache holds a lock on its frames. What nobody holds may go, also what a process that was
killed has left half written.
"""

from __future__ import annotations

import fcntl
import math
import os
import re
import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np

from como_core.errors import ComoError

FRAMES = "frames.bin"


class DamagedCacheError(ComoError):
    """A cache whose files are not as they were written; the message says which and how."""


_NAME = re.compile(r"[0-9a-f]{24}(\..*\.part)?")
_GB = 1e9


@contextmanager
def being_written(folder: Path) -> Iterator[IO[bytes]]:
    """The file for the frames of a cache, open for writing and locked."""
    with (folder / FRAMES).open("wb") as file:
        _lock(file, fcntl.LOCK_EX)
        yield file


def in_use(folder: Path, shape: tuple[int, ...]) -> np.memmap:
    """The frames of a cache, mapped; it is locked as long as they are. Raises DamagedCacheError for another size."""
    with suppress(OSError):  # A cache that others own may be read-only.
        os.utime(folder)
    file = (folder / FRAMES).open("rb")
    found, expected = os.fstat(file.fileno()).st_size, math.prod(shape)
    if found != expected:
        file.close()
        raise DamagedCacheError(f"{FRAMES} has {found} bytes, expected {expected}")
    _lock(file, fcntl.LOCK_SH)
    frames = np.memmap(file, np.uint8, "r", shape=shape)
    weakref.finalize(frames, file.close)
    return frames


def make_room(directory: Path, needed: int, what: str, limit_gb: float | None, say: Callable[[str], None]) -> None:
    """Remove caches below `directory` until `needed` bytes fit within the limit and on the disk.

    what  of how much the new cache is made, for messages

    Raises ComoError, with the numbers and what to do, where removing all that nobody uses would not do; then nothing is
    removed.
    """
    free = shutil.disk_usage(next(folder for folder in (directory, *directory.parents) if folder.is_dir())).free
    sizes = {folder: _size(folder) for folder in _caches(directory)}
    spare = [folder for folder in sorted(sizes, key=_used) if _is_spare(folder)]
    could_go = sum(sizes[folder] for folder in spare)
    held = sum(sizes.values()) - could_go
    if limit_gb is not None and needed + held > limit_gb * _GB:
        others = f" beside {held / _GB:.2f} GB of caches in use" if held else ""
        raise ComoError(f"{directory}: {what} need {needed / _GB:.2f} GB{others}, and the limit of this frame cache is "
                        f"{limit_gb:.2f} GB; raise the limit, choose a smaller picture size, or give fewer recordings")
    if needed > free + could_go:
        raise ComoError(f"{directory}: {what} need {needed / _GB:.2f} GB, {(free + could_go) / _GB:.2f} GB are free or "
                        "taken by older caches; make room or choose another cache folder")
    excess = max(needed - free, 0 if limit_gb is None else sum(sizes.values()) + needed - limit_gb * _GB)
    removed = []
    while excess > 0:
        folder = spare.pop(0)
        shutil.rmtree(folder, ignore_errors=True)
        excess -= sizes[folder]
        removed.append(sizes[folder])
    if removed:
        say(f"{directory}: {len(removed)} older frame caches ({sum(removed) / _GB:.2f} GB) removed to make room")


def _caches(directory: Path) -> list[Path]:
    entries = directory.iterdir() if directory.is_dir() else ()
    return [entry for entry in entries if entry.is_dir() and _NAME.fullmatch(entry.name)]


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def _used(folder: Path) -> int:
    """When the cache was last mapped, which `os.utime` notes on its folder."""
    return folder.stat().st_mtime_ns


def _is_spare(folder: Path) -> bool:
    """Whether nobody holds the cache; on a file system that knows no locks everything counts as held."""
    try:
        with (folder / FRAMES).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _lock(file: IO[bytes], kind: int) -> None:
    with suppress(OSError):  # Some network file systems have no locks; then nothing is removed either.
        fcntl.flock(file, kind)
