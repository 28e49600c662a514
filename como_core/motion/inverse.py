"""Inverse dynamics: from the features of two frames to a hidden description of the motion between them."""

from __future__ import annotations

import torch
from torch import nn

from como_core.motion.blocks import conv_block, transformer
from como_core.motion.config import InverseDynamicsConfig


def make_inverse(config: InverseDynamicsConfig, features: int, cells: int) -> ConvInverseDynamics | QFormer:
    """The encoder that `config` asks for, over grids [B, features, cells, cells]."""
    return (ConvInverseDynamics if config.kind == "conv" else QFormer)(config, features, cells)


class ConvInverseDynamics(nn.Module):
    """From two aligned feature grids [B, C, h, w] to one hidden vector [B, 1, hidden].

    Each stream has its own projection and its own learned type, so that the streams can be told apart; they lie in
    separate channels of the same cell.
    """

    def __init__(self, config: InverseDynamicsConfig, features: int, cells: int) -> None:
        super().__init__()
        part = config.width // 2 if config.frame else config.width
        self.tokens, self.out = 1, config.hidden
        self.project_frame = nn.Conv2d(features, part, 1) if config.frame else None
        self.project_motion = nn.Conv2d(features, part, 1)
        self.types = nn.Parameter(torch.randn(2 if config.frame else 1, part) * 0.02)
        layers, width = [], config.width
        while cells > 4:
            wider = min(2 * width, 2 * config.width)
            layers.append(conv_block(width, wider, stride=2))
            width, cells = wider, (cells + 1) // 2
        self.trunk = nn.Sequential(*layers, conv_block(width, width))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(width * cells * cells, config.hidden), nn.GELU())

    def forward(self, frame: torch.Tensor, motion: torch.Tensor) -> torch.Tensor:
        types = self.types[:, :, None, None]
        streams = [self.project_motion(motion) + types[-1]]
        if self.project_frame is not None:
            streams.insert(0, self.project_frame(frame) + types[0])
        return self.head(self.trunk(torch.cat(streams, dim=1)))[:, None]


class QFormer(nn.Module):
    """Learned queries attend to the tokens of both streams (paper, section 3): [B, queries, width].

    The sequence is [queries; Lin(F_t); SEP; Lin(D_t)], in pre-norm layers; the first `queries` outputs are read. Both
    streams share places and have types of their own.
    """

    def __init__(self, config: InverseDynamicsConfig, features: int, cells: int) -> None:
        super().__init__()
        width = config.width
        self.tokens, self.out = config.queries, width
        self.queries = nn.Parameter(torch.randn(config.queries, width) * 0.02)
        self.separator = nn.Parameter(torch.randn(1, width) * 0.02)
        self.places = nn.Parameter(torch.randn(cells * cells, width) * 0.02)
        self.types = nn.Parameter(torch.randn(2 if config.frame else 1, width) * 0.02)
        self.project_frame = nn.Linear(features, width) if config.frame else None
        self.project_motion = nn.Linear(features, width)
        self.trunk = transformer(width, config.hidden, config.layers, config.heads)

    def forward(self, frame: torch.Tensor, motion: torch.Tensor) -> torch.Tensor:
        batch = len(motion)
        parts = [self.queries.expand(batch, -1, -1)]
        if self.project_frame is not None:
            parts.append(self.project_frame(frame.flatten(2).transpose(1, 2)) + self.places + self.types[0])
        parts += [self.separator.expand(batch, -1, -1),
                  self.project_motion(motion.flatten(2).transpose(1, 2)) + self.places + self.types[-1]]
        return self.trunk(torch.cat(parts, dim=1))[:, :self.tokens]
