"""What both families reduce their errors with."""

from __future__ import annotations

from torch import Tensor

from como_core.training.ranks import mean_over_ranks, processes


def weighted_error(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean over values and, by `weight` [B, K], over steps of the squared error of [B, K, A]; 0 where all weigh 0."""
    return _total(predicted, target, weight) / weight.sum().clamp_min(1.0)


def shared_error(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """`weighted_error` for training, where several processes may share a batch: their mean is that of the whole batch.

    Of what weighs something one process may have more than another, or all. Every process has to call it, whatever it
    has.
    """
    count = processes()
    whole = mean_over_ranks(weight.sum()) * count
    return _total(predicted, target, weight) * count / whole.clamp_min(1.0)


def _total(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return ((predicted.float() - target).square().mean(-1) * weight).sum()
