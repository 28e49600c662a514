"""Observation encoder: cameras, instruction and optional proprioception as one context vector."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from como_core.bounds import ABOVE_0, COUNT, require_bounds
from como_core.policy.text import TextConfig


@dataclass(frozen=True)
class ObservationConfig:
    """Size of the encoder.

    image_size    pixels of the square image after centre crop and resize
    channels      of the patch embedding (4 x 4 pixels) and of the two convolutions after it, the first of which halves
    map_channels  of the feature map of (image_size / 8)^2 positions that goes into the context
    width         of the context vector
    state         use proprioception (the video has none; it is then marked absent, never filled)
    history_s     seconds before the newest picture at which earlier ones are seen as well, such as [0.1, 0.2]
    text          how the instruction is read
    """

    image_size: int = 64
    channels: tuple[int, int, int] = (64, 96, 128)
    map_channels: int = 32
    width: int = 256
    state: bool = False
    history_s: tuple[float, ...] = ()
    text: TextConfig = field(default_factory=TextConfig)

    def __post_init__(self) -> None:
        if self.image_size % 8 or self.image_size < 16:
            raise ValueError(f"image_size must be a multiple of 8 and at least 16, got {self.image_size}")
        require_bounds(self, channels=COUNT, map_channels=COUNT, width=COUNT, history_s=ABOVE_0)


class ObservationEncoder(nn.Module):
    """images uint8 [B, P, H, W, 3], instruction [B, T], state [B, S], state_known [B] -> context [B, width].

    The P pictures are those of every camera, now and at each lag of history_s; the T numbers are what `text` makes of
    the instruction.

    The instruction scales the last feature map (FiLM, arXiv 1709.07871), so that it can choose what is looked at, and
    is added to the context. The feature map is kept as a map (flattened, not pooled): where things are is what counts.
    Whether a label was measured or decoded is no input: told so, the network learns the measured few by heart.
    """

    def __init__(self, config: ObservationConfig, pictures: int, text_size: int, state_size: int) -> None:
        super().__init__()
        self.config = config
        patch, middle, last = config.channels
        self.trunk = nn.Sequential(
            nn.Conv2d(3, patch, kernel_size=4, stride=4), nn.ReLU(),
            nn.Conv2d(patch, middle, kernel_size=3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(middle, last, kernel_size=3, padding=1),
        )
        self.trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack this form
        self.norm = _ChannelNorm(last)
        self.film = nn.Linear(text_size, 2 * last, bias=False)
        nn.init.zeros_(self.film.weight)
        self.squeeze = nn.Conv2d(last, config.map_channels, 1)
        positions = (config.image_size // 8) ** 2
        self.project = nn.Linear(pictures * config.map_channels * positions, config.width)
        self.instruction = nn.Linear(text_size, config.width, bias=False)
        nn.init.normal_(self.instruction.weight)
        self.state = nn.Linear(state_size, config.width) if config.state else None
        self.state_absent = nn.Parameter(torch.zeros(config.width)) if config.state else None
        self.output = nn.LayerNorm(config.width)

    def forward(self, images: Tensor, instruction: Tensor, state: Tensor | None = None,
                state_known: Tensor | None = None) -> Tensor:
        batch, pictures = images.shape[:2]
        pixels = images.flatten(0, 1).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)  # [B*P, 3, H, W], channels last
        features = self.norm(self.trunk(pixels))  # [B*P, last, H/8, W/8]
        scale, shift = self.film(instruction).repeat_interleave(pictures, 0)[:, :, None, None].chunk(2, 1)
        features = self.squeeze(torch.relu(features * (1 + scale) + shift))
        context = self.project(features.reshape(batch, -1)) + self.instruction(instruction)
        if self.state is not None and self.state_absent is not None:
            assert state is not None and state_known is not None, "the encoder was built with state"
            context = context + torch.where(state_known[:, None], self.state(state), self.state_absent)
        return self.output(context)


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each position; [B, C, H, W], cheap in channels-last memory."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

