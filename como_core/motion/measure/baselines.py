"""What z is compared with: features that need no learning, of as many numbers as z, and the true motion.

    Baselines(model, recordings, rows).features("PCA of the RGB difference")  # [len(rows), d_z]

The principal components are those of all pairs, held-out ones too: they see no action, and it makes the baselines
stronger, not weaker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch.nn import functional

from como_core.motion.measure.probe_store import backbone_identity
from como_core.motion.measure.recordings import Recordings
from como_core.motion.model import MotionModel
from como_core.motion.pairs import Pairs

MEAN = "mean of the actions"
RGB_DIFFERENCE = "PCA of the RGB difference"
RGB_PAIR = "PCA of the RGB pair"
FEATURE_DIFFERENCE = "PCA of the feature difference"
FEATURE_PAIR = "PCA of the feature pair"
TRUE_MOTION = "true motion"

BASELINES = (MEAN, RGB_DIFFERENCE, RGB_PAIR, FEATURE_DIFFERENCE, FEATURE_PAIR, TRUE_MOTION)

_FITTED = 1500  # pairs that components are taken from
_SIDE = 64  # pixels; larger pictures are shrunk before their components are taken
_NUMBERS = 16_384  # of a feature grid; larger ones are averaged over cells
_CHUNK = 256

# Those that depend on the backbone of the model.
_OF_BACKBONE = (FEATURE_DIFFERENCE, FEATURE_PAIR)

Describe = Callable[[np.ndarray], torch.Tensor]
"""From indices of frames [N] to a description of each, float32 [N, F]."""


class Baselines:
    """Features of `rows` [Q] of the pairs of recordings, by name; computed when asked for, what goes together once."""

    def __init__(self, model: MotionModel, recordings: Recordings, rows: np.ndarray) -> None:
        pairs = recordings.pairs
        self._model, self._frames = model, recordings.cache.frames
        self._pairs = replace(pairs, first=pairs.first[rows], second=pairs.second[rows], episode=pairs.episode[rows])
        moved = recordings.displacement
        self._moved = moved[rows] if moved is not None and np.isfinite(moved[rows]).all() else None
        self._known: dict[bool, tuple[np.ndarray, np.ndarray]] = {}

    def there(self, name: str) -> bool:
        """Whether the recordings have what `name` is made of: the true motion needs a measured state."""
        return name != TRUE_MOTION or self._moved is not None

    def identity(self, name: str) -> str:
        """What, besides the recordings, fixes the features."""
        return f"{self._model.config.latent_size} {backbone_identity(self._model) if name in _OF_BACKBONE else ''}"

    def features(self, name: str) -> np.ndarray:
        """Features [Q, F] of baseline `name`; F is d_z for the PCAs. Raises KeyError for a name not in BASELINES."""
        if name == MEAN:
            return np.ones((len(self._pairs), 1))
        if name == TRUE_MOTION and self._moved is not None:
            return self._moved
        of_backbone = name in _OF_BACKBONE
        if of_backbone not in self._known:
            describe = features_of(self._model, self._frames) if of_backbone else rgb_of(self._frames)
            self._known[of_backbone] = pair_components(describe, self._pairs, self._model.config.latent_size)
        return self._known[of_backbone][{RGB_DIFFERENCE: 0, FEATURE_DIFFERENCE: 0, RGB_PAIR: 1, FEATURE_PAIR: 1}[name]]


def rgb_of(frames: np.ndarray) -> Describe:
    """Colours in [0, 1] of frames uint8 [N, H, W, 3], at 64 pixels where they are larger."""
    def describe(index: np.ndarray) -> torch.Tensor:
        chosen = frames[index]
        if chosen.shape[1] > _SIDE:
            chosen = np.stack([cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for frame in chosen])
        return torch.from_numpy(np.ascontiguousarray(chosen)).float().flatten(1) / 255

    return describe


def features_of(model: MotionModel, frames: np.ndarray, cells: int | None = None) -> Describe:
    """Features of the model's backbone, averaged to `cells` x `cells`, or until they are at most 16,384 numbers."""
    width, grid = model.backbone.width, model.backbone.cells
    side = cells or grid
    while cells is None and side > 1 and side * side * width > _NUMBERS:
        side = (side + 1) // 2

    @torch.no_grad()
    def describe(index: np.ndarray) -> torch.Tensor:
        found = model.features(model.pixels(frames[index]))[:, :width]
        return functional.adaptive_avg_pool2d(found, min(side, grid)).flatten(1).float().cpu()

    return describe


def pair_components(describe: Describe, pairs: Pairs, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `size` principal components of the difference, and of both frames of a pair: float32 [P, size] each.

    There are fewer where there are fewer pairs or fewer numbers in a description.
    """
    sample = np.sort(np.random.default_rng(0).choice(len(pairs), min(len(pairs), _FITTED), replace=False))
    first, second = _described(describe, pairs.first[sample]), _described(describe, pairs.second[sample])
    difference = _components(second - first, size)
    both = _components(torch.cat([first, second], dim=1), size)
    split = first.shape[1]
    basis = torch.cat([difference, both[:split], both[split:]], dim=1)
    del first, second
    every, place = np.unique(np.concatenate([pairs.first, pairs.second]), return_inverse=True)
    seen = torch.cat([describe(chunk) @ basis for chunk in _chunks(every)]).numpy()  # linear: once per frame
    a, b = seen[place[:len(pairs)]], seen[place[len(pairs):]]
    one, two = difference.shape[1], difference.shape[1] + both.shape[1]
    return b[:, :one] - a[:, :one], a[:, one:two] + b[:, two:]


def frame_components(describe: Describe, index: np.ndarray, size: int) -> np.ndarray:
    """The first `size` principal components of single frames: float32 [N, size]."""
    every, place = np.unique(index, return_inverse=True)
    sample = np.sort(np.random.default_rng(0).choice(len(every), min(len(every), _FITTED), replace=False))
    basis = _components(_described(describe, every[sample]), size)
    return torch.cat([describe(chunk) @ basis for chunk in _chunks(every)]).numpy()[place]


def _components(values: torch.Tensor, size: int) -> torch.Tensor:
    """Directions [F, size] of the largest spread of values [N, F]."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        q = min(size + 10, *values.shape)
        _, _, basis = torch.pca_lowrank(values - values.mean(dim=0), q=q, center=False, niter=2)
    return basis[:, :size]


def _described(describe: Describe, index: np.ndarray) -> torch.Tensor:
    return torch.cat([describe(chunk) for chunk in _chunks(index)])


def _chunks(index: np.ndarray) -> Iterator[np.ndarray]:
    return (index[i:i + _CHUNK] for i in range(0, len(index), _CHUNK))
