"""The names that an interface may use: message fields, image encodings, topics."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from como_core.config import nearest

POSE_FIELDS = tuple(f"position.{axis}" for axis in "xyz") + tuple(f"orientation.{axis}" for axis in "xyzw")
TWIST_FIELDS = tuple(f"linear.{axis}" for axis in "xyz") + tuple(f"angular.{axis}" for axis in "xyz")

# Of sensor_msgs/image_encodings.hpp, those that become RGB in como_core.formats.images.
IMAGE_ENCODINGS = ("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16", "16UC1", "32FC1", "bayer_rggb8", "bayer_bggr8",
                   "bayer_gbrg8", "bayer_grbg8", "yuv422", "yuv422_yuy2")

# Relative or absolute, tokens that do not begin with a digit (REP 144 and the ROS 2 design of topic names).
_TOPIC = re.compile(r"(~?/)?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)


def require_topic(key: str, topic: str) -> None:
    """Raise ValueError unless `topic` is a ROS topic name, relative or absolute."""
    if not _TOPIC.fullmatch(topic):
        raise ValueError(f"{key}: {topic!r} is no ROS topic name; expected words of letters, digits and _ with / "
                         "between them, none beginning with a digit, such as camera/image_raw")


def require_positive(item: object, *names: str) -> None:
    """Raise ValueError, naming it, for an attribute that is not a finite number above 0."""
    for name in names:
        value = getattr(item, name)
        if not math.isfinite(value) or value <= 0:
            raise ValueError(f"{name} must be above 0, got {value}")


def require_different(key: str, names: Sequence[str]) -> None:
    """Raise ValueError unless there is a name and none stands twice."""
    if not names or len(set(names)) != len(names):
        raise ValueError(f"{key} must be one or more different names, got {list(names)}")


def require_known(key: str, names: Sequence[str], valid: Sequence[str]) -> None:
    """Raise ValueError, with the nearest valid one, for a name that is not among `valid`."""
    for name in names:
        if name not in valid:
            raise ValueError(f"{key}: {name!r} is not one of {', '.join(valid)}; {nearest(name, valid)}")
