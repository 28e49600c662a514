"""Decoded once, read often: frames of many episodes as one memory-mapped array of small squares.

    cache = FrameCache.build(episodes, camera=None, size=64, directory="runs/motion/cache")
    cache.frames[cache.offsets[3]:cache.offsets[4]]  # uint8 [T, 64, 64, 3], the frames of episodes[cache.held[3]]
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import cv2
import numpy as np

from como_core.episode import Episode, Frames
from como_core.errors import ComoError
from como_core.formats.cache_room import DamagedCacheError, being_written, in_use, make_room
from como_core.formats.lazy import CAMERA
from como_core.formats.source_files import files_of

_VERSION = 2  # of the files and of `square`; another number makes every cache anew
_INDEX = "index.json"


class Progress(Protocol):
    """Passes items on and shows how many of `total` have passed; where a recording breaks, fewer come."""

    def __call__(self, items: Iterable[Any], /, *, total: int) -> Iterable[Any]: ...


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
    offsets     int64 [E + 1]; the frames of the e-th episode are offsets[e] .. offsets[e + 1]
    timestamps  float64 [N], seconds on each episode's own clock
    held        which of the episodes given to `build` these E are, increasing
    left_out    source of each of the others, and why no pictures came of it
    path        the folder of this cache
    """

    frames: np.ndarray
    offsets: np.ndarray
    timestamps: np.ndarray
    held: tuple[int, ...]
    left_out: tuple[tuple[str, str], ...]
    path: Path

    @classmethod
    def build(
        cls,
        episodes: Sequence[Episode],
        camera: str | None,
        size: int,
        directory: str | Path,
        progress: Progress | None = None,
        limit_gb: float | None = None,
        say: Callable[[str], None] = print,
    ) -> FrameCache:
        """The cache of `episodes` below `directory`; decodes only where the same files were not decoded there before.

        An episode that has no such camera, or breaks while it is decoded, is left out, and `say` is told its name.
        `progress` may wrap the frames, to show where decoding is. A source that was changed is decoded again, and so is
        everything where the cache was damaged, which `say` is told.

        Where the caches below `directory` would grow beyond `limit_gb`, or beyond the disk, others that no process uses
        are removed, the least recently used first, and `say` is told. None: the disk is the limit.

        Raises ComoError where no episode is left, or there is no room even so.
        """
        directory = Path(directory)
        parts = [_Part.of(episode, camera) for episode in episodes]
        path = directory / _key(parts, size)
        cache = cls._whole(path, say)
        if cache is None:
            count = sum(len(part.frames) for part in parts if part.frames is not None)
            if count:
                make_room(directory, count * size * size * 3, f"{count} frames of {size} px", limit_gb, say)
            _write(path, parts, size, progress)
            cache = cls.load(path)
        if cache.left_out:
            lines = [f"  {why if name in why else f'{name}: {why}'}" for name, why in cache.left_out]
            say("\n".join([f"left out, {len(lines)} of {len(episodes)} episodes, since no pictures come of them:",
                           *lines]))
        return cache

    @classmethod
    def load(cls, path: Path) -> FrameCache:
        """Map a cache that `build` has made; it counts as used as long as its frames are.

        Raises DamagedCacheError where a file is missing, cut off or does not fit the others.
        """
        try:
            index = json.loads((path / _INDEX).read_text(encoding="utf-8"))
            count, *_ = shape = tuple(index["shape"])
            offsets, timestamps = np.load(path / "offsets.npy"), np.load(path / "timestamps.npy")
            held, left_out = tuple(index["held"]), tuple((source, why) for source, why in index["left_out"])
            if len(offsets) != len(held) + 1 or offsets[-1] != count or len(timestamps) != count:
                raise DamagedCacheError(f"its lists of episodes and times are not those of {count} frames")
            frames = in_use(path, shape)
        except (DamagedCacheError, FileNotFoundError, ValueError, LookupError, TypeError, EOFError) as error:
            raise DamagedCacheError(f"{path}: damaged: {error}") from error
        return cls(frames, offsets, timestamps, held, left_out, path)

    @classmethod
    def _whole(cls, path: Path, say: Callable[[str], None]) -> FrameCache | None:
        """The cache at `path`; None where there is none, or none any more because it was damaged."""
        if not path.is_dir():
            return None
        try:
            return cls.load(path)
        except DamagedCacheError as error:
            try:
                shutil.rmtree(path)
            except OSError as refusal:
                raise ComoError(f"{error}, and it cannot be removed: {refusal.strerror}; remove it, or choose another "
                                "cache folder") from error
            say(f"{error}; its frames are decoded anew")
            return None

    def __reduce__(self) -> tuple[Callable[[Path], FrameCache], tuple[Path]]:
        return FrameCache.load, (self.path,)  # Another process maps the file; the pixels are not sent.


