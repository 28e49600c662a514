"""How measurements look at frames: what a MotionModel sees of them, makes of two, and predicts of one and a z.

    eye = Eye(model)
    a, b = eye.look(frames_a), eye.look(frames_b)
    eye.error(eye.predict(a, eye.motion(a, b)), b)

A model that makes pictures is judged by its pictures, one that predicts features only, in features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from como_core.motion.model import MotionModel
from como_core.motion.pairs import Pairs

# Predictions of more pairs than these change no digit that is printed.
MAX_PREDICTED = 1500

# Pairs at a time: what suits the caches of a CPU, and what keeps a GPU busy.
_CHUNK_CPU, _CHUNK_GPU = 32, 256


@dataclass(frozen=True)
class View:
    """Frames as a model takes them: pixels float32 [B, 3, H, W] in [-1, 1] and the features of them [B, C, h, w]."""

    pixels: torch.Tensor
    features: torch.Tensor

    def __getitem__(self, index: np.ndarray | slice) -> View:
        return View(self.pixels[index], self.features[index])


class Eye:
    """Looks at frames through a model. Nothing here keeps gradients."""

    def __init__(self, model: MotionModel) -> None:
        self.model = model
        self.predicts = "pixels" if model.forward_dynamics.to_pixels is not None else "features"
        self.chunk = _CHUNK_GPU if model.device.type == "cuda" else _CHUNK_CPU
        self._width = model.backbone.width

    @torch.no_grad()
    def look(self, frames: np.ndarray) -> View:
        """What the model sees of uint8 frames [B, H, W, 3]."""
        pixels = self.model.pixels(frames)
        return View(pixels, self.model.features(pixels))

    @torch.no_grad()
    def motion(self, first: View, second: View) -> torch.Tensor:
        """z [B, D] of the frames at t and t + n."""
        return torch.cat([self.model.latent(a.features, b.features) for a, b in zip(self._chunks(first),
                          self._chunks(second), strict=True)])

    @torch.no_grad()
    def predict(self, first: View, latent: torch.Tensor) -> torch.Tensor:
        """What forward dynamics makes of frame t and z: pixels [B, 3, H, W], or features [B, C, h, w]."""
        made = [self.model.forward_dynamics(view.pixels, z, view.features[:, :self._width])[self.predicts]
                for view, z in zip(self._chunks(first), latent.split(self.chunk), strict=True)]
        return torch.cat(made).clamp(-1, 1) if self.predicts == "pixels" else torch.cat(made)

    def _chunks(self, view: View) -> list[View]:
        return [view[i:i + self.chunk] for i in range(0, len(view.features), self.chunk)]

    def truth(self, view: View) -> torch.Tensor:
        """What `predict` aims at where the frame is known."""
        return view.pixels if self.predicts == "pixels" else view.features[:, :self._width]

    def error(self, predicted: torch.Tensor, view: View) -> np.ndarray:
        """Mean squared error of each prediction, float64 [B]."""
        return (predicted - self.truth(view)).square().flatten(1).mean(dim=1).double().cpu().numpy()

    @torch.no_grad()
    def look_again(self, predicted: torch.Tensor) -> View | None:
        """What the model sees of frames that it predicted; None where features do not tell it all that it needs."""
        if self.predicts == "pixels":
            return View(predicted, self.model.features(predicted))
        return None if self.model.rgb is not None else View(torch.zeros(len(predicted)), predicted)


@dataclass(frozen=True)
class Encoded:
    """What a model says of all pairs.

    latent   float32 [P, D]
    error    float64 [P], mean squared error of the frame predicted from frame t and z; NaN where nothing was predicted
    copying  float64 [P], that of taking frame t for it
    """

    latent: np.ndarray
    error: np.ndarray
    copying: np.ndarray


def encode_all(eye: Eye, frames: np.ndarray, pairs: Pairs) -> Encoded:
    """Encode all pairs of uint8 frames [N, H, W, 3], and predict MAX_PREDICTED of them, evenly spread.

    Neighbouring pairs share frames, and each goes through the backbone about once.
    """
    latent, copying, error = [], [], np.full(len(pairs), np.nan)
    predicted = spread(np.arange(len(pairs)), MAX_PREDICTED)
    block = max(eye.chunk, 256)
    for start in range(0, len(pairs), block):
        part = slice(start, start + block)
        first, second = look_at_pairs(eye, frames, pairs.first[part], pairs.second[part])
        z = eye.motion(first, second)
        latent.append(z.cpu().numpy())
        copying.append(eye.error(eye.truth(first), second))
        chosen = predicted[(predicted >= start) & (predicted < start + block)]
        mine = chosen - start
        error[chosen] = eye.error(eye.predict(first[mine], z[mine]), second[mine])
    return Encoded(np.concatenate(latent), error, np.concatenate(copying))


def spread(index: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` of index [P], evenly spread."""
    return index if len(index) <= limit else index[np.linspace(0, len(index) - 1, limit).round().astype(int)]


def encode_pairs_of(eye: Eye, frames: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """z float32 [P, D] of any pairs of frames, in any order."""
    parts = [eye.motion(*look_at_pairs(eye, frames, first[i:i + eye.chunk], second[i:i + eye.chunk])).cpu().numpy()
             for i in range(0, len(first), eye.chunk)]
    return np.concatenate(parts)


def look_at_pairs(eye: Eye, frames: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[View, View]:
    """Views of both sides of pairs; a frame that occurs more than once is looked at once."""
    every, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    view = eye.look(frames[every])
    return view[place[:len(first)]], view[place[len(first):]]
