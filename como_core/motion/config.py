"""Settings of a latent-motion model. A preset is a YAML of these, in config/motion/; there is no class per preset."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from como_core import config
from como_core.resources import resources
from como_core.training.loop import LoopConfig


@dataclass(frozen=True)
class BackboneConfig:
    """How a frame becomes a grid of features. `patch`: a linear embedding of square patches, learned with the rest."""

    kind: Literal["patch"] = "patch"
    patch: int = 4
    width: int = 48


@dataclass(frozen=True)
class InverseDynamicsConfig:
    """The encoder of motion.

    temporal_difference  Td: it sees [F_t, F_{t+n} - F_t]; else [F_t, F_{t+n}]
    antisymmetric        z(a, b) is half of what the encoder says of (a, b) minus what it says of (b, a): z(b, a) is
                         -z(a, b), two equal frames have z = 0, and what both frames look like cancels
    width                channels of the two streams together, and of the first layer
    hidden               width of the layer before the bottleneck
    """

    temporal_difference: bool = True
    antisymmetric: bool = False
    width: int = 96
    hidden: int = 256

    def __post_init__(self) -> None:
        if self.width % 16:
            raise ValueError(f"width must be a multiple of 16 (two streams, norms of 8 groups), got {self.width}")


@dataclass(frozen=True)
class ForwardDynamicsConfig:
    """The decoder: frame t in patches of `patch` pixels, motion z, and out comes frame t + n."""

    patch: int = 4
    width: int = 64
    coarse_width: int = 128


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms; a term of weight 0 is not computed.

    pixel        error of the reconstruction over the error of copying frame t
    contrast     L_tcl of the paper (Tcl)
    temperature  of L_tcl
    contrast_pairs  how many pairs of a batch L_tcl is computed on; each costs two more passes through the encoder
    prior        mean squared norm of z, which keeps its scale from drifting
    """

    pixel: float = 1.0
    contrast: float = 0.0
    temperature: float = 0.1
    contrast_pairs: int = 16
    prior: float = 0.0


@dataclass(frozen=True)
class MotionConfig:
    """A latent-motion model and its training.

    gap_s        seconds between the two frames of a pair, on any frame rate
    image_size   frames are cropped to a square and resized to this many pixels
    latent_size  d_z, the length of z
    """

    loop: LoopConfig
    gap_s: float = 0.125
    image_size: int = 64
    latent_size: int = 64
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    inverse: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)
    forward: ForwardDynamicsConfig = field(default_factory=ForwardDynamicsConfig)
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        for name in ("gap_s", "image_size", "latent_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for part in ("backbone", "forward"):
            patch = getattr(self, part).patch
            if self.image_size % (4 * patch):
                raise ValueError(f"image_size must be a multiple of 4 x {part}.patch = {4 * patch}, "
                                 f"got {self.image_size}")


def load_preset(name: str) -> MotionConfig:
    """The settings of preset `name` in config/motion/, or of the YAML file at path `name`.

    Raises ConfigError, naming the nearest preset, where there is none.
    """
    presets = resources("config/motion")
    if name not in presets and not name.endswith((".yaml", ".yml")):
        raise config.ConfigError(f"no motion preset {name!r}; {config.nearest(name, presets)}")
    return config.load(MotionConfig, presets.get(name, name))
