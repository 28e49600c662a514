"""Training windows: one frame, and the chunk of actions that follows it in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from como_core.action_chunk import STAMP_TOLERANCE, history_rows
from como_core.episode import Episode, Provenance
from como_core.errors import ComoError
from como_core.formats.cache import camera_frames, contents
from como_core.interface import Interface
from como_core.policy.action_space import ActionSpace
from como_core.policy.normaliser import Normaliser


def check_demonstrations(episodes: Sequence[Episode], interface: Interface, use_state: bool) -> None:
    """Raise ComoError, naming file and key, unless every demonstration fits the interface and has measured actions."""
    if not episodes:
        raise ComoError("no demonstrations: expected at least one episode with measured actions")
    for episode in episodes:
        check_cameras(episode, interface)
        if episode.action is None or not np.any(episode.provenance == Provenance.MEASURED):
            raise ComoError(f"{episode.source}: no measured action; a demonstration needs the commands that were sent "
                            f"on {interface.action.topic!r} (give video without actions as --videos)")
        check_actions(episode, interface)
        if episode.state is not None:
            _check_width(episode, "state", episode.state, interface.state_size)
        elif use_state:
            raise ComoError(f"{episode.source}: no state, but the policy is to use proprioception; "
                            "record the interface's state streams or set observation.state: false")


def check_actions(episode: Episode, interface: Interface) -> None:
    """Raise ComoError, naming the file, where actions are there and are none of the interface."""
    if episode.action is not None:
        _check_width(episode, "action", episode.action, interface.action.size)
        if fault := ActionSpace.of(interface).fault(episode.action):
            raise ComoError(f"{episode.source}: {fault}; record it again, or leave it out")


def check_cameras(episode: Episode, interface: Interface) -> None:
    """Raise ComoError, naming the file, where a camera of the interface is missing from the episode.

    A video that names no camera stands for the only camera of an interface, never for several.
    """
    for name in interface.cameras:
        camera_frames(episode, name)
        if name not in episode.images and len(interface.cameras) > 1:
            raise ComoError(f"{episode.source}: one picture stream that names no camera, but interface "
                            f"{interface.name!r} has {', '.join(interface.cameras)}")


class CameraStack:
    """Pictures of several cameras, each uint8 [N, H, W, 3]; indexed by rows [B] it gives uint8 [B, C, H, W, 3]."""

    def __init__(self, cameras: Sequence[np.ndarray]) -> None:
        self._cameras = tuple(cameras)

    def __len__(self) -> int:
        return len(self._cameras[0])

    def contents(self, offsets: np.ndarray) -> bytes:
        """What tells these pictures from others, by `cache.contents`; the e-th episode is offsets[e] .. offsets[e + 1].
        """
        return b"".join(contents(camera, offsets) for camera in self._cameras)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([camera[rows] for camera in self._cameras], axis=1)


def _check_width(episode: Episode, name: str, values: np.ndarray, expected: int) -> None:
    if values.shape[1] != expected:
        raise ComoError(f"{episode.source}: {name} has {values.shape[1]} values a step, the interface has {expected}; "
                        "record with this interface, or train with the one it was recorded with")


def vocabulary(episodes: Sequence[Episode]) -> tuple[str, ...]:
    """The different instructions of the episodes, sorted; the empty text stands for no instruction."""
    return tuple(sorted({episode.instruction or "" for episode in episodes}))


def chunk_rows(timestamps: np.ndarray, steps: int, rate_hz: float) -> np.ndarray:
    """For each step t the rows in force at timestamps[t] + k / rate, int64 [T, steps]; -1 beyond the last period."""
    due = timestamps[:, None] + np.arange(steps) / rate_hz
    rows = np.searchsorted(timestamps, due + STAMP_TOLERANCE / rate_hz, side="right") - 1
    return np.where(due < timestamps[-1] + 1 / rate_hz, rows, -1)


@dataclass(frozen=True)
class Windows:
    """All windows of some episodes, as arrays over N steps; a window starts at a step of `starts`.

    frames       uint8 [N, C, H, W, 3]: a CameraStack or an array
    seen         int64 [N, F], the rows whose pictures a window sees: its own, then those before it
    action       float32 [N, A], of unit scale
    trust        float32 [N] of the action: 0 where unknown, 1 where measured, else the confidence
    latent       float32 [N, D] or None, of unit scale;  latent_trust  float32 [N]: 0 where unknown, else the confidence
    rows         int64 [N, K] into the same arrays, -1 past the episode's end
    instruction  int64 [N], rows of `text`;  text  float32 [I, T]
    state        float32 [N, S] or None, normalised; state_known bool [N]
    episode      int64 [N], which of `sources`, the names of the episodes, a step is of
    """

    frames: CameraStack | np.ndarray
    seen: np.ndarray
    action: np.ndarray
    trust: np.ndarray
    latent: np.ndarray | None
    latent_trust: np.ndarray
    rows: np.ndarray
    instruction: np.ndarray
    text: torch.Tensor
    state: np.ndarray | None
    state_known: np.ndarray
    starts: np.ndarray
    episode: np.ndarray
    sources: tuple[str, ...]

    @classmethod
    def of(cls, episodes: Sequence[Episode], frames: CameraStack | np.ndarray, instructions: Sequence[str],
           text: torch.Tensor, normaliser: Normaliser, config: WindowShape) -> Windows:
        """Flatten episodes; `frames` holds their pictures in the same order, `text` [I, T] is of `instructions`."""
        offsets = np.cumsum([0, *(len(e) for e in episodes)])
        rows, seen = [], []
        for start, episode in zip(offsets, episodes, strict=False):
            local = chunk_rows(episode.timestamps, config.chunk_steps, config.rate_hz)
            rows.append(np.where(local >= 0, local + start, -1))
            seen.append(history_rows(episode.timestamps, config.history_s) + start)
        trust = np.concatenate([_trust(e, config.pseudo) for e in episodes])
        latent_trust, latent = np.zeros(len(trust), np.float32), None
        if normaliser.latent is not None:
            latent_trust = np.concatenate([_latent_trust(e) for e in episodes])
            blank = np.zeros(normaliser.latent.size, np.float32)
            latent = np.concatenate([np.tile(blank, (len(e), 1)) if e.latent is None
                                     else normaliser.latent.normalise(e.latent) for e in episodes])
        space = config.space
        state = None
        if config.use_state:
            assert normaliser.state is not None, "proprioception needs a normaliser of the state"
            size = normaliser.state.size
            state = np.concatenate([np.zeros((len(e), size), np.float32) if e.state is None
                                    else normaliser.state.normalise(e.state) for e in episodes])
        return cls(
            frames=frames, seen=np.concatenate(seen), trust=trust, latent=latent, latent_trust=latent_trust,
            rows=np.concatenate(rows), state=state, starts=np.flatnonzero((trust > 0) | (latent_trust > 0)), text=text,
            action=np.concatenate([np.zeros((len(e), space.size), np.float32) if e.action is None
                                   else normaliser.action.normalise(space.encode(e.action)) for e in episodes]),
            instruction=_per_step(episodes, [instructions.index(e.instruction or "") for e in episodes]),
            state_known=_per_step(episodes, [e.state is not None for e in episodes]),
            episode=_per_step(episodes, range(len(episodes))), sources=tuple(e.source for e in episodes))

    def batch(self, starts: np.ndarray, shift_px: int, rng: np.random.Generator, part: slice = slice(None)
              ) -> dict[str, Any]:
        """The windows that begin at rows `starts` [B], as tensors: see `model`; of these windows those of `part`."""
        offsets = rng.integers(-shift_px, shift_px + 1, (2, len(starts)))[:, part]
        starts = starts[part]
        rows = self.rows[starts]
        pictures = np.concatenate([np.asarray(self.frames[seen]) for seen in self.seen[starts].T], axis=1)
        observation = {"images": torch.from_numpy(shifted(pictures, *offsets)),
                       "instruction": self.text[torch.from_numpy(self.instruction[starts])]}
        if self.state is not None:
            observation |= {"state": torch.from_numpy(self.state[starts]),
                            "state_known": torch.from_numpy(self.state_known[starts])}
        batch = {"source": [self.sources[e] for e in self.episode[starts]], "observation": observation}
        batch |= _known("action", self.action, self.trust, rows)
        if self.latent is not None:
            batch |= _known("latent", self.latent, self.latent_trust, rows)
        return batch


@dataclass(frozen=True)
class WindowShape:
    """What a window is: K actions at `rate_hz`, earlier pictures, whether the state goes with it, and whether
    pseudo-actions are trained on.
    """

    chunk_steps: int
    rate_hz: float
    use_state: bool
    space: ActionSpace
    history_s: tuple[float, ...] = ()
    pseudo: bool = True


def shifted(frames: np.ndarray, up: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Each of the pictures [B, C, H, W, 3] moved by its own pixels [B], edges repeated (DrQ, arXiv 2004.13649)."""
    if not up.any() and not left.any():
        return frames
    batch, _, height, width = frames.shape[:4]
    y = np.clip(np.arange(height) + up[:, None], 0, height - 1)
    x = np.clip(np.arange(width) + left[:, None], 0, width - 1)
    index = np.arange(batch)[:, None, None]
    moved = frames.transpose(0, 2, 3, 1, 4)[index, y[:, :, None], x[:, None, :]]  # [B, H, W, C, 3]
    return np.ascontiguousarray(moved.transpose(0, 3, 1, 2, 4))


