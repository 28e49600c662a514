"""How long training steps take: drawing a batch, and what is computed with it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import nn

from como_core.training.loop import LoopConfig, Loss, Sample
from como_core.training.precision import autocast


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a training step: to draw its batch, which training does in a thread meanwhile, and to compute.

    samples_per_s  what training makes of it, where the slower of both counts
    """

    sample_s: float
    compute_s: float
    samples_per_s: float


def time_steps(model: nn.Module, sample: Sample, loss: Loss, config: LoopConfig, steps: int = 30, warmup: int = 5,
               device: str | torch.device = "cpu") -> StepTimes:
    """Draw and compute `steps` training steps one after the other, after `warmup` others: medians over the steps.

    The steps are those of `loop.fit` on one process, but for its averaged weights and what it writes.
    """
    place = torch.device(device)
    model.to(place).train()
    optimiser = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-4, fused=True)
    times = []
    for step in range(warmup + steps):
        start = time.perf_counter()
        batch = sample(np.random.default_rng(step))
        drawn = time.perf_counter()
        batch = send_to_device(batch, place)
        with autocast(config.precision, place):
            total = loss(model, batch)["loss"]
        optimiser.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimiser.step()
        float(total.detach())  # waits for the device
        times.append((drawn - start, time.perf_counter() - drawn))
    sample_s, compute_s = np.median(times[warmup:], axis=0).tolist()
    return StepTimes(sample_s, compute_s, config.batch_size / max(sample_s, compute_s))
