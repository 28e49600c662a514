"""Draws what a training step sees of the frame cache: pairs, and the third and middle frames that losses ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from como_core.motion.config import MotionConfig
from como_core.motion.mixture import Draws
from como_core.motion.pairs import Pairs

_WHOLE = slice(None)


@dataclass(frozen=True)
class PairSampler:
    """Draws batches of frame pairs, and of triples where L_tcl asks for them: uint8 [B, H, W, 3] each.

    labels    float32 [P, A] of each pair, NaN where there are none: then a batch has "action"
    features  float16 [N, C, h, w], where those of a frozen backbone are cached: then a batch has "known", the features
              of each of its frames
    """

    frames: np.ndarray
    pairs: Pairs
    sources: Sequence[str]
    config: MotionConfig
    draws: Draws
    labels: np.ndarray | None = None
    features: np.ndarray | None = None

    def __call__(self, rng: np.random.Generator, part: slice = _WHOLE) -> dict[str, Any]:
        """The batch that `rng` gives or, for one of several processes, those items of it that `part` says."""
        loss = self.config.loss
        drawn = self.draws(self.config.loop.batch_size, rng)
        index = drawn[part]
        wanted = {"first": self.pairs.first[index], "second": self.pairs.second[index]}
        if loss.contrast:
            wanted["third"] = self.pairs.third(drawn[:loss.contrast_pairs], rng)[part]
        if loss.composition:
            wanted["middle"] = self.pairs.middle(index)
        batch: dict[str, Any] = {name: torch.from_numpy(self.frames[at]) for name, at in wanted.items()}
        if self.features is not None:
            batch["known"] = {name: torch.from_numpy(self.features[at]) for name, at in wanted.items()}
        if self.labels is not None:
            batch["action"] = torch.from_numpy(self.labels[index])
        return batch | {"source": [self.sources[e] for e in self.pairs.episode[index]]}
