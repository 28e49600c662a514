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
from como_core.errors import ComoError
from como_core.formats.cache import FrameCache
from como_core.formats.source_files import printable
from como_core.interface import Interface
from como_core.policy.action_space import ActionSpace
from como_core.policy.card import write_card
from como_core.policy.checkpoint import NOBODYS, LatentsOf, TrainedConfig, build_model, load_weights, save_policy
from como_core.policy.config import PolicyConfig
from como_core.policy.cotraining import CotrainingMode, Video, prepare_video
from como_core.policy.data import CameraStack, Windows, WindowShape, check_demonstrations, vocabulary
from como_core.policy.guard import Verdict, leave_out, watch
from como_core.policy.model import PolicyModel
from como_core.policy.normaliser import Normaliser
from como_core.policy.text import Text, make_text
from como_core.training.history import History
from como_core.training.loop import fit
from como_core.training.progress import track
from como_core.training.ranks import Device, first_goes_first, join, rank, wait_for_all
from como_core.training.state import require_own

Draw = Callable[..., dict[str, Any]]


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
          start_from: str | Path | None = None, device: Device = "auto", latents: LatentsOf = NOBODYS
          ) -> Trained:
    """Train and write a checkpoint into `out`; run again, it resumes, and a finished run returns at once.

    demonstrations  episodes with measured actions; with latents too where the co-training mode decodes. None where it
                    predicts latents: then the policy learns motion and no action, for others to start from
    videos          episodes with latents; their actions, if they have any, are not read; unused when the mode is "none"
    command         what was typed, for the card
    cache           folder of decoded pictures, which runs on the same files may share; out/cache where None
    start_from      checkpoint of the same network, whose weights training begins with
    latents         whose the latents are, for the checkpoint and for others that start from it

    Processes that torchrun has started train one policy together. Raises ComoError, naming the file, for an episode
    that does not fit the interface, the policy or the labels; CheckpointError where `out` holds a checkpoint without
    the state of its training.
    """
    join(device)
    require_own(Path(out))
    if demonstrations or not config.cotraining.predicts_latents:
        check_demonstrations(demonstrations, interface, config.observation.state)
    video = prepare_video(demonstrations, videos, interface, config.cotraining)
    given = [*demonstrations, *(video.episodes if video else [])]
    with first_goes_first():
        frames, held = camera_stack(given, interface, config.observation.image_size, Path(cache or Path(out) / "cache"))
    labelled = len(demonstrations)
    demonstrations = [given[i] for i in held if i < labelled]
    if labelled:
        check_demonstrations(demonstrations, interface, config.observation.state)
    places = [i - labelled for i in held[len(demonstrations):]]
    config, instructions, text = _read_instructions(config, [given[i] for i in held])
    ground = _Ground(frames, interface, instructions, text, Path(out), device, latents if video else NOBODYS)
    raw = [video.given[i] for i in places] if video else []
    filmed = [video.episodes[i] for i in places] if video else []
    scales = _scales(config, demonstrations, [*demonstrations, *filmed], interface)
    if start_from is not None:
        _begin(ground, config, scales, start_from)  # what does not fit is said before the guard's trainings
    verdict = _watch(demonstrations, raw, ground, config) if raw else None
    model, history, trained = _learn(demonstrations, filmed, ground, config, scales, start_from=start_from)
    if rank() == 0:
        card = write_card(trained, demonstrations, video, verdict, history, command)
        save_policy(out, model, trained, interface, scales, card)
    wait_for_all()
    return Trained(Path(out), history, video, verdict)


@dataclass(frozen=True)
class _Ground:
    """What the trainings of one call share: pictures, the robot, how instructions are read, and where files go."""

    frames: CameraStack
    interface: Interface
    instructions: tuple[str, ...]
    text: Text
    out: Path
    device: Device
    latents: LatentsOf


def _read_instructions(config: PolicyConfig, episodes: Sequence[Episode]) -> tuple[PolicyConfig, tuple[str, ...], Text]:
    """The instructions, the encoder that reads them, and the configuration with this encoder's hash."""
    instructions = vocabulary(episodes)
    text = make_text(config.observation.text, instructions)
    hashed = dataclasses.replace(config.observation.text, sha256=text.sha256)
    return (dataclasses.replace(config, observation=dataclasses.replace(config.observation, text=hashed)),
            instructions, text)


def _learn(demonstrations: Sequence[Episode], filmed: Sequence[Episode], ground: _Ground, config: PolicyConfig,
           scales: Normaliser, arm: str = "", start_from: str | Path | None = None
           ) -> tuple[PolicyModel, History, TrainedConfig]:
    """One training; `arm` names one of the guard's."""
    episodes = [*demonstrations, *filmed]
    windows = _windows(episodes, ground, config, scales)
    draw = batches(windows, sum(len(e) for e in demonstrations), config)
    model, begun = _begin(ground, config, scales, start_from)
    trained = TrainedConfig(config, ground.instructions, len(demonstrations))
    # Without whose latents they are: the data say what they are, and runs of before that was known go on.
    identity = {"policy": trained, "data": _digest(episodes, ground.frames), "start": begun}
    out = ground.out / "guard" / arm.replace(" ", "_") if arm else ground.out
    title = f"guard, {arm}" if arm else "policy"
    history = fit(model, draw, loss, config.training, out, title, identity, ground.device)
    return model, history, dataclasses.replace(trained, latents=ground.latents)