def _known(name: str, values: np.ndarray, trust: np.ndarray, rows: np.ndarray) -> dict[str, torch.Tensor]:
    """Values and weights of `rows` [B, K]; values of weight 0 are 0: not even as context are they learned from."""
    weight = np.where(rows >= 0, trust[rows], 0).astype(np.float32)
    known = np.where(weight[..., None] > 0, values[rows], 0).astype(np.float32)
    return {name: torch.from_numpy(known), f"{name}_weight": torch.from_numpy(weight)}


def _trust(episode: Episode, pseudo: bool) -> np.ndarray:
    """Weight of each step's action, float32 [T]; pseudo-actions count by their confidence where `pseudo` says so."""
    trust = np.where(episode.provenance == Provenance.PSEUDO, episode.trust if pseudo else 0.0, 1.0)
    return np.where(episode.provenance == Provenance.NONE, 0.0, trust).astype(np.float32)


def _latent_trust(episode: Episode) -> np.ndarray:
    """Weight of each step's latent, float32 [T]: 1 where nobody said how far it is to be trusted."""
    return np.zeros(len(episode), np.float32) if episode.latent is None else episode.trust.astype(np.float32)


def _per_step(episodes: Sequence[Episode], values: Sequence[Any]) -> np.ndarray:
    return np.repeat(np.asarray(values), [len(e) for e in episodes])
