"""ROS image payloads to RGB arrays and back, without ROS and without cv_bridge.

The encodings are those of sensor_msgs/image_encodings.hpp that hold eight bits for each channel of a colour or grey
picture. Depth, Bayer and 16-bit pictures are refused by name: turning them into RGB would be a guess.
"""

from __future__ import annotations

import cv2
import numpy as np

from como_core.errors import ComoError

# Encoding -> channels in memory and the OpenCV conversion to RGB (None: already RGB).
_ENCODINGS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
}


class ImageError(ComoError, ValueError):
    """A picture that cannot be read; the message says what was given and what was expected."""


def decode_image(
    encoding: str, width: int, height: int, step: int, is_bigendian: int, data: bytes | memoryview | np.ndarray
) -> np.ndarray:
    """RGB of the fields of a sensor_msgs/Image: uint8 [height, width, 3], a copy of its own.

    `step` is the length of a row in bytes and may be padded. `is_bigendian` does not matter to eight-bit channels.
    Raises ImageError for an unknown encoding and for a width, height, step or length of data that do not fit together.
    """
    del is_bigendian
    if encoding not in _ENCODINGS:
        raise ImageError(f"image encoding {encoding!r} is not supported; expected one of {', '.join(_ENCODINGS)}")
    channels, conversion = _ENCODINGS[encoding]
    if width < 1 or height < 1:
        raise ImageError(f"image of {width}x{height} pixels; expected at least 1x1")
    if step < width * channels:
        raise ImageError(f"image step is {step} bytes; {encoding} at width {width} needs {width * channels} or more")
    flat = np.frombuffer(data, dtype=np.uint8)
    if flat.size != step * height:
        raise ImageError(f"image data holds {flat.size} bytes; step {step} x height {height} needs {step * height}")
    pixels = flat.reshape(height, step)[:, : width * channels].reshape(height, width, channels)
    return pixels.copy() if conversion is None else cv2.cvtColor(np.ascontiguousarray(pixels), conversion)


def encode_image(rgb: np.ndarray) -> tuple[str, int, bytes]:
    """Encoding, step in bytes and data of a sensor_msgs/Image for uint8 [H, W, 3] RGB.

    Raises ImageError for any other shape or type.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ImageError(f"expected an RGB picture, uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}")
    return "rgb8", rgb.shape[1] * 3, rgb.tobytes()


def decode_compressed(data: bytes | memoryview | np.ndarray) -> np.ndarray:
    """RGB of the data of a sensor_msgs/CompressedImage (JPEG, PNG, or whatever OpenCV reads): uint8 [H, W, 3].

    Raises ImageError where the bytes are not a picture.
    """
    buffer = np.frombuffer(data, dtype=np.uint8)
    try:
        bgr = cv2.imdecode(buffer, cv2.IMREAD_COLOR) if buffer.size else None
    except cv2.error as error:
        raise ImageError(f"compressed image of {buffer.size} bytes cannot be decoded: {error.err}") from error
    if bgr is None:
        raise ImageError(f"compressed image of {buffer.size} bytes cannot be decoded; expected JPEG or PNG")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
