"""What a probe is asked for: the actions of a pair's window, summed, stacked, as a change or as they are.

    values, kept = window_target(episode.action, episode.timestamps, first, second, Target("sum", lag_s=0.15))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from como_core.bounds import COUNT, FROM_0, require_bounds
from como_core.errors import ComoError
from como_core.motion.pairs import nearest

TargetKind = Literal["sum", "stack", "difference", "absolute"]


@dataclass(frozen=True)
class Target:
    """What is made of the actions between frame t and frame t + n.

    kind   `sum`: their sum, for velocities and for steps (deltas). `stack`: the actions at `times` evenly spaced times,
           side by side. `difference`: the last command less the first, for commanded positions. `absolute`: the mean
           command, for commanded positions
    lag_s  seconds by which the arm follows its commands: the window of actions lies that much earlier
    times  of `stack`

    Raises ComoError for a kind or a number that does not fit.
    """

    kind: TargetKind = "sum"
    lag_s: float = 0.0
    times: int = 4

    def __post_init__(self) -> None:
        if self.kind not in get_args(TargetKind):
            raise ComoError(f"target {self.kind!r}: expected one of {', '.join(get_args(TargetKind))}")
        try:
            require_bounds(self, lag_s=FROM_0, times=COUNT)
        except ValueError as error:
            raise ComoError(f"target: {error}") from error

    @property
    def columns_per_action(self) -> int:
        return self.times if self.kind == "stack" else 1

    def __str__(self) -> str:
        words = {"sum": "actions summed over the gap", "stack": f"actions at {self.times} times of the gap",
                 "difference": "change of the command over the gap", "absolute": "mean command over the gap"}[self.kind]
        return f"{words}, {self.lag_s:g} s earlier" if self.lag_s else words


def window_target(action: np.ndarray, timestamps: np.ndarray, first: np.ndarray, second: np.ndarray,
                  target: Target) -> tuple[np.ndarray, np.ndarray]:
    """The target of each pair of one recording: float64 [P, A x columns_per_action], and which pairs have one [P].

    action         [T, A], in force from timestamps [T] on
    first, second  steps [P] of the two frames

    A pair whose window, moved by the lag, starts before the recording has none.
    """
    start, end = (nearest(timestamps, timestamps[side] - target.lag_s) for side in (first, second))
    period = timestamps[1] - timestamps[0] if len(timestamps) > 1 else 0.0
    kept = (end > start) & (timestamps[first] - target.lag_s >= timestamps[0] - period / 2)
    end = np.maximum(end, start + 1)
    if target.kind == "stack":
        steps = np.linspace(start, end - 1, target.times).round().astype(int)  # [times, P]
        return action[steps].transpose(1, 0, 2).reshape(len(first), -1).astype(np.float64), kept
    if target.kind == "difference":
        return (action[np.minimum(end, len(action) - 1)].astype(np.float64) - action[start]), kept
    total = np.concatenate([np.zeros((1, action.shape[1])), np.cumsum(action, axis=0, dtype=np.float64)])
    sums = total[np.minimum(end, len(action))] - total[start]
    return (sums / (end - start)[:, None] if target.kind == "absolute" else sums), kept
