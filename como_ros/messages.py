"""ROS messages to and from the values that an interface names: stamps, states, commands.

Times are integer nanoseconds, as ROS keeps them; positions are metres, angles radians, velocities m/s and rad/s.
"""

from __future__ import annotations

import importlib
from functools import cache, reduce
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TwistStamped
from std_msgs.msg import Float64, Header

from como_core.errors import ComoError
from como_core.interface import Action, StateStream

NS_PER_S = 1_000_000_000

# Where the values of a stamped message begin: `names` of an interface are relative to it.
_ROOT = {"geometry_msgs/msg/PoseStamped": "pose", "geometry_msgs/msg/TwistStamped": "twist"}


@cache
def message_class(type_name: str) -> type:
    """The Python class of "sensor_msgs/msg/Image". Raises ComoError where no such message is installed."""
    package, _, name = type_name.partition("/msg/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError) as error:
        raise ComoError(f"message type {type_name!r} is not installed (expected package/msg/Name of an installed "
                        f"package); install ROS package {package!r} or its wheel") from error


def stamp_ns(stamp: Time) -> int:
    """Nanoseconds of a builtin_interfaces/Time."""
    return int(stamp.sec) * NS_PER_S + int(stamp.nanosec)


def to_stamp(ns: int) -> Time:
    """A builtin_interfaces/Time of nanoseconds."""
    return Time(sec=ns // NS_PER_S, nanosec=ns % NS_PER_S)


def header(ns: int, frame: str = "") -> Header:
    """A std_msgs/Header."""
    return Header(stamp=to_stamp(ns), frame_id=frame)


def state_values(message: Any, stream: StateStream) -> np.ndarray:
    """The stream's values out of its message: float32 [len(names)], in the order of `names`.

    Raises ComoError, naming the topic, where a joint or its value is missing: nothing is ever filled with zeros.
    """
    if stream.type == "sensor_msgs/msg/JointState":
        return _joint_values(message, stream)
    root = getattr(message, _ROOT[stream.type])
    return _float32([_field(root, name, stream.topic) for name in stream.names])


def state_message(values: np.ndarray, stream: StateStream, ns: int, frame: str = "") -> Any:
    """The stream's message with `values` [len(names)] in the order of `names`, stamped `ns`."""
    message = message_class(stream.type)(header=header(ns, frame))
    if stream.type == "sensor_msgs/msg/JointState":
        message.name = list(stream.names)
        setattr(message, stream.field, [float(value) for value in values])
        return message
    for name, value in zip(stream.names, values, strict=True):
        set_field(getattr(message, _ROOT[stream.type]), name, float(value), stream.topic)
    return message


def twist_message(values: np.ndarray, action: Action, ns: int) -> TwistStamped:
    """The command message of an action vector [A] (its gripper value, if any, is not in it), stamped `ns`.

    Raises ComoError where the interface's target is not a twist.
    """
    _require_twist(action)
    message = TwistStamped(header=header(ns, action.frame))
    for name, value in zip(action.names, values, strict=False):
        set_field(message.twist, name, float(value), action.topic)
    return message


def twist_values(message: TwistStamped, action: Action) -> np.ndarray:
    """The commanded values of a twist: float32 [len(action.names)]. Raises ComoError where the target is no twist."""
    _require_twist(action)
    return np.array([_field(message.twist, name, action.topic) for name in action.names], np.float32)


def gripper_message(values: np.ndarray) -> Float64:
    """The gripper command of an action vector [A], its last value, bounded to [0, 1]: 0 is open, 1 is closed."""
    return Float64(data=min(max(float(values[-1]), 0.0), 1.0))


def _require_twist(action: Action) -> None:
    if action.target != "servo_twist":
        raise ComoError(f"action.target: {action.target!r} cannot be driven with twists; expected 'servo_twist'")


def _joint_values(message: Any, stream: StateStream) -> np.ndarray:
    present = dict(zip(message.name, getattr(message, stream.field), strict=False))
    missing = [name for name in stream.names if name not in present]
    if missing:
        raise ComoError(f"topic {stream.topic!r}: no {stream.field} of joint {missing[0]!r}; "
                        f"the message has {', '.join(present) or 'none'}")
    twice = [name for name in stream.names if message.name.count(name) > 1]
    if twice:
        raise ComoError(f"topic {stream.topic!r}: joint {twice[0]!r} stands more than once in a message, so its "
                        f"{stream.field} is not known; mend its publisher")
    return _float32([present[name] for name in stream.names])


def _float32(values: list[float]) -> np.ndarray:
    """What float32 cannot hold becomes infinity, which is refused like any other."""
    with np.errstate(over="ignore"):
        return np.array(values, np.float32)


def _field(root: Any, name: str, topic: str) -> float:
    try:
        return float(reduce(getattr, name.split("."), root))
    except (AttributeError, TypeError) as error:
        raise ComoError(f"topic {topic!r}: {type(root).__name__} has no number {name!r} "
                        "(expected names such as position.x or linear.z)") from error


def set_field(root: Any, name: str, value: float, topic: str) -> None:
    """Set `position.x` or the like of a message. Raises ComoError, naming the topic, where there is no such number."""
    _field(root, name, topic)
    *parents, leaf = name.split(".")
    setattr(reduce(getattr, parents, root), leaf, value)
