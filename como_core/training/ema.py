"""Exponential moving average of a model's weights."""

from __future__ import annotations

import torch
from torch import nn


class Ema:
    """A running average of parameters, with a warm-up so that short runs do not remember their first steps.

    The decay at step t (from 1) is min(decay, (1 + t) / (10 + t)).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._names = [name for name, _ in model.named_parameters()]
        self._average = [p.detach().clone() for p in model.parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the model's present weights."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._average, [p.detach() for p in model.parameters()], 1 - decay)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Give the model the averaged weights."""
        for parameter, average in zip(model.parameters(), self._average, strict=True):
            parameter.copy_(average)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The averaged weights by parameter name."""
        return dict(zip(self._names, self._average, strict=True))

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take up an average that `state_dict` gave."""
        for name, average in zip(self._names, self._average, strict=True):
            average.copy_(state[name])
