"""Backbones: from pixels to a grid of features [B, C, h, w], aligned with the picture and the same at every call."""

from __future__ import annotations

import functools
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import torch
from torch import nn

from como_core.errors import ComoError
from como_core.motion.config import BackboneConfig
from como_core.pretrained import beside_the_hub, pretrained_place
from como_core.training.checkpoint import weights_digest

# What pictures are normalised with where the model does not say: mean and standard deviation of ImageNet's RGB, or what
# the image processors of these kinds have by default.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_NORMALISED_BY_HALVES = ("siglip", "siglip_vision_model", "vit")

_FILES = "config.json and model.safetensors"

# A server that has not answered by then is out of reach.
_PATIENCE_S = 5.0


class BackboneError(ComoError):
    """A backbone that cannot be had; the message names it, the reason and the remedy."""


def make_backbone(config: BackboneConfig, image_size: int) -> PatchBackbone | PretrainedBackbone:
    """The backbone that `config` asks for, for pictures of `image_size` pixels. Raises ComoError."""
    if config.kind == "patch":
        return PatchBackbone(config, image_size)
    return PretrainedBackbone(config.model, image_size, config.layer, config.sha256, (config.mean, config.std))


class PatchBackbone(nn.Module):
    """A linear embedding of square patches, learned with the rest or fixed. Needs no download.

    Being linear, its difference of two frames is the embedding of their pixel difference, cell by cell.
    """

    def __init__(self, config: BackboneConfig, image_size: int) -> None:
        super().__init__()
        self.width, self.cells, self.sha256 = config.width, image_size // config.patch, ""
        self.mean, self.std = (), ()
        self.embed = nn.Conv2d(3, config.width, config.patch, stride=config.patch)
        if config.frozen:
            nn.init.orthogonal_(self.embed.weight.view(config.width, -1))
            self.embed.requires_grad_(False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.embed(pixels)  # [B, C, h, w]


class PretrainedBackbone(nn.Module):
    """A frozen vision model of `transformers`: ViT, MAE, DINOv2, DINOv3, SigLIP, V-JEPA 2, or another of their shape.

    Only patch tokens are kept, in the order of the picture. Its weights are no parameters of this module: no optimiser
    finds them, no average copies them and no checkpoint repeats them; `sha256` says which they were. `mean` and `std`
    are what it normalises RGB in [0, 1] with.
    """

    _scale: torch.Tensor
    _shift: torch.Tensor

    def __init__(self, model: str, image_size: int, layer: int = -1, sha256: str = "",
                 normalisation: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())) -> None:
        """Mean and deviation of `normalisation` are the model's own where they are empty.

        Raises ComoError where `model` cannot be loaded or run on such pictures, lacks `layer` or has other weights than
        `sha256` says.
        """
        super().__init__()
        model = pretrained_place(model, _FILES)
        network, settings = _load(model, image_size)
        _require_layer(model, layer, settings)
        self.name, self.layer, self._kind = model, layer, settings.model_type
        self._tube = settings.tubelet_size if settings.model_type == "vjepa2" else 0
        # A tuple hides it from torch, which would count its parameters as ours.
        self._network = (network.eval().requires_grad_(False),)
        self._options: dict[str, Any] = {}
        if settings.model_type in ("vit_mae", "siglip_vision_model", "siglip", "vit"):
            self._options["interpolate_pos_encoding"] = True
        self._ordered = settings.model_type == "vit_mae"
        patch = settings.patch_size
        self._patch = patch if isinstance(patch, int) else patch[-1]
        if image_size % self._patch:
            raise BackboneError(f"{model}: pictures of {image_size} pixels do not divide into its patches of "
                                f"{self._patch}; choose image_size accordingly")
        self.cells, self.width = image_size // self._patch, settings.hidden_size
        found = _normalisation(model, settings.model_type)
        mean, std = (given or own for given, own in zip(normalisation, found, strict=True))
        self.mean, self.std = mean, std
        # From [-1, 1] to what the model was trained on.
        self.register_buffer("_scale", 0.5 / torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_shift", ((0.5 - torch.tensor(mean)) / torch.tensor(std)).view(1, 3, 1, 1),
                             persistent=False)
        self.sha256 = weights_digest(network)
        if sha256 and sha256 != self.sha256:
            raise BackboneError(f"{model}: its weights are not those that the motion model was trained with (sha256 "
                                f"{self.sha256[:12]}, expected {sha256[:12]}); give the original backbone")
        self._require_features(image_size)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._scale.device

    @property
    def network(self) -> nn.Module:
        """The frozen vision model itself."""
        return self._network[0]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features [B, C, h, w] of pixels [B, 3, H, W] in [-1, 1]. Gradient flows to the pixels, never to weights."""
        return self._grid(pixels)

    def _grid(self, pixels: torch.Tensor) -> torch.Tensor:
        pixels = pixels * self._scale + self._shift
        options = dict(self._options)
        if self._ordered:
            # MAE shuffles its patches even where it masks none; ordered noise keeps their order.
            count = self.cells**2
            options["noise"] = torch.arange(count, device=pixels.device, dtype=torch.float32).expand(len(pixels), count)
        if self.layer != -1:
            options["output_hidden_states"] = True
        if self._tube:
            # A frame is a still video, as long as one tube.
            still = pixels[:, None].expand(-1, self._tube, -1, -1, -1)
            out = self.network(pixel_values_videos=still, skip_predictor=True, **options)
        else:
            out = self.network(pixel_values=pixels, **options)
        tokens = out.last_hidden_state if self.layer == -1 else out.hidden_states[self.layer]
        tokens = tokens[:, tokens.shape[1] - self.cells**2:]  # class and register tokens stand before the patches
        return tokens.transpose(1, 2).unflatten(2, (self.cells, self.cells))

    @torch.no_grad()
    def _require_features(self, image_size: int) -> None:
        """BackboneError unless it makes a grid of features of a picture."""
        try:
            shape = tuple(self._grid(torch.zeros(1, 3, image_size, image_size)).shape)
        except Exception as error:  # whatever a model of another shape comes to
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise BackboneError(f"{self.name}: a {self._kind} that gives no patch tokens for a "
                                f"picture of {image_size} pixels: {reason}; give a vision transformer such as "
                                "facebook/dinov2-base, or the image_size that it was made for") from error
        if shape != (1, self.width, self.cells, self.cells):
            raise BackboneError(f"{self.name}: gives features {list(shape)} for a picture of {image_size} pixels, "
                                f"expected {[1, self.width, self.cells, self.cells]}")

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> PretrainedBackbone:
        self.network._apply(fn)
        return super()._apply(fn, recurse)


def _load(model: str, image_size: int) -> tuple[nn.Module, Any]:
    from transformers import AutoConfig, AutoModel, SiglipVisionModel, ViTMAEModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    offline = not Path(model).is_dir() and not _hub_answers()
    try:
        settings = AutoConfig.from_pretrained(model, local_files_only=offline)
        changes: dict[str, Any] = {}
        if settings.model_type == "vit_mae":
            changes["mask_ratio"] = 0.0
        if settings.model_type == "vit":
            changes["add_pooling_layer"] = False  # not of use here, and random where a checkpoint has none
        if settings.model_type == "vjepa2":
            changes["crop_size"] = image_size  # its position encoding counts rows of the size it was made for
        kinds: dict[str, Any] = {"vit_mae": ViTMAEModel, "siglip": SiglipVisionModel,
                                 "siglip_vision_model": SiglipVisionModel}
        network, report = kinds.get(settings.model_type, AutoModel).from_pretrained(
            model, local_files_only=offline, dtype=torch.float32, output_loading_info=True, **changes)
    except (OSError, ValueError) as error:
        reason = (f"the hub at {_hub()} cannot be reached from here, and no copy lies on this machine" if offline else
                  str(error).strip().splitlines()[0].rstrip("."))
        raise BackboneError(f"{model}: no vision model of `transformers` can be loaded from it: "
                            f"{beside_the_hub(model)}{reason}. Give a name on the Hugging Face hub (needs internet "
                            f"once) or a folder with {_FILES}") from error
    if not hasattr(network.config, "patch_size"):
        raise BackboneError(f"{model}: {network.config.model_type} has no patches; give a vision transformer such as "
                            "facebook/dinov2-base or facebook/vit-mae-large")
    if missing := sorted(report["missing_keys"]):
        raise BackboneError(f"{model}: its files lack {len(missing)} of the weights that {network.config.model_type} "
                            f"has, {missing[0]} for one, which would be random and others at each load; copy the whole "
                            "model again")
    return network, network.config


def _require_layer(model: str, layer: int, settings: Any) -> None:
    """BackboneError unless hidden state `layer` exists; the first is what goes into the first layer."""
    count = getattr(settings, "num_hidden_layers", None)
    if count is not None and not -count - 1 <= layer <= count:
        raise BackboneError(f"{model}: backbone.layer must be from {-count - 1} to {count}, since it has {count} "
                            f"layers; got {layer}")


@functools.cache
def _hub_answers() -> bool:
    """Whether the hub can be reached. Its own client would try for half a minute for each file, also for those it has.

    Where a proxy is set this says yes: only the client knows its way.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    place = urlsplit(_hub())
    if place.scheme in getproxies() and not proxy_bypass(place.hostname or ""):
        return True
    port = place.port or (80 if place.scheme == "http" else 443)
    try:
        socket.create_connection((place.hostname or "", port), timeout=_PATIENCE_S).close()
    except OSError:
        return False
    return True


def _hub() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _normalisation(model: str, kind: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation that the model wants its RGB in [0, 1] normalised with."""
    from transformers.utils import cached_file

    offline = not Path(model).is_dir() and not _hub_answers()
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        path = cached_file(model, name, local_files_only=offline, _raise_exceptions_for_missing_entries=False,
                           _raise_exceptions_for_connection_errors=False)
        said = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
        if "image_mean" in said and "image_std" in said:
            return tuple(said["image_mean"]), tuple(said["image_std"])
    return _HALVES if kind in _NORMALISED_BY_HALVES else _IMAGENET
