"""Train a diffusion policy on a few demonstrations and, co-trained, on pseudo-labelled video.

    train(demonstrations, videos, interface, load(PolicyConfig, "config/policy/diffusion.yaml"), "runs/policy")
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from como_core.episode import Episode
from como_core.formats.cache import FrameCache
from como_core.interface import Interface
from como_core.policy.card import write_card
from como_core.policy.checkpoint import TrainedConfig, build_model, save_policy
from como_core.policy.cotraining import PseudoLabels, pseudo_label
from como_core.policy.data import CameraStack, Windows, WindowShape, check_demonstrations, vocabulary
from como_core.policy.diffusion import make_sampler
from como_core.policy.model import PolicyConfig, diffusion_loss
from como_core.policy.normaliser import Normaliser
from como_core.training.loop import History, fit
from como_core.training.progress import track

Draw = Callable[[np.random.Generator], dict[str, Any]]


@dataclass(frozen=True)
class Trained:
    """What came of a training: the checkpoint, the loss curve, and the labels that the video was given."""

    directory: Path
    history: History
    pseudo: PseudoLabels | None

    def notes(self) -> list[str]:
        """What a person should know of the pseudo-labels, a line each."""
        if self.pseudo is None:
            return []
        left_out = ", ".join(f"{value:.2f}" for value in self.pseudo.fit.r2)
        return [f"decoder: {self.pseudo.fit.steps} labelled steps; R2 on left-out demonstrations: {left_out}",
                f"pseudo-labelled: {len(self.pseudo.episodes)} videos, {len(self.pseudo.skipped)} skipped",
                *(f"  {path}: {reason}" for path, reason in self.pseudo.skipped)]


def train(demonstrations: Sequence[Episode], videos: Sequence[Episode], interface: Interface, config: PolicyConfig,
          out: str | Path, command: str = "", cache: str | Path | None = None) -> Trained:
    """Train and write a checkpoint into `out`; run again, it resumes, and a finished run returns at once.

    demonstrations  episodes with measured actions; with latents too where the co-training mode decodes
    videos          episodes with latents and no actions; unused when the mode is "none"
    command         what was typed, for the card
    cache           folder of decoded pictures, which runs on the same files may share; out/cache where None

    Raises ComoError, naming the file, for an episode that does not fit the interface, the policy or the labels.
    """
    check_demonstrations(demonstrations, interface, config.observation.state)
    labels = pseudo_label(demonstrations, videos, interface, config.cotraining)
    given = [*demonstrations, *(labels.episodes if labels else [])]
    frames, held = camera_stack(given, interface, config.observation.image_size, Path(cache or Path(out) / "cache"))
    episodes = [given[i] for i in held]
    demonstrations = [given[i] for i in held if i < len(demonstrations)]
    check_demonstrations(demonstrations, interface, config.observation.state)
    trained = TrainedConfig(config, vocabulary(episodes))
    normaliser = Normaliser.fit(demonstrations)
    draw = batches(demonstrations, episodes[len(demonstrations):], trained, interface, normaliser, frames)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        model = build_model(trained, interface)
    sampler = make_sampler(config.sampler, config.sampler_steps)
    loss = functools.partial(diffusion_loss, sampler=sampler)
    history = fit(model, draw, loss, config.training, out, "policy", {"policy": trained, "data": _digest(episodes)})
    card = write_card(trained, demonstrations, labels, history, command)
    return Trained(save_policy(out, model, trained, interface, normaliser, card), history, labels)


def camera_stack(episodes: Sequence[Episode], interface: Interface, size: int, cache: Path
                 ) -> tuple[CameraStack, list[int]]:
    """The pictures of the episodes, end to end, for each camera of the interface; decoded once, memory-mapped.

    Also which episodes these are: one of which some camera breaks while it is decoded is left out, and is named.
    """
    held = list(range(len(episodes)))
    while True:
        caches = [FrameCache.build([episodes[i] for i in held], camera, size, cache,
                                   functools.partial(track, title="decoding", unit="frames"))
                  for camera in interface.cameras]
        common = set(caches[0].held).intersection(*(found.held for found in caches))
        agreed = all(len(found.held) == len(common) for found in caches)
        held = [held[i] for i in sorted(common)]
        if agreed:
            return CameraStack([found.frames for found in caches]), held


def batches(demonstrations: Sequence[Episode], pseudo: Sequence[Episode], trained: TrainedConfig, interface: Interface,
            normaliser: Normaliser, frames: CameraStack | np.ndarray) -> Draw:
    """A function that draws a batch: `video_share` of it from the pseudo-labelled video, where there is any.

    frames  uint8 [N, C, H, W, 3]: the pictures of the demonstrations, then of the pseudo-labelled video.
    """
    config = trained.policy
    shape = WindowShape(config.chunk_steps, interface.action.rate_hz, config.observation.state)
    windows = Windows.of([*demonstrations, *pseudo], frames, trained.instructions, normaliser, shape)
    boundary = sum(len(e) for e in demonstrations)
    measured, decoded = windows.starts[windows.starts < boundary], windows.starts[windows.starts >= boundary]
    from_video = round(config.cotraining.video_share * config.training.batch_size) if len(decoded) else 0

    def draw(rng: np.random.Generator) -> dict[str, Any]:
        starts = [rng.choice(measured, config.training.batch_size - from_video)]
        starts += [rng.choice(decoded, from_video)] if from_video else []
        return windows.batch(np.concatenate(starts), config.shift_px, rng)

    return draw


def _digest(episodes: Sequence[Episode]) -> str:
    """What the actions, their trust and their times are: a run is not gone on with when its labels have changed."""
    digest = hashlib.sha256()
    for episode in episodes:
        digest.update(f"{episode.source} {episode.instruction} {len(episode)}".encode())
        for values in (episode.timestamps, episode.state, episode.action, episode.provenance, episode.confidence):
            digest.update(b"absent" if values is None else np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
