"""Train a MotionModel on episodes; only their pictures and timestamps are read.

    train(open_sources(["videos/"]).episodes, load_preset("como"), "runs/motion")
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from como_core import __version__
from como_core.episode import Episode
from como_core.formats.cache import FrameCache
from como_core.motion.backbone import PretrainedBackbone
from como_core.motion.config import MotionConfig
from como_core.motion.losses import motion_loss, prediction_loss
from como_core.motion.model import MotionModel, to_pixels
from como_core.motion.pairs import Pairs
from como_core.training.checkpoint import save_checkpoint
from como_core.training.loop import History, fit
from como_core.training.progress import duration, track


def train(episodes: Sequence[Episode], config: MotionConfig, out: str | Path, camera: str | None = None,
          cache: str | Path | None = None, cache_limit_gb: float | None = None) -> tuple[MotionModel, History]:
    """Train on all frame pairs of `episodes`, write the checkpoint into `out` and return the model, in eval mode.

    camera          the camera of episodes that have several; None: the first
    cache           where decoded frames are kept, for this and later runs; None: out/cache
    cache_limit_gb  how large the caches there may grow, older ones making way; None: as the disk allows

    An episode without pictures, or that breaks while it is decoded, is named and left out. An interrupted run goes on
    where it was saved. Raises ComoError where no clip is longer than the gap,
    TrainingError and CheckpointError as `fit` does.
    """
    out = Path(out)
    frames = FrameCache.build(episodes, camera, config.image_size, Path(cache or out / "cache"),
                              functools.partial(track, title="decoding", unit="frames"), cache_limit_gb)
    episodes = [episodes[i] for i in frames.held]
    pairs = Pairs.build(frames.timestamps, frames.offsets, config.gap_s)
    with torch.random.fork_rng():
        torch.manual_seed(config.loop.seed)
        model = MotionModel(config)
    sampler = PairSampler(frames.frames, pairs, [episode.source for episode in episodes], config)
    history = fit(model, sampler, MotionLoss(config), config.loop, out, "motion",
                  identity={"motion": config, "clips": len(episodes), "frames": len(frames.timestamps)})
    save_checkpoint(out, model.config, model.state_dict(), card=_card(model, pairs, len(episodes), history))
    return model, history


@dataclasses.dataclass(frozen=True)
class PairSampler:
    """Draws batches of frame pairs, and of triples where L_tcl asks for them: uint8 [B, H, W, 3] each."""

    frames: np.ndarray
    pairs: Pairs
    sources: Sequence[str]
    config: MotionConfig

    def __call__(self, rng: np.random.Generator) -> dict[str, Any]:
        index = rng.integers(len(self.pairs), size=self.config.loop.batch_size)
        batch = {"first": self._take(self.pairs.first[index]), "second": self._take(self.pairs.second[index]),
                 "source": [self.sources[e] for e in self.pairs.episode[index]]}
        if self.config.loss.contrast:
            batch["third"] = self._take(self.pairs.third(index[:self.config.loss.contrast_pairs], rng))
        if self.config.loss.composition:
            batch["middle"] = self._take(self.pairs.middle(index))
        return batch

    def _take(self, index: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.frames[index])


class MotionLoss:
    """The loss of a batch: pixels, the model's forward pass, `motion_loss`, and the perceptual term.

    Raises BackboneError where the model of the perceptual term cannot be had.
    """

    def __init__(self, config: MotionConfig) -> None:
        self._config = config.loss
        loss = config.loss
        self._eye = PretrainedBackbone(loss.perceptual_model, config.image_size) if loss.perceptual else None

    def __call__(self, model: nn.Module, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        pixels = {name: to_pixels(batch[name]) for name in ("first", "second", "third", "middle") if name in batch}
        out = model(**pixels, known=batch.get("known"))
        terms = motion_loss(out, pixels["first"], pixels["second"], self._config)
        if self._eye is not None:
            self._eye.to(out["pixels"].device)
            with torch.no_grad():
                seen = self._eye(pixels["second"])
            terms["perceptual"] = prediction_loss(self._eye(out["pixels"]), seen, None)
            terms["loss"] = terms["loss"] + self._config.perceptual * terms["perceptual"]
        return terms


def _card(model: MotionModel, pairs: Pairs, clips: int, history: History) -> str:
    config = model.config
    losses = ", ".join(f"{name} {values[-1]:.4g}" for name, values in history.terms.items())
    counts = ", ".join(f"{name} {count:,}" for name, count in model.parameter_counts().items())
    return (f"# Latent-motion model\n\n"
            f"- z of {config.latent_size} numbers, gap {config.gap_s:g} s, frames of {config.image_size} px\n"
            f"- parameters: {counts}\n"
            f"- trained on {len(pairs):,} pairs of {clips} clips, "
            f"{config.loop.steps} steps of {config.loop.batch_size}, seed {config.loop.seed}, "
            f"in {duration(history.seconds)}\n"
            f"- last losses on training pairs: {losses}\n"
            f"- como {__version__}, torch {torch.__version__}\n")
