"""Which action of which chunk is in force at each control period, when chunks arrive late and overlap.

The time of an action is its own: step k of a chunk is due at the observation's time + times_s[k]. Steps that are late
when the chunk arrives are dropped, the old chunk goes on until then, and over `blend_periods` the new one fades in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from como_core.action_chunk import ActionChunk
from como_core.interface import Action

REPLAN_HZ = 10.0  # these three as policy_node's parameters
BLEND_S = 0.05
LATENCY_S = 0.025
REAL_TIME = {"replan_hz": REPLAN_HZ, "blend_s": BLEND_S, "latency_s": LATENCY_S}

_EARLY = 1e-3  # periods; times of steps are rounded on their way here


@dataclass(frozen=True)
class Timing:
    """How a policy is run, in control periods. The defaults are those of policy_node at 40 Hz; see `real_time`.

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

    @classmethod
    def real_time(cls, period_s: float) -> Self:
        """The defaults of policy_node for a control period of `period_s` seconds; an answer takes a period or more."""
        return cls(max(1, round(1 / REPLAN_HZ / period_s)), max(1, round(LATENCY_S / period_s)),
                   round(BLEND_S / period_s))


def goes_on(action: Action) -> np.ndarray:
    """Which values of an action, bool [A], stay as last commanded where no new one is planned; velocities end."""
    moves = action.kind in ("joint_velocity", "ee_twist")
    return np.array([not moves] * len(action.names) + [True] * (action.size - len(action.names)))


class ChunkPlayer:
    """Plays chunks of actions [A]; holds still where nothing is planned.

    rest     float32 [A], the action that keeps the robot where it is at the start
    goes_on  bool [A], as `goes_on` says: values that stay as last commanded, where the others go back to `rest`
    """

    def __init__(self, rest: np.ndarray, goes_on: np.ndarray, period_s: float, timing: Timing) -> None:
        self._period_s, self._timing = period_s, timing
        self._rest, self._goes_on = np.asarray(rest, np.float32), goes_on
        self._held = self._rest
        self._planned: dict[int, np.ndarray] = {}
        self._coming: list[tuple[int, int, ActionChunk]] = []

    def answer(self, asked: int, chunk: ActionChunk) -> None:
        """The chunk predicted from the observation at period `asked`; it takes effect `latency_periods` later."""
        self._coming.append((asked + self._timing.latency_periods, asked, chunk))

    def action(self, period: int) -> np.ndarray:
        """The action [A] of `period`, which never goes back. With no plan: no velocity, all else as it was."""
        for arrival, asked, chunk in [c for c in self._coming if c[0] <= period]:
            self._splice(asked, chunk, arrival)
            self._coming.remove((arrival, asked, chunk))
        action = self._planned.pop(period, None)
        if action is None:
            action = np.where(self._goes_on, self._held, self._rest)
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
