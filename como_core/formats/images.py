"""ROS image payloads to RGB arrays and back, without ROS and without cv_bridge.

The encodings are those of sensor_msgs/image_encodings.hpp. Colour, grey, Bayer and YUV pictures become what cv_bridge
makes of them as rgb8. Depth (16UC1 in millimetres, 32FC1 in metres, REP 118), of which cv_bridge makes no colour,
becomes grey: black where nothing was measured and at 0 m, white at DEPTH_FULL_SCALE_M and beyond. The scale is the same
everywhere, so that a policy sees live what it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from como_core.errors import ComoError

DEPTH_FULL_SCALE_M = 4.0


@dataclass(frozen=True)
class _Layout:
    """How pixels lie in memory: bytes of a pixel, channels of `kind`, and the OpenCV conversion to RGB, if any."""

    bytes: int
    channels: int
    conversion: int | None
    kind: str = "u1"
    even_width: bool = False


# OpenCV names a Bayer pattern by its second row and column, ROS by its first.
_LAYOUTS: dict[str, _Layout] = {
    "rgb8": _Layout(3, 3, None),
    "bgr8": _Layout(3, 3, cv2.COLOR_BGR2RGB),
    "rgba8": _Layout(4, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Layout(4, 4, cv2.COLOR_BGRA2RGB),
    "mono8": _Layout(1, 1, cv2.COLOR_GRAY2RGB),
    "mono16": _Layout(2, 1, cv2.COLOR_GRAY2RGB, "u2"),
    "16UC1": _Layout(2, 1, cv2.COLOR_GRAY2RGB, "u2"),
    "32FC1": _Layout(4, 1, cv2.COLOR_GRAY2RGB, "f4"),
    "bayer_rggb8": _Layout(1, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": _Layout(1, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": _Layout(1, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": _Layout(1, 1, cv2.COLOR_BayerGB2RGB),
    "yuv422": _Layout(2, 2, cv2.COLOR_YUV2RGB_UYVY, even_width=True),
    "yuv422_yuy2": _Layout(2, 2, cv2.COLOR_YUV2RGB_YUY2, even_width=True),
}


# Those that lose nothing in eight bits a value.
EIGHT_BIT_ENCODINGS = frozenset(name for name, layout in _LAYOUTS.items() if layout.kind == "u1")


class ImageError(ComoError, ValueError):
    """A picture that cannot be read; the message says what was given and what was expected."""


def image_fault(encoding: str, width: int, height: int, step: int, size: int) -> str | None:
    """Why the fields of a sensor_msgs/Image do not fit together, `size` being the length of its data; or None."""
    layout = _LAYOUTS.get(encoding)
    if layout is None:
        return f"image encoding {encoding!r} is not supported; expected one of {', '.join(_LAYOUTS)}"
    if width < 1 or height < 1:
        return f"image of {width}x{height} pixels; expected at least 1x1"
    if layout.even_width and width % 2:
        return f"image of {encoding} is {width} pixels wide; two pixels share a colour, so expected an even number"
    if encoding.startswith("bayer") and min(width, height) < 2:
        return f"image of {encoding} is {width}x{height} pixels; four pixels make a colour, so expected at least 2x2"
    if step < width * layout.bytes:
        return f"image step is {step} bytes; {encoding} at width {width} needs {width * layout.bytes} or more"
    if size != step * height:
        return f"image data holds {size} bytes; step {step} x height {height} needs {step * height}"
    return None


def decode_image(
    encoding: str, width: int, height: int, step: int, is_bigendian: int, data: bytes | memoryview | np.ndarray
) -> np.ndarray:
    """RGB of the fields of a sensor_msgs/Image: uint8 [height, width, 3], a copy of its own.

    `step` is the length of a row in bytes and may be padded. `is_bigendian` is the order of the bytes of 16- and 32-bit
    values. Raises ImageError for an unknown encoding and for a width, height, step or length of data that do not fit
    together.
    """
    flat = np.frombuffer(data, dtype=np.uint8)
    fault = image_fault(encoding, width, height, step, flat.size)
    if fault:
        raise ImageError(fault)
    layout = _LAYOUTS[encoding]
    rows = np.ascontiguousarray(flat.reshape(height, step)[:, : width * layout.bytes])
    pixels = rows.view(np.dtype(layout.kind).newbyteorder(">" if is_bigendian else "<"))
    pixels = _eight_bit(encoding, pixels.reshape(height, width, layout.channels))
    if layout.conversion is None:
        return pixels.copy() if pixels.base is not None else pixels
    return cv2.cvtColor(pixels, layout.conversion)


def encode_image(rgb: np.ndarray) -> tuple[str, int, bytes]:
    """Encoding, step in bytes and data of a sensor_msgs/Image for uint8 [H, W, 3] RGB.

    Raises ImageError for any other shape or type.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ImageError(f"expected an RGB picture, uint8 [H, W, 3], got {rgb.dtype} {list(rgb.shape)}")
    return "rgb8", rgb.shape[1] * 3, rgb.tobytes()


def compressed_fault(written: str) -> str | None:
    """Why a picture cannot be what the `format` of its sensor_msgs/CompressedImage says, or None.

    image_transport writes "rgb8; jpeg compressed bgr8": the encoding before, the codec, and the encoding that was
    compressed, which is absent where it is the one before. A format that says less, such as "jpeg", is believed.
    """
    before, _, after = (part.strip() for part in written.partition(";"))
    if "compressedDepth" in after:
        return f"image format {written!r} is compressed depth; expected JPEG or PNG, or take the raw topic"
    if before.startswith("bayer") and after.endswith("compressed"):
        return (f"image format {written!r} is a compressed mosaic, in which colours are not yet told apart; expected a "
                "colour picture, or take the raw topic")
    return None


def decode_compressed(data: bytes | memoryview | np.ndarray) -> np.ndarray:
    """RGB of the data of a sensor_msgs/CompressedImage (JPEG, PNG, or whatever OpenCV reads): uint8 [H, W, 3].

    Raises ImageError where the bytes are not a picture, and for one of more than eight bits: whether its values are
    brightness or millimetres is not in it.
    """
    buffer = np.frombuffer(data, dtype=np.uint8)
    try:
        bgr = cv2.imdecode(buffer, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if buffer.size else None
    except cv2.error as error:
        raise ImageError(f"compressed image of {buffer.size} bytes cannot be decoded: {error.err}") from error
    if bgr is None:
        raise ImageError(f"compressed image of {buffer.size} bytes cannot be decoded; expected JPEG or PNG")
    if bgr.dtype != np.uint8:
        raise ImageError(f"compressed image of {buffer.size} bytes has {8 * bgr.itemsize} bits a value, expected 8; "
                         "take depth and 16-bit pictures from the raw topic (16UC1, mono16)")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _eight_bit(encoding: str, pixels: np.ndarray) -> np.ndarray:
    """Eight bits of grey for what has more; other pictures as they are."""
    if encoding == "mono16":
        return np.rint(pixels.astype(np.float32) * (255 / 65535)).astype(np.uint8)
    if encoding in ("16UC1", "32FC1"):
        with np.errstate(invalid="ignore"):  # a NaN is a pixel that was not measured
            metres = pixels.astype(np.float32) * (1e-3 if encoding == "16UC1" else 1.0)
            share = np.nan_to_num(metres / DEPTH_FULL_SCALE_M, nan=0.0, posinf=1.0, neginf=0.0)
        return np.rint(np.clip(share, 0.0, 1.0) * 255).astype(np.uint8)
    return pixels
