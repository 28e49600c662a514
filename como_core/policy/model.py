"""The diffusion policy's network and its loss: observation encoder and denoiser, trained on batches of windows."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from como_core import config as configuration
from como_core.policy.cotraining import CotrainingConfig, CotrainingMode
from como_core.policy.denoiser import Denoiser, DenoiserConfig
from como_core.policy.diffusion import Sampler, SamplerName
from como_core.policy.observation import ObservationConfig, ObservationEncoder
from como_core.resources import resources
from como_core.training.loop import LoopConfig

NOISE_DRAWS = 4  # the encoder costs most of a step: each encoded picture serves this many noised chunks


@dataclass(frozen=True)
class PolicyConfig:
    """A policy and its training; the presets in config/policy/ are files of this.

    chunk_steps    K, actions per chunk, at the interface's action rate
    sampler        flow (flow matching) or ddim; sampler_steps network calls per chunk
    shift_px       largest random shift of a training image in pixels, each way; 0 for none
    """

    training: LoopConfig
    family: Literal["diffusion"] = "diffusion"
    observation: ObservationConfig = field(default_factory=ObservationConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    cotraining: CotrainingConfig = field(default_factory=CotrainingConfig)
    chunk_steps: int = 12
    sampler: SamplerName = "flow"
    sampler_steps: int = 8
    shift_px: int = 3

    def __post_init__(self) -> None:
        for name in ("chunk_steps", "sampler_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if not 0 <= self.shift_px < self.observation.image_size // 2:
            raise ValueError(f"shift_px must be 0 or more and below half the image, got {self.shift_px}")


def load_preset(name: str, mode: CotrainingMode | None = None, steps: int | None = None,
                seed: int | None = None) -> PolicyConfig:
    """The settings of preset `name` in config/policy/, or of the YAML file at path `name`, with what is given changed.

    Raises ConfigError, naming the nearest preset, where there is none.
    """
    presets = resources("config/policy")
    if name not in presets and not name.endswith((".yaml", ".yml")):
        raise configuration.ConfigError(f"no policy preset {name!r}; {configuration.nearest(name, presets)}")
    config = configuration.load(PolicyConfig, presets.get(name, name))
    loop, cotraining = config.training, config.cotraining
    loop = dataclasses.replace(loop, steps=loop.steps if steps is None else steps,
                               seed=loop.seed if seed is None else seed)
    cotraining = dataclasses.replace(cotraining, mode=mode or cotraining.mode)
    return dataclasses.replace(config, cotraining=cotraining, training=loop)


class DiffusionModel(nn.Module):
    """Encoder and denoiser of one robot; sizes come from its interface and the training instructions."""

    def __init__(self, config: PolicyConfig, cameras: int, instructions: int, state_size: int,
                 action_size: int) -> None:
        super().__init__()
        self.chunk_shape = (config.chunk_steps, action_size)
        self.encoder = ObservationEncoder(config.observation, cameras, instructions, state_size)
        self.denoiser = Denoiser(config.denoiser, self.chunk_shape, config.observation.width)

    def forward(self, observation: dict[str, Tensor], noisy: Tensor, time: Tensor) -> Tensor:
        """noisy [B * R, K, A] and time [B * R] are R noised copies of each chunk; the observation is encoded once."""
        context = self.encoder(**observation)
        return self.denoiser(noisy, time, context.repeat_interleave(len(noisy) // len(context), 0))

    @torch.inference_mode()
    def sample(self, observation: dict[str, Tensor], noise: Tensor, sampler: Sampler) -> Tensor:
        """Chunks [B, K, A] in normalised units; the observation is encoded once."""
        context = self.encoder(**observation)
        return sampler.sample(lambda noisy, time: self.denoiser(noisy, time, context), noise)


def diffusion_loss(model: nn.Module, batch: dict[str, Any], sampler: Sampler) -> dict[str, Tensor]:
    """Weighted squared error of the prediction over the steps whose action is known, NOISE_DRAWS times for each chunk.

    batch: observation (the encoder's arguments), chunk [B, K, A] normalised, weight [B, K] (0: action unknown).
    """
    chunk, weight = (batch[name].repeat_interleave(NOISE_DRAWS, 0) for name in ("chunk", "weight"))
    # Each chunk is noised once in every part of [0, 1): the same expectation, less noise in the gradient.
    parts = torch.arange(len(chunk), device=chunk.device) % NOISE_DRAWS
    times = (parts + torch.rand(len(chunk), device=chunk.device)) / NOISE_DRAWS
    example = sampler.noised(chunk, torch.randn_like(chunk), times)
    error = (model(batch["observation"], example.noisy, example.time).float() - example.target).square().mean(-1)
    return {"loss": (error * weight).sum() / weight.sum().clamp_min(1.0)}
