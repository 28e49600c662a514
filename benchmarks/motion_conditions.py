"""Pictures made harder, alike in training and measuring: where the paper expects Td and Tcl to help.

    episodes = changed("camera shake")(episodes)

Each episode is changed by a generator seeded with its name, so that it is the same at every call.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable

import cv2
import numpy as np

from como_core.episode import Episode

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]

_REACH = 4  # pixels a shaking camera is off at most
_DISCS, _RADIUS = 3, 6  # of distractors, pixels
_BLEND = 0.35  # how much of the moving background shows


def shake(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The whole picture wanders by up to _REACH pixels."""
    offsets = _walk(rng, len(frames), 2, 1.5).clip(-_REACH, _REACH).round().astype(int)
    size = frames.shape[1]
    padded = np.pad(frames, ((0, 0), (_REACH, _REACH), (_REACH, _REACH), (0, 0)), mode="edge")
    return np.stack([frame[_REACH + y:_REACH + y + size, _REACH + x:_REACH + x + size]
                     for frame, (y, x) in zip(padded, offsets, strict=True)])


def distractors(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Coloured discs drift over the picture, each on its own way."""
    changed_frames, size = frames.copy(), frames.shape[1]
    for _ in range(_DISCS):
        start, speed = rng.uniform(0, size, 2), rng.normal(0, 1.5, 2)
        colour = [int(c) for c in rng.integers(0, 256, 3)]
        for t, frame in enumerate(changed_frames):
            # Folded at the edges, so that a disc comes back.
            place = size - np.abs((start + speed * t) % (2 * size) - size)
            cv2.circle(frame, (int(place[0]), int(place[1])), _RADIUS, colour, -1)
    return changed_frames


def background(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A soft pattern slides behind everything and shines through."""
    size = frames.shape[1]
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pattern = cv2.resize(np.tile(coarse, (2, 2, 1)), (2 * size, 2 * size), interpolation=cv2.INTER_CUBIC)
    way = np.cumsum(_walk(rng, len(frames), 2, 1.0) + rng.normal(0, 1.0, 2), axis=0).round().astype(int)
    slid = np.stack([np.roll(pattern, tuple(offset), axis=(0, 1))[:size, :size] for offset in way])
    return ((1 - _BLEND) * frames + _BLEND * slid).round().astype(np.uint8)


CONDITIONS: dict[str, Change] = {"camera shake": shake, "distractors": distractors, "moving background": background}


def changed(condition: str) -> Callable[[list[Episode]], list[Episode]]:
    """What makes episodes with changed pictures; "plain" leaves them as they are."""
    if condition == "plain":
        return lambda episodes: episodes
    change = CONDITIONS[condition]

    def apply(episode: Episode) -> Episode:
        rng = np.random.default_rng(zlib.crc32(episode.source.encode()))
        images = {name: change(frames[:], rng) for name, frames in episode.images.items()}
        return dataclasses.replace(episode, images=images)

    return lambda episodes: [apply(episode) for episode in episodes]


def _walk(rng: np.random.Generator, steps: int, size: int, spread: float) -> np.ndarray:
    """AR(1) noise [steps, size] of memory 0.8 and standard deviation `spread`."""
    values = np.zeros((steps, size))
    value = rng.standard_normal(size)
    for t in range(steps):
        value = 0.8 * value + 0.6 * rng.standard_normal(size)
        values[t] = spread * value
    return values
