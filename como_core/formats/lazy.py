"""Frames that are decoded when asked for, from files that stay open only while they are of use.

`LazyFrames` turns one method, `_read`, into the indexing of `episode.Frames`. `HandlePool` keeps the few files last
used open, so that a loop over frames does not open its file for each of them. A LazyFrames object holds no handle
itself: it is small, it pickles, and a child process opens files of its own.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

CAMERA = "video"
"""Name of the camera of a recording that does not name its cameras."""


class Closable(Protocol):
    def close(self) -> None: ...


H = TypeVar("H", bound=Closable)


class HandlePool(Generic[H]):
    """The `size` handles last used by each thread; the one longest unused is closed to make room for another.

    Handles are never shared between threads, nor with a forked child, which would move the parent's file position.
    """

    def __init__(self, size: int = 4) -> None:
        self._size = size
        self._local = threading.local()

    def get(self, key: Hashable, open_handle: Callable[[], H]) -> H:
        """The open handle of `key`, made by `open_handle` where there is none."""
        handles = self._handles()
        if key in handles:
            handles.move_to_end(key)
            return handles[key]
        while len(handles) >= self._size:
            handles.popitem(last=False)[1].close()
        handles[key] = open_handle()
        return handles[key]

    def drop(self, key: Hashable) -> None:
        """Close the handle of `key`, if this thread has one."""
        handle = self._handles().pop(key, None)
        if handle is not None:
            handle.close()

    def _handles(self) -> OrderedDict[Hashable, H]:
        local: Any = self._local
        if getattr(local, "pid", None) != os.getpid():
            local.pid, local.handles = os.getpid(), OrderedDict()
        return local.handles


class LazyFrames:
    """Frames of one camera, uint8 [T, H, W, 3] RGB; subclasses say how some of them are read."""

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self._shape = shape

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, 3)."""
        return self._shape

    def __len__(self) -> int:
        return self._shape[0]

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        """One frame [H, W, 3] for a whole number; frames [N, H, W, 3] for a slice, a list, an index or boolean array.

        Frames are decoded in file order, each once, whatever the order asked for. Raises IndexError out of range.
        """
        if isinstance(index, (int, np.integer)):
            return next(self._read(self._checked(np.array([index]))))
        wanted = np.arange(len(self))[index] if isinstance(index, slice) else self._checked(np.asarray(index))
        frames = np.empty((len(wanted), *self._shape[1:]), np.uint8)
        if len(wanted):
            unique, counts = np.unique(wanted, return_counts=True)
            places = np.split(np.argsort(wanted), np.cumsum(counts)[:-1])
            for place, frame in zip(places, self._read(unique), strict=True):
                frames[place] = frame
        return frames

    def __iter__(self) -> Iterator[np.ndarray]:
        """All frames in order, one in memory at a time."""
        return self._read(np.arange(len(self)))

    def _checked(self, index: np.ndarray) -> np.ndarray:
        if index.dtype == bool:
            if index.shape != (len(self),):
                raise IndexError(f"boolean index has shape {list(index.shape)}, expected [{len(self)}]")
            return np.flatnonzero(index)
        index = index.astype(np.int64, casting="same_kind") if index.size else np.empty(0, np.int64)
        if np.any(index < -len(self)) or np.any(index >= len(self)):
            raise IndexError(f"frame index out of range: {index.tolist()[:5]} of {len(self)} frames")
        return np.where(index < 0, index + len(self), index)

    def _read(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Yield uint8 [H, W, 3] for each of `indices`, int64, increasing and in range."""
        raise TypeError(f"{type(self).__name__} does not say how frames are read")


class PickedFrames(LazyFrames):
    """Some frames of a longer recording, by their indices in it: int64 [T], not decreasing."""

    def __init__(self, frames: LazyFrames, picks: np.ndarray) -> None:
        super().__init__((len(picks), *frames.shape[1:]))
        self._frames, self._picks = frames, picks

    def _read(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        picks, counts = np.unique(self._picks[indices], return_counts=True)
        for frame, count in zip(self._frames._read(picks), counts.tolist(), strict=True):
            yield from (frame.copy() for _ in range(count - 1))
            yield frame
