"""Forward dynamics that moves frame t: a flow that is linear in z, and what no flow can show added on top."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from como_core.motion.blocks import conv_block
from como_core.motion.config import ForwardDynamicsConfig

# A z of unit size should begin by moving things a little, whatever the size of the picture.
_REACH = 0.2


class Warp(nn.Module):
    """Frame t is moved along the flow sum_k z_k basis_k(frame t), then corrected.

    The basis is made from frame t alone: it says where things are and how they can move, and z how much of each. So z
    lives in a space where motions add up and -z leads back, as the image Jacobian of an arm maps velocities to flow:
    frame t + n is told by a few numbers that are nearly linear in the motion. A trunk that knows z adds what appears
    from nowhere, and a mask says how far the flow is to be believed.
    """

    def __init__(self, config: ForwardDynamicsConfig, latent_size: int) -> None:
        super().__init__()
        width, coarse, self._count = config.width, config.coarse_width, latent_size
        self.fine = nn.Sequential(nn.Conv2d(3, width, config.patch, stride=config.patch), conv_block(width, width))
        self.coarse = nn.Sequential(conv_block(width, coarse, stride=2), conv_block(coarse, coarse),
                                    nn.Conv2d(coarse, width, 1), nn.Upsample(scale_factor=2))
        basis = nn.Conv2d(width, 2 * latent_size, 1)
        nn.init.normal_(basis.weight, std=0.02)
        self.basis = nn.Sequential(conv_block(width, width), basis)
        self.mask = nn.Conv2d(width, 1, 1)

    def forward(self, pixels: torch.Tensor, latent: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """Pixels [B, 3, H, W] of frame t moved by z [B, D]; `grid` is what the trunk that knows z made of them."""
        size = pixels.shape[2:]
        mask = functional.interpolate(self.mask(grid).float().sigmoid(), size=size, mode="bilinear")
        steps = self.flow(pixels, latent).permute(0, 2, 3, 1)  # [B, H, W, 2]
        moved = functional.grid_sample(pixels, _places(pixels) + steps, padding_mode="border", align_corners=False)
        return pixels + mask * (moved - pixels)

    def flow(self, pixels: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        """Where each pixel of frame t + n comes from, as x and y in half pictures: [B, 2, H, W]."""
        fine = self.fine(pixels)
        basis = self.basis(fine + self.coarse(fine)).float().unflatten(1, (self._count, 2))
        flow = torch.einsum("bk,bkchw->bchw", latent, basis) * _REACH
        return functional.interpolate(flow, size=pixels.shape[2:], mode="bilinear")


def _places(pixels: torch.Tensor) -> torch.Tensor:
    """x and y of every pixel's middle, from -1 to 1: [1, H, W, 2]."""
    rows, columns = ((2 * torch.arange(n, device=pixels.device) + 1) / n - 1 for n in pixels.shape[2:])
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[None]
