"""Limits: what stands between a planned action and the robot. Bounds, workspace box, pace, jump.

All bounds are the interface's (Action.limits). An action is bounded per value, and no bound ever makes a motion that
the policy did not ask for.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from como_core.config import ConfigError
from como_core.control.pace import Pace, clipped
from como_core.control.reference import VELOCITY_KINDS, Reference
from como_core.interface import Action, Interface
from como_core.rotation import aligned, normalised, on_one_side, toward

_AXES = {"ee_twist": ("linear.x", "linear.y", "linear.z"), "ee_pose": ("position.x", "position.y", "position.z")}
_POSITION_AXES = ("position.x", "position.y", "position.z")
_ORIENTATION = ("orientation.x", "orientation.y", "orientation.z", "orientation.w")

# An arm follows its trajectory this much behind, so its measured place may lag by that at full speed.
TRACKING_LAG_S = 0.1

# A joint at its limit may be measured so much of its range beyond it.
STANDING_SHARE = 0.01


class Guard:
    """Bounds an action vector [A]; the gripper, if any, is its last value.

    position_stream  the state stream whose position keeps the end effector in the box; None where there is no box, or
                     where the command itself is the position

    Raises ConfigError where a limit needs a state stream that the interface does not have.
    """

    def __init__(self, interface: Interface) -> None:
        self._action = interface.action
        self._size = len(interface.action.names)
        limits = interface.action.limits
        self._velocities = interface.action.kind in VELOCITY_KINDS
        self._everywhere = np.full(self._size, -np.inf), np.full(self._size, np.inf)
        self._lower = self._everywhere[0] if limits.lower is None else np.array(limits.lower)
        self._upper = self._everywhere[1] if limits.upper is None else np.array(limits.upper)
        self._jump = None if limits.jump is None else np.array(limits.jump)
        self._pace = Pace(interface.action)
        self._orientation = _orientation_columns(interface.action)
        self._box = (None if limits.workspace_lower is None or limits.workspace_upper is None
                     else (np.array(limits.workspace_lower), np.array(limits.workspace_upper)))
        self.reference = Reference(interface)
        self.position_stream: str | None = None
        if self._box is not None and interface.action.kind != "ee_pose":
            self.position_stream = _position_stream(interface)
            self._position_columns = [interface.state[self.position_stream].names.index(n) for n in _POSITION_AXES]

    def first_fault(self, planned: np.ndarray, states: Mapping[str, np.ndarray]) -> str | None:
        """Why `planned` [A] must not be a first command from where the robot is, or None."""
        fault = self._standing_fault(states)
        if fault is not None or self._jump is None:
            return fault
        return self._distance_fault(planned, states, self._jump, "the first command", "limits.jump is")

    def _standing_fault(self, states: Mapping[str, np.ndarray]) -> str | None:
        """Where the robot stands outside of the limits of positions, from where every way in would be a jump."""
        if self._velocities or self._action.limits.lower is None or not self.reference.known:
            return None
        here = np.asarray(self.reference.values(states), np.float64)
        off = np.maximum(self._lower - here, here - self._upper) - STANDING_SHARE * (self._upper - self._lower)
        if self._orientation:
            off[self._orientation] = -np.inf
        worst = int(np.argmax(off))
        if not off[worst] > 0:
            return None
        return (f"limits: {self._action.names[worst]!r} stands at {here[worst]:.3f}, outside of {self._lower[worst]:g} "
                f"to {self._upper[worst]:g}; move it back by hand or teach pendant, or widen action.limits")

    def mixable(self, values: np.ndarray, before: np.ndarray | None) -> np.ndarray:
        """Actions [N, A] whose orientations may be mixed with those planned before, of which `before` [A] is one."""
        if not self._orientation:
            return values
        made = values.copy()
        made[:, self._orientation] = on_one_side(values[:, self._orientation],
                                                 None if before is None else before[self._orientation])
        return made

    def rotation_fault(self, planned: np.ndarray) -> str | None:
        """Why the orientation in `planned` [A] is none, or None."""
        if not self._orientation or normalised(planned[self._orientation]) is not None:
            return None
        return "orientation: a quaternion of length 0 in an action is no rotation"

    def waypoint_fault(self, waypoint: np.ndarray, states: Mapping[str, np.ndarray], ahead_s: float) -> str | None:
        """Why a waypoint [A] due in `ahead_s` cannot be reached from where the robot is, or None."""
        allowed = self._pace.reach(max(ahead_s, 0.0) + TRACKING_LAG_S)
        return self._distance_fault(waypoint, states, allowed, f"the waypoint due in {ahead_s:.3f} s",
                                    "at limits.max_velocity_per_s it could go")

    def workspace_fault(self, states: Mapping[str, np.ndarray]) -> str | None:
        """Where the end effector has left the box although joints are what is commanded, or None."""
        if self._box is None or self.position_stream is None or not self._action.kind.startswith("joint"):
            return None
        position = np.asarray(states[self.position_stream], np.float64)[self._position_columns]
        if np.all(position >= self._box[0]) and np.all(position <= self._box[1]):
            return None
        return (f"workspace: the end effector is at {np.round(position, 3).tolist()} m, outside of the box from "
                f"{self._box[0].tolist()} to {self._box[1].tolist()}; move it back by hand or teach pendant")

    def bound(self, planned: np.ndarray, last: np.ndarray | None, states: Mapping[str, np.ndarray],
              position_age_s: float = 0.0, velocity: np.ndarray | None = None,
              period_s: float | None = None, paced: bool = True) -> np.ndarray:
        """The nearest action, float32 [A], that keeps every limit.

        last            the command before; None for a first one, whose step is counted from where the robot is
        states          the newest values of each state stream
        position_age_s  how long the robot may have moved on since its position was measured
        velocity        how fast each commanded value changes now; None for rest
        period_s        time since the command before; None for one period of the interface's rate_hz
        paced           False leaves out the limits on how fast values change
        """
        bounded = np.array(planned, np.float32)
        body = np.asarray(planned[:self._size], np.float64)
        box_lower, box_upper = self._box_bounds(states, position_age_s)
        lower, upper = self._lower, self._upper
        if not self._velocities:
            lower, upper = np.maximum(lower, box_lower), np.minimum(upper, box_upper)
        target = clipped(body, lower, upper)
        if self._orientation:
            target[self._orientation] = body[self._orientation]
        if paced and (not self._pace.unlimited or self._orientation):
            before = self.reference.values(states) if last is None else last[:self._size]
            target = self._paced(target, np.asarray(before, np.float64), velocity, period_s)
        # Bounds come last: a value may stop faster than its acceleration allows, but never leave its range or the box.
        within = clipped(clipped(target, lower, upper), box_lower, box_upper) if self._velocities else \
            clipped(target, lower, upper)
        if self._orientation:
            within[self._orientation] = target[self._orientation]
        target = within
        bounded[:self._size] = target
        bounded[self._size:] = clipped(bounded[self._size:], 0.0, 1.0)
        return bounded

    def _paced(self, target: np.ndarray, before: np.ndarray, velocity: np.ndarray | None,
               period_s: float | None) -> np.ndarray:
        moved = self._pace.toward(target, before, np.zeros(self._size) if velocity is None else velocity, period_s)
        if self._orientation:
            columns = self._orientation
            start, end = normalised(before[columns]), normalised(target[columns])
            max_angle_rad = 2 * float(self._pace.reach(period_s)[columns].min())
            assert end is not None, "rotation_fault comes first"
            moved[columns] = end if start is None else toward(start, end, max_angle_rad)
        return moved

    def _distance_fault(self, planned: np.ndarray, states: Mapping[str, np.ndarray], allowed: np.ndarray, what: str,
                        bound: str) -> str | None:
        here = np.asarray(self.reference.values(states), np.float64)
        there = np.array(planned[:self._size], np.float64)
        if self._orientation:
            there[self._orientation] = aligned(there[self._orientation], here[self._orientation])
        distance = np.abs(there - here)
        worst = int(np.argmax(distance - allowed))
        if distance[worst] <= allowed[worst]:
            return None
        return (f"jump: {what} for {self._action.names[worst]!r} is {distance[worst]:.3f} away from where "
                f"the robot is, {bound} {allowed[worst]:.3g}")

    def _box_bounds(self, states: Mapping[str, np.ndarray], position_age_s: float) -> tuple[np.ndarray, np.ndarray]:
        """What the workspace box leaves of each value: lower and upper [len(names)]."""
        if self._box is None or self._action.kind not in _AXES:
            return self._everywhere
        lower, upper = self._everywhere[0].copy(), self._everywhere[1].copy()
        box_lower, box_upper = (edge.astype(np.float64) for edge in self._box)
        if self.position_stream is not None:
            position = np.asarray(states[self.position_stream], np.float64)[self._position_columns]
            # Should no further message come, the robot goes on for hold_s: even then it must stay inside. Outside of
            # the box the way further out is closed and the way back is free, but nothing is pushed.
            horizon_s = self._action.hold_s + max(position_age_s, 0.0)
            box_lower = np.minimum(0.0, (box_lower - position) / horizon_s)
            box_upper = np.maximum(0.0, (box_upper - position) / horizon_s)
        for axis, name in enumerate(_AXES[self._action.kind]):
            if name in self._action.names:
                column = self._action.names.index(name)
                lower[column], upper[column] = box_lower[axis], box_upper[axis]
        return lower, upper


def _orientation_columns(action: Action) -> list[int]:
    return [action.names.index(name) for name in _ORIENTATION] if action.kind == "ee_pose" else []


def _position_stream(interface: Interface) -> str:
    for name, stream in interface.state.items():
        if stream.type == "geometry_msgs/msg/PoseStamped" and set(_POSITION_AXES) <= set(stream.names):
            return name
    raise ConfigError(f"interface {interface.name!r}: limits.workspace_lower needs a state stream of type "
                      f"geometry_msgs/msg/PoseStamped with names {', '.join(_POSITION_AXES)}; add it or remove the box")
