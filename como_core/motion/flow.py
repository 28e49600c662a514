"""Optical flow between two frames (Farneback 2003, by OpenCV): which way things moved in the picture."""

from __future__ import annotations

import cv2
import numpy as np

_SIDE = 128  # pixels that flow is computed at; smaller pictures are enlarged, or windows would be too coarse
_STILL = 0.3  # of the largest movement in the picture; slower pixels count as still


def flow_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Movement of each pixel from uint8 frame [H, W, 3] to the next, float32 [H, W, 2]: right and down, in pixels."""
    height, width = first.shape[:2]
    scale = max(_SIDE / height, 1.0)
    size = (round(width * scale), round(height * scale))
    grey = [cv2.cvtColor(cv2.resize(np.ascontiguousarray(frame), size, interpolation=cv2.INTER_CUBIC),
                         cv2.COLOR_RGB2GRAY) for frame in (first, second)]
    start = np.zeros((size[1], size[0], 2), np.float32)
    found = cv2.calcOpticalFlowFarneback(grey[0], grey[1], start, 0.5, 3, 17, 3, 5, 1.2, 0)
    return cv2.resize(found, (width, height), interpolation=cv2.INTER_AREA) / scale


def mean_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mean movement of what moves, float32 [2]: right and down, in pixels."""
    flow = flow_of(first, second)
    length = np.linalg.norm(flow, axis=2)
    mean: np.ndarray = flow[length >= _STILL * length.max()].mean(axis=0)
    return mean
