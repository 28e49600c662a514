"""Train a policy on a few demonstrations and, co-trained, on relabelled video.

    train(demonstrations, videos, interface, load_preset("diffusion"), "runs/policy")
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from como_core.episode import Episode
from como_core.formats.cache import FrameCache
from como_core.interface import Interface
from como_core.policy.action_space import ActionSpace
from como_core.policy.card import write_card
from como_core.policy.checkpoint import TrainedConfig, build_model, load_weights, save_policy, text_of
from como_core.policy.config import PolicyConfig
from como_core.policy.cotraining import CotrainingMode, Video, prepare_video
from como_core.policy.data import CameraStack, Windows, WindowShape, check_demonstrations, vocabulary
from como_core.policy.guard import Verdict, leave_out, watch
from como_core.policy.model import PolicyModel
from como_core.policy.normaliser import Normaliser
from como_core.training.loop import History, fit
from como_core.training.progress import track

Draw = Callable[[np.random.Generator], dict[str, Any]]


@dataclass(frozen=True)
class Trained:
    """What came of a training: the checkpoint, the loss curve, what the video was made into, what the guard says."""

    directory: Path
    history: History
    video: Video | None
    verdict: Verdict | None

    def notes(self) -> list[str]:
        """What a person should know of the video, a line each."""
        if self.video is None:
            return []
        lines, fit = [], self.video.fit
        if fit is not None:
            left_out = ", ".join(f"{value:.2f}" for value in fit.r2)
            lines.append(f"decoder: {fit.steps} labelled steps; R2 on left-out demonstrations: {left_out}")
        how = "with pseudo-actions" if fit is not None else "with latents, and no action"
        return [*lines, f"video: {len(self.video.episodes)} clips {how}, {len(self.video.skipped)} skipped",
                *(f"  {path}: {reason}" for path, reason in self.video.skipped),
                *(self.verdict.lines() if self.verdict else [])]


def train(demonstrations: Sequence[Episode], videos: Sequence[Episode], interface: Interface, config: PolicyConfig,
          out: str | Path, command: str = "", cache: str | Path | None = None,
          start_from: str | Path | None = None) -> Trained:
    """Train and write a checkpoint into `out`; run again, it resumes, and a finished run returns at once.

    demonstrations  episodes with measured actions; with latents too where the co-training mode decodes. None where it
                    predicts latents: then the policy learns motion and no action, for others to start from
    videos          episodes with latents; their actions, if they have any, are not read; unused when the mode is "none"
    command         what was typed, for the card
    cache           folder of decoded pictures, which runs on the same files may share; out/cache where None
    start_from      checkpoint of the same network, whose weights training begins with

    Raises ComoError, naming the file, for an episode that does not fit the interface, the policy or the labels.
    """
    if demonstrations or not config.cotraining.predicts_latents:
        check_demonstrations(demonstrations, interface, config.observation.state)
    video = prepare_video(demonstrations, videos, interface, config.cotraining)
    given = [*demonstrations, *(video.episodes if video else [])]
    frames, held = camera_stack(given, interface, config.observation.image_size, Path(cache or Path(out) / "cache"))
    labelled = len(demonstrations)
    demonstrations = [given[i] for i in held if i < labelled]
    if labelled:
        check_demonstrations(demonstrations, interface, config.observation.state)
    filmed = [given[i] for i in held[len(demonstrations):]]
    verdict = _watch(demonstrations, filmed, frames, interface, config, Path(out)) if filmed else None
    trained, normaliser = _settle(config, [*demonstrations, *filmed], demonstrations, interface)
    model, history = _learn(demonstrations, filmed, frames, trained, normaliser, interface, Path(out), "policy",
                            start_from)
    card = write_card(trained, demonstrations, video, verdict, history, command)
    return Trained(save_policy(out, model, trained, interface, normaliser, card), history, video, verdict)


def _learn(demonstrations: Sequence[Episode], filmed: Sequence[Episode], frames: CameraStack, trained: TrainedConfig,
           normaliser: Normaliser, interface: Interface, out: Path, title: str,
           start_from: str | Path | None = None) -> tuple[PolicyModel, History]:
    draw = batches(demonstrations, filmed, trained, interface, normaliser, frames)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trained.policy.training.seed)
        model = build_model(trained, interface, normaliser)
    begun = load_weights(model, start_from) if start_from is not None else ""
    identity = {"policy": trained, "data": _digest([*demonstrations, *filmed]), "start": begun}
    return model, fit(model, draw, loss, trained.policy.training, out, title, identity)


def _watch(demonstrations: Sequence[Episode], filmed: Sequence[Episode], frames: CameraStack, interface: Interface,
           config: PolicyConfig, out: Path) -> Verdict | None:
    """The guard's verdict; None where it is off, or no instruction has two demonstrations."""
    steps = config.cotraining.guard_steps
    left_out, emptied = leave_out(demonstrations)
    if not steps or not left_out:
        return None
    kept = [e for e in emptied if e.action is not None]

    def learn(with_video: bool) -> tuple[PolicyModel, Windows]:
        mode: CotrainingMode = config.cotraining.mode if with_video else "none"
        arm = dataclasses.replace(config, cotraining=dataclasses.replace(config.cotraining, mode=mode),
                                  training=dataclasses.replace(config.training, steps=steps))
        video = prepare_video(kept, filmed, interface, arm.cotraining)
        trained, normaliser = _settle(arm, [*demonstrations, *(video.episodes if video else [])], kept, interface)
        model, _ = _learn(emptied, video.episodes if video else [], frames, trained, normaliser, interface,
                          out / "guard" / ("with_video" if with_video else "without"),
                          f"guard, {'with' if with_video else 'without'} video")
        return model, _windows(demonstrations, frames, trained, interface, normaliser)

    ends = np.cumsum([len(e) for e in demonstrations])
    rows = [(int(end) - len(e), int(end)) for e, end in zip(demonstrations, ends, strict=True)
            if any(e is other for other in left_out)]
    return watch(learn, rows, steps)


