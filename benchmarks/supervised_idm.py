"""The baseline to beat: an inverse dynamics model fitted on the labelled few, which then labels the video (VPT).

Baker et al., arXiv 2206.11795. It sees the same frame pairs that the action decoder reads latents of, through an
encoder of the same size as the motion model's, and the instruction; its pictures are shifted as in policy training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from como_core.episode import Episode, Provenance
from como_core.motion.config import MotionConfig
from como_core.motion.inverse import ConvInverseDynamics
from como_core.motion.model import to_pixels
from como_core.policy.data import shifted
from como_core.training.loop import LoopConfig, fit

_SHIFT_PX = 3
_MEMBERS = 3  # as the decoder of latents, an ensemble
_DROPOUT = 0.3


class _Network(nn.Module):
    """Frames at each offset [B, F, H, W, 3] and the task [B, I] -> action [B, A], z-scored."""

    def __init__(self, config: MotionConfig, pairs: int, tasks: int, actions: int) -> None:
        super().__init__()
        width = config.backbone.width
        self.embed = nn.Conv2d(3, width, config.backbone.patch, stride=config.backbone.patch)
        self.inverse = ConvInverseDynamics(config.inverse, width, config.image_size // config.backbone.patch)
        self.head = nn.Sequential(nn.Dropout(_DROPOUT), nn.Linear(pairs * self.inverse.out + tasks, 128), nn.GELU(),
                                  nn.Linear(128, actions))

    def forward(self, frames: Tensor, task: Tensor) -> Tensor:
        count = frames.shape[1]
        grids = self.embed(to_pixels(frames.flatten(0, 1))).unflatten(0, (-1, count)).float()
        seen = [self.inverse(grids[:, i], grids[:, i + 1] - grids[:, i])[:, 0] for i in range(0, count, 2)]
        return self.head(torch.cat([*seen, task], dim=1))


def label(demonstrations: Sequence[Episode], videos: Sequence[Episode], config: MotionConfig,
          lags_s: Sequence[float], loop: LoopConfig, out: Path) -> list[Episode]:
    """The videos with actions, provenance PSEUDO and confidence 1, by an ensemble fitted on the demonstrations.

    lags_s  start of each pair of frames, in seconds from the step; the pair is `config.gap_s` long
    """
    offsets = [lag + shift for lag in lags_s for shift in (0.0, config.gap_s)]
    tasks = sorted({e.instruction or "" for e in demonstrations})
    actions = np.concatenate([e.action for e in demonstrations if e.action is not None])
    mean, scale = actions.mean(0), actions.std(0) + 1e-6
    frames = np.concatenate([e.images["front"][:] for e in demonstrations])
    starts = np.cumsum([0, *(len(e) for e in demonstrations)])
    rows = np.concatenate([_rows(e, offsets) + start for e, start in zip(demonstrations, starts, strict=False)])
    words = np.concatenate([_words(e, tasks) for e in demonstrations])
    target = torch.from_numpy(((actions - mean) / scale).astype(np.float32))

    def sample(rng: np.random.Generator) -> dict[str, Tensor]:
        chosen = rng.integers(0, len(rows), loop.batch_size)
        up, left = rng.integers(-_SHIFT_PX, _SHIFT_PX + 1, (2, len(chosen)))
        seen = shifted(frames[rows[chosen]], up, left)  # all frames of a step alike
        return {"frames": torch.from_numpy(seen), "task": torch.from_numpy(words[chosen]), "action": target[chosen]}

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": (model(batch["frames"], batch["task"]).float() - batch["action"]).square().mean()}

    members = []
    for member in range(_MEMBERS):
        seeded = dataclasses.replace(loop, seed=1000 * loop.seed + member)
        torch.manual_seed(seeded.seed)
        network = _Network(config, len(lags_s), len(tasks), actions.shape[1])
        fit(network, sample, loss, seeded, out / str(member), "supervised IDM")
        members.append(network)
    return [_labelled(video, members, offsets, tasks, mean, scale) for video in videos]


@torch.inference_mode()
def _labelled(video: Episode, members: Sequence[_Network], offsets: Sequence[float], tasks: Sequence[str],
              mean: np.ndarray, scale: np.ndarray) -> Episode:
    frames, words = video.images["front"][:], torch.from_numpy(_words(video, tasks))
    rows, found = _rows(video, offsets), []
    for start in range(0, len(video), 64):
        seen = torch.from_numpy(frames[rows[start:start + 64]])
        found.append(torch.stack([m(seen, words[start:start + 64]) for m in members]).mean(0).numpy())
    action = np.concatenate(found) * scale + mean
    action[:, -1] = np.clip(action[:, -1], 0.0, 1.0)
    return dataclasses.replace(video, action=action.astype(np.float32), latent=None,
                               confidence=np.ones(len(video), np.float32),
                               provenance=np.full(len(video), Provenance.PSEUDO, np.uint8))


def _rows(episode: Episode, offsets: Sequence[float]) -> np.ndarray:
    """For each step the frames nearest to it at these offsets, the first and last repeated: int64 [T, F]."""
    period = episode.duration_s / max(len(episode) - 1, 1)
    steps = np.round(np.asarray(offsets) / period).astype(int)
    return np.clip(np.arange(len(episode))[:, None] + steps, 0, len(episode) - 1)


def _words(episode: Episode, tasks: Sequence[str]) -> np.ndarray:
    """One-hot instruction of each step, float32 [T, I]."""
    row = np.array([float((episode.instruction or "") == task) for task in tasks], np.float32)
    return np.tile(row, (len(episode), 1))
