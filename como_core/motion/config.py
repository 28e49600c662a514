"""Settings of a latent-motion model.

    config = load_preset("como")                 # small: minutes on two cores
    config = load_preset("como", size="full")    # the paper's

A preset is a YAML in config/motion/ that says what a method is (which streams, which bottleneck, which losses); a size
is a YAML in config/motion/sizes/ that says how large the parts are and how long they train. There is no class per
preset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from como_core import config
from como_core.bounds import ABOVE_0, COUNT, FROM_0, SHARE, Bounds, require_bounds
from como_core.motion.place import BLOCKS
from como_core.resources import resources
from como_core.training.loop import LoopConfig

Size = Literal["small", "full"]


@dataclass(frozen=True)
class BackboneConfig:
    """How a frame becomes a grid of features.

    kind    `patch`: a linear embedding of square patches, needs no download. `pretrained`: a vision model by
            `transformers`, frozen
    patch   side of a patch in pixels (patch)
    width   features per patch (patch)
    frozen  keep the random embedding as it is (patch; a pretrained one is always frozen)
    model   name on the Hugging Face hub, or a local folder (pretrained)
    layer   which hidden state; -1: the last, after its norm (pretrained)
    sha256  of its weights, written by training and checked at loading, since a checkpoint does not hold them
    mean, std  what RGB in [0, 1] is normalised with, written by training; empty: what its own files say (pretrained)
    """

    kind: Literal["patch", "pretrained"] = "patch"
    patch: int = 4
    width: int = 48
    frozen: bool = False
    model: str = ""
    layer: int = -1
    sha256: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        require_bounds(self, patch=COUNT, width=COUNT)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (0, 3) or (name == "std" and any(value <= 0 for value in values)):
                raise ValueError(f"backbone.{name}: expected a number for each of R, G and B"
                                 f"{', above 0' if name == 'std' else ''}, got {list(values)}")
        if self.kind == "pretrained" and not self.model:
            raise ValueError("backbone.model is missing: the name of a `transformers` vision model, or its folder")

    @property
    def fixed(self) -> bool:
        """Whether no training moves it, so that features can be targets and can be computed once per frame."""
        return self.frozen or self.kind == "pretrained"


@dataclass(frozen=True)
class InverseDynamicsConfig:
    """The encoder of motion: what it sees of the two frames, and how.

    frame          it sees F_t
    motion         the second stream: `difference` (Td: F_{t+n} - F_t), `future` (F_{t+n}) or `rgb` (an embedding of
                   the difference in RGB, of its own)
    antisymmetric  z(a, b) is half of what the encoder says of (a, b) minus what it says of (b, a): z(b, a) is
                   -z(a, b), two equal frames have z = 0, and what both frames look like cancels
    placed         z is a code and its products with where the motion is seen (`place.in_place`): d_z / 4 numbers of it
                   are free
    kind           `conv`: convolutions over both streams, stacked cell by cell. `qformer`: learned queries attend to
                   the tokens of both streams
    width          conv: channels of the two streams together; qformer: width of a token
    hidden         conv: width of the layer before the bottleneck; qformer: width of the MLPs
    queries, layers, heads  of the qformer
    """

    frame: bool = True
    motion: Literal["difference", "future", "rgb"] = "difference"
    antisymmetric: bool = False
    placed: bool = False
    kind: Literal["conv", "qformer"] = "conv"
    width: int = 96
    hidden: int = 256
    queries: int = 8
    layers: int = 4
    heads: int = 12

    def __post_init__(self) -> None:
        require_bounds(self, width=COUNT, hidden=COUNT, queries=COUNT, layers=COUNT, heads=COUNT)
        if self.kind == "conv" and self.width % 16:
            raise ValueError(f"width must be a multiple of 16 (two streams, norms of 8 groups), got {self.width}")
        if self.kind == "qformer" and self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads = {self.heads}, got {self.width}")


@dataclass(frozen=True)
class BottleneckConfig:
    """What a z is made of.

    kind      `continuous`; `variational`: with noise in training, held in bounds by LossConfig.kl; `vq`: `tokens` codes
              of a learned codebook
    tokens    pieces that z is cut into (vq)
    codebook  codes to choose from (vq)
    """

    kind: Literal["continuous", "variational", "vq"] = "continuous"
    tokens: int = 8
    codebook: int = 128

    def __post_init__(self) -> None:
        require_bounds(self, tokens=COUNT, codebook=Bounds(least=2))


@dataclass(frozen=True)
class ForwardDynamicsConfig:
    """The decoder: frame t in patches of `patch` pixels, motion z, and out comes frame t + n.

    kind      `conv`: z scales and shifts the channels at two resolutions. `warp`: as conv, and frame t is moved along a
              flow that is linear in z. `vit`: a transformer, z added to every patch
    residual  predict what is added to frame t, instead of frame t + n from nothing
    coarse_width  channels at the lower resolution (conv)
    layers, heads  of the transformer (vit)
    """

    kind: Literal["conv", "warp", "vit"] = "conv"
    patch: int = 4
    width: int = 64
    coarse_width: int = 128
    layers: int = 12
    heads: int = 12
    residual: bool = True

    def __post_init__(self) -> None:
        require_bounds(self, patch=COUNT, width=COUNT, coarse_width=COUNT, layers=COUNT, heads=COUNT)
        if self.kind == "vit":
            if self.width % self.heads:
                raise ValueError(f"width must be a multiple of heads = {self.heads}, got {self.width}")
            return
        for name in ("width", "coarse_width"):
            if getattr(self, name) % 8:
                raise ValueError(f"{name} must be a multiple of 8 (norms of 8 groups), got {getattr(self, name)}")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms; a term of weight 0 is not computed.

    pixel             squared error of the reconstruction
    relative          divide `pixel` and `feature` by the error of copying frame t: 1 is copying, 0 is perfect
    perceptual        squared error in the features of a frozen vision model
    perceptual_model  its name on the hub, or its folder
    feature           squared error of predicted features of frame t + n, in a backbone that is frozen
    contrast          L_tcl of the paper (Tcl)
    temperature       of L_tcl
    contrast_pairs    how many pairs of a batch L_tcl is computed on; each costs two more passes through the encoder
    negatives         of L_tcl: `reverse`, the paper's two; `batch`: the other pairs of the batch as well
    reversal          |z(a, b) + z(b, a)|^2 over |z(a, b)|^2
    composition       |z(a, m) + z(m, b) - z(a, b)|^2 over |z(a, b)|^2, m the frame in the middle
    kl                divergence of a variational z from a unit normal
    action            squared error of a linear readout of the measured actions, summed over the pair and z-scored, for
                      those clips that have any. 0: no action is read
    """

    pixel: float = 1.0
    relative: bool = True
    perceptual: float = 0.0
    perceptual_model: str = ""
    feature: float = 0.0
    contrast: float = 0.0
    temperature: float = 0.1
    contrast_pairs: int = 16
    negatives: Literal["reverse", "batch"] = "reverse"
    reversal: float = 0.0
    composition: float = 0.0
    kl: float = 0.0
    action: float = 0.0

    def __post_init__(self) -> None:
        require_bounds(self, pixel=FROM_0, perceptual=FROM_0, feature=FROM_0, contrast=FROM_0, temperature=ABOVE_0,
                       contrast_pairs=COUNT, reversal=FROM_0, composition=FROM_0, kl=FROM_0, action=FROM_0)
        if self.perceptual and not self.perceptual_model:
            raise ValueError("perceptual_model is missing: the name of a `transformers` vision model, or its folder")
        if not (self.pixel or self.perceptual or self.feature):
            raise ValueError("nothing is predicted: give pixel, perceptual or feature a weight")

    @property
    def pixels_predicted(self) -> bool:
        """Whether the forward dynamics makes pictures."""
        return self.pixel > 0 or self.perceptual > 0


