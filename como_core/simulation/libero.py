"""LIBERO (a Panda arm in robosuite) as an Env in SI units: its tasks, its start states, its success test.

The package brings tasks and start states; its meshes and scenes are a download of their own. The seed of a trial
chooses one of a task's start states, 50 for most, and wraps around.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from como_core.interface import load_interface
from como_core.resources import resource
from como_core.simulation.environment import SimulationError, known_views, unknown_task
from como_core.simulation.graphics import select_backend
from como_core.simulation.libero_files import assets, configure, instruction, start_states, task_file, tasks
from como_core.simulation.robosuite_arm import CAMERAS, PERIOD_S, RobosuiteArm

TASKS = tasks()

# What LIBERO's results are commonly reported with.
_TIME_LIMIT_S = {"libero_spatial": 14.0, "libero_object": 14.0, "libero_goal": 15.0, "libero_10": 26.0,
                 "libero_90": 20.0}
_SETTLE_PERIODS = 10  # objects of the start states fall by some millimetres


class Libero:
    """One LIBERO task behind `Env`, seen by its two cameras, or those that `views` names.

    Raises SimulationError for a task or camera that does not exist, and where the meshes are not installed.
    """

    period_s = PERIOD_S
    starts: int | None

    def __init__(self, task: str, size: int = 128, views: Mapping[str, str] | None = None) -> None:
        if task not in TASKS:
            raise unknown_task("libero", task, TASKS)
        self.name = f"libero:{task}"
        self._views = known_views(self.name, dict(views or {}), tuple(CAMERAS), {name: name for name in CAMERAS})
        self.camera = next(iter(self._views))
        interface = load_interface(resource("config/interfaces/libero.yaml"))
        self.interface = dataclasses.replace(interface, cameras={
            name: dataclasses.replace(interface.cameras[view], width=size, height=size)
            for name, view in self._views.items()})
        self.instruction = instruction(task)
        self.time_limit_s = _TIME_LIMIT_S.get(task.partition("/")[0], 20.0)
        self._starts = start_states(task)
        self.starts = len(self._starts)
        self._env = _simulation(task, size)
        self._arm = RobosuiteArm(self._env.env, size)
        self._ready = self._success = False

    def reset(self, seed: int) -> None:
        """Go to the start state number `seed` of the task, counted around, and let things settle."""
        self._env.seed(0)
        self._env.reset()
        self._env.set_init_state(self._starts[seed % len(self._starts)])
        self._ready, self._success = True, False
        for _ in range(_SETTLE_PERIODS):
            self._arm.step(self.rest())

    def step(self, action: np.ndarray) -> None:
        """Obey `action` [7] for 50 ms; values beyond the arm's limits are clipped as its controller would.

        Raises SimulationError for a wrong shape, for NaN, and before the first `reset`.
        """
        self._need_reset()
        if np.shape(action) != (7,) or not np.all(np.isfinite(action)):
            raise SimulationError(f"{self.name}: expected 7 finite values, a twist and the gripper, got "
                                  f"{np.asarray(action).tolist()}")
        self._arm.step(action)
        self._success = self._success or bool(self._env.check_success())

    def rest(self) -> np.ndarray:
        """No motion, the gripper open: float32 [7]."""
        return np.zeros(7, np.float32)

    def render(self, camera: str | None = None) -> np.ndarray:
        """What a camera sees now, uint8 [size, size, 3], RGB."""
        self._need_reset()
        return self._arm.render(self._views[camera or self.camera])

    def state(self) -> np.ndarray:
        """Hand, fingers and joints, float32 [15]."""
        self._need_reset()
        return self._arm.state()

    def path(self, actions: np.ndarray) -> np.ndarray:
        """Positions [K + 1, 3] in metres of a hand that obeys `actions` [K, 7] exactly."""
        self._need_reset()
        return self._arm.path(actions)

    def project(self, points: np.ndarray, camera: str | None = None) -> np.ndarray:
        """Column and row of points [N, 3] in metres, as shares of the picture, [N, 2]."""
        return self._arm.project(points, self._views[camera or self.camera])

    def privileged(self) -> np.ndarray:
        """MuJoCo's time, positions and velocities, float64 [P]."""
        self._need_reset()
        return np.array(self._env.get_sim_state(), np.float64)

    @property
    def success(self) -> bool:
        """Whether LIBERO called the task achieved after any step since `reset`."""
        return self._success

    def close(self) -> None:
        """Nothing is held beyond the simulation itself."""

    def _need_reset(self) -> None:
        if not self._ready:
            raise SimulationError(f"{self.name}: call reset(seed) first")


make = Libero


def _simulation(task: str, size: int):  # type: ignore[no-untyped-def]  # libero has no types
    assets()  # asked for now, since libero would download them
    select_backend()
    configure()
    from libero.libero.envs import OffScreenRenderEnv

    return OffScreenRenderEnv(bddl_file_name=str(task_file(task)), camera_heights=size, camera_widths=size,
                              use_camera_obs=False, horizon=2**31 - 1, ignore_done=True)
