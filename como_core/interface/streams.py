"""What a robot sends: camera and state streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from como_core.interface.names import (
    IMAGE_ENCODINGS,
    POSE_FIELDS,
    TWIST_FIELDS,
    require_different,
    require_known,
    require_positive,
    require_topic,
)

STATE_TYPES = ("sensor_msgs/msg/JointState", "geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/TwistStamped")
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")

_FIELDS = {"geometry_msgs/msg/PoseStamped": POSE_FIELDS, "geometry_msgs/msg/TwistStamped": TWIST_FIELDS}


@dataclass(frozen=True)
class Camera:
    """One camera stream. `encoding` is that of raw images; a compressed one says in itself what it is."""

    topic: str
    width: int
    height: int
    rate_hz: float
    max_age_s: float
    type: Literal["sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"] = "sensor_msgs/msg/Image"
    encoding: str = "rgb8"

    def __post_init__(self) -> None:
        require_topic("topic", self.topic)
        require_positive(self, "width", "height", "rate_hz", "max_age_s")
        if self.type == "sensor_msgs/msg/Image":
            require_known("encoding", [self.encoding], IMAGE_ENCODINGS)


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
        require_topic("topic", self.topic)
        require_positive(self, "rate_hz", "max_age_s")
        require_different(f"names of {self.topic!r}", self.names)
        if self.type in _FIELDS:
            require_known(f"names of {self.topic!r}", self.names, _FIELDS[self.type])
