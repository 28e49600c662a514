"""Where the robot is before its first command: what limits on its way are counted from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from como_core.config import ConfigError
from como_core.interface import Interface

VELOCITY_KINDS = ("joint_velocity", "ee_twist")

_POSITION_STATE = {"joint_position": "sensor_msgs/msg/JointState", "ee_pose": "geometry_msgs/msg/PoseStamped"}


class Reference:
    """Reads the commanded values' present state out of the state streams; velocities start from rest.

    Raises ConfigError where that is needed, by a limit or a trajectory, and a commanded value is in no state stream.
    """

    def __init__(self, interface: Interface) -> None:
        action = interface.action
        self._size = len(action.names)
        self._places: list[tuple[str, int]] | None = None
        limits = action.limits
        paced = (limits.step, limits.jump, limits.max_velocity_per_s, limits.max_acceleration_per_s2) != (None,) * 4
        if action.kind in VELOCITY_KINDS or not (paced or action.target == "joint_trajectory"):
            return
        wanted = _POSITION_STATE[action.kind]
        places = {value: (name, column) for name, stream in interface.state.items()
                  if stream.type == wanted and stream.field == "position" for column, value in enumerate(stream.names)}
        missing = [name for name in action.names if name not in places]
        if missing:
            raise ConfigError(f"interface {interface.name!r}: limits on step, jump, velocity and acceleration, and any "
                              f"trajectory, need the present value of {missing[0]!r}, which no state stream of type "
                              f"{wanted} holds; add it to a stream's names or remove the limit")
        self._places = [places[name] for name in action.names]

    @property
    def known(self) -> bool:
        """Whether it reads states; else it says zeros."""
        return self._places is not None

    def values(self, states: Mapping[str, np.ndarray]) -> np.ndarray:
        """The present value of each of Action.names, float32 [len(names)]; zeros, which is rest, for velocities."""
        if self._places is None:
            return np.zeros(self._size, np.float32)
        return np.array([states[name][column] for name, column in self._places], np.float32)
