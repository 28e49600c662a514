"""Motion: what is planned and what was sent, for targets that get a value at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from como_core.control.blending import Blender
from como_core.control.limits import Guard
from como_core.control.plan import Plan
from como_core.control.reference import VELOCITY_KINDS
from como_core.control.status import Command
from como_core.errors import ComoError
from como_core.interface import Action

States = Mapping[str, np.ndarray]


class LimitFault(ComoError):
    """An action that must not be sent, nor any after it; the message is the cause for the latch."""


class Motion:
    """One motion from rest to rest. Not thread-safe: its owner locks.

    last      the command that was sent last, float32 [A]; None at rest
    plan      what is still to come; None where nothing is
    bounded   how many commands were changed by a limit
    """

    def __init__(self, action: Action, guard: Guard, blender: Blender) -> None:
        self._action, self._guard, self._blender = action, guard, blender
        self._period_s = 1 / action.rate_hz
        self.bounded = 0
        self.forget()

    def forget(self) -> None:
        """Nothing is planned, nothing was sent, no halt is owed."""
        self.plan: Plan | None = None
        self.last: np.ndarray | None = None
        self._gripper: float | None = None
        self._rest()

    def _rest(self) -> None:
        self.plan, self.last = None, None
        self._velocity: np.ndarray | None = None
        self._halt_owed = False
        self._blender.forget()

    def take(self, chunk: Plan, stamp_s: float, now_s: float) -> None:
        """Blend a chunk into the plan that was predicted from the observation stamped `stamp_s`."""
        before = None
        if self.plan is not None:
            before = self.plan.at(max(chunk.due_s[0], now_s))
            before = self.plan.values[-1] if before is None else before
        chunk = dataclasses.replace(chunk, values=self._guard.mixable(chunk.values, before))
        self.plan = self._blender.take(self.plan, chunk, stamp_s, now_s)

    def prefix(self, stamp_s: float) -> np.ndarray | None:
        """Blender.prefix of the present plan."""
        return self._blender.prefix(self.plan, self.last, stamp_s)

    def over(self, now_s: float) -> bool:
        """Whether there is a plan and its time has passed."""
        return self.plan is not None and self.plan.remaining(now_s) == 0

    def command(self, now_s: float, states: States, position_age_s: float) -> Command | None:
        """What to send now, or None. Raises LimitFault."""
        planned = self.plan.at(now_s) if self.plan is not None else None
        if planned is None:
            return None
        fault = self._guard.rotation_fault(planned)
        if fault is None and self.last is None:
            fault = self._guard.first_fault(planned, states)
        if fault:
            raise LimitFault(fault)
        values = self._guard.bound(planned, self.last, states, position_age_s, self._velocity)
        self.bounded += not np.array_equal(values, planned)
        size = len(self._action.names)
        before = self._guard.reference.values(states) if self.last is None else self.last[:size]
        self._velocity = (values[:size].astype(np.float64) - before) / self._period_s
        self.last = values
        return Command(values[:size], self._changed_gripper(values))

    def end(self, states: States) -> None:
        """End the motion where it is. The next one says anew how the gripper is to be."""
        self.finish(states)
        self._gripper = None

    def finish(self, states: States) -> None:
        """As `end`, where the plan ran out and goes on with the next chunk. A velocity that was sent is owed a halt."""
        owed = self._halt_owed or (self.last is not None and self._action.kind in VELOCITY_KINDS)
        self._rest()
        self._halt_owed = owed

    def halt(self, now_s: float) -> Command | None:
        """One last command after a motion has ended, or None.

        A velocity ends with zero: it would go on for Action.hold_s, or for ever where the controller has no timeout
        (forward_command). A position holds by itself, and zero would be a pose.
        """
        if not self._halt_owed:
            return None
        self._halt_owed = False
        return Command(np.zeros(len(self._action.names), np.float32))

    def _changed_gripper(self, values: np.ndarray) -> float | None:
        gripper = self._action.gripper
        if gripper is None:
            return None
        value = float(np.clip(values[-1], 0.0, 1.0))
        if self._gripper is not None and abs(value - self._gripper) < gripper.resolution:
            return None
        self._gripper = value
        return value
