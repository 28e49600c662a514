"""z and confidence of every step of one clip: each frame is decoded, and goes through the backbone, once."""

from __future__ import annotations

import numpy as np
import torch

from como_core.episode import Episode, Frames
from como_core.errors import ComoError
from como_core.formats.cache import camera_frames, square
from como_core.motion.model import MotionModel
from como_core.motion.pairs import nearest, partner

_CHUNK = 128

# How far the two windows that overlap a step's own are shifted, as a part of the gap.
_SHIFT = 1 / 3


def label_clip(model: MotionModel, episode: Episode, camera: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """z float32 [T, D] and confidence float32 [T] in [0, 1] of every step of an episode.

    z[t] is the motion of the frames nearest to t and t + gap. Confidence is the share of the change that forward
    dynamics rebuilds from z, times `agreement` with the overlapping windows. The last steps, which no frame follows by
    a gap, repeat the last z with confidence 0. Raises ComoError where the episode is shorter than the gap.
    """
    times, gap_s = episode.timestamps, model.config.gap_s
    second = partner(times, gap_s)
    steps = np.flatnonzero(second >= 0)
    if not len(steps):
        raise ComoError(f"{episode.source}: {len(episode)} frames in {episode.duration_s:.3g} s, "
                        f"no two of them {gap_s:g} s apart")
    latent, rebuilt = encode_pairs(model, camera_frames(episode, camera), steps, second[steps])
    confidence = np.zeros(len(times), np.float32)
    confidence[steps] = rebuilt * agreement(latent, times[steps], gap_s)
    # A step without a partner, at a hole or at the end, takes the z of the step with one before it.
    source = np.maximum(np.searchsorted(steps, np.arange(len(times)), side="right") - 1, 0)
    return latent[source], confidence


def encode_pairs(model: MotionModel, frames: Frames, first: np.ndarray, second: np.ndarray
                 ) -> tuple[np.ndarray, np.ndarray]:
    """z float32 [P, D] of frame pairs of one clip, and the share [P] in [0, 1] of each change that is rebuilt from z.

    first, second  frame indices [P], not decreasing, first before second

    Memory holds a chunk of frames and as many more as the longest pair spans, so that a clip may be of any length.
    """
    latents, shares = [], []
    base, done, size = 0, 0, model.config.image_size
    pixels, features = torch.zeros(0), torch.zeros(0)
    for start in range(0, len(frames), _CHUNK):
        known = min(start + _CHUNK, len(frames))
        new = model.pixels(np.stack([square(frame, size) for frame in frames[start:known]]))
        with torch.no_grad():
            pixels, features = _joined(pixels, new), _joined(features, model.features(new))
            end = int(np.searchsorted(second, known))
            a, b = (torch.from_numpy(side[done:end] - base).to(new.device) for side in (first, second))
            z = model.latent(features[a], features[b])
            latents.append(z.cpu().numpy())
            shares.append(model.explained(pixels[a], pixels[b], (features[a], features[b]), z).cpu().numpy())
        keep = int(first[end]) if end < len(first) else known
        pixels, features, base, done = pixels[keep - base:], features[keep - base:], keep, end
    return np.concatenate(latents), np.concatenate(shares)


def agreement(latent: np.ndarray, times: np.ndarray, gap_s: float) -> np.ndarray:
    """How well z [P, D] of windows that start at `times` agrees with those of overlapping windows: [P] in [0, 1].

    1 - |z(t) - (z(t - s) + z(t + s)) / 2| / |z(t)|, with s a third of the gap or, at low frame rates, one frame. Motion
    that z tells apart changes little in that time; a z that jumps there and back was misread.
    """
    index = np.arange(len(times))
    before = np.maximum(np.minimum(nearest(times, times - _SHIFT * gap_s), index - 1), 0)
    after = np.minimum(np.maximum(nearest(times, times + _SHIFT * gap_s), index + 1), len(times) - 1)
    distance = np.linalg.norm(latent - (latent[before] + latent[after]) / 2, axis=1)
    return np.clip(1 - distance / np.maximum(np.linalg.norm(latent, axis=1), 1e-9), 0, 1)


def _joined(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    return torch.cat([old, new]) if len(old) else new
