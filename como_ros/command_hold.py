"""The newest command of an arm, obeyed only as long as it is fresh."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from como_core.errors import ComoError
from como_core.interface import Action
from como_ros.messages import NS_PER_S, stamp_ns, twist_values

# A stamp this far ahead of the arm's clock was made with another clock.
FOREIGN_CLOCK_NS = NS_PER_S


class CommandHold:
    """Keeps the newest twist and gripper command; safe to feed from one thread and to read from another.

    A twist counts from its header stamp, or from its arrival where the stamp is zero or ahead of the arm's clock. After
    `action.hold_s` the arm stops. The gripper command, a position, holds until the next one.
    """

    def __init__(self, action: Action) -> None:
        self._action = action
        self._hold_ns = round(action.hold_s * NS_PER_S)
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget all commands: no motion, gripper open."""
        with self._lock:
            self._twist = np.zeros(len(self._action.names), np.float32)
            self._since_ns: int | None = None
            self._gripper = 0.0

    def take_twist(self, message: Any, now_ns: int) -> None:
        """Store a TwistStamped.

        Raises ComoError for NaN or infinity, and, once the command is stored, for a stamp of another clock.
        """
        twist = twist_values(message, self._action)
        if not np.all(np.isfinite(twist)):
            raise ComoError(f"topic {self._action.topic!r}: command {twist.tolist()} is not finite; it is ignored")
        stamp = stamp_ns(message.header.stamp)
        with self._lock:
            self._twist = twist
            self._since_ns = min(stamp, now_ns) if stamp else now_ns
        if stamp > now_ns + FOREIGN_CLOCK_NS:
            ahead_s = (stamp - now_ns) / NS_PER_S
            raise ComoError(f"topic {self._action.topic!r}: a command is stamped {ahead_s:.0f} s ahead of /clock, so "
                            "its age counts from its arrival; start its publisher with use_sim_time:=true")

    def take_gripper(self, value: float) -> None:
        """Store a gripper command in [0, 1]. Raises ComoError for NaN or infinity."""
        if not np.isfinite(value):
            raise ComoError(f"gripper command {value} is not finite; it is ignored")
        with self._lock:
            self._gripper = value

    def vector(self, now_ns: int) -> np.ndarray:
        """The action in force, float32 [A]: zero velocity where the newest twist is older than hold_s."""
        with self._lock:
            fresh = self._since_ns is not None and now_ns - self._since_ns <= self._hold_ns
            twist = self._twist if fresh else np.zeros_like(self._twist)
            gripper = [self._gripper] if self._action.gripper else []
        return np.array([*twist, *gripper], np.float32)
