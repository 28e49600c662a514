"""A robosuite environment with one arm under operational-space control, in SI units: what LIBERO's tasks are made of.

The action is the hand's twist, m/s and rad/s, and the gripper in [0, 1] (0 open, 1 closed), 20 times a second. The
state is the hand's x, y, z in metres and its rotation vector, the two fingers, the seven joints, as LIBERO records it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from como_core.formats.libero import to_command

PERIOD_S = 0.05
# Camera of the interface -> of robosuite.
CAMERAS = {"agentview": "agentview", "eye_in_hand": "robot0_eye_in_hand"}


class RobosuiteArm:
    """Looks and acts through a robosuite environment `env` whose first robot is a Panda."""

    def __init__(self, env: Any, size: int) -> None:
        self._env, self._size = env, size

    def step(self, action: np.ndarray) -> None:
        """Obey an action [7] in SI units for one period."""
        self._env.step(to_command(action))

    def render(self, camera: str) -> np.ndarray:
        """What a camera of the interface sees, uint8 [size, size, 3], RGB; robosuite gives the last row first."""
        picture = self._env.sim.render(camera_name=CAMERAS[camera], width=self._size, height=self._size)
        return np.ascontiguousarray(picture[::-1])

    def state(self) -> np.ndarray:
        """Hand, fingers and joints, float32 [15]."""
        seen = self._env._get_observations(force_update=True)
        turned = rotation_vector(seen["robot0_eef_quat"])
        return np.concatenate([seen["robot0_eef_pos"], turned, seen["robot0_gripper_qpos"],
                               self._env.robots[0]._joint_positions]).astype(np.float32)

    def path(self, actions: np.ndarray) -> np.ndarray:
        """Positions [K + 1, 3] in metres of a hand that moves at the velocities of `actions` [K, 7]."""
        moves = np.asarray(actions, np.float64)[:, :3] * PERIOD_S
        return self.state()[:3] + np.concatenate([np.zeros((1, 3)), np.cumsum(moves, axis=0)])

    def project(self, points: np.ndarray, camera: str) -> np.ndarray:
        """Column and row of points [N, 3] in metres, as shares of the picture, [N, 2]."""
        sim = self._env.sim
        index = sim.model.camera_name2id(CAMERAS[camera])
        axes = sim.data.cam_xmat[index].reshape(3, 3)  # its columns: right, up, backward
        right, up, backward = ((np.asarray(points) - sim.data.cam_xpos[index]) @ axes).T
        scale = 0.5 / np.tan(np.radians(sim.model.cam_fovy[index]) / 2) / np.maximum(-backward, 1e-6)
        return np.stack([0.5 + right * scale, 0.5 - up * scale], axis=1)


def rotation_vector(quaternion: np.ndarray) -> np.ndarray:
    """Axis times angle in [0, 2 pi), [3], of a quaternion x, y, z, w, as LIBERO's data make it."""
    x, y, z, w = np.asarray(quaternion, np.float64)
    sine = np.sqrt(max(0.0, 1.0 - w * w))
    if sine < 1e-9:
        return np.zeros(3)
    vector: np.ndarray = np.array([x, y, z]) / sine * 2.0 * np.arccos(np.clip(w, -1.0, 1.0))
    return vector
