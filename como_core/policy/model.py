"""The networks of both families behind one face: a loss from a batch, and chunks from an observation.

    model = make_model(config, Sizes(...))
    model(batch)["loss"];  model.sample(observation)

A batch: "observation" (what the encoder takes), "action" [B, K, A] with "action_weight" [B, K] (0: unknown), and where
the co-training mode learns from latents "latent" [B, K, D] with "latent_weight" [B, K]. All are of unit scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from como_core.policy.autoregressive import AutoregressiveHead
from como_core.policy.config import PolicyConfig
from como_core.policy.diffusion_head import DiffusionHead
from como_core.policy.observation import ObservationEncoder


@dataclass(frozen=True)
class Sizes:
    """What a robot and its data make of a network: pictures per observation, and lengths of what goes in and out.

    latent  D where the co-training mode predicts latents, else 0
    """

    pictures: int
    text: int
    state: int
    action: int
    latent: int = 0


class PolicyModel(nn.Module):
    """Observation encoder and the head of a family."""

    def __init__(self, config: PolicyConfig, sizes: Sizes) -> None:
        super().__init__()
        self.encoder = ObservationEncoder(config.observation, sizes.pictures, sizes.text, sizes.state)
        head = AutoregressiveHead if config.family == "autoregressive" else DiffusionHead
        self.head = head(config, sizes.action, sizes.latent)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Loss terms; the one under "loss" is to be minimised."""
        return self.head.loss(self.encoder(**batch["observation"]), batch)

    @torch.inference_mode()
    def sample(self, observation: dict[str, Tensor], prefix: Tensor | None = None) -> Tensor:
        """Chunks [B, K, A] of unit scale; the first P steps are those of `prefix` [B, P, A]."""
        return self.head.sample(self.encoder(**observation), prefix)

