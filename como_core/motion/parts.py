"""The parts of a MotionModel: Backbone, InverseDynamics, Bottleneck, ForwardDynamics."""

from __future__ import annotations

import torch
from torch import nn

from como_core.motion.config import BackboneConfig, ForwardDynamicsConfig, InverseDynamicsConfig


class PatchBackbone(nn.Module):
    """A linear embedding of square patches, learned with the rest. Needs no download.

    Being linear, its difference of two frames is the embedding of their pixel difference, cell by cell.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, config.width, config.patch, stride=config.patch)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.embed(pixels)  # [B, C, h, w]


class InverseDynamics(nn.Module):
    """From two aligned feature grids [B, C, h, w] to a hidden vector [B, hidden].

    The first stream is F_t, the second D_t (or F_{t+n} without Td). Each has its own projection and its own learned
    type, so that the streams can be told apart; they lie in separate channels of the same cell.
    """

    def __init__(self, config: InverseDynamicsConfig, features: int, cells: int) -> None:
        super().__init__()
        half = config.width // 2
        self.project_frame = nn.Conv2d(features, half, 1)
        self.project_motion = nn.Conv2d(features, half, 1)
        self.types = nn.Parameter(torch.randn(2, half) * 0.02)
        layers, width = [], config.width
        while cells > 4:
            wider = min(2 * width, 2 * config.width)
            layers.append(conv_block(width, wider, stride=2))
            width, cells = wider, cells // 2
        self.trunk = nn.Sequential(*layers, conv_block(width, width))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(width * cells * cells, config.hidden), nn.GELU())

    def forward(self, frame: torch.Tensor, motion: torch.Tensor) -> torch.Tensor:
        types = self.types[:, :, None, None]
        streams = [self.project_frame(frame) + types[0], self.project_motion(motion) + types[1]]
        return self.head(self.trunk(torch.cat(streams, dim=1)))


class Bottleneck(nn.Module):
    """A continuous z of few numbers: no quantiser."""

    def __init__(self, hidden: int, latent_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(hidden, latent_size)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.project(hidden).float()  # [B, D]; float32 also under autocast, since losses compare directions


class ForwardDynamics(nn.Module):
    """From frame t in raw patches and z to the change F_{t+n} - F_t, in pixels [B, 3, H, W].

    z enters as scale and shift of the channels, the same in every cell, at two resolutions: it can say what moves and
    how, and must leave to frame t where. Were z given a map of its own, it would store the picture of the change, and
    the probe would find less motion in it.
    """

    def __init__(self, config: ForwardDynamicsConfig, latent_size: int) -> None:
        super().__init__()
        width, coarse = config.width, config.coarse_width
        self.patches = nn.Sequential(nn.Conv2d(3, width, config.patch, stride=config.patch), conv_block(width, width))
        self.down = conv_block(width, coarse, stride=2)
        self.coarse_scale = nn.Linear(latent_size, 2 * coarse)
        self.fine_scale = nn.Linear(latent_size, 2 * width)
        self.coarse = conv_block(coarse, coarse)
        self.up = nn.Sequential(nn.Conv2d(coarse, width, 1), nn.Upsample(scale_factor=2))
        self.fine = conv_block(width, width)
        change = nn.Conv2d(width, 3 * config.patch**2, 1)
        # Most of a picture does not change: training starts from nearly no change, not from noise.
        nn.init.normal_(change.weight, std=0.01)
        self.out = nn.Sequential(change, nn.PixelShuffle(config.patch))

    def forward(self, pixels: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        fine = self.patches(pixels)
        fine = fine + self.up(self.coarse(modulate(self.down(fine), self.coarse_scale(latent))))
        return self.out(self.fine(modulate(fine, self.fine_scale(latent)))).float()


def conv_block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution, a norm over groups of channels, GELU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(8, outputs), nn.GELU())


def modulate(grid: torch.Tensor, scale_shift: torch.Tensor) -> torch.Tensor:
    """grid [B, C, h, w] times (1 + scale) plus shift, from scale_shift [B, 2 C]."""
    scale, shift = scale_shift[:, :, None, None].chunk(2, dim=1)
    return grid * (1 + scale) + shift
