"""Pairs that teach nothing are left out: those across a scene cut, and those whose frames differ by noise alone.

    selection = select(cache, pairs, config.selection)
    print(selection.summary())        # 1,204 pairs; left out: 31 across 4 scene cuts, 96 still
    sampler = PairSampler(..., selection.pairs)

The pictures are read once, in order and in blocks. The result lies beside the frame cache, for later runs.

A cut changes the picture much more than its neighbours do and leaves little in common, which fast motion (neighbours
change as much) and a change of light (the picture stays correlated) do not. Not found are dissolves, and cuts that
follow one another within two frames.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from como_core import config as configuration
from como_core.errors import ComoError
from como_core.formats.cache import FrameCache
from como_core.formats.cache_room import FRAMES
from como_core.motion.config import SelectionConfig
from como_core.motion.pairs import Pairs
from como_core.training.progress import Progress

_VERSION = 1  # of what is stored; another number makes every selection anew

# Pictures are compared at this size: fine enough for a gripper, coarse enough to average noise away.
_SIDE = 32

# Frames that are in memory at once, apart from those that their pairs reach beyond them.
_BLOCK = 512

# A cut stands out from this many steps before it and after it.
_NEIGHBOURS = 2

# Noise or light counts up to so many times `still_change`: a camera that moves changes everything, too.
_NOISE_CAP = 3.0


@dataclass(frozen=True)
class Selection:
    """What is left to train on, and what was left out.

    pairs     those that are left
    cuts      frames that a new scene begins with, int64 [K], within clips
    found     how many pairs there were
    crossing  how many of these cross a cut
    still     how many of the others are still
    """

    pairs: Pairs
    cuts: np.ndarray
    found: int
    crossing: int
    still: int

    def summary(self) -> str:
        """One line: pairs that are left, and how many were left out for which reason."""
        return f"{len(self.pairs):,} pairs; left out: {self.reasons()}"

    def reasons(self) -> str:
        """How many pairs were left out for which reason."""
        return f"{self.crossing:,} across {len(self.cuts):,} scene cuts, {self.still:,} still"

    def to_dict(self) -> dict[str, int]:
        """The counts, for JSON."""
        return {"pairs": len(self.pairs), "found": self.found, "scene_cuts": len(self.cuts),
                "left_out_across_cuts": self.crossing, "left_out_still": self.still}


def select(cache: FrameCache, pairs: Pairs, config: SelectionConfig,
           progress: Callable[[int], Progress] | None = None) -> Selection:
    """The pairs of `cache` that are neither across a cut nor still.

    progress  makes the progress of so many frames, to show where reading is

    Raises ComoError, with the counts for each reason, where no pair is left.
    """
    path = cache.path / f"selection-{_key(pairs, config)}.npz"
    stored = _load(path, len(pairs))
    cuts, moved = stored or _measure(cache, pairs, config, progress)
    if not stored:
        _store(path, cuts, moved)
    crossing = np.searchsorted(cuts, pairs.second, side="right") > np.searchsorted(cuts, pairs.first, side="right")
    left = Selection(pairs.without(crossing | ~moved, cuts), cuts, len(pairs), int(crossing.sum()),
                     int((~moved & ~crossing).sum()))
    if not len(left.pairs):
        raise ComoError(f"none of {left.found:,} frame pairs is left: {left.reasons()}; give video in "
                        "which something moves, a larger gap_s, or lower selection.still_change")
    return left


def scene_cuts(change: np.ndarray, likeness: np.ndarray, timestamps: np.ndarray, offsets: np.ndarray,
               config: SelectionConfig) -> np.ndarray:
    """Frames that a new scene begins with, int64 [K].

    change      float [N], mean absolute difference of each frame from the one before; any value at a clip's start
    likeness    float [N], correlation of the two
    timestamps  float64 [N];  offsets  int64 [E + 1]
    """
    if not config.cut_ratio:
        return np.zeros(0, np.int64)
    clip = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    inner = np.ones(len(change), bool)
    inner[offsets[:-1][np.diff(offsets) > 0]] = False
    # Where frames were dropped there was time for more to change.
    rate = np.where(inner, change / np.maximum(_relative_steps(timestamps, offsets), 1), 0)
    around, known = np.zeros(len(rate)), np.zeros(len(rate), bool)
    for shift in range(1, _NEIGHBOURS + 1):
        for here, there in ((slice(shift, None), slice(None, -shift)), (slice(None, -shift), slice(shift, None))):
            near = (clip[here] == clip[there]) & inner[there]
            around[here] = np.where(near, np.maximum(around[here], rate[there]), around[here])
            known[here] |= near
    # One grey level more: in a still recording, any little change is many times the one before.
    stands_out = rate >= config.cut_ratio * (around + 1)
    return np.flatnonzero(inner & known & stands_out & (rate > config.cut_change) & (likeness < config.cut_likeness))


def _relative_steps(timestamps: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Time since the frame before, over the clip's median; float [N]."""
    steps = np.ones(len(timestamps))
    for a, b in pairwise(offsets):
        if b - a > 1:
            steps[a + 1:b] = np.diff(timestamps[a:b])
            steps[a + 1:b] /= np.median(steps[a + 1:b])
    return steps


