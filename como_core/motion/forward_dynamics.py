"""Forward dynamics: from frame t and z to frame t + n, in pixels, in features, or both."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from como_core.motion.blocks import conv_block, modulate, transformer
from como_core.motion.config import ForwardDynamicsConfig
from como_core.motion.warp import Warp


class ForwardDynamics(nn.Module):
    """A trunk over the raw patches of frame t, told z, and a head for each thing that is predicted.

    pixels    whether it makes a picture [B, 3, H, W]
    features  channels of a predicted feature grid [B, features, cells, cells]; 0: none
    """

    def __init__(self, config: ForwardDynamicsConfig, latent_size: int, image_size: int, pixels: bool = True,
                 features: int = 0, cells: int = 0) -> None:
        super().__init__()
        self.residual, self.cells = config.residual, cells
        trunk = VitTrunk if config.kind == "vit" else ConvTrunk
        self.trunk = trunk(config, latent_size, image_size // config.patch)
        self.warp = Warp(config, latent_size) if config.kind == "warp" and pixels else None
        self.to_pixels: nn.Module | None = None
        if pixels:
            change = nn.Conv2d(config.width, 3 * config.patch**2, 1)
            if config.residual:
                # Most of a picture does not change: training starts from nearly no change, not from noise.
                nn.init.normal_(change.weight, std=0.01)
            self.to_pixels = nn.Sequential(change, nn.PixelShuffle(config.patch))
        self.to_features = nn.Conv2d(config.width, features, 1) if features else None
        if self.to_features is not None and config.residual:
            nn.init.normal_(self.to_features.weight, std=0.01)

    def forward(self, pixels: torch.Tensor, latent: torch.Tensor, features: torch.Tensor | None = None
                ) -> dict[str, torch.Tensor]:
        """Predictions of frame t + n from pixels [B, 3, H, W] of frame t and z [B, D].

        "pixels", and "features" where features [B, C, h, w] of frame t are given and such a head exists.
        """
        grid, out = self.trunk(pixels, latent), {}
        if self.to_pixels is not None:
            out["pixels"] = self.to_pixels(grid).float() + self._before_change(pixels, latent, grid)
        if self.to_features is not None and features is not None:
            predicted = self.to_features(grid).float()
            if predicted.shape[-1] != self.cells:
                predicted = functional.interpolate(predicted, size=(self.cells, self.cells), mode="bilinear",
                                                   align_corners=False)
            out["features"] = predicted + (features if self.residual else 0)
        return out

    def _before_change(self, pixels: torch.Tensor, latent: torch.Tensor, grid: torch.Tensor) -> torch.Tensor | float:
        if self.warp is not None:
            return self.warp(pixels, latent, grid)
        return pixels if self.residual else 0.0


class ConvTrunk(nn.Module):
    """Convolutions at two resolutions: [B, width, h, w].

    z enters as scale and shift of the channels, the same in every cell: it can say what moves and how, and must leave
    to frame t where. Were z given a map of its own, it would store the picture of the change, and the probe would find
    less motion in it.
    """

    def __init__(self, config: ForwardDynamicsConfig, latent_size: int, cells: int) -> None:
        super().__init__()
        width, coarse = config.width, config.coarse_width
        self.patches = nn.Sequential(nn.Conv2d(3, width, config.patch, stride=config.patch), conv_block(width, width))
        self.down = conv_block(width, coarse, stride=2)
        self.coarse_scale = nn.Linear(latent_size, 2 * coarse)
        self.fine_scale = nn.Linear(latent_size, 2 * width)
        self.coarse = conv_block(coarse, coarse)
        self.up = nn.Sequential(nn.Conv2d(coarse, width, 1), nn.Upsample(scale_factor=2))
        self.fine = conv_block(width, width)

    def forward(self, pixels: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        fine = self.patches(pixels)
        fine = fine + self.up(self.coarse(modulate(self.down(fine), self.coarse_scale(latent))))
        return self.fine(modulate(fine, self.fine_scale(latent)))


class VitTrunk(nn.Module):
    """A pre-norm transformer over the patches, one projected z added to every patch (paper, section 3)."""

    def __init__(self, config: ForwardDynamicsConfig, latent_size: int, cells: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, config.width, config.patch, stride=config.patch)
        self.places = nn.Parameter(torch.randn(cells * cells, config.width) * 0.02)
        self.motion = nn.Linear(latent_size, config.width)
        self.trunk = transformer(config.width, 4 * config.width, config.layers, config.heads)

    def forward(self, pixels: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        grid = self.patches(pixels)
        tokens = grid.flatten(2).transpose(1, 2) + self.places + self.motion(latent)[:, None]
        return self.trunk(tokens).transpose(1, 2).unflatten(2, grid.shape[2:])
