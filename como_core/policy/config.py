"""Settings of a policy and its training: a preset in config/policy/ says what a method is, a size in
config/policy/sizes/ how large it is and how long it trains.

    config = load_preset("diffusion", mode="decoded")
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from como_core import config as configuration
from como_core.bounds import COUNT, FROM_0, SHARE, Bounds, require_bounds
from como_core.policy.cotraining import CotrainingConfig, CotrainingMode
from como_core.policy.diffusion import DDIM_TRAIN_STEPS, SamplerName
from como_core.policy.network import NetworkConfig
from como_core.policy.observation import ObservationConfig
from como_core.resources import resources
from como_core.training.loop import LoopConfig

Family = Literal["diffusion", "autoregressive"]
Size = Literal["small", "full"]


@dataclass(frozen=True)
class DiffusionConfig:
    """sampler      flow (flow matching) or ddim;  steps  network calls per chunk
    noise_draws     noised copies of each chunk in a training step: encoding the pictures costs most of it
    """

    sampler: SamplerName = "flow"
    steps: int = 8
    noise_draws: int = 2

    def __post_init__(self) -> None:
        most = DDIM_TRAIN_STEPS if self.sampler == "ddim" else None
        require_bounds(self, steps=Bounds(least=1, most=most), noise_draws=COUNT)


@dataclass(frozen=True)
class AutoregressiveConfig:
    """What training does to the steps that a step is predicted from, so that the network looks at the picture instead
    of copying them: noise of `input_noise` standard deviations, and a share `input_dropout` that it does not see.
    """

    input_noise: float = 0.5
    input_dropout: float = 0.8

    def __post_init__(self) -> None:
        require_bounds(self, input_noise=FROM_0, input_dropout=SHARE)


@dataclass(frozen=True)
class PolicyConfig:
    """A policy and its training.

    chunk_steps    K, actions per chunk, at the interface's action rate
    shift_px       largest random shift of a training image in pixels, each way; 0 for none
    """

    training: LoopConfig
    family: Family = "diffusion"
    observation: ObservationConfig = field(default_factory=ObservationConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    autoregressive: AutoregressiveConfig = field(default_factory=AutoregressiveConfig)
    cotraining: CotrainingConfig = field(default_factory=CotrainingConfig)
    chunk_steps: int = 12
    shift_px: int = 3

    def __post_init__(self) -> None:
        require_bounds(self, chunk_steps=COUNT)
        if not 0 <= self.shift_px < self.observation.image_size // 2:
            raise ValueError(f"shift_px must be 0 or more and below half the image, got {self.shift_px}")
        if self.family == "autoregressive" and self.network.kind != "transformer":
            raise ValueError(f"family: autoregressive needs network.kind: transformer, got {self.network.kind}")


def load_preset(name: str, mode: CotrainingMode | None = None, steps: int | None = None,
                seed: int | None = None, size: Size = "small") -> PolicyConfig:
    """The settings of preset `name` in config/policy/, or of the YAML file at path `name`, with what is given changed.

    A file of one's own need only say what differs from the size, a file in config/policy/sizes/. Raises ConfigError,
    naming the nearest preset, where there is none.
    """
    presets, sizes = resources("config/policy"), resources("config/policy/sizes")
    if name not in presets and not name.endswith((".yaml", ".yml")):
        raise configuration.ConfigError(f"no policy preset {name!r}; {configuration.nearest(name, presets)}")
    if size not in sizes:
        raise configuration.ConfigError(f"no size {size!r}; {configuration.nearest(size, sizes)}")
    config = configuration.load(PolicyConfig, presets.get(name, name), base=sizes[size])
    given = {"cotraining.mode": mode, "training.steps": steps, "training.seed": seed}
    return configuration.with_options(config, **{key: value for key, value in given.items() if value is not None})
