"""Which action of which chunk is in force at each control period, when chunks arrive late and overlap.

The time of an action is its own: step k of a chunk is due at the observation's time + times_s[k]. Steps that are late
when the chunk arrives are dropped, the old chunk goes on until then, and over `blend_periods` the new one fades in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from como_core.action_chunk import ActionChunk

_EARLY = 1e-3  # periods; times of steps are rounded on their way here


@dataclass(frozen=True)
class Timing:
    """How a policy is run, in control periods. The defaults are those of policy_node at 40 Hz.

    replan_periods   from one observation to the next that the policy is asked about (4: 10 Hz)
    latency_periods  from an observation to the first action that can follow from it
    blend_periods    cross-fade from the old chunk to a new one
    """

    replan_periods: int = 4
    latency_periods: int = 1
    blend_periods: int = 2

    def __post_init__(self) -> None:
        if self.replan_periods < 1 or self.latency_periods < 0 or self.blend_periods < 0:
            raise ValueError(f"replan_periods must be 1 or more, latency and blend 0 or more, got {self}")


class ChunkPlayer:
    """Plays chunks of velocity actions with a gripper as the last value, [A]; holds still where nothing is planned."""

    def __init__(self, size: int, period_s: float, timing: Timing) -> None:
        self._period_s, self._timing = period_s, timing
        self._held = np.zeros(size, np.float32)
        self._planned: dict[int, np.ndarray] = {}
        self._coming: list[tuple[int, int, ActionChunk]] = []

    def answer(self, asked: int, chunk: ActionChunk) -> None:
        """The chunk predicted from the observation at period `asked`; it takes effect `latency_periods` later."""
        self._coming.append((asked + self._timing.latency_periods, asked, chunk))

    def action(self, period: int) -> np.ndarray:
        """The action [A] of `period`, which never goes back. With no plan: no velocity, the gripper as it was."""
        for arrival, asked, chunk in [c for c in self._coming if c[0] <= period]:
            self._splice(asked, chunk, arrival)
            self._coming.remove((arrival, asked, chunk))
        action = self._planned.pop(period, None)
        if action is None:
            action = np.zeros_like(self._held)
            action[-1] = self._held[-1]
        self._held = action
        return action

    def _splice(self, asked: int, chunk: ActionChunk, now: int) -> None:
        due = asked + np.asarray(chunk.times_s) / self._period_s
        end = due[-1] + 1 if len(due) == 1 else 2 * due[-1] - due[-2]
        fresh: dict[int, np.ndarray] = {}
        for period in range(max(now, int(np.ceil(due[0] - _EARLY))), int(np.ceil(end - _EARLY))):
            value = np.asarray(chunk.values[int(np.searchsorted(due, period + _EARLY, side="right")) - 1], np.float32)
            weight = min(1.0, (period - now) / self._timing.blend_periods) if self._timing.blend_periods else 1.0
            old = self._planned.get(period)
            fresh[period] = value if old is None else np.float32(weight) * value + np.float32(1 - weight) * old
        if fresh:
            first = min(fresh)
            self._planned = {p: value for p, value in self._planned.items() if p < first} | fresh
