"""Image messages to and from uint8 RGB arrays [H, W, 3]; the pixel work is como_core.formats.images'."""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from como_core.errors import ComoError
from como_core.formats.images import decode_compressed, decode_image, encode_image
from como_core.interface import Camera
from como_ros.messages import header


def image_message(rgb: np.ndarray, ns: int, frame: str = "") -> Image:
    """A sensor_msgs/Image of uint8 [H, W, 3] RGB, stamped `ns` nanoseconds."""
    encoding, step, data = encode_image(rgb)
    message = Image(header=header(ns, frame), height=rgb.shape[0], width=rgb.shape[1], encoding=encoding, step=step)
    # rclpy checks bytes value by value (milliseconds an image) and takes an array as it is.
    message.data = array.array("B", data)
    return message


def rgb_image(message: Image | CompressedImage, camera: Camera) -> np.ndarray:
    """uint8 [H, W, 3], RGB, of an Image or CompressedImage.

    Raises ComoError, naming the topic, for an encoding that is not known or a size other than the interface's.
    """
    try:
        rgb = _decode(message)
    except ComoError as error:
        raise ComoError(f"topic {camera.topic!r}: {error}") from error
    if rgb.shape[:2] != (camera.height, camera.width):
        raise ComoError(f"topic {camera.topic!r}: an image of {rgb.shape[1]} x {rgb.shape[0]} pixels, expected "
                        f"{camera.width} x {camera.height}; mend the interface or the camera's driver")
    return rgb


def _decode(message: Any) -> np.ndarray:
    if isinstance(message, CompressedImage):
        return decode_compressed(message.data)
    return decode_image(message.encoding, message.width, message.height, message.step, message.is_bigendian,
                        message.data)
