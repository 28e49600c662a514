"""What both families reduce their errors with."""

from __future__ import annotations

from torch import Tensor


def weighted_error(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean over values and, by `weight` [B, K], over steps of the squared error of [B, K, A]; 0 where all weigh 0."""
    error = (predicted.float() - target).square().mean(-1)
    return (error * weight).sum() / weight.sum().clamp_min(1.0)
