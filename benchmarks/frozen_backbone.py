"""A frozen vision model for the motion table, since none can be downloaded everywhere: a small MAE of our own.

    folder = frozen_backbone(episodes, Path("work/mae"))      # for backbone.kind: pretrained, backbone.model: folder

He et al., arXiv 2111.06377: three quarters of a picture's patches are hidden and rebuilt from the rest. It sees single
frames of the training clips, never a pair, so that what it knows of motion is nothing. Its features are no linear map
of the pixels, and the difference of two frames' features is not the feature of their difference.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from como_core.episode import Episode
from como_core.motion.model import to_pixels
from como_core.training.loop import LoopConfig, fit

_PATCH = 8
_LOOP = LoopConfig(steps=2000, batch_size=64, learning_rate=1e-3, weight_decay=0.05, betas=(0.9, 0.95),
                   warmup_steps=100, precision="auto")


def frozen_backbone(episodes: Sequence[Episode], folder: Path) -> Path:
    """The folder of a MAE trained on the frames of `episodes`, as `transformers` loads it; made where it is not yet."""
    if (folder / "config.json").is_file():
        return folder
    frames = np.concatenate([pictures[:] for episode in episodes for pictures in episode.images.values()])
    torch.manual_seed(0)
    model = ViTMAEForPreTraining(ViTMAEConfig(
        image_size=frames.shape[1], patch_size=_PATCH, hidden_size=192, num_hidden_layers=6, num_attention_heads=3,
        intermediate_size=768, decoder_hidden_size=128, decoder_num_hidden_layers=2, decoder_num_attention_heads=4,
        decoder_intermediate_size=512, mask_ratio=0.75, norm_pix_loss=True))

    def sample(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        return {"frames": torch.from_numpy(frames[np.sort(rng.integers(0, len(frames), _LOOP.batch_size))])}

    def loss(network: nn.Module, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"loss": network(pixel_values=to_pixels(batch["frames"])).loss}

    fit(model, sample, loss, _LOOP, folder.with_name(f"{folder.name}-run"), "MAE")
    model.vit.save_pretrained(folder)
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}  # it was shown pixels in [-1, 1]
    (folder / "preprocessor_config.json").write_text(json.dumps(half), encoding="utf-8")
    return folder
