"""Diffusion over action chunks: flow matching or DDIM, chosen by one key; the steps are diffusers' schedulers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]  # (noisy [B, K, A], time [B] in [0, 1]) -> prediction [B, K, A]
SamplerName = Literal["flow", "ddim"]
DDIM_TRAIN_STEPS = 100


@dataclass(frozen=True)
class Noised:
    """A training example: noisy chunk [B, K, A], its time [B] in [0, 1] (1 is pure noise), what is to be predicted."""

    noisy: Tensor
    time: Tensor
    target: Tensor


class Sampler(ABC):
    """How clean chunks are noised for training, and how noise becomes a chunk in `steps` calls of the network."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    @abstractmethod
    def noised(self, clean: Tensor, noise: Tensor, uniform: Tensor) -> Noised:
        """Noise `clean` [B, K, A] with `noise` of its shape, at times drawn by `uniform` [B] in [0, 1)."""

    @abstractmethod
    def sample(self, predict: Predict, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        """Turn `noise` [B, K, A] into chunks of the same shape; the same noise gives the same chunks.

        The first P steps, and of each the first values, are held to `prefix` [B, P, A'], noised like the rest, so that
        what follows continues it.
        """


class FlowSampler(Sampler):
    """Rectified flow (arXiv 2209.03003): x_t = (1 - t) x + t noise, the network predicts noise - x."""

    def noised(self, clean: Tensor, noise: Tensor, uniform: Tensor) -> Noised:
        time = uniform[:, None, None]
        return Noised(torch.lerp(clean, noise, time), uniform, noise - clean)

    def sample(self, predict: Predict, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / self.steps, self.steps).tolist())
        x = noise
        for sigma, timestep in zip(scheduler.sigmas, scheduler.timesteps, strict=False):
            x = _held(x, noise, prefix, 1 - float(sigma), float(sigma))
            x = scheduler.step(predict(x, sigma.to(x).expand(len(x))), timestep, x, return_dict=False)[0]
        return _held(x, noise, prefix, 1.0, 0.0)


class DdimSampler(Sampler):
    """DDIM (arXiv 2010.02502) on a cosine schedule that ends in pure noise, velocity prediction (arXiv 2305.08891)."""

    def __init__(self, steps: int) -> None:
        super().__init__(steps)
        self._scheduler = DDIMScheduler(
            num_train_timesteps=DDIM_TRAIN_STEPS, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction",
            clip_sample=False, rescale_betas_zero_snr=True, timestep_spacing="trailing")
        self._scheduler.set_timesteps(steps)
        # Where `steps` does not divide DDIM_TRAIN_STEPS, diffusers goes back by another interval than that between its
        # timesteps, and some numbers of steps get a timestep more. So the noise levels of these timesteps are made a
        # schedule of their own, in which the step before is the next of the list.
        self._visited = self._scheduler.timesteps[:steps]
        self._levels = DDIMScheduler(num_train_timesteps=steps, prediction_type="v_prediction", clip_sample=False)
        self._levels.set_timesteps(steps)
        self._levels.alphas_cumprod = self._scheduler.alphas_cumprod[self._visited.flip(0)]

    def noised(self, clean: Tensor, noise: Tensor, uniform: Tensor) -> Noised:
        steps = (uniform * DDIM_TRAIN_STEPS).long()
        noisy = self._scheduler.add_noise(clean, noise, steps)
        return Noised(noisy, (steps + 1) / DDIM_TRAIN_STEPS, self._scheduler.get_velocity(clean, noise, steps))

    def sample(self, predict: Predict, noise: Tensor, prefix: Tensor | None = None) -> Tensor:
        x = noise
        for step, level in zip(self._visited, self._levels.timesteps, strict=True):
            clean = float(self._scheduler.alphas_cumprod[int(step)])
            x = _held(x, noise, prefix, clean**0.5, (1 - clean) ** 0.5)
            time = torch.full((len(x),), (int(step) + 1) / DDIM_TRAIN_STEPS, device=x.device)
            x = self._levels.step(predict(x, time), int(level), x, return_dict=False)[0]
        return _held(x, noise, prefix, 1.0, 0.0)


def _held(x: Tensor, noise: Tensor, prefix: Tensor | None, clean: float, noisy: float) -> Tensor:
    """`x` with its first steps replaced by those of `prefix`, at shares `clean` of it and `noisy` of the noise."""
    if prefix is None:
        return x
    steps, size = min(prefix.shape[1], x.shape[1]), prefix.shape[2]
    x = x.clone()
    x[:, :steps, :size] = clean * prefix[:, :steps] + noisy * noise[:, :steps, :size]
    return x


def make_sampler(name: SamplerName, steps: int) -> Sampler:
    """The sampler behind the key `sampler`, with `steps` network calls per chunk."""
    return {"flow": FlowSampler, "ddim": DdimSampler}[name](steps)
