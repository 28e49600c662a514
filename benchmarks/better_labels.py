"""Labels that nobody would have: what the faults of decoded pseudo-actions cost a policy.

    rest = better_labels.label("decoder of 20", recorded, labels=2, robot, config.cotraining)

decoder of 20  decoded as always, but the decoder was fitted on 20 demonstrations of each task
no bias        decoded as always, less what the decoder is wrong by on average over the recordings of a task, at the
               same share of their length: errors that do not average out over many videos
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from como_core.episode import Episode
from como_core.interface import Interface
from como_core.policy.cotraining import CotrainingConfig, prepare_video

TOLD = 20
MORE_TOLD, UNBIASED = f"decoder of {TOLD}", "no bias"
WAYS = (MORE_TOLD, UNBIASED)
_PHASES = np.linspace(0.0, 1.0, 11)


def label(way: str, recorded: dict[str, list[Episode]], labels: int, robot: Interface, config: CotrainingConfig
          ) -> list[Episode]:
    """The recordings of each task but for the first `labels`, which have latents, with pseudo-actions instead."""
    fitted = [e for group in recorded.values() for e in group[:TOLD if way == MORE_TOLD else labels]]
    rest = [e for group in recorded.values() for e in group[labels:]]
    video = prepare_video(fitted, [e.as_video() for e in rest], robot, config)
    assert video is not None, "its mode is decoded"
    made = _unbiased(video.episodes, rest, len(robot.action.names)) if way == UNBIASED else video.episodes
    return [dataclasses.replace(e, latent=None) for e in made]


def _unbiased(decoded: Sequence[Episode], done: Sequence[Episode], velocities: int) -> list[Episode]:
    """Less the mean error of the velocities over the recordings of a task, at each phase."""
    errors: dict[str | None, list[np.ndarray]] = {}
    for video, whole in zip(decoded, done, strict=True):
        assert video.action is not None and whole.action is not None
        error = (video.action - whole.action)[:, :velocities]
        errors.setdefault(video.instruction, []).append(_resampled(error, np.linspace(0.0, 1.0, len(error)), _PHASES))
    bias = {instruction: np.mean(found, axis=0) for instruction, found in errors.items()}
    made = []
    for video in decoded:
        assert video.action is not None
        action = video.action.copy()
        action[:, :velocities] -= _resampled(bias[video.instruction], _PHASES, np.linspace(0.0, 1.0, len(action)))
        made.append(dataclasses.replace(video, action=action))
    return made


def _resampled(values: np.ndarray, at: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Each column of values [N, A] given `at` [N], as float32 at `wanted` [M]: [M, A]."""
    return np.stack([np.interp(wanted, at, column) for column in values.T], axis=1).astype(np.float32)
