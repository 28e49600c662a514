"""The bottleneck: a z of few numbers."""

from __future__ import annotations

import torch
from torch import nn

from como_core.motion.config import BottleneckConfig

# A posterior is held between these log-variances, which keeps exp() and the divergence finite.
_LOG_VARIANCE = (-12.0, 4.0)


class Bottleneck(nn.Module):
    """From hidden [B, T, W] to z [B, D]: `project`, then `finish`.

    In between lies the code, float32 [B, D] (variational: [B, 2 D], mean and log-variance), which an antisymmetric
    encoder combines from both directions.
    """

    def __init__(self, config: BottleneckConfig, tokens: int, width: int, latent_size: int, narrow: bool) -> None:
        """`narrow`: Linear, tanh, Linear for each token, as the paper has it; otherwise one linear map."""
        super().__init__()
        self.kind, self.latent_size = config.kind, latent_size
        part = latent_size // tokens * (2 if config.kind == "variational" else 1)
        self.to_code = (nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, part)) if narrow
                        else nn.Linear(width, part))
        self.pieces = config.tokens
        if config.kind == "vq":
            from loguru import logger
            from vector_quantize_pytorch import VectorQuantize

            logger.disable("vector_quantize_pytorch")  # it tells of every start from few vectors
            self.quantise = VectorQuantize(dim=latent_size // config.tokens, codebook_size=config.codebook,
                                           kmeans_init=True, threshold_ema_dead_code=1, commitment_weight=0.25)

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        """The code of hidden [B, T, W]. Float32 also under autocast, since losses compare directions."""
        code = self.to_code(hidden).float()  # [B, T, D / T], or [B, T, 2 D / T]
        if self.kind != "variational":
            return code.flatten(1)
        mean, spread = code.chunk(2, dim=-1)
        return torch.cat([mean.flatten(1), spread.flatten(1)], dim=1)

    def finish(self, code: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """z [B, D] of a code, and loss terms of the bottleneck's own. Noise is added in training only."""
        if self.kind == "vq":
            with torch.autocast(code.device.type, enabled=False):
                z, _, commitment = self.quantise(code.unflatten(1, (self.pieces, -1)))
            return z.flatten(1), {"commitment": commitment.mean()}
        if self.kind == "variational":
            mean, spread = code.chunk(2, dim=1)
            spread = spread.clamp(*_LOG_VARIANCE)
            divergence = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(dim=1).mean()
            noise = torch.randn_like(mean) * (0.5 * spread).exp() if self.training else 0.0
            return mean + noise, {"kl": divergence}
        return code, {}


def reversed_code(code: torch.Tensor, back: torch.Tensor, kind: str) -> torch.Tensor:
    """The antisymmetric code of both directions [B, D] each; log-variances are averaged, they have no sign."""
    if kind != "variational":
        return (code - back) / 2
    (mean, spread), (other, other_spread) = code.chunk(2, dim=1), back.chunk(2, dim=1)
    return torch.cat([(mean - other) / 2, (spread + other_spread) / 2], dim=1)
