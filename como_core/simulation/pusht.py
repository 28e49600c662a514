"""PushT (a disc pushes a T-shaped block onto its mark on a board, 2-D physics of gym-pusht) as an Env in SI units.

The action is where the pusher shall be, [x, y] in metres, 10 times a second; a PD controller takes it there. The board
is 512 pixels a side, and a pixel counts as 1 mm. The state is where the pusher is. A trial succeeds once the block
covers more than 95 % of its mark, the package's own test.
"""

from __future__ import annotations

import dataclasses
import os
import weakref
from collections.abc import Mapping

import numpy as np

from como_core.interface import load_interface
from como_core.resources import resource
from como_core.simulation.environment import SimulationError, known_views, unknown_task

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # nothing is shown, also where there is a screen
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

from gym_pusht.envs.pusht import PushTEnv

TASKS = ["push-t"]
BOARD_M = 0.512
M_PER_PIXEL = 0.001


class PushT:
    """PushT behind `Env`, seen from above. Raises SimulationError for another task or view."""

    instruction = "push the T-shaped block onto its mark"
    camera = "top"
    period_s = 0.1
    time_limit_s = 30.0
    starts: int | None = None

    def __init__(self, task: str, size: int = 96, views: Mapping[str, str] | None = None) -> None:
        if task not in TASKS:
            raise unknown_task("pusht", task, TASKS)
        self.name = "pusht:"
        known_views(self.name, dict(views or {}), (self.camera,), {self.camera: self.camera})
        interface = load_interface(resource("config/interfaces/pusht.yaml"))
        camera = dataclasses.replace(interface.cameras[self.camera], width=size, height=size)
        self.interface = dataclasses.replace(interface, cameras={self.camera: camera})
        self._env = PushTEnv(obs_type="state", observation_width=size, observation_height=size)
        weakref.finalize(self, self.__dict__.clear)  # pymunk crashes where its spaces outlive it at the end of Python
        self._coverage: float | None = None
        self._success = False

    def reset(self, seed: int) -> None:
        """Go to the start state of `seed`: pusher and block at random, the block turned at random."""
        self._env.reset(seed=seed)
        self._coverage = float(self._env._get_coverage())
        self._success = False

    def step(self, action: np.ndarray) -> None:
        """Go towards `action` [2] in metres for 0.1 s; places beyond the board are at its edge.

        Raises SimulationError for a wrong shape, for NaN, and before the first `reset`.
        """
        self._need_reset()
        action = np.asarray(action, np.float64)
        if action.shape != (2,) or not np.all(np.isfinite(action)):
            raise SimulationError(f"{self.name}: expected 2 finite values [x, y] in metres, got {action.tolist()}")
        *_, info = self._env.step(np.clip(action, 0.0, BOARD_M) / M_PER_PIXEL)
        self._coverage = float(info["coverage"])
        self._success = self._success or bool(info["is_success"])

    def rest(self) -> np.ndarray:
        """Where the pusher is, float32 [2] in metres."""
        return self.state()

    def render(self, camera: str | None = None) -> np.ndarray:
        """The board from above, uint8 [size, size, 3], RGB."""
        self._need_reset()
        return np.ascontiguousarray(self._env._render())

    def state(self) -> np.ndarray:
        """Where the pusher is, float32 [2] in metres."""
        self._need_reset()
        return (np.array(self._env.agent.position) * M_PER_PIXEL).astype(np.float32)

    def path(self, actions: np.ndarray) -> np.ndarray:
        """Positions [K + 1, 3] in metres, on the board, of a pusher that reaches each of `actions` [K, 2]."""
        places = np.concatenate([self.state()[None], np.clip(np.asarray(actions, np.float64), 0.0, BOARD_M)])
        return np.pad(places, ((0, 0), (0, 1)))

    def project(self, points: np.ndarray, camera: str | None = None) -> np.ndarray:
        """Column and row of points [N, 3] in metres, as shares of the picture, [N, 2]."""
        return np.asarray(points, np.float64)[:, :2] / BOARD_M

    def privileged(self) -> np.ndarray:
        """Pusher x, y; block x, y and angle; mark x, y and angle (metres, radians), and the share covered: [9]."""
        self._need_reset()
        block, (x, y, angle) = self._env.block, self._env.goal_pose
        places = [*self._env.agent.position, *block.position, x, y]
        pusher, block_at, mark = np.split(np.array(places) * M_PER_PIXEL, 3)
        return np.array([*pusher, *block_at, block.angle, *mark, angle, self._coverage])

    @property
    def success(self) -> bool:
        """Whether the block covered more than 95 % of its mark after any step since `reset`."""
        return self._success

    def close(self) -> None:
        """Nothing is held."""

    def _need_reset(self) -> None:
        if self._coverage is None:
            raise SimulationError(f"{self.name}: call reset(seed) first")


make = PushT


def instruction(task: str) -> str:
    """What the robot is asked to do."""
    return PushT.instruction
