"""MotionModel: z says what changed between frame t and frame t + n (paper, section 3).

    z = model.encode(frames_a, frames_b)          # [B, D]: InverseDynamics of Backbone features, then Bottleneck
    frames = model.reconstruct(frames_a, z)       # [B, H, W, 3]: ForwardDynamics

With the temporal difference (Td) the encoder sees [F_t, F_{t+n} - F_t] and never F_{t+n} itself.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from como_core.motion.config import MotionConfig
from como_core.motion.parts import Bottleneck, ForwardDynamics, InverseDynamics, PatchBackbone
from como_core.training.checkpoint import CheckpointError, load_checkpoint


class MotionModel(nn.Module):
    """Backbone, InverseDynamics, Bottleneck and ForwardDynamics, as `config` says."""

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.config = config
        cells = config.image_size // config.backbone.patch
        self.backbone = PatchBackbone(config.backbone)
        self.inverse = InverseDynamics(config.inverse, config.backbone.width, cells)
        self.bottleneck = Bottleneck(config.inverse.hidden, config.latent_size)
        self.forward_dynamics = ForwardDynamics(config.forward, config.latent_size)
        # Convolutions on CPUs and tensor cores are faster with channels last.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Backbone features of frames, [B, C, h, w]; once per frame, however many pairs it is in."""
        return self.backbone(pixels)

    def latent(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """z, [B, D], of the features of frame t and frame t + n."""
        if not self.config.inverse.antisymmetric:
            return self._one_way(first, second)
        ways = self._one_way(torch.cat([first, second]), torch.cat([second, first]))
        there, back = ways.chunk(2)
        return (there - back) / 2

    def _one_way(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        stream = second - first if self.config.inverse.temporal_difference else second
        return self.bottleneck(self.inverse(first, stream))

    def forward(self, first: torch.Tensor, second: torch.Tensor, third: torch.Tensor | None = None
                ) -> dict[str, torch.Tensor]:
        """What the losses need of pixels [B, 3, H, W] at t, t + n and, for Tcl, t + n + d.

        latent, change (the predicted F_{t+n} - F_t in pixels) and, with `third`, later (z_{t,t+n+d}) and
        reverse (z_{t+n,t}) of the first C pairs, where `third` has C rows.
        """
        a, b = self.features(first), self.features(second)
        z = self.latent(a, b)
        out = {"latent": z, "change": self.forward_dynamics(first, z)}
        if third is not None:
            a, b = a[:len(third)], b[:len(third)]
            out |= {"later": self.latent(a, self.features(third)), "reverse": self.latent(b, a)}
        return out

    @torch.no_grad()
    def encode(self, frames_a: np.ndarray | torch.Tensor, frames_b: np.ndarray | torch.Tensor,
               batch: int = 256) -> torch.Tensor:
        """z of uint8 frames [B, H, W, 3] at t and t + n: float32 [B, D]. The same pair gives the same bits."""
        parts = [self.latent(self.features(self.pixels(frames_a[i:i + batch])),
                             self.features(self.pixels(frames_b[i:i + batch])))
                 for i in range(0, len(frames_a), batch)]
        return torch.cat(parts) if parts else torch.zeros(0, self.config.latent_size)

    @torch.no_grad()
    def reconstruct(self, frames_a: np.ndarray | torch.Tensor, latent: torch.Tensor, batch: int = 256) -> torch.Tensor:
        """Frames t + n, uint8 [B, H, W, 3], from uint8 frames t and z [B, D]."""
        parts = []
        for i in range(0, len(frames_a), batch):
            pixels = self.pixels(frames_a[i:i + batch])
            parts.append(to_frames(pixels + self.forward_dynamics(pixels, latent[i:i + batch].to(self.device))))
        return torch.cat(parts)

    def pixels(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """`to_pixels`, on the model's device. Raises ValueError where the frames are not of the model's size."""
        frames = torch.from_numpy(np.ascontiguousarray(frames)) if isinstance(frames, np.ndarray) else frames
        size = self.config.image_size
        if frames.dtype != torch.uint8 or frames.shape[1:] != (size, size, 3):
            raise ValueError(f"expected uint8 frames [B, {size}, {size}, 3], got {frames.dtype} {list(frames.shape)}")
        return to_pixels(frames.to(self.device))


def to_pixels(frames: torch.Tensor) -> torch.Tensor:
    """uint8 frames [B, H, W, 3] as the model's input: float32 [B, 3, H, W] in [-1, 1], channels last in memory."""
    return frames.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_frames(pixels: torch.Tensor) -> torch.Tensor:
    """The inverse of `to_pixels`: uint8 [B, H, W, 3], rounded and clipped."""
    return ((pixels.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)


def load_motion(directory: str | Path, device: str | torch.device = "cpu") -> MotionModel:
    """The trained model of a checkpoint directory, in eval mode. Raises CheckpointError or ConfigError."""
    checkpoint = load_checkpoint(directory, MotionConfig)
    model = MotionModel(checkpoint.config)
    try:
        model.load_state_dict(checkpoint.tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{directory}: the tensors do not fit config.yaml: {error}") from error
    return model.to(device).eval()
