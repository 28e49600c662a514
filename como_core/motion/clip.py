"""z of the pairs of one clip: each frame is decoded, and goes through the backbone, once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from como_core.episode import Frames
from como_core.formats.cache import square
from como_core.motion.model import MotionModel

_CHUNK = 128


def encode_pairs(model: MotionModel, frames: Frames, pairs: Sequence[tuple[np.ndarray, np.ndarray]]
                 ) -> list[np.ndarray]:
    """z of several sets of frame pairs of one clip: float32 [P, D] for each set.

    pairs  sets of (first, second), frame indices [P], both not decreasing

    Memory holds a chunk of frames and as many more as the longest pair spans, so that a clip may be of any length.
    """
    found: list[list[np.ndarray]] = [[] for _ in pairs]
    done = [0] * len(pairs)
    base, features = 0, torch.zeros(0)
    for chunk in _features(model, frames):
        features = torch.cat([features, chunk]) if len(features) else chunk
        known = base + len(features)
        for i, (first, second) in enumerate(pairs):
            end = int(np.searchsorted(np.maximum(first, second), known))
            a, b = (torch.from_numpy(side[done[i]:end] - base).to(features.device) for side in (first, second))
            with torch.no_grad():
                found[i].append(model.latent(features[a], features[b]).cpu().numpy())
            done[i] = end
        waiting = [int(first[n]) for (first, _), n in zip(pairs, done, strict=True) if n < len(first)]
        keep = min(waiting, default=known)
        features, base = features[keep - base:], keep
    return [np.concatenate(parts) if parts else np.zeros((0, model.config.latent_size), np.float32) for parts in found]


@torch.no_grad()
def _features(model: MotionModel, frames: Frames) -> Iterator[torch.Tensor]:
    for start in range(0, len(frames), _CHUNK):
        stop = min(start + _CHUNK, len(frames))
        pictures = np.stack([square(frame, model.config.image_size) for frame in frames[start:stop]])
        yield model.features(model.pixels(pictures))
