"""The second probe: a two-layer MLP, for what lies in the features but not on a line. All folds are trained at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from como_core.motion.measure.probe import Fold

HIDDEN = 128
STEPS = 400
BATCH = 256
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2
_CHECK_EVERY = 40  # steps between looks at the recordings set aside
_CHECK_PAIRS = 1000


def mlp(values: np.ndarray, targets: Sequence[np.ndarray], folds: Sequence[Fold], seed: int) -> list[np.ndarray]:
    """Predictions of each fold's `held`, by its own Linear-ReLU-Linear; its weights are those that did best on `aside`.

    values [P, D], targets [P, A] for each fold, z-scored. The same seed gives the same predictions.
    """
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    features = _tensor((values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-9))
    wanted = torch.stack([_tensor(target) for target in targets])  # [F, P, A]
    every = torch.arange(len(folds))[:, None]

    def batch(rows: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Features [F, B, D] and targets [F, B, A] of as many rows for each fold."""
        index = torch.from_numpy(np.stack(rows))
        return features[index], wanted[every, index]

    network = _Networks(len(folds), values.shape[1], targets[0].shape[1], generator)
    optimiser = torch.optim.AdamW(network.weights, LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    check = batch([rng.choice(fold.aside, _CHECK_PAIRS) for fold in folds])
    best, kept = torch.full((len(folds),), torch.inf), [weight.detach().clone() for weight in network.weights]
    for step in range(1, STEPS + 1):
        given, answer = batch([fold.fitted[rng.integers(len(fold.fitted), size=BATCH)] for fold in folds])
        optimiser.zero_grad()
        (network(given) - answer).square().mean(dim=(1, 2)).sum().backward()
        optimiser.step()
        schedule.step()
        if step % _CHECK_EVERY == 0:
            with torch.no_grad():
                error = (network(check[0]) - check[1]).square().mean(dim=(1, 2))
                better = (error < best)[:, None, None]
                best = torch.minimum(error, best)
                kept = [torch.where(better, now, before) for now, before in zip(network.weights, kept, strict=True)]
    network.weights = kept
    return [network.one(number, features[torch.from_numpy(fold.held)]).numpy() for number, fold in enumerate(folds)]


class _Networks:
    """F two-layer networks side by side."""

    def __init__(self, count: int, features: int, targets: int, generator: torch.Generator) -> None:
        def start(rows: int, columns: int) -> torch.Tensor:
            values = torch.randn(count, rows, columns, generator=generator) / rows**0.5
            return values.requires_grad_()

        self.weights = [start(features, HIDDEN), torch.zeros(count, 1, HIDDEN, requires_grad=True),
                        start(HIDDEN, targets), torch.zeros(count, 1, targets, requires_grad=True)]

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        first, first_bias, second, second_bias = self.weights
        return torch.baddbmm(second_bias, torch.baddbmm(first_bias, features, first).relu(), second)

    def one(self, number: int, features: torch.Tensor) -> torch.Tensor:
        """What network `number` says of features [B, D]."""
        first, first_bias, second, second_bias = (weight[number] for weight in self.weights)
        return (features @ first + first_bias).relu() @ second + second_bias


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))
