"""Hand-made ROS messages for the tests of bags: serialised as a node would, without ROS."""

from __future__ import annotations

from typing import Any

import numpy as np

from como_core.formats.bag_writer import serialize, typestore

_TYPES = typestore().types


def header(stamp_ns: int) -> Any:
    stamp = _TYPES["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return _TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id="base")


def vector(values: Any, kind: str = "Vector3") -> Any:
    x, y, z = map(float, values)
    return _TYPES[f"geometry_msgs/msg/{kind}"](x=x, y=y, z=z)


def image(stamp_ns: int, rgb: np.ndarray) -> bytes:
    height, width = rgb.shape[:2]
    return serialize(_TYPES["sensor_msgs/msg/Image"](
        header=header(stamp_ns), height=height, width=width, encoding="rgb8", is_bigendian=0, step=width * 3,
        data=np.ascontiguousarray(rgb).reshape(-1),
    ))


def pose(stamp_ns: int, position: Any, orientation: Any = (0, 0, 0, 1)) -> bytes:
    x, y, z, w = map(float, orientation)
    quaternion = _TYPES["geometry_msgs/msg/Quaternion"](x=x, y=y, z=z, w=w)
    body = _TYPES["geometry_msgs/msg/Pose"](position=vector(position, "Point"), orientation=quaternion)
    return serialize(_TYPES["geometry_msgs/msg/PoseStamped"](header=header(stamp_ns), pose=body))


def joints(stamp_ns: int, positions: dict[str, float]) -> bytes:
    return serialize(_TYPES["sensor_msgs/msg/JointState"](
        header=header(stamp_ns), name=list(positions), position=np.array(list(positions.values()), np.float64),
        velocity=np.empty(0), effort=np.empty(0),
    ))


def twist(stamp_ns: int, linear: Any) -> bytes:
    body = _TYPES["geometry_msgs/msg/Twist"](linear=vector(linear), angular=vector((0, 0, 0)))
    return serialize(_TYPES["geometry_msgs/msg/TwistStamped"](header=header(stamp_ns), twist=body))


def number(value: float) -> bytes:
    return serialize(_TYPES["std_msgs/msg/Float64"](data=float(value)))


def floats(values: Any) -> bytes:
    layout = _TYPES["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    return serialize(_TYPES["std_msgs/msg/Float64MultiArray"](layout=layout, data=np.asarray(values, np.float64)))


def compressed(stamp_ns: int, data: bytes, written: str = "png") -> bytes:
    return serialize(_TYPES["sensor_msgs/msg/CompressedImage"](
        header=header(stamp_ns), format=written, data=np.frombuffer(data, np.uint8)))


def trajectory(stamp_ns: int, names: list[str], points: list[tuple[float, list[float]]]) -> bytes:
    """Points are (seconds from the stamp, positions)."""
    duration, point = _TYPES["builtin_interfaces/msg/Duration"], _TYPES["trajectory_msgs/msg/JointTrajectoryPoint"]
    none = np.empty(0)
    made = [point(positions=np.asarray(positions, np.float64), velocities=none, accelerations=none, effort=none,
                  time_from_start=duration(sec=int(s), nanosec=round(s % 1 * 1e9))) for s, positions in points]
    return serialize(_TYPES["trajectory_msgs/msg/JointTrajectory"](
        header=header(stamp_ns), joint_names=names, points=made))
