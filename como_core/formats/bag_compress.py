"""Raw pictures to compressed ones on their way into a bag, as image_transport names them: `<topic>/compressed`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from rosbags.serde import SerdeError

from como_core.formats.bag_writer import BagError, serialize, typestore
from como_core.formats.images import EIGHT_BIT_ENCODINGS, ImageError, decode_image

RAW_TYPE, COMPRESSED_TYPE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
COMPRESSED_SUFFIX = "/compressed"

ImageCodec = Literal["jpeg", "png"]


@dataclass(frozen=True)
class ImageCompression:
    """codec  jpeg (small, changes pixels) or png (exact); quality  of JPEG, 1 to 100."""

    codec: ImageCodec
    quality: int = 95

    def compress(self, topic: str, cdr: bytes) -> bytes:
        """A serialised sensor_msgs/Image as CompressedImage, with its header.

        Raises BagError, naming the topic, for a picture that is not of eight bits a channel, or is damaged.
        """
        try:
            message: Any = typestore().deserialize_cdr(cdr, RAW_TYPE)
            rgb = decode_image(message.encoding, message.width, message.height, message.step, message.is_bigendian,
                               message.data)
        except (ImageError, SerdeError, ValueError, KeyError, IndexError, AssertionError) as error:
            raise BagError(f"topic {topic!r}: a picture cannot be compressed: {error}; record it with compress "
                           "none") from error
        if message.encoding not in EIGHT_BIT_ENCODINGS:
            raise BagError(f"topic {topic!r}: a picture of {message.encoding} has more than eight bits a value, and "
                           f"{self.codec} would keep eight; record it with compress none")
        return serialize(typestore().types[COMPRESSED_TYPE](
            header=message.header, format=f"{message.encoding}; {self.codec} compressed bgr8", data=self._encode(rgb)))

    def _encode(self, rgb: np.ndarray) -> np.ndarray:
        options = [cv2.IMWRITE_JPEG_QUALITY, self.quality] if self.codec == "jpeg" else []
        done, data = cv2.imencode(".jpg" if self.codec == "jpeg" else ".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR),
                                  options)
        assert done, "OpenCV encodes every uint8 picture"
        return data.reshape(-1)
