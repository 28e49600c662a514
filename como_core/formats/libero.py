"""LIBERO's demonstrations as its interface has them: actions in SI units, each beside what it was chosen from.

In the HDF5 files an action is robosuite's command in [-1, 1], and the pictures and state of a row were taken after the
action of that row.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from como_core.episode import Episode, Frames
from como_core.errors import ComoError
from como_core.interface import Action
from como_core.interface.names import TWIST_FIELDS

INTERFACE = "libero"
"""Name of the interface that is meant, config/interfaces/libero.yaml: under it, a file that does not say whose it is
counts as LIBERO's."""

# What the hand reaches at a command of 1, m/s and rad/s, measured with robosuite 1.4.0. Its OSC_POSE sets the goal
# 0.05 m or 0.5 rad ahead of where the hand is, and the hand covers a quarter of that before the next command. Turning
# falls short of this at large commands.
FULL_SPEED = np.array([0.25] * 3 + [2.5] * 3)


def fits(action: Action) -> bool:
    """Whether LIBERO's commands can be brought into this action: the twist of the hand and a gripper, in that order."""
    return action.kind == "ee_twist" and action.names == TWIST_FIELDS and action.gripper is not None


def to_command(action: np.ndarray) -> np.ndarray:
    """robosuite's command [..., 7] in [-1, 1], gripper 1 closed, of an action in SI units [..., 7]."""
    action = np.asarray(action, np.float64)
    twist = action[..., :6] / FULL_SPEED
    return np.clip(np.concatenate([twist, 2.0 * action[..., 6:] - 1.0], axis=-1), -1.0, 1.0)


def from_command(command: np.ndarray) -> np.ndarray:
    """The action in SI units, float32 [..., 7], of a command of robosuite as demonstrations hold it."""
    command = np.clip(np.asarray(command, np.float64), -1.0, 1.0)
    twist = command[..., :6] * FULL_SPEED
    return np.concatenate([twist, (command[..., 6:] + 1.0) / 2.0], axis=-1).astype(np.float32)


def by_interface(recorded: Episode) -> Episode:
    """A demonstration as the simulation would have recorded it: each step with the action that follows it.

    The last step has none and is left out. Latents stay with their pictures. Raises ComoError where there are no
    actions of 7 values.
    """
    if recorded.action is None or recorded.action.shape[1] != 7 or len(recorded) < 2:
        raise ComoError(f"{recorded.source}: expected two or more steps with actions of 7 values, as LIBERO records")
    steps = len(recorded) - 1
    images: dict[str, Frames] = {name: _FirstFrames(frames, steps) for name, frames in recorded.images.items()}
    state, latent, confidence = (None if values is None else values[:steps]
                                 for values in (recorded.state, recorded.latent, recorded.confidence))
    return dataclasses.replace(recorded, timestamps=recorded.timestamps[:steps], images=images, state=state,
                               action=from_command(recorded.action[1:]), provenance=recorded.provenance[1:],
                               latent=latent, confidence=confidence)


class _FirstFrames:
    """The first `count` of some frames, decoded when asked for."""

    def __init__(self, frames: Frames, count: int) -> None:
        self._frames, self._count = frames, count

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self._count, *self._frames.shape[1:])

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        chosen = np.arange(self._count)[index]
        return self._frames[int(chosen) if chosen.ndim == 0 else chosen]
