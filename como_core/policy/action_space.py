"""From the values on the wire to what a network learns, and back: quaternions become rotations of six numbers.

The first two columns of the rotation matrix (arXiv 1812.07035): unlike quaternions and Euler angles they are continuous
and every six numbers stand for a rotation. All else passes as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transforms3d.quaternions import mat2quat, quat2mat

from como_core.interface import Interface
from como_core.rotation import on_one_side

_NO_ROTATION = 1e-6
_XYZW = tuple(f"orientation.{axis}" for axis in "xyzw")


class ActionSpace:
    """Maps actions [..., A], in the order and units of the interface, to inner values [..., size], and back."""

    def __init__(self, names: Sequence[str], size: int) -> None:
        """names  of the action values;  size  with the gripper, where there is one, behind them."""
        self._turned = all(name in names for name in _XYZW)
        self._quaternion = [list(names).index(name) for name in _XYZW] if self._turned else []
        self._plain = [i for i in range(size) if i not in self._quaternion]
        self.outer, self.size = size, len(self._plain) + 6 * self._turned

    @classmethod
    def of(cls, interface: Interface) -> ActionSpace:
        """That of a robot."""
        return cls(interface.action.names, interface.action.size)

    def encode(self, action: np.ndarray) -> np.ndarray:
        """float32 [..., size] of actions [..., A]: the plain values, then the rotation's six."""
        if not self._turned:
            return np.asarray(action, np.float32)
        quaternions = action[..., self._quaternion].reshape(-1, 4)[:, [3, 0, 1, 2]].astype(float)
        turns = np.stack([quat2mat(q)[:, :2].T.ravel() for q in quaternions]) if len(quaternions) else np.zeros((0, 6))
        six = turns.reshape(*action.shape[:-1], 6)
        return np.concatenate([action[..., self._plain], six], axis=-1).astype(np.float32)

    def decode(self, inner: np.ndarray) -> np.ndarray:
        """The inverse of `encode`, float32 [..., A]; six numbers that are no rotation are made the nearest one.

        Of the two quaternions of a rotation the one nearer to that of the row before is taken: what lies between two
        rows of a chunk is interpolated.
        """
        if not self._turned:
            return np.asarray(inner, np.float32)
        action = np.zeros((*inner.shape[:-1], self.outer), np.float32)
        action[..., self._plain] = inner[..., :-6]
        first, second = inner[..., -6:-3].reshape(-1, 3).astype(float), inner[..., -3:].reshape(-1, 3).astype(float)
        matrices = [_rotation(a, b) for a, b in zip(first, second, strict=True)]
        found = np.stack([mat2quat(matrix)[[1, 2, 3, 0]] for matrix in matrices]) if matrices else np.zeros((0, 4))
        shape = (*inner.shape[:-1], 4)
        action[..., self._quaternion] = on_one_side(np.atleast_2d(found.reshape(shape))).reshape(shape)
        return action

    def fault(self, action: np.ndarray) -> str | None:
        """Why actions [T, A] stand for no rotation, or None."""
        lengths = np.linalg.norm(action[:, self._quaternion], axis=1) if self._turned else np.ones(len(action))
        if lengths.min(initial=1.0) > _NO_ROTATION:
            return None
        return f"step {int(np.argmin(lengths))}: the orientation is a quaternion of length 0, which is no rotation"


def _rotation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The rotation matrix with these first columns, made orthonormal (Gram-Schmidt)."""
    x = first / max(float(np.linalg.norm(first)), 1e-9)
    y = second - x * (x @ second)
    y /= max(float(np.linalg.norm(y)), 1e-9)
    return np.stack([x, y, np.cross(x, y)], axis=1)
