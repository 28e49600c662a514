"""z and confidence of every step of one clip: each frame is decoded, and goes through the backbone, once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.formats.cache import camera_frames, square
from como_core.motion import confidence
from como_core.motion.model import MotionModel
from como_core.motion.pairs import nearest, partner

CHUNK = 64  # frames that are decoded, and encoded, at once


@dataclass(frozen=True)
class ClipLabels:
    """Labels of a clip, a row per frame.

    latent      float32 [T, D], z of the frames nearest to t and t + gap
    confidence  float32 [T] in [0, 1], the product of the parts
    parts       float32 [T] each, by their names in `confidence.PARTS`

    A step that no frame follows by a gap, at a hole or at the end, repeats the z before it with confidence and parts 0.
    """

    latent: np.ndarray
    confidence: np.ndarray
    parts: dict[str, np.ndarray]


def label_clip(model: MotionModel, episode: Episode, camera: str | None = None) -> ClipLabels:
    """Labels of every step of an episode. Raises ComoError where it is shorter than the gap, or cannot be decoded."""
    encoder = ClipEncoder(model, episode)
    for chunk in squares(episode, model.config.image_size, camera):
        encoder.add(chunk)
    return encoder.finish()


def squares(episode: Episode, size: int, camera: str | None = None) -> Iterator[np.ndarray]:
    """The frames of a camera as squares, in order: uint8 [C, size, size, 3] with C up to CHUNK.

    The first camera where None. Raises ComoError where frames cannot be decoded.
    """
    batch: list[np.ndarray] = []
    for frame in iter(camera_frames(episode, camera)):  # type: ignore[call-overload]
        batch.append(square(frame, size))
        if len(batch) == CHUNK:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


class ClipEncoder:
    """Takes the frames of one clip as they come, and gives its labels.

    Memory holds a chunk of frames and as many more as the longest pair spans, so that a clip may be of any length.
    Raises ComoError where the clip is shorter than the gap.
    """

    def __init__(self, model: MotionModel, episode: Episode) -> None:
        times, gap_s = episode.timestamps, model.config.gap_s
        second = partner(times, gap_s)
        self._steps = np.flatnonzero(second >= 0)
        if not len(self._steps):
            raise ComoError(f"{episode.source}: {len(episode)} frames in {episode.duration_s:.3g} s, "
                            f"no two of them {gap_s:g} s apart")
        self._model, self._episode = model, episode
        self._first, self._second = self._steps, second[self._steps]
        self._middle = nearest(times, (times[self._first] + times[self._second]) / 2)
        self._composed = _composed(self._first, self._middle, self._second)
        self._buffer = _Buffer()
        self._done = 0  # pairs
        self._latent: list[np.ndarray] = []
        self._rebuilt: list[np.ndarray] = []
        self._miss: list[np.ndarray] = []
        self._change: list[np.ndarray] = []

    @torch.inference_mode()
    def add(self, squares: np.ndarray) -> None:
        """Encode the next frames, uint8 [C, size, size, 3], and every pair that they complete."""
        pixels = self._model.pixels(squares)
        self._change.append(self._buffer.add(pixels, self._model.features(pixels)))
        end = int(np.searchsorted(self._second, self._buffer.stop))
        if end > self._done:
            self._encode(slice(self._done, end))
        self._done = end
        self._buffer.keep_from(int(self._first[end]) if end < len(self._first) else self._buffer.stop)

    def finish(self) -> ClipLabels:
        """The labels, after the last frame."""
        times, gap_s = self._episode.timestamps, self._model.config.gap_s
        if self._buffer.stop != len(times):
            raise ComoError(f"{self._episode.source}: gives {self._buffer.stop} frames, expected {len(times)}")
        latent, change = np.concatenate(self._latent), np.concatenate(self._change)
        parts = {
            "rebuilt": np.concatenate(self._rebuilt),
            "overlap": confidence.overlap(latent, times[self._steps], gap_s),
            "composition": self._composition(latent),
            "continuity": confidence.continuity(change, self._first, self._second),
        }
        # A step without a partner takes the z of the step with one before it.
        source = np.maximum(np.searchsorted(self._steps, np.arange(len(times)), side="right") - 1, 0)
        return ClipLabels(latent[source], self._per_frame(confidence.combined(parts)),
                          {name: self._per_frame(part) for name, part in parts.items()})

    def _per_frame(self, values: np.ndarray) -> np.ndarray:
        spread = np.zeros(len(self._episode), np.float32)
        spread[self._steps] = values
        return spread

    def _composition(self, latent: np.ndarray) -> np.ndarray:
        index = np.arange(len(latent))
        if not self._composed.any():
            return np.ones(len(latent))
        length = np.linalg.norm(latent[self._composed], axis=1)
        return np.interp(index, index[self._composed], confidence.composition(np.concatenate(self._miss), length))

    def _encode(self, part: slice) -> None:
        """z and rebuilt share of some pairs, and how far z misses composition; halves that pairs share count once."""
        first, second, composed = self._first[part], self._second[part], self._composed[part]
        halves = self._middle[part][composed]
        wanted = np.concatenate([np.stack([first, second], 1), np.stack([first[composed], halves], 1),
                                 np.stack([halves, second[composed]], 1)])
        unique, inverse = np.unique(wanted, axis=0, return_inverse=True)
        start, pixels, features = self._buffer.start, self._buffer.pixels, self._buffer.features
        a, b = (torch.from_numpy(side - start).to(features.device) for side in unique.T)
        every = self._model.latent(features[a], features[b])
        place = torch.from_numpy(inverse.reshape(-1)).to(features.device)
        whole, before, after = every[place].split([len(first), len(halves), len(halves)])
        here, there = a.new_tensor(first - start), a.new_tensor(second - start)
        rebuilt = self._model.explained(pixels[here], pixels[there], (features[here], features[there]), whole)
        miss = (before + after - whole[a.new_tensor(np.flatnonzero(composed))]).norm(dim=1)
        for found, values in ((self._latent, whole), (self._rebuilt, rebuilt), (self._miss, miss)):
            found.append(values.cpu().numpy())


def _composed(first: np.ndarray, middle: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which pairs are compared with their halves, bool [P]: those that follow one another, a gap apart.

    Each comparison costs two more z, so that comparing all would triple the work of a light backbone. Pairs without a
    frame between have no halves.
    """
    between = (first < middle) & (middle < second)
    step = max(1, int(np.median((second - first)[between]))) if between.any() else 1
    return between & (first % step == 0)


class _Buffer:
    """Pixels and features of the frames `start` .. `stop` of a clip."""

    def __init__(self) -> None:
        self.start = self.stop = 0
        self.pixels = self.features = torch.zeros(0)
        self._last: torch.Tensor | None = None

    def add(self, pixels: torch.Tensor, features: torch.Tensor) -> np.ndarray:
        """Append frames; returns the root mean square difference of each frame to the one before it, if there is one.
        """
        joined = pixels if self._last is None else torch.cat([self._last, pixels])
        self._last = pixels[-1:]
        self.pixels = pixels if self.start == self.stop else torch.cat([self.pixels, pixels])
        self.features = features if self.start == self.stop else torch.cat([self.features, features])
        self.stop += len(pixels)
        return (joined[1:] - joined[:-1]).square().flatten(1).mean(dim=1).sqrt().cpu().numpy()

    def keep_from(self, frame: int) -> None:
        """Forget the frames before `frame`."""
        gone = frame - self.start
        self.pixels, self.features, self.start = self.pixels[gone:], self.features[gone:], frame
