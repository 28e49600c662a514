"""How pictures of a video are turned before they are shown: phones store them as the sensor lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import av
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type


@dataclass(frozen=True, slots=True)
class Orientation:
    """Quarter turns against the clock, and then a mirror that swaps left and right."""

    turns: int
    mirrored: bool

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Orientation:
        """By the display matrix of a frame; a matrix may say any angle, the nearest quarter turn is taken."""
        turns = round(frame.rotation / 90) % 4
        return cls((2 - turns) % 4, True) if _mirrors(frame) else cls(turns, False)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) as shown, of those stored."""
        return (width, height) if self.turns % 2 else (height, width)

    def upright(self, picture: np.ndarray) -> np.ndarray:
        """The picture [H, W, 3] as shown, contiguous."""
        turned = np.rot90(picture, self.turns)
        return np.ascontiguousarray(turned[:, ::-1] if self.mirrored else turned)


def _mirrors(frame: av.VideoFrame) -> bool:
    """Whether the display matrix swaps a side; `frame.rotation` does not tell.

    The matrix is nine int32 [a b u; c d v; x y w], by which a pixel (x, y) is shown at (ax + cy, bx + dy).
    """
    try:
        found = cast("SideDataContainer", frame.side_data)
        if Type.DISPLAYMATRIX not in found:
            return False
        a, b, _, c, d = np.frombuffer(bytes(found[Type.DISPLAYMATRIX]), np.int32, 5).tolist()
    except ValueError:  # PyAV gives nothing of a frame that carries what it has no name for, such as EXIF
        return False
    return a * d < b * c