def contents(frames: np.ndarray, offsets: np.ndarray) -> bytes:
    """SHA-256 of the first, the middle and the last of the frames [N, ...] of each recording, offsets [E + 1].

    It tells other recordings, or another camera, from these, at a small part of the cost of reading all.
    """
    edges = offsets[np.append(True, np.diff(offsets) > 0)]
    first, last = edges[:-1], edges[1:] - 1
    digest = hashlib.sha256()
    for frame in np.stack([first, (first + last) // 2, last], axis=1).ravel():
        digest.update(frames[frame].tobytes())
    return digest.digest()


@dataclass(frozen=True)
class _Part:
    """What one episode gives to a cache: frames, or None and why; `identity` tells other contents apart."""

    episode: Episode
    frames: Frames | None
    identity: list[object]
    why: str = ""

    @classmethod
    def of(cls, episode: Episode, camera: str | None) -> _Part:
        try:
            frames = camera_frames(episode, camera)
            name = next(name for name, candidate in episode.images.items() if candidate is frames)
            times = [len(episode), *episode.timestamps[[0, -1]].tolist()] if len(episode) else []
            state = _state_of(episode.source) or _contents(frames)
        except ComoError as error:
            return cls(episode, None, [episode.source, str(error)], str(error))
        return cls(episode, frames, [episode.source, name, times, state])


def _write(path: Path, parts: Sequence[_Part], size: int, progress: Progress | None) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f"{path.name}.", suffix=".part", dir=path.parent))
    except OSError as error:
        raise ComoError(f"{path.parent}: frames cannot be cached there: {error.strerror}") from error
    try:
        with being_written(part) as file:
            lengths, broken = _write_frames(file, parts, size, progress)
            if not sum(lengths.values()):
                why = "; the first: " + next(iter(broken.values())) if broken else ""
                raise ComoError(f"no frames to put into {path.parent}: {len(parts)} episodes were given{why}")
            np.save(part / "offsets.npy", np.cumsum([0, *lengths.values()]).astype(np.int64))
            np.save(part / "timestamps.npy", np.concatenate([parts[i].episode.timestamps for i in lengths]))
            index = {"shape": [sum(lengths.values()), size, size, 3], "held": list(lengths),
                     "left_out": [[parts[i].episode.source, why] for i, why in sorted(broken.items())]}
            (part / _INDEX).write_text(json.dumps(index), encoding="utf-8")
            file.flush()
            try:
                os.replace(part, path)
            except OSError:
                if not (path / _INDEX).is_file():  # another process may have been faster with the same
                    raise
    except OSError as error:
        raise ComoError(f"{path.parent}: frames cannot be cached there: {error.strerror}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_frames(file: IO[bytes], parts: Sequence[_Part], size: int, progress: Progress | None
                  ) -> tuple[dict[int, int], dict[int, str]]:
    """Write the frames; returns how many each episode gave, by its place, and why others gave none."""
    broken = {i: part.why for i, part in enumerate(parts) if part.frames is None}
    lengths = {i: 0 for i in range(len(parts)) if i not in broken}
    total = sum(len(parts[i].episode) for i in lengths)
    squares: Iterable[tuple[int, np.ndarray | str]] = _squares(parts, size)
    # Written as a stream: a memory map that outgrows the disk would end the process.
    for i, picture in progress(squares, total=total) if progress else squares:
        if isinstance(picture, str):
            broken[i] = picture
            file.seek(-lengths.pop(i) * size * size * 3, os.SEEK_CUR)
            file.truncate()
        else:
            file.write(picture.tobytes())
            lengths[i] += 1
    return lengths, broken


def _squares(parts: Sequence[_Part], size: int) -> Iterator[tuple[int, np.ndarray | str]]:
    """Place of the episode and its next square or, where it breaks, why; nothing more comes of it then."""
    for i, part in enumerate(parts):
        if part.frames is None:
            continue
        count = 0
        try:
            for frame in iter(part.frames):
                yield i, square(frame, size)
                count += 1
        except ComoError as error:
            yield i, str(error)
        else:
            if count != len(part.episode):
                yield i, f"gives {count} frames, expected {len(part.episode)}"


def _key(parts: Sequence[_Part], size: int) -> str:
    """Name of a cache: what its frames were made from, and how."""
    contents = [_VERSION, size, [part.identity for part in parts]]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:24]


def _state_of(source: str) -> list[list[object]]:
    """Name, size and modification time of a source's files; empty for an episode that was never a file."""
    return [[str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns] for p in files_of(source)]


def _contents(frames: Frames) -> str:
    digest = hashlib.sha256()
    for frame in iter(frames):
        digest.update(frame.tobytes())
    return digest.hexdigest()
