"""Building blocks that more than one part of the motion model uses."""

from __future__ import annotations

import torch
from torch import nn


def conv_block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution, a norm over groups of channels, GELU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(8, outputs), nn.GELU())


def modulate(grid: torch.Tensor, scale_shift: torch.Tensor) -> torch.Tensor:
    """grid [B, C, h, w] times (1 + scale) plus shift, from scale_shift [B, 2 C]."""
    scale, shift = scale_shift[:, :, None, None].chunk(2, dim=1)
    return grid * (1 + scale) + shift


def transformer(width: int, hidden: int, layers: int, heads: int) -> nn.TransformerEncoder:
    """Pre-norm self-attention layers over [B, tokens, width], MLPs of `hidden`, and a last norm."""
    layer = nn.TransformerEncoderLayer(width, heads, hidden, dropout=0.0, activation="gelu", batch_first=True,
                                       norm_first=True)
    return nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
