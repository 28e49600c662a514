"""PNG pictures on disk."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from como_core.errors import ComoError, OutputError


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an RGB picture, uint8 [H, W, 3]. Raises OutputError where the file cannot be written."""
    encoded, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise OutputError(f"{path}: a picture of shape {image.shape} could not be encoded as PNG")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def read_png(path: Path) -> np.ndarray:
    """An RGB picture, uint8 [H, W, 3]. Raises ComoError where there is none."""
    try:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error) as error:
        raise ComoError(f"{path}: cannot be read as a picture: {error}") from error
    if image is None:
        raise ComoError(f"{path}: cannot be read as a picture")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
