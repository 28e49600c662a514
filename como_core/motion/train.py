"""Train a MotionModel on episodes; only their pictures and timestamps are read, and actions where loss.action asks.

    train(open_sources(["videos/"]).episodes, load_preset("como"), "runs/motion")

Under torchrun every process calls it; the first one decodes, chooses, prints and writes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from como_core import __version__
from como_core.episode import Episode
from como_core.motion.backbone import PretrainedBackbone
from como_core.motion.config import MotionConfig
from como_core.motion.feature_cache import cached_features
from como_core.motion.losses import motion_loss, prediction_loss
from como_core.motion.mixture import Mixture
from como_core.motion.model import MotionModel, to_pixels
from como_core.motion.train_data import TrainingData, open_training_data
from como_core.training.checkpoint import save_checkpoint
from como_core.training.history import History
from como_core.training.loop import TrainingError, fit
from como_core.training.progress import duration
from como_core.training.ranks import Device, first_goes_first, join, processes, quiet_unless_first, rank, wait_for_all
from como_core.training.state import require_own
from como_core.training.timing import StepTimes, time_steps

REPORT = "run.json"


def train(episodes: Sequence[Episode], config: MotionConfig, out: str | Path, camera: str | None = None,
          cache: str | Path | None = None, mixture: Mixture | None = None, cache_limit_gb: float | None = None,
          device: Device = "auto") -> tuple[MotionModel, History]:
    """Train on the frame pairs of `episodes`, write the checkpoint into `out` and return the model, in eval mode.

    camera          the camera of episodes that have several; None: the first
    cache           where decoded frames and features are kept, for this and later runs; None: out/cache
    mixture         where the episodes came from, and how often each place is drawn from; None: all alike
    cache_limit_gb  of the caches there; None: frames as the disk allows, features DEFAULT_LIMIT_GB

    out/run.json holds what it was trained on, the parameters by part and the loss curve.

    An interrupted run goes on where it was saved. Raises ComoError where no pair of frames is left to train on,
    TrainingError and CheckpointError as `fit` does, CheckpointError too where `out` holds a checkpoint without the
    state of its training, BackboneError where a pretrained model cannot be had.
    """
    out = Path(out)
    place = join(device)
    require_own(out, (REPORT,))
    _refuse_to_share(config, processes())
    mixture = mixture or Mixture.of_one("all", len(episodes))
    with first_goes_first():
        data = open_training_data(episodes, mixture, config, camera, Path(cache or out / "cache"), cache_limit_gb)
        print(data.summary())
    if data.labels is not None:
        config = dataclasses.replace(config, actions=data.labels.shape[1])
    model, loss = _build(config)
    with quiet_unless_first():
        print(f"parameters: {_counts(model)}")
        with first_goes_first():
            features = _features(model, data, config, place, cache_limit_gb)
        history = fit(model, data.sampler(config, features), loss, config.loop, out, "motion",
                      identity=_identity(data, config), device=device, unit="pairs")
    if rank() == 0:
        save_checkpoint(out, model.config, model.state_dict(), card=_card(model, data, history))
        (out / REPORT).write_text(json.dumps(_report(model, data, history), indent=1), encoding="utf-8")
    wait_for_all()
    return model, history


def time_motion_steps(data: TrainingData, config: MotionConfig, steps: int = 30, warmup: int = 5,
                      device: Device = "auto", features: np.ndarray | None = None) -> StepTimes:
    """How long training steps of a fresh model take on `data`."""
    model, loss = _build(config)
    return time_steps(model, data.sampler(config, features), loss, config.loop, steps, warmup, join(device))


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
        known = {name: grid.float() for name, grid in batch.get("known", {}).items()}
        out = model(**pixels, known=known)
        terms = motion_loss(out, pixels["first"], pixels["second"], self._config, batch.get("action"))
        if self._eye is not None:
            self._eye.to(out["pixels"].device)
            with torch.no_grad():
                seen = self._eye(pixels["second"])
            terms["perceptual"] = prediction_loss(self._eye(out["pixels"]), seen, None)
            terms["loss"] = terms["loss"] + self._config.perceptual * terms["perceptual"]
        return terms


def _build(config: MotionConfig) -> tuple[MotionModel, MotionLoss]:
    with torch.random.fork_rng():
        torch.manual_seed(config.loop.seed)
        return MotionModel(config), MotionLoss(config)


def _refuse_to_share(config: MotionConfig, count: int) -> None:
    """TrainingError, before the long work, where so many processes cannot share a batch."""
    shared = {"loop.batch_size": config.loop.batch_size}
    if config.loss.contrast:
        shared["loss.contrast_pairs"] = config.loss.contrast_pairs
    for name, value in shared.items():
        if value % count:
            raise TrainingError(f"{name} must be a multiple of the {count} processes, which share a batch equally; "
                                f"got {value}, give --set {name}={max(value // count, 1) * count}")


def _features(model: MotionModel, data: TrainingData, config: MotionConfig, device: torch.device,
              limit_gb: float | None) -> np.ndarray | None:
    """The features of a frozen pretrained backbone, where they fit; any other is trained or as fast as reading."""
    if not isinstance(model.backbone, PretrainedBackbone):
        return None
    return cached_features(model.backbone, data.cache, config, device, limit_gb)


def _identity(data: TrainingData, config: MotionConfig) -> dict[str, Any]:
    """What a run must have in common with the one that it goes on with."""
    return {"motion": config, "clips": len(data.sources), "frames": len(data.cache.timestamps),
            "pairs": len(data.pairs), "weights": data.mixture.weights, "contents": data.digest()}


def _counts(model: MotionModel) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in model.parameter_counts().items())


def _report(model: MotionModel, data: TrainingData, history: History) -> dict[str, Any]:
    pairs = history.steps[-1] * model.config.loop.batch_size
    return {"como": __version__, "torch": torch.__version__, "parameters": model.parameter_counts(),
            "data": data.to_dict(), "steps": history.steps, "losses": history.terms, "seconds": history.seconds,
            "waited_for_data_s": history.waited_s, "pairs_per_s": pairs / max(history.seconds, 1e-9)}


def _card(model: MotionModel, data: TrainingData, history: History) -> str:
    config, counts = model.config, data.selection
    losses = ", ".join(f"{name} {values[-1]:.4g}" for name, values in history.terms.items())
    places = "".join(f"  - {place['path']}: {place['clips']:,} clips, {place['pairs']:,} pairs, "
                     f"{100 * place['share']:.1f} % of batches"
                     + ("" if place["weight"] is None else f" (weight {place['weight']:g})") + "\n"
                     for place in data.places())
    return (f"# Latent-motion model\n\n"
            f"- z of {config.latent_size} numbers, gap {config.gap_s:g} s, frames of {config.image_size} px\n"
            f"- parameters: {_counts(model)}\n"
            f"- trained on {len(data.pairs):,} pairs of {len(data.sources)} clips, "
            f"{config.loop.steps} steps of {config.loop.batch_size}, seed {config.loop.seed}, "
            f"in {duration(history.seconds)}\n{places}"
            f"- left out of {counts.found:,} pairs: {counts.reasons()}\n"
            f"- last losses on training pairs: {losses}\n"
            f"- como {__version__}, torch {torch.__version__}\n")
