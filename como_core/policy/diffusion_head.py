"""The diffusion family: a denoiser over the chunk, conditioned by the observation's context."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from como_core.policy.config import PolicyConfig
from como_core.policy.denoiser import Denoiser
from como_core.policy.diffusion import make_sampler
from como_core.policy.losses import shared_error
from como_core.training.ranks import processes


class DiffusionHead(nn.Module):
    """Noise in, chunks out, and what co-training asks of the same network.

    none, decoded  chunks of actions
    heads          chunks of actions and, apart from them, chunks of latents, through one trunk with light layers of
                   their own or (split: encoder) through a denoiser each, with the observation encoder in common
    joint          chunks of actions and latents side by side; where no action is known the network is told so
    """

    def __init__(self, config: PolicyConfig, action_size: int, latent_size: int) -> None:
        super().__init__()
        self._shape = (config.chunk_steps, action_size)
        self._draws, self._mode = config.diffusion.noise_draws, config.cotraining.mode
        self._latent_weight = config.cotraining.weight_of_latents
        self._sampler = make_sampler(config.diffusion.sampler, config.diffusion.steps)
        self._apart = self._mode == "heads" and config.cotraining.split == "encoder"
        width, streams = config.observation.width, {"action": action_size}
        self.unknown: nn.Parameter | None = None
        if self._mode == "heads" and not self._apart:
            streams["latent"] = latent_size
        elif self._mode == "joint":
            streams["action"] = action_size + latent_size
            self.unknown = nn.Parameter(torch.zeros(action_size))
        self._width = streams["action"]
        self.denoiser = Denoiser(config.network, config.chunk_steps, streams, width)
        self.other = (Denoiser(config.network, config.chunk_steps, {"latent": latent_size}, width)
                      if self._apart else None)

    def loss(self, context: Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Squared error of the prediction over the steps that are known: "loss", and its parts where there are two."""
        if self._mode == "joint":
            return self._joint_loss(context, batch)
        known = (batch["action_weight"] > 0).any(1)
        action = self._error(self.denoiser, "action", context[known], batch["action"][known],
                             batch["action_weight"][known])
        if self._mode != "heads":
            return {"loss": action}
        latent = self._error(self.other or self.denoiser, "latent", context, batch["latent"], batch["latent_weight"])
        return {"loss": action + self._latent_weight * latent, "action": action, "latent": latent}

    def sample(self, context: Tensor, prefix: Tensor | None) -> Tensor:
        """Chunks [B, K, A] from a start of zeros, the middle of the noise.

        So the same observation gives the same chunk, in any process. A fixed draw would be as repeatable, but it picks
        the same corner of the demonstrators' noise at every replan, and that bias adds up.
        """
        steps, size = self._shape
        start = torch.zeros(len(context), steps, self._width, device=context.device)
        chunk = self._sampler.sample(lambda noisy, time: self.denoiser(noisy, time, context).float(), start, prefix)
        return chunk[..., :size]

    def _error(self, denoiser: Denoiser, stream: str, context: Tensor, chunk: Tensor, weight: Tensor) -> Tensor:
        if not len(chunk):
            # Others may have some, and DDP waits for a gradient of every parameter; alone, what nothing trains stays.
            used = (context, *denoiser.parameters()) if processes() > 1 else (context,)
            return shared_error(chunk, chunk, weight) + sum(part.sum() for part in used) * 0.0
        context, chunk, weight = (x.repeat_interleave(self._draws, 0) for x in (context, chunk, weight))
        example = self._sampler.noised(chunk, torch.randn_like(chunk), self._times(len(chunk), chunk.device))
        return shared_error(denoiser(example.noisy, example.time, context, stream), example.target, weight)

    def _joint_loss(self, context: Tensor, batch: dict[str, Any]) -> dict[str, Tensor]:
        assert self.unknown is not None
        size = self._shape[1]
        context, action, latent, of_action, of_latent = (
            x.repeat_interleave(self._draws, 0)
            for x in (context, batch["action"], batch["latent"], batch["action_weight"], batch["latent_weight"]))
        chunk = torch.cat((action, latent), -1)
        example = self._sampler.noised(chunk, torch.randn_like(chunk), self._times(len(chunk), chunk.device))
        seen = torch.where((of_action > 0)[..., None], example.noisy[..., :size], self.unknown)
        predicted = self.denoiser(torch.cat((seen, example.noisy[..., size:]), -1), example.time, context)
        terms = {"action": shared_error(predicted[..., :size], example.target[..., :size], of_action),
                 "latent": shared_error(predicted[..., size:], example.target[..., size:], of_latent)}
        return {"loss": terms["action"] + self._latent_weight * terms["latent"], **terms}

    def _times(self, count: int, device: torch.device) -> Tensor:
        """Each chunk is noised once in every part of [0, 1): the same expectation, less noise in the gradient."""
        parts = torch.arange(count, device=device) % self._draws
        return (parts + torch.rand(count, device=device)) / self._draws