def _begin(ground: _Ground, config: PolicyConfig, scales: Normaliser, start_from: str | Path | None
           ) -> tuple[PolicyModel, str]:
    """The network as training begins with it, and the sha256 of the weights that it was given; "" for fresh ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        model = build_model(config, ground.text, ground.interface, scales)
    if start_from is None:
        return model, ""
    trained = TrainedConfig(config, ground.instructions, latents=ground.latents)
    return model, load_weights(model, start_from, trained)


def _watch(demonstrations: Sequence[Episode], videos: Sequence[Episode], ground: _Ground, config: PolicyConfig
           ) -> Verdict | None:
    """The guard's verdict; None where it is off, or no instruction has two demonstrations.

    videos  as they were given, in the order of their pictures: the guard prepares them without what it leaves out
    """
    steps = config.cotraining.guard_steps
    left_out, emptied = leave_out(demonstrations)
    if not steps or not left_out:
        return None
    kept = [e for e in emptied if e.action is not None]

    def learn(with_video: bool) -> tuple[PolicyModel, Windows]:
        mode: CotrainingMode = config.cotraining.mode if with_video else "none"
        arm = dataclasses.replace(config, cotraining=dataclasses.replace(config.cotraining, mode=mode),
                                  training=dataclasses.replace(config.training, steps=steps))
        video = prepare_video(kept, videos, ground.interface, arm.cotraining)
        filmed = video.episodes if video else []
        scales = _scales(arm, kept, [*demonstrations, *filmed], ground.interface)
        model, _, _ = _learn(emptied, filmed, ground, arm, scales, "with video" if with_video else "without")
        return model, _windows(demonstrations, ground, arm, scales)

    ends = np.cumsum([len(e) for e in demonstrations])
    rows = [(int(end) - len(e), int(end)) for e, end in zip(demonstrations, ends, strict=True)
            if any(e is other for other in left_out)]
    return watch(learn, rows, steps)


def loss(model: nn.Module, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The loss terms of a batch."""
    terms: dict[str, torch.Tensor] = model(batch)
    return terms


def _scales(config: PolicyConfig, demonstrations: Sequence[Episode], everything: Sequence[Episode],
            interface: Interface) -> Normaliser:
    """Scales of actions and states from the demonstrations; of latents, where they are predicted, from everything."""
    latents = everything if config.cotraining.predicts_latents else ()
    space = ActionSpace.of(interface)
    if not demonstrations:
        return Normaliser.without_actions(space, latents, interface.state_size if config.observation.state else 0)
    return Normaliser.fit(demonstrations, space, latents)


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


def batches(windows: Windows, boundary: int, config: PolicyConfig) -> Draw:
    """A function that draws a batch: `video_share` of it from the video, where there is any.

    boundary  rows of `windows` that are of demonstrations; those behind are of video
    """
    labelled, filmed = windows.starts[windows.starts < boundary], windows.starts[windows.starts >= boundary]
    from_video = round(config.cotraining.video_share * config.training.batch_size) if len(filmed) else 0
    if config.cotraining.predicts_latents and len(labelled) and from_video == config.training.batch_size:
        raise ComoError(f"cotraining.video_share {config.cotraining.video_share:g} leaves no demonstration in a batch "
                        f"of {from_video}, so no action would be learned; lower it, or learn motion alone: --labels 0")
    from_video = from_video if len(labelled) else config.training.batch_size

    def draw(rng: np.random.Generator, part: slice = slice(None)) -> dict[str, Any]:
        mine = config.training.batch_size - from_video
        starts = [rng.choice(labelled, mine)] if mine else []
        starts += [rng.choice(filmed, from_video)] if from_video else []
        return windows.batch(np.concatenate(starts), config.shift_px, rng, part)

    return draw


def _windows(episodes: Sequence[Episode], ground: _Ground, config: PolicyConfig, scales: Normaliser) -> Windows:
    action = ground.interface.action
    shape = WindowShape(config.chunk_steps, action.rate_hz, config.observation.state, ActionSpace.of(ground.interface),
                        config.observation.history_s, config.cotraining.mode == "decoded")
    features = ground.text.features(ground.instructions)
    return Windows.of(episodes, ground.frames, ground.instructions, features, scales, shape)


def _digest(episodes: Sequence[Episode], frames: CameraStack) -> str:
    """What pictures, actions, their trust and their times are: a run is not gone on with when its data have changed."""
    digest = hashlib.sha256(frames.contents(np.cumsum([0, *(len(e) for e in episodes)])))
    for episode in episodes:
        digest.update(f"{printable(episode.source)} {episode.instruction} {len(episode)}".encode())
        for values in (episode.timestamps, episode.state, episode.action, episode.latent, episode.provenance,
                       episode.confidence):
            digest.update(b"absent" if values is None else np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
