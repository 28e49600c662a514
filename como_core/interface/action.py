"""What a robot is sent: the command stream, its gripper and its limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from como_core.interface.names import (
    POSE_FIELDS,
    TWIST_FIELDS,
    require_different,
    require_known,
    require_positive,
    require_topic,
)

ActionKind = Literal["joint_position", "joint_velocity", "ee_pose", "ee_twist"]
ActionTarget = Literal["joint_trajectory", "forward_command", "servo_twist", "pose"]

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
_KIND_FIELDS = {"ee_pose": POSE_FIELDS, "ee_twist": TWIST_FIELDS}
_PER_VALUE = ("lower", "upper", "step", "jump", "max_velocity_per_s", "max_acceleration_per_s2")
_POSITIVE = _PER_VALUE[2:]


@dataclass(frozen=True)
class Gripper:
    """A gripper command in [0, 1], 0 open and 1 closed, sent on change only.

    It goes out as std_msgs/Float64 on `topic`, always, so that it is recorded the same way for every gripper; where
    `joint` or `action` is given, it drives that too.

    resolution  the least change that is worth a message
    joint       a joint of the trajectory (target joint_trajectory only), after the joints of Action.names
    action      name of a control_msgs action server
    action_type  what that server speaks
    open_m, closed_m      where an open and a closed gripper is, metres: what 0 and 1 become for joint and action
    open_rad, closed_rad  the same for a gripper that turns, in radians
    max_effort  bound on the force (N) or torque (Nm) of an action goal; 0 leaves it to the gripper
    """

    topic: str
    resolution: float = 0.02
    joint: str | None = None
    action: str | None = None
    action_type: Literal["GripperCommand", "ParallelGripperCommand"] = "GripperCommand"
    open_m: float | None = None
    closed_m: float | None = None
    open_rad: float | None = None
    closed_rad: float | None = None
    max_effort: float = 0.0

    def __post_init__(self) -> None:
        require_topic("topic", self.topic)
        require_positive(self, "resolution")
        if self.resolution >= 1:
            raise ValueError(f"resolution must be below 1, the whole way from open to closed, got {self.resolution}")
        if self.joint is not None and self.action is not None:
            raise ValueError("joint and action: a gripper has one of them, got both")
        if self.action is not None:
            require_topic("action", self.action)
        if self.joint is None and self.action is None:
            return
        if self.max_effort < 0:
            raise ValueError(f"max_effort must be 0 or more, got {self.max_effort}")
        pairs = [(self.open_m, self.closed_m), (self.open_rad, self.closed_rad)]
        given = [pair for pair in pairs if pair != (None, None)]
        if len(given) != 1 or None in given[0] or given[0][0] == given[0][1]:
            raise ValueError("joint and action need what open and closed mean: give open_m and closed_m, or open_rad "
                             "and closed_rad, which must differ")

    def position(self, closing: float) -> float:
        """Metres or radians of a command in [0, 1]. Only where `joint` or `action` is given."""
        opened, closed = (self.open_m, self.closed_m) if self.open_m is not None else (self.open_rad, self.closed_rad)
        assert opened is not None and closed is not None
        return opened + closing * (closed - opened)


@dataclass(frozen=True)
class Limits:
    """Bounds on what is commanded, per value of `Action.names`. Absent means: not bounded by us.

    lower, upper     bounds of each value (rad, m, rad/s or m/s, by the action's kind)
    max_velocity_per_s       bound on the change of each value per second; positions only
    max_acceleration_per_s2  bound on the change of that (positions), or of the value (velocities), per second
    step             largest change of each value between two commands; a larger one is bounded to it
    jump             largest distance from the present state, or last command, to a first command; beyond it the
                     latch closes
    workspace_lower, workspace_upper  box in metres, in the command frame, that the end effector may not leave
    """

    lower: tuple[float, ...] | None = None
    upper: tuple[float, ...] | None = None
    step: tuple[float, ...] | None = None
    jump: tuple[float, ...] | None = None
    max_velocity_per_s: tuple[float, ...] | None = None
    max_acceleration_per_s2: tuple[float, ...] | None = None
    workspace_lower: tuple[float, float, float] | None = None
    workspace_upper: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        for low, high in (("lower", "upper"), ("workspace_lower", "workspace_upper")):
            a, b = getattr(self, low), getattr(self, high)
            if (a is None) != (b is None):
                raise ValueError(f"{low} and {high} belong together: give both or neither")
            if a is not None and any(x >= y for x, y in zip(a, b, strict=False)):
                raise ValueError(f"{low} must be below {high} in every value, got {list(a)} and {list(b)}")
        for name in _POSITIVE:
            bound = getattr(self, name)
            if bound is not None and any(not value > 0 for value in bound):
                raise ValueError(f"{name} must be above 0 in every value, got {list(bound)}")


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
        require_topic("topic", self.topic)
        require_positive(self, "rate_hz", "hold_s")
        if self.target not in _KIND_TARGETS[self.kind]:
            raise ValueError(f"target {self.target!r} cannot carry kind {self.kind!r}; "
                             f"expected {' or '.join(_KIND_TARGETS[self.kind])}")
        require_different("names", self.names)
        if self.kind in _KIND_FIELDS:
            require_known("names", self.names, _KIND_FIELDS[self.kind])
        missing = [name for name in POSE_FIELDS if name not in self.names]
        if self.target == "pose" and missing:
            raise ValueError(f"names: {missing[0]!r} is missing; a pose without it would move or turn the hand to a "
                             f"default, so target 'pose' needs all of {', '.join(POSE_FIELDS)}")
        for name in _PER_VALUE:
            bound = getattr(self.limits, name)
            if bound is not None and len(bound) != len(self.names):
                raise ValueError(f"limits.{name} has {len(bound)} values, expected {len(self.names)}, one per name")
        if self.limits.max_velocity_per_s is not None and self.kind in ("joint_velocity", "ee_twist"):
            raise ValueError(f"limits.max_velocity_per_s is for positions; the values of kind {self.kind!r} are "
                             "velocities: bound them with lower and upper")
        if self.gripper is not None and self.gripper.joint is not None and self.target != "joint_trajectory":
            raise ValueError(f"gripper.joint needs target 'joint_trajectory', got {self.target!r}; use gripper.action "
                             "or the topic alone")

    @property
    def type(self) -> str:
        """ROS type of the command topic."""
        return TARGET_TYPES[self.target]

    @property
    def size(self) -> int:
        """Length A of the action vector, the gripper included."""
        return len(self.names) + (self.gripper is not None)