def _measure(cache: FrameCache, pairs: Pairs, config: SelectionConfig, progress: Callable[[int], Progress] | None
             ) -> tuple[np.ndarray, np.ndarray]:
    """Cuts, int64 [K], and whether something moves in each pair, bool [P]."""
    count = len(cache.timestamps)
    change, likeness = np.zeros(count, np.float32), np.ones(count, np.float32)
    moved = np.ones(len(pairs), bool)
    with progress(count) if progress else nullcontext() as shown:
        for start, stop, mine, small in _blocks(cache, pairs):
            chain = small[:stop - start + 1]
            change[start + 1:start + len(chain)], likeness[start + 1:start + len(chain)] = _steps(chain)
            if config.still_share:
                moved[mine] = _moves(small[pairs.first[mine] - start], small[pairs.second[mine] - start], config)
            if shown:
                shown.advance(stop - start)
    return scene_cuts(change, likeness, cache.timestamps, cache.offsets, config), moved


def _blocks(cache: FrameCache, pairs: Pairs) -> Iterator[tuple[int, int, slice, np.ndarray]]:
    """Frames start .. stop, the pairs that begin in there, and the small pictures from `start` to where these end."""
    shape = cache.frames.shape[1:]
    each = int(np.prod(shape))
    # Read and not mapped: pages once mapped would count as memory of this process.
    with (cache.path / FRAMES).open("rb") as file:
        for start in range(0, len(cache.frames), _BLOCK):
            stop = min(start + _BLOCK, len(cache.frames))
            mine = slice(*np.searchsorted(pairs.first, [start, stop]))
            last = max(stop, int(pairs.second[mine].max(initial=0)))
            file.seek(start * each)
            block = np.fromfile(file, np.uint8, (min(last + 1, len(cache.frames)) - start) * each)
            yield start, stop, mine, _small(block.reshape(-1, *shape))


def _small(frames: np.ndarray) -> np.ndarray:
    """uint8 [T, S, S, 3] at no more than _SIDE pixels."""
    side = min(_SIDE, frames.shape[1])
    if side == frames.shape[1]:
        return frames
    return np.stack([cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in frames])


def _steps(small: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean absolute difference and correlation of each frame of [T, S, S, 3] and the next: float32 [T - 1] each."""
    change = np.stack([cv2.absdiff(a, b) for a, b in pairwise(small)]).mean(axis=(1, 2, 3)) if len(small) > 1 else ()
    grey = small.mean(axis=3, dtype=np.float32).reshape(len(small), -1)
    grey -= grey.mean(axis=1, keepdims=True)
    length = np.maximum(np.linalg.norm(grey, axis=1), 1e-3)
    alike = (grey[:-1] * grey[1:]).sum(axis=1) / (length[:-1] * length[1:])
    return np.asarray(change, np.float32), alike


def _moves(first: np.ndarray, second: np.ndarray, config: SelectionConfig) -> np.ndarray:
    """Whether more changes between small pictures [P, S, S, 3] than noise does: bool [P]."""
    if not len(first):
        return np.zeros(0, bool)
    change = np.stack([cv2.absdiff(a, b).max(axis=2) for a, b in zip(first, second, strict=True)])
    change = change.reshape(len(first), -1)
    noise = config.still_noise * np.median(change, axis=1)
    level = np.clip(noise, config.still_change, _NOISE_CAP * config.still_change)
    return (change > level[:, None]).mean(axis=1) >= config.still_share


def _key(pairs: Pairs, config: SelectionConfig) -> str:
    contents = [_VERSION, configuration.to_dict(config), pairs.gap_s, len(pairs)]
    return hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:16]


def _load(path: Path, count: int) -> tuple[np.ndarray, np.ndarray] | None:
    """What an earlier run found; None where none did, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            cuts, moved = stored["cuts"], stored["moved"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return (cuts, moved) if moved.shape == (count,) else None


def _store(path: Path, cuts: np.ndarray, moved: np.ndarray) -> None:
    with suppress(OSError):  # a cache that others own may be read-only; then the next run measures again
        handle, aside = tempfile.mkstemp(".part", f"{path.stem}.", path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, cuts=cuts, moved=moved)
            os.replace(aside, path)
        finally:
            Path(aside).unlink(missing_ok=True)
