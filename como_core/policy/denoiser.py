"""Denoiser: what a noisy chunk and the observation say of the noise in it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from como_core.policy.network import Mlp, NetworkConfig, Transformer

TIME_FEATURES = 64


class Denoiser(nn.Module):
    """noisy [B, K, A], time [B] in [0, 1] (1 is pure noise), context [B, C] -> prediction [B, K, A].

    streams  values per step of each kind of chunk that it knows. They share the trunk; each has layers of its own into
             it and out of it, the light heads of co-training
    """

    def __init__(self, config: NetworkConfig, steps: int, streams: dict[str, int], context_width: int) -> None:
        super().__init__()
        self.whole = config.kind == "mlp"
        per_token = {name: size * (steps if self.whole else 1) for name, size in streams.items()}
        self.time = nn.Sequential(nn.Linear(TIME_FEATURES, context_width), nn.SiLU(),
                                  nn.Linear(context_width, context_width))
        self.into = nn.ModuleDict({name: nn.Linear(size, config.width) for name, size in per_token.items()})
        self.trunk = (Mlp(config, context_width) if self.whole else Transformer(config, steps, context_width))
        self.out = nn.ModuleDict({name: nn.Linear(config.width, size) for name, size in per_token.items()})
        for layer in self.out.values():
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, noisy: Tensor, time: Tensor, context: Tensor, stream: str = "action") -> Tensor:
        condition = F.silu(context + self.time(_fourier(time)))
        tokens = self.into[stream](noisy.flatten(1) if self.whole else noisy)
        return self.out[stream](self.trunk(tokens, condition)).view_as(noisy)


def _fourier(time: Tensor) -> Tensor:
    """Sines and cosines of `time` [B] at geometric frequencies, [B, TIME_FEATURES]."""
    half = TIME_FEATURES // 2
    frequencies = torch.exp(torch.linspace(0.0, math.log(1000.0), half, device=time.device))
    angles = time[:, None].float() * frequencies
    return torch.cat((angles.sin(), angles.cos()), -1)
