"""Episode: the one currency. Every reader makes it, every trainer and writer takes it.

What a source does not hold is absent (None), never zeros: a state that was not recorded, an action that nobody
measured. Each step says where its action comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Protocol

import numpy as np


class Provenance(IntEnum):
    """Where the action of a step comes from."""

    NONE = 0
    MEASURED = 1
    PSEUDO = 2


class Frames(Protocol):
    """Frames of one camera, decoded when asked for: uint8 [T, H, W, 3], RGB."""

    @property
    def shape(self) -> tuple[int, int, int, int]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Episode:
    """One recording: T steps on one timeline.

    timestamps  float64 [T], seconds, strictly increasing
    images      camera name -> Frames, uint8 [T, H, W, 3]
    state       float32 [T, S], or None where none was recorded
    action      float32 [T, A], or None; action[t] is the command from timestamps[t] on
    latent      float32 [T, D], latent motion z of the frames (t, t + gap), or None
    provenance  uint8 [T], a Provenance per step; made from `action` where not given
    confidence  float32 [T] in [0, 1] of pseudo labels, or None
    instruction what the robot was asked to do, or None
    source      the file or topic it was read from, for messages and manifests
    notes       what its reader left out of the recording, each a sentence for people that names the source

    Raises ValueError, naming the source, where lengths or values do not fit.
    """

    timestamps: np.ndarray
    images: Mapping[str, Frames]
    source: str
    state: np.ndarray | None = None
    action: np.ndarray | None = None
    latent: np.ndarray | None = None
    provenance: np.ndarray = field(default=None)  # type: ignore[arg-type]
    confidence: np.ndarray | None = None
    instruction: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        steps = len(self.timestamps)
        if self.provenance is None:
            known = Provenance.NONE if self.action is None else Provenance.MEASURED
            object.__setattr__(self, "provenance", np.full(steps, known, np.uint8))
        if not np.all(np.isfinite(self.timestamps)) or np.any(np.diff(self.timestamps) <= 0):
            raise ValueError(f"{self.source}: timestamps must be finite and strictly increasing")
        for name in ("state", "action", "latent", "confidence", "provenance"):
            values = getattr(self, name)
            if values is None:
                continue
            if len(values) != steps:
                raise ValueError(f"{self.source}: {name} has {len(values)} steps, expected {steps}, one per timestamp")
            if not np.all(np.isfinite(values)):
                raise ValueError(f"{self.source}: {name} holds NaN or infinity; such an episode is refused whole")
        for camera, frames in self.images.items():
            if len(frames) != steps:
                raise ValueError(f"{self.source}: camera {camera!r} has {len(frames)} frames, expected {steps}")
        if self.action is None and np.any(self.provenance != Provenance.NONE):
            raise ValueError(f"{self.source}: provenance speaks of actions, but the episode has none")
        if self.confidence is not None and (np.any(self.confidence < 0) or np.any(self.confidence > 1)):
            raise ValueError(f"{self.source}: confidence must lie in [0, 1]")

    def __len__(self) -> int:
        return len(self.timestamps)

    def without_actions(self) -> Episode:
        """The same recording with no action known, whoever made them: labelled video, if it has latents."""
        return replace(self, action=None, provenance=np.full(len(self), Provenance.NONE, np.uint8))

    def as_video(self) -> Episode:
        """Without state as well: what a camera alone would have recorded."""
        return replace(self.without_actions(), state=None)

    @property
    def trust(self) -> np.ndarray:
        """How far pseudo labels are to be trusted, float32 [T] in [0, 1]: 1 where nobody said."""
        return np.ones(len(self), np.float32) if self.confidence is None else self.confidence

    @property
    def duration_s(self) -> float:
        """Seconds from the first to the last timestamp."""
        return float(self.timestamps[-1] - self.timestamps[0]) if len(self) else 0.0