def loss(model: nn.Module, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The loss terms of a batch."""
    terms: dict[str, torch.Tensor] = model(batch)
    return terms


def _settle(config: PolicyConfig, episodes: Sequence[Episode], demonstrations: Sequence[Episode],
            interface: Interface) -> tuple[TrainedConfig, Normaliser]:
    """What only the data can tell: instructions, the text encoder's hash, scales."""
    trained = TrainedConfig(config, vocabulary(episodes), len(demonstrations))
    sha256 = text_of(trained).sha256
    text = dataclasses.replace(config.observation.text, sha256=sha256)
    trained = dataclasses.replace(trained, policy=dataclasses.replace(
        config, observation=dataclasses.replace(config.observation, text=text)))
    latents = episodes if config.cotraining.predicts_latents else ()
    space = ActionSpace.of(interface)
    if not demonstrations:
        return trained, Normaliser.without_actions(space, latents)
    return trained, Normaliser.fit(demonstrations, space, latents)


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


def batches(demonstrations: Sequence[Episode], video: Sequence[Episode], trained: TrainedConfig, interface: Interface,
            normaliser: Normaliser, frames: CameraStack | np.ndarray) -> Draw:
    """A function that draws a batch: `video_share` of it from the video, where there is any.

    frames  uint8 [N, C, H, W, 3]: the pictures of the demonstrations, then of the video.
    """
    config = trained.policy
    windows = _windows([*demonstrations, *video], frames, trained, interface, normaliser)
    boundary = sum(len(e) for e in demonstrations)
    labelled, filmed = windows.starts[windows.starts < boundary], windows.starts[windows.starts >= boundary]
    from_video = round(config.cotraining.video_share * config.training.batch_size) if len(filmed) else 0
    from_video = from_video if len(labelled) else config.training.batch_size

    def draw(rng: np.random.Generator) -> dict[str, Any]:
        mine = config.training.batch_size - from_video
        starts = [rng.choice(labelled, mine)] if mine else []
        starts += [rng.choice(filmed, from_video)] if from_video else []
        return windows.batch(np.concatenate(starts), config.shift_px, rng)

    return draw


def _windows(episodes: Sequence[Episode], frames: CameraStack | np.ndarray, trained: TrainedConfig,
             interface: Interface, normaliser: Normaliser) -> Windows:
    config = trained.policy
    shape = WindowShape(config.chunk_steps, interface.action.rate_hz, config.observation.state,
                        ActionSpace.of(interface), config.observation.history_s, config.cotraining.mode == "decoded")
    text = text_of(trained).features(trained.instructions)
    return Windows.of(episodes, frames, trained.instructions, text, normaliser, shape)


def _digest(episodes: Sequence[Episode]) -> str:
    """What the actions, their trust and their times are: a run is not gone on with when its labels have changed."""
    digest = hashlib.sha256()
    for episode in episodes:
        digest.update(f"{episode.source} {episode.instruction} {len(episode)}".encode())
        for values in (episode.timestamps, episode.state, episode.action, episode.latent, episode.provenance,
                       episode.confidence):
            digest.update(b"absent" if values is None else np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
