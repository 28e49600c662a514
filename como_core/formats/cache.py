"""Decoded once, read often: frames of many episodes as one memory-mapped array of small squares.

    cache = FrameCache.build(episodes, camera=None, size=64, directory="runs/motion/cache")
    cache.frames[cache.offsets[3]:cache.offsets[4]]  # uint8 [T, 64, 64, 3], the frames of episode 3
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from como_core.episode import Episode, Frames
from como_core.errors import ComoError
from como_core.formats.lazy import CAMERA

_VERSION = 1  # of the files and of `square`; another number makes every cache anew


def square(image: np.ndarray, size: int) -> np.ndarray:
    """The middle square of uint8 [H, W, 3] at `size` pixels: uint8 [size, size, 3].

    Training and deployment both make their pictures with it. Shrinking averages areas, so that nothing aliases.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    middle = image[top:top + side, left:left + side]
    if side == size:
        return np.ascontiguousarray(middle)
    return cv2.resize(middle, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)


def camera_frames(episode: Episode, camera: str | None) -> Frames:
    """Frames of `camera`, of the first camera where None. A recording that names no camera stands for any.

    Raises ComoError, naming the cameras there are.
    """
    if not episode.images:
        raise ComoError(f"{episode.source}: has no camera")
    if camera is None:
        return next(iter(episode.images.values()))
    if camera in episode.images:
        return episode.images[camera]
    if list(episode.images) == [CAMERA]:
        return episode.images[CAMERA]
    raise ComoError(f"{episode.source}: has no camera {camera!r}; it has {', '.join(episode.images)}")


@dataclass(frozen=True)
class FrameCache:
    """Frames of E episodes end to end.

    frames      uint8 [N, size, size, 3], RGB, memory-mapped, read only
    offsets     int64 [E + 1]; episode e is frames offsets[e] .. offsets[e + 1]
    timestamps  float64 [N], seconds on each episode's own clock
    path        the folder of this cache
    """

    frames: np.ndarray
    offsets: np.ndarray
    timestamps: np.ndarray
    path: Path

    @classmethod
    def build(
        cls,
        episodes: Sequence[Episode],
        camera: str | None,
        size: int,
        directory: str | Path,
        progress: Callable[[Sequence[Episode]], Iterable[Episode]] | None = None,
    ) -> FrameCache:
        """The cache of `episodes` below `directory`; decodes only where the same files were not decoded there before.

        `progress` may wrap the loop over episodes, to show where it is. A source that was changed is decoded again.
        Raises ComoError where there is no episode, no such camera, or not enough room on the disk.
        """
        directory = Path(directory)
        lengths = [len(episode) for episode in episodes]
        if sum(lengths) == 0:
            raise ComoError(f"no frames to put into {directory}: {len(episodes)} episodes were given")
        frames = [camera_frames(episode, camera) for episode in episodes]
        path = directory / _key(episodes, frames, size)
        if not path.is_dir():
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            timestamps = np.concatenate([episode.timestamps for episode in episodes])
            shown = progress(episodes) if progress else episodes
            squares = (square(frame, size) for _, part in zip(shown, frames, strict=True) for frame in iter(part))
            _write(path, squares, (int(offsets[-1]), size, size, 3), offsets, timestamps)
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> FrameCache:
        """Map a cache that `build` has made."""
        return cls(np.load(path / "frames.npy", mmap_mode="r"), np.load(path / "offsets.npy"),
                   np.load(path / "timestamps.npy"), path)

    def __reduce__(self) -> tuple[Callable[[Path], FrameCache], tuple[Path]]:
        return FrameCache.load, (self.path,)  # Another process maps the file; the pixels are not sent.


def _write(
    path: Path, squares: Iterable[np.ndarray], shape: tuple[int, ...], offsets: np.ndarray, timestamps: np.ndarray
) -> None:
    needed = int(np.prod(shape))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if free < needed:
            raise ComoError(f"{path.parent}: {shape[0]} frames need {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are "
                            "free; make room or choose another cache folder")
        part = Path(tempfile.mkdtemp(prefix=f"{path.name}.", suffix=".part", dir=path.parent))
    except OSError as error:
        raise ComoError(f"{path.parent}: frames cannot be cached there: {error.strerror}") from error
    try:
        # Written as a stream: a memory map that outgrows the disk would end the process.
        with (part / "frames.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for picture in squares:
                file.write(picture.tobytes())
        np.save(part / "offsets.npy", offsets)
        np.save(part / "timestamps.npy", timestamps)
        if not path.is_dir():  # Another process may have been faster with the same.
            os.replace(part, path)
    except OSError as error:
        raise ComoError(f"{path.parent}: frames cannot be cached there: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _key(episodes: Sequence[Episode], frames: Sequence[Frames], size: int) -> str:
    """Name of a cache: what its frames were made from, and how."""
    items = []
    for episode, part in zip(episodes, frames, strict=True):
        camera = next(name for name, candidate in episode.images.items() if candidate is part)
        times = [len(episode), float(episode.timestamps[0]), float(episode.timestamps[-1])]
        items.append([episode.source, camera, times, _state_of(episode.source) or _contents(part)])
    return hashlib.sha256(json.dumps([_VERSION, size, items]).encode()).hexdigest()[:24]


def _state_of(source: str) -> list[list[object]]:
    """Name, size and modification time of a source's files; empty for an episode that was never a file."""
    path = Path(source)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] if path.is_file() else []
    return [[str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns] for p in files]


def _contents(frames: Frames) -> str:
    digest = hashlib.sha256()
    for frame in iter(frames):
        digest.update(frame.tobytes())
    return digest.hexdigest()
