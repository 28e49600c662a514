"""MotionModel: z says what changed between frame t and frame t + n (paper, section 3).

    z = model.encode(frames_a, frames_b)          # [B, D]: InverseDynamics of Backbone features, then Bottleneck
    frames = model.reconstruct(frames_a, z)       # [B, H, W, 3]: ForwardDynamics

With the temporal difference (Td) the encoder sees [F_t, F_{t+n} - F_t] and never F_{t+n} itself.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import nn

from como_core.errors import ComoError
from como_core.motion.backbone import make_backbone
from como_core.motion.bottleneck import Bottleneck, reversed_code
from como_core.motion.config import MotionConfig
from como_core.motion.forward_dynamics import ForwardDynamics
from como_core.motion.inverse import make_inverse
from como_core.motion.place import in_place
from como_core.training.checkpoint import CheckpointError, load_checkpoint
from como_core.training.ranks import named_device

# Four grey levels, squared, in units of pixels.
_STILL = (4 / 127.5) ** 2


class MotionModel(nn.Module):
    """Backbone, InverseDynamics, Bottleneck and ForwardDynamics, as `config` says. Raises BackboneError."""

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.backbone = make_backbone(config.backbone, config.image_size)
        width, cells = self.backbone.width, self.backbone.cells
        self.config = dataclasses.replace(
            config, backbone=dataclasses.replace(config.backbone, sha256=self.backbone.sha256, mean=self.backbone.mean,
                                                 std=self.backbone.std))
        patch = config.image_size // cells
        # No bias: the difference of two embeddings is the embedding of the difference.
        self.rgb = nn.Conv2d(3, width, patch, stride=patch, bias=False) if config.inverse.motion == "rgb" else None
        self.inverse = make_inverse(config.inverse, width, cells)
        self.bottleneck = Bottleneck(config.bottleneck, self.inverse.tokens, self.inverse.out, config.code_size,
                                     narrow=config.inverse.kind == "qformer")
        self.forward_dynamics = ForwardDynamics(
            config.forward, config.latent_size, config.image_size, config.loss.pixels_predicted,
            width if config.loss.feature else 0, cells)
        self.readout = nn.Linear(config.latent_size, config.actions) if config.actions else None
        for part in (self.inverse, self.forward_dynamics):
            # Convolutions on CPUs and tensor cores are faster with channels last.
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def features(self, pixels: torch.Tensor, backbone: torch.Tensor | None = None) -> torch.Tensor:
        """What the encoder needs of frames, [B, C, h, w]; once per frame, however many pairs it is in.

        `backbone` gives features of a fixed backbone that are known already. With motion "rgb" the embedding of the
        colours lies behind them.
        """
        grid = self._backbone(pixels) if backbone is None else backbone
        return grid if self.rgb is None else torch.cat([grid, self.rgb(pixels)], dim=1)

    def _backbone(self, pixels: torch.Tensor) -> torch.Tensor:
        # Pixels ask for no gradient here, so a fixed backbone needs none.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.backbone.fixed):
            return self.backbone(pixels)

    def latent(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """z, [B, D], of the features of frame t and frame t + n."""
        return self._finished(first, second)[0]

    def _finished(self, first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """z, [B, D], and loss terms of the bottleneck's own."""
        code, own = self.bottleneck.finish(self.code(first, second))
        width = self.backbone.width
        return in_place(code, first[:, :width], second[:, :width]) if self.config.inverse.placed else code, own

    def code(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """What the bottleneck makes z of: z itself, what is quantised or drawn from, or what is put in its place."""
        if not self.config.inverse.antisymmetric:
            return self._one_way(first, second)
        ways = self._one_way(torch.cat([first, second]), torch.cat([second, first]))
        there, back = ways.chunk(2)
        return reversed_code(there, back, self.config.bottleneck.kind)

    def _one_way(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        frame, motion = first, second
        if self.config.inverse.motion == "difference":
            motion = second - first
        elif self.rgb is not None:
            frame, motion = first[:, :self.backbone.width], (second - first)[:, self.backbone.width:]
        return self.bottleneck.project(self.inverse(frame, motion))

    def forward(self, first: torch.Tensor, second: torch.Tensor, third: torch.Tensor | None = None,
                middle: torch.Tensor | None = None, known: dict[str, torch.Tensor] | None = None
                ) -> dict[str, torch.Tensor]:
        """What the losses need of pixels [B, 3, H, W] at t, t + n and, where the losses ask, of further frames.

        third   at t + n + d, of the first C pairs: gives "later", z_{t,t+n+d}
        middle  at t + n/2, of the first M pairs: gives "before" and "after", z_{t,t+n/2} and z_{t+n/2,t+n}
        known   backbone features of each of these by name, where they were computed before

        Always: "latent", and the predictions "pixels", "features" and "action" that there are heads for; "reverse",
        z_{t+n,t}, where a loss asks for it.
        """
        loss, known = self.config.loss, known or {}
        a, b = self.features(first, known.get("first")), self.features(second, known.get("second"))
        z, own = self._finished(a, b)
        grid = a[:, :self.backbone.width]
        out = {"latent": z, **own, **self.forward_dynamics(first, z, grid if loss.feature else None)}
        if loss.feature:
            out |= {"features_first": grid, "features_second": b[:, :self.backbone.width]}
        if self.readout is not None:
            out["action"] = self.readout(z).float()
        if loss.reversal or third is not None:
            count = len(first) if third is None else len(third)
            out["reverse"] = self.latent(b[:count], a[:count])
        if third is not None:
            out["later"] = self.latent(a[:len(third)], self.features(third, known.get("third")))
        if middle is not None:
            m = self.features(middle, known.get("middle"))
            out |= {"before": self.latent(a[:len(m)], m), "after": self.latent(m, b[:len(m)])}
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
        """Frames t + n, uint8 [B, H, W, 3], from uint8 frames t and z [B, D].

        Raises ComoError for a model that predicts features and no pictures.
        """
        if self.forward_dynamics.to_pixels is None:
            raise ComoError("this motion model predicts features, not pictures; train one with loss.pixel above 0 to "
                            "see its reconstructions")
        parts = []
        for i in range(0, len(frames_a), batch):
            pixels = self.pixels(frames_a[i:i + batch])
            parts.append(to_frames(self.forward_dynamics(pixels, latent[i:i + batch].to(self.device))["pixels"]))
        return torch.cat(parts)

    @torch.no_grad()
    def explained(self, first: torch.Tensor, second: torch.Tensor, grids: tuple[torch.Tensor, torch.Tensor],
                  latent: torch.Tensor) -> torch.Tensor:
        """The share of the change from frame t to t + n that forward dynamics rebuilds from z: [B] in [0, 1].

        first, second  pixels [B, 3, H, W];  grids  what `features` said of them;  latent  z [B, D]

        In pixels where the model predicts them, else in features. Noise is added to the change that is divided by, so
        that where next to nothing changes the error alone counts.
        """
        predicted = self.forward_dynamics(first, latent, grids[0][:, :self.backbone.width])
        if "pixels" in predicted:
            guess, before, after, still = predicted["pixels"], first, second, _STILL
        else:
            before, after = (grid[:, :self.backbone.width] for grid in grids)
            guess, still = predicted["features"], 1e-6
        error = (guess - after).square().flatten(1).mean(dim=1)
        return (1 - error / ((after - before).square().flatten(1).mean(dim=1) + still)).clamp(0, 1)

    def pixels(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """`to_pixels`, on the model's device. Raises ValueError where the frames are not of the model's size."""
        frames = torch.from_numpy(np.ascontiguousarray(frames)) if isinstance(frames, np.ndarray) else frames
        size = self.config.image_size
        if frames.dtype != torch.uint8 or frames.shape[1:] != (size, size, 3):
            raise ValueError(f"expected uint8 frames [B, {size}, {size}, 3], got {frames.dtype} {list(frames.shape)}")
        return to_pixels(frames.to(self.device))

    def parameter_counts(self) -> dict[str, int]:
        """Numbers of parameters by part; those of a frozen pretrained backbone under "frozen backbone"."""
        counts = {name: sum(p.numel() for p in part.parameters()) for name, part in self.named_children()}
        network = getattr(self.backbone, "network", None)
        if network is not None:
            counts["frozen backbone"] = sum(p.numel() for p in network.parameters())
        return {name: count for name, count in counts.items() if count}


def to_pixels(frames: torch.Tensor) -> torch.Tensor:
    """uint8 frames [B, H, W, 3] as the model's input: float32 [B, 3, H, W] in [-1, 1], channels last in memory."""
    return frames.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_frames(pixels: torch.Tensor) -> torch.Tensor:
    """The inverse of `to_pixels`: uint8 [B, H, W, 3], rounded and clipped."""
    return ((pixels.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)


def load_motion(directory: str | Path, device: str | torch.device = "cpu") -> MotionModel:
    """The trained model of a checkpoint directory, in eval mode.

    Raises CheckpointError, ConfigError, BackboneError, and ComoError where there is no such device.
    """
    place = named_device(device)
    checkpoint = load_checkpoint(directory, MotionConfig)
    model = MotionModel(checkpoint.config)
    try:
        model.load_state_dict(checkpoint.tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{directory}: the tensors do not fit config.yaml: {error}") from error
    return model.to(place).eval()
