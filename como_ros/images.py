"""Image messages to and from uint8 RGB arrays [H, W, 3].

cv_bridge converts where it is installed, como_core.formats.images elsewhere; both give the same pixels. Depth is made
grey by the latter always, and what does not fit together is refused before either.
"""

from __future__ import annotations

import array
from functools import cache
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from como_core.errors import ComoError
from como_core.formats.images import compressed_fault, decode_compressed, decode_image, encode_image, image_fault
from como_core.interface import Camera
from como_ros.messages import header

_DEPTH = ("16UC1", "32FC1")


def image_message(rgb: np.ndarray, ns: int, frame: str = "") -> Image:
    """A sensor_msgs/Image of uint8 [H, W, 3] RGB, stamped `ns` nanoseconds."""
    encoding, step, data = encode_image(rgb)
    message = Image(header=header(ns, frame), height=rgb.shape[0], width=rgb.shape[1], encoding=encoding, step=step)
    # rclpy checks bytes value by value (milliseconds an image) and takes an array as it is.
    message.data = array.array("B", data)
    return message


def message_fault(message: Image | CompressedImage, camera: Camera) -> str | None:
    """Why an image cannot be used, seen without decoding it; None where there is nothing to see."""
    if not len(message.data):
        return f"topic {camera.topic!r}: an image without data"
    if not isinstance(message, Image):
        fault = compressed_fault(message.format)
        return f"topic {camera.topic!r}: {fault}" if fault else None
    if (message.width, message.height) != (camera.width, camera.height):
        return _size_fault(camera, message.width, message.height)
    fault = image_fault(message.encoding, message.width, message.height, message.step, len(message.data))
    if fault is None and message.encoding != camera.encoding:
        fault = f"image encoding {message.encoding!r}, expected {camera.encoding!r}; mend the interface or the driver"
    return f"topic {camera.topic!r}: {fault}" if fault else None


def rgb_image(message: Image | CompressedImage, camera: Camera) -> np.ndarray:
    """uint8 [H, W, 3], RGB, of an Image or CompressedImage.

    Raises ComoError, naming the topic, for an encoding that is not known, a step or length of data that do not fit, or
    a size other than the interface's.
    """
    try:
        rgb = _decode(message)
    except ComoError as error:
        raise ComoError(f"topic {camera.topic!r}: {error}") from error
    if rgb.shape[:2] != (camera.height, camera.width):
        raise ComoError(_size_fault(camera, rgb.shape[1], rgb.shape[0]))
    return rgb


def _decode(message: Any) -> np.ndarray:
    bridge = _cv_bridge()
    if isinstance(message, CompressedImage):
        fault = compressed_fault(message.format)
        if fault:
            raise ComoError(fault)
        return decode_compressed(message.data)
    fault = image_fault(message.encoding, message.width, message.height, message.step, len(message.data))
    if fault:
        raise ComoError(fault)
    if bridge is not None and message.encoding not in _DEPTH:
        return np.array(bridge.imgmsg_to_cv2(message, "rgb8"))
    return decode_image(message.encoding, message.width, message.height, message.step, message.is_bigendian,
                        message.data)


@cache
def _cv_bridge() -> Any:
    """A CvBridge where it is installed and works with this numpy and OpenCV, else None."""
    try:
        from cv_bridge import CvBridge
    except (ImportError, AttributeError):
        return None
    return CvBridge()


def _size_fault(camera: Camera, width: int, height: int) -> str:
    return (f"topic {camera.topic!r}: an image of {width} x {height} pixels, expected "
            f"{camera.width} x {camera.height}; mend the interface or the camera's driver")
