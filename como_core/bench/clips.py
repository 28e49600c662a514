"""Clips and models to measure with: made here, so that a benchmark needs no data and no download."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import torch

from como_core.formats.video import write_video
from como_core.motion.config import BackboneConfig, MotionConfig, load_preset
from como_core.motion.model import MotionModel
from como_core.training.checkpoint import save_checkpoint

RATE_HZ = 40.0


def moving_pictures(seed: int, frames: int, height: int, width: int) -> np.ndarray:
    """Textured squares that move over a textured background: uint8 [frames, height, width, 3]."""
    rng = np.random.default_rng(seed)
    out = np.repeat(_texture(rng, height, width)[None], frames, axis=0)
    side = min(height, width) // 4
    for _ in range(3):
        patch = _texture(rng, side, side)
        place, speed = rng.uniform(0, [height - side, width - side]), rng.uniform(-3, 3, 2)
        for t in range(frames):
            y, x = np.abs((place + t * speed) % (2 * np.array([height - side, width - side])) -
                          [height - side, width - side]).astype(int)
            out[t, y:y + side, x:x + side] = patch
    return out


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def write_clips(folder: Path, count: int, frames: int, height: int, width: int, rate_hz: float = RATE_HZ
                ) -> list[Path]:
    """H.264 files with a key frame every ten frames."""
    paths = [folder / f"{i}.mp4" for i in range(count)]
    for i, path in enumerate(paths):
        write_video(path, moving_pictures(i, frames, height, width), rate_hz)
    return paths


def many_clips(folder: Path, count: int, frames: int = 8, size: int = 32) -> None:
    """`count` names of one tiny file, 100 to a folder: to a reader they are so many clips."""
    original = write_clips(folder.with_name(f"{folder.name}_original"), 1, frames, size, size)[0]
    for i in range(count):
        place = folder / f"{i // 100:04d}"
        place.mkdir(parents=True, exist_ok=True)
        os.link(original, place / f"{i % 100:02d}.mp4")


def tiny_config() -> MotionConfig:
    """The least motion model, for what is not about the model."""
    config = load_preset("como-plus")
    return dataclasses.replace(
        config, image_size=32, latent_size=8, inverse=dataclasses.replace(config.inverse, width=16, hidden=16),
        forward=dataclasses.replace(config.forward, width=8, coarse_width=8),
        backbone=dataclasses.replace(config.backbone, width=8))


def vit_config(folder: Path, layers: int, width: int = 1024) -> MotionConfig:
    """A motion model on a frozen vision transformer with random weights, which are written to `folder`.

    With 24 layers it is the paper's ViT-L/16, on pictures as small as those of the small presets.
    """
    from transformers import ViTConfig, ViTModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    config = load_preset("como-plus")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ViTModel(ViTConfig(hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64,
                                     intermediate_size=4 * width, image_size=config.image_size, patch_size=16))
    network.save_pretrained(folder)
    return dataclasses.replace(config, backbone=BackboneConfig(kind="pretrained", model=str(folder)))


def untrained(config: MotionConfig, run: Path) -> Path:
    """The checkpoint of a motion model that learned nothing: as fast as any."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MotionModel(config)
    return save_checkpoint(run, model.config, model.state_dict())
