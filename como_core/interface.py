"""Interface: what a robot's streams and commands are. One YAML per robot, in config/interfaces/.

The recorder records it, the converter aligns by it, the policy is trained with it and the node runs by it. A copy
lies in every bag, checkpoint and evaluation log; `require_same` refuses a mismatch and names the key that differs.
Units stand in the key names: metres, radians, seconds, hertz.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from como_core import config

ActionKind = Literal["joint_position", "joint_velocity", "ee_pose", "ee_twist"]
ActionTarget = Literal["joint_trajectory", "forward_command", "servo_twist", "pose"]

STATE_TYPES = ("sensor_msgs/msg/JointState", "geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/TwistStamped")
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")

# The message type that each command target speaks (ros2_controllers, MoveIt Servo, Cartesian impedance controllers).
TARGET_TYPES: dict[str, str] = {
    "joint_trajectory": "trajectory_msgs/msg/JointTrajectory",
    "forward_command": "std_msgs/msg/Float64MultiArray",
    "servo_twist": "geometry_msgs/msg/TwistStamped",
    "pose": "geometry_msgs/msg/PoseStamped",
}
_KIND_TARGETS: dict[str, tuple[str, ...]] = {
    "joint_position": ("joint_trajectory", "forward_command"),
    "joint_velocity": ("forward_command",),
    "ee_pose": ("pose",),
    "ee_twist": ("servo_twist",),
}


@dataclass(frozen=True)
class Camera:
    """One camera stream."""

    topic: str
    width: int
    height: int
    rate_hz: float
    max_age_s: float
    type: Literal["sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"] = "sensor_msgs/msg/Image"
    encoding: str = "rgb8"

    def __post_init__(self) -> None:
        _positive(self, "width", "height", "rate_hz", "max_age_s")


@dataclass(frozen=True)
class StateStream:
    """One proprioception stream: its values, in the order of `names`, are a part of the state vector.

    For JointState, `names` are joint names and `field` says which array is read. For poses and twists, `names` are
    message fields such as `position.x` or `linear.z`.
    """

    topic: str
    type: Literal["sensor_msgs/msg/JointState", "geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/TwistStamped"]
    names: tuple[str, ...]
    rate_hz: float
    max_age_s: float
    field: Literal["position", "velocity", "effort"] = "position"

    def __post_init__(self) -> None:
        _positive(self, "rate_hz", "max_age_s")
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(f"names of {self.topic!r} must be one or more different names, got {list(self.names)}")


@dataclass(frozen=True)
class Gripper:
    """A gripper command: std_msgs/Float64 on its own topic, sent on change only. 0 is open, 1 is closed.

    `resolution` is the least change that is worth a message.
    """

    topic: str
    resolution: float = 0.02

    def __post_init__(self) -> None:
        _positive(self, "resolution")


@dataclass(frozen=True)
class Limits:
    """Bounds on what is commanded, per value of `Action.names`. Absent means: not bounded by us.

    lower, upper     bounds of each value (rad, m, rad/s or m/s, by the action's kind)
    step             largest change of each value between two commands; a larger one is bounded to it
    jump             largest distance from the present state, or last command, to a first command; beyond it the
                     latch closes
    workspace_lower, workspace_upper  box in metres, in the command frame, that the end effector may not leave
    """

    lower: tuple[float, ...] | None = None
    upper: tuple[float, ...] | None = None
    step: tuple[float, ...] | None = None
    jump: tuple[float, ...] | None = None
    workspace_lower: tuple[float, float, float] | None = None
    workspace_upper: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        for low, high in (("lower", "upper"), ("workspace_lower", "workspace_upper")):
            a, b = getattr(self, low), getattr(self, high)
            if (a is None) != (b is None):
                raise ValueError(f"{low} and {high} belong together: give both or neither")
            if a is not None and any(x >= y for x, y in zip(a, b, strict=False)):
                raise ValueError(f"{low} must be below {high} in every value, got {list(a)} and {list(b)}")


@dataclass(frozen=True)
class Action:
    """The command stream: what a policy's action vector means and where it goes.

    The vector is `names` in order and, where there is a gripper, its command in [0, 1] as the last value.
    `hold_s` is how long the robot side may go on with a velocity command after the last message.
    """

    kind: ActionKind
    target: ActionTarget
    topic: str
    names: tuple[str, ...]
    rate_hz: float
    frame: str = "base"
    hold_s: float = 0.25
    gripper: Gripper | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        _positive(self, "rate_hz", "hold_s")
        if self.target not in _KIND_TARGETS[self.kind]:
            raise ValueError(f"target {self.target!r} cannot carry kind {self.kind!r}; "
                             f"expected {' or '.join(_KIND_TARGETS[self.kind])}")
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(f"names must be one or more different names, got {list(self.names)}")
        for name in ("lower", "upper", "step", "jump"):
            bound = getattr(self.limits, name)
            if bound is not None and len(bound) != len(self.names):
                raise ValueError(f"limits.{name} has {len(bound)} values, expected {len(self.names)}, one per name")

    @property
    def type(self) -> str:
        """ROS type of the command topic."""
        return TARGET_TYPES[self.target]

    @property
    def size(self) -> int:
        """Length A of the action vector, the gripper included."""
        return len(self.names) + (self.gripper is not None)


@dataclass(frozen=True)
class Interface:
    """A robot's streams and commands."""

    name: str
    cameras: dict[str, Camera]
    action: Action
    state: dict[str, StateStream] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.cameras:
            raise ValueError("cameras: at least one camera is needed")
        both = self.cameras.keys() & self.state.keys()
        if both:
            raise ValueError(f"{sorted(both)[0]!r} names a camera and a state stream; give them different names")
        topics = [stream.topic for stream in self._streams.values()] + [self.action.topic]
        topics += [self.action.gripper.topic] if self.action.gripper else []
        twice = {t for t in topics if topics.count(t) > 1}
        if twice:
            raise ValueError(f"topic {sorted(twice)[0]!r} is used by more than one stream")

    @property
    def _streams(self) -> dict[str, Camera | StateStream]:
        return {**self.cameras, **self.state}

    @property
    def state_size(self) -> int:
        """Length S of the state vector: all streams' values in the order of the file."""
        return sum(len(stream.names) for stream in self.state.values())

    @property
    def max_age_s(self) -> dict[str, float]:
        """Stream name -> age beyond which it is stale."""
        return {name: stream.max_age_s for name, stream in self._streams.items()}


def load_interface(path: str | Path) -> Interface:
    """Read an interface YAML. Raises config.ConfigError with file, line and key."""
    return config.load(Interface, path)


def require_same(ours: Interface, theirs: Interface, ours_from: str, theirs_from: str) -> None:
    """Raise ConfigError, naming the first differing key and both values, unless the two interfaces are equal."""
    found = config.first_difference(ours, theirs)
    if found:
        key, a, b = found
        raise config.ConfigError(f"interface mismatch at {key!r}: {a!r} in {ours_from}, {b!r} in {theirs_from}; "
                                 "use the interface that the policy was trained with, or train again with this one")


def state_vector(interface: Interface, values: dict[str, np.ndarray]) -> np.ndarray:
    """Concatenate per-stream values into the state vector, float32 [..., S], in the file's order."""
    return np.concatenate([values[name] for name in interface.state], axis=-1).astype(np.float32)


def _positive(item: object, *names: str) -> None:
    for name in names:
        value = getattr(item, name)
        if not math.isfinite(value) or value <= 0:
            raise ValueError(f"{name} must be above 0, got {value}")