@dataclass(frozen=True)
class SelectionConfig:
    """Which frame pairs are left out of training. Pictures are compared at 32 x 32 pixels, in grey levels of 0 to 255.

    cut_ratio     a scene cut changes the picture on average this many times as much as each of the two frames before
                  and after; 0: no cuts are looked for
    cut_change    and by more than this
    cut_likeness  and leaves the two pictures correlated by less than this, which a change of light does not
    still_share   a pair is still where a smaller share of the picture than this changes; 0: none is still
    still_change  by more than this, which compression noise hardly exceeds
    still_noise   and by more than this many times the pair's median change, which is noise or light and counts up to
                  thrice `still_change`
    """

    cut_ratio: float = 2.0
    cut_change: float = 5.0
    cut_likeness: float = 0.92
    still_share: float = 0.005
    still_change: float = 8.0
    still_noise: float = 4.0

    def __post_init__(self) -> None:
        require_bounds(self, cut_ratio=FROM_0, cut_change=FROM_0, cut_likeness=Bounds(least=-1, most=1),
                       still_share=SHARE, still_change=FROM_0, still_noise=FROM_0)


@dataclass(frozen=True)
class MotionConfig:
    """A latent-motion model and its training.

    gap_s        seconds between the two frames of a pair, on any frame rate
    image_size   frames are cropped to a square and resized to this many pixels
    latent_size  d_z, the length of z
    actions      values that the readout of loss.action predicts; found by training
    """

    loop: LoopConfig
    gap_s: float = 0.125
    image_size: int = 64
    latent_size: int = 64
    actions: int = 0
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    inverse: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)
    bottleneck: BottleneckConfig = field(default_factory=BottleneckConfig)
    forward: ForwardDynamicsConfig = field(default_factory=ForwardDynamicsConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)

    def __post_init__(self) -> None:
        require_bounds(self, gap_s=ABOVE_0, image_size=COUNT, latent_size=COUNT, actions=FROM_0)
        # The convolutional decoder halves its grid of patches once, and doubles it again.
        multiples = {"forward": self.forward.patch * (1 if self.forward.kind == "vit" else 2)}
        if self.backbone.kind == "patch":
            multiples["backbone"] = self.backbone.patch
        for part, multiple in multiples.items():
            if self.image_size % multiple:
                raise ValueError(f"image_size must be a multiple of {multiple} for {part}.patch = "
                                 f"{getattr(self, part).patch}, got {self.image_size}")
        pieces = {"inverse.queries": self.inverse.queries if self.inverse.kind == "qformer" else 1,
                  "bottleneck.tokens": self.bottleneck.tokens if self.bottleneck.kind == "vq" else 1}
        for name, count in pieces.items():
            if self.latent_size % (count * self._blocks):
                raise ValueError(f"latent_size must be a multiple of {name} = {count}"
                                 f"{f' times {self._blocks} (inverse.placed)' if self.inverse.placed else ''}, "
                                 f"got {self.latent_size}")
        if self.loss.feature and not self.backbone.fixed:
            raise ValueError("loss.feature needs a frozen backbone: features that training moves are no target")
        if (self.loss.kl > 0) != (self.bottleneck.kind == "variational"):
            raise ValueError("loss.kl and bottleneck.kind: variational go together; one is given without the other")
        if self.forward.kind == "warp" and not self.forward.residual:
            raise ValueError("forward.kind: warp moves frame t and so is residual; set forward.residual to true")
        if self.bottleneck.kind == "vq" and self.inverse.placed:
            raise ValueError("bottleneck.kind: vq cannot be placed: products of codes are no codes")
        if self.bottleneck.kind == "vq" and self.inverse.antisymmetric:
            raise ValueError("bottleneck.kind: vq cannot be antisymmetric: codes have no sign")

    @property
    def code_size(self) -> int:
        """Numbers that come out of the bottleneck: all of z, or those that are put in their place."""
        return self.latent_size // self._blocks

    @property
    def _blocks(self) -> int:
        return BLOCKS if self.inverse.placed else 1


def presets() -> list[str]:
    """The names of the presets."""
    return list(resources("config/motion"))


def load_preset(name: str, size: Size = "small") -> MotionConfig:
    """The settings of preset `name` in config/motion/, or of the YAML file at path `name`, at `size`.

    A file of one's own need only say what differs from the size. Raises ConfigError, naming the nearest preset, where
    there is none.
    """
    found = resources("config/motion")
    if name not in found and not name.endswith((".yaml", ".yml")):
        raise config.ConfigError(f"no motion preset {name!r}; {config.nearest(name, found)}")
    sizes = resources("config/motion/sizes")
    if size not in sizes:
        raise config.ConfigError(f"no size {size!r}; {config.nearest(size, sizes)}")
    return config.load(MotionConfig, found.get(name, name), base=sizes[size])
