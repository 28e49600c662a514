"""Unit quaternions [x, y, z, w]: q and -q are one rotation, and what lies between two of them depends on the sign."""

from __future__ import annotations

import numpy as np

_SMALL = 1e-6


def normalised(quaternion: np.ndarray) -> np.ndarray | None:
    """The unit quaternion [4]; None where the length says that it is no rotation."""
    length = float(np.linalg.norm(quaternion))
    return None if length < _SMALL else np.asarray(quaternion, np.float64) / length


def aligned(quaternion: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """q or -q, which is the same rotation: the one nearer to `reference`."""
    return -quaternion if float(np.dot(quaternion, reference)) < 0 else quaternion


def on_one_side(quaternions: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """The same rotations [..., T, 4], each the one of q and -q that is nearer to the one before it, the first to
    `reference` [4] where it is given: only so may they be mixed or interpolated."""
    turned = (quaternions[..., 1:, :] * quaternions[..., :-1, :]).sum(axis=-1) < 0
    first = (np.zeros(quaternions[..., :1, 0].shape, bool) if reference is None
             else quaternions[..., :1, :] @ reference < 0)
    signs = np.cumprod(np.where(np.concatenate([first, turned], axis=-1), -1.0, 1.0), axis=-1)
    return np.asarray(quaternions * signs[..., None].astype(quaternions.dtype))


def toward(start: np.ndarray, end: np.ndarray, max_angle_rad: float) -> np.ndarray:
    """`end`, or what is `max_angle_rad` from `start` on the shortest way to it. Unit quaternions [4].

    No component changes by more than max_angle_rad / 2: the chord between two quaternions is at most half of the angle
    between their rotations.
    """
    end = aligned(end, start)
    half_rad = float(np.arccos(np.clip(np.dot(start, end), -1.0, 1.0)))
    if 2 * half_rad <= max_angle_rad or half_rad < _SMALL:
        return end
    way = max_angle_rad / (2 * half_rad)
    mixed = (np.sin((1 - way) * half_rad) * start + np.sin(way * half_rad) * end) / np.sin(half_rad)
    return mixed / np.linalg.norm(mixed)
