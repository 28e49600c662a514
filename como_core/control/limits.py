"""Limits: what stands between a planned action and the robot. Bounds, workspace box, step, jump.

All bounds are the interface's (Action.limits). An action is bounded per value, and no bound ever makes a motion that
the policy did not ask for.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from como_core.config import ConfigError
from como_core.control.reference import Reference
from como_core.interface import Interface

_AXES = {"ee_twist": ("linear.x", "linear.y", "linear.z"), "ee_pose": ("position.x", "position.y", "position.z")}
_POSITION_AXES = ("position.x", "position.y", "position.z")


class Guard:
    """Bounds an action vector [A]; the gripper, if any, is its last value.

    position_stream  the state stream whose position keeps a twist inside the box; None where there is no such box

    Raises ConfigError where a limit needs a state stream that the interface does not have.
    """

    def __init__(self, interface: Interface) -> None:
        self._action = interface.action
        self._size = len(interface.action.names)
        limits = interface.action.limits
        self._lower, self._upper = _array(limits.lower), _array(limits.upper)
        self._step, self._jump = _array(limits.step), _array(limits.jump)
        self._box = (None if limits.workspace_lower is None or limits.workspace_upper is None
                     else (np.array(limits.workspace_lower), np.array(limits.workspace_upper)))
        self._reference = Reference(interface)
        self.position_stream: str | None = None
        if self._box is not None and interface.action.kind == "ee_twist":
            self.position_stream = _position_stream(interface)
            self._position_columns = [interface.state[self.position_stream].names.index(n) for n in _POSITION_AXES]

    def first_fault(self, planned: np.ndarray, states: Mapping[str, np.ndarray]) -> str | None:
        """Why `planned` [A] is too far from where the robot is to be a first command, or None."""
        if self._jump is None:
            return None
        distance = np.abs(planned[:self._size] - self._reference.values(states))
        worst = int(np.argmax(distance - self._jump))
        if distance[worst] <= self._jump[worst]:
            return None
        return (f"jump: the first command for {self._action.names[worst]!r} is {distance[worst]:.3f} away from where "
                f"the robot is, limits.jump is {self._jump[worst]:g}")

    def bound(self, planned: np.ndarray, last: np.ndarray | None, states: Mapping[str, np.ndarray],
              position_age_s: float = 0.0) -> np.ndarray:
        """The nearest action, float32 [A], that keeps every limit.

        last            the command before; None for a first one, whose step is counted from where the robot is
        states          the newest values of each state stream
        position_age_s  how long the robot may have moved on since its position was measured
        """
        bounded = np.array(planned, np.float32)
        body = bounded[:self._size]
        if self._step is not None:
            before = self._reference.values(states) if last is None else last[:self._size]
            body[:] = np.clip(body, before - self._step, before + self._step)
        if self._lower is not None:
            body[:] = np.clip(body, self._lower, self._upper)
        if self._box is not None:
            lower, upper = self._box_bounds(states, position_age_s)
            body[:] = np.clip(body, lower, upper)
        bounded[self._size:] = np.clip(bounded[self._size:], 0.0, 1.0)
        return bounded

    def _box_bounds(self, states: Mapping[str, np.ndarray], position_age_s: float) -> tuple[np.ndarray, np.ndarray]:
        """What the workspace box leaves of each value: lower and upper [len(names)]."""
        assert self._box is not None
        box_lower, box_upper = (edge.astype(np.float64) for edge in self._box)
        if self.position_stream is not None:
            position = np.asarray(states[self.position_stream], np.float64)[self._position_columns]
            # Should no further message come, the robot goes on for hold_s: even then it must stay inside. Outside of
            # the box the way further out is closed and the way back is free, but nothing is pushed.
            horizon_s = self._action.hold_s + max(position_age_s, 0.0)
            box_lower = np.minimum(0.0, (box_lower - position) / horizon_s)
            box_upper = np.maximum(0.0, (box_upper - position) / horizon_s)
        lower, upper = np.full(self._size, -np.inf), np.full(self._size, np.inf)
        for axis, name in enumerate(_AXES.get(self._action.kind, ())):
            if name in self._action.names:
                column = self._action.names.index(name)
                lower[column], upper[column] = box_lower[axis], box_upper[axis]
        return lower, upper


def _position_stream(interface: Interface) -> str:
    for name, stream in interface.state.items():
        if stream.type == "geometry_msgs/msg/PoseStamped" and set(_POSITION_AXES) <= set(stream.names):
            return name
    raise ConfigError(f"interface {interface.name!r}: limits.workspace_lower needs a state stream of type "
                      f"geometry_msgs/msg/PoseStamped with names {', '.join(_POSITION_AXES)}; add it or remove the box")


def _array(values: tuple[float, ...] | None) -> np.ndarray | None:
    return None if values is None else np.array(values, np.float32)
