"""Meta-World v3 (a Sawyer arm in MuJoCo) as an Env in SI units.

The action is [vx, vy, vz] in m/s and the gripper in [0, 1] (0 open, 1 closed). Meta-World moves the hand's target by
0.01 m per unit of action and step of 12.5 ms, so that its full action of 1 is 0.8 m/s. One control period is two of
its steps: 25 ms, 40 Hz. The state is the hand's x, y, z in metres and the gripper's opening in [0, 1] (1 open).
"""

from __future__ import annotations

import atexit
import dataclasses
import sys
import weakref
from collections.abc import Mapping

import numpy as np

from como_core.interface import Interface, load_interface
from como_core.resources import resource
from como_core.simulation.environment import SimulationError, known_views, unknown_task
from como_core.simulation.graphics import explained, select_backend

select_backend()

try:
    import mujoco  # it reads MUJOCO_GL when it is imported
except (ImportError, AttributeError, RuntimeError) as error:  # so do its backends fail
    raise explained(error) from error
from metaworld import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE  # noqa: E402

FULL_SPEED_M_S = 0.8
STEPS_PER_PERIOD = 2
STEP_S = 0.0125

_SUFFIX = "-goal-observable"
TASKS = sorted(name.removesuffix(_SUFFIX) for name in ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE)

# Tasks whose goal is a free point in space, with the site that stands at it: without a mark no camera could know it.
_GOAL_SITES = dict.fromkeys(("reach-v3", "reach-wall-v3", "push-v3", "push-wall-v3", "push-back-v3", "pick-place-v3",
                             "pick-place-wall-v3", "pick-out-of-hole-v3", "stick-pull-v3", "sweep-v3"), "goal")
_GOAL_SITES["coffee-pull-v3"] = "mug_goal"
_MARKER_RADIUS_M = 0.03
_MARKER_RGBA = (1.0, 0.0, 1.0, 1.0)
_HIDDEN_GROUP = 5  # MuJoCo draws site groups 0 to 2 unless told otherwise

_LOOKAT_M = (0.0, 0.62, 0.15)
_DISTANCE_M = 1.12

# Where a camera stands: azimuth and elevation in degrees.
VIEWS = {"front": (125.0, -36.0), "left": (55.0, -36.0), "high": (125.0, -65.0)}


class MetaWorld:
    """One Meta-World task behind `Env`, seen from the front, or from those of VIEWS that `views` names.

    views: camera name -> view, as `make_env` reads them. An only camera keeps its name, and the environment that of
    the task: only the pictures differ. Raises SimulationError for a task or view that does not exist.
    """

    period_s = STEPS_PER_PERIOD * STEP_S
    time_limit_s = 4.0
    starts: int | None = None

    def __init__(self, task: str, size: int = 64, views: Mapping[str, str] | None = None) -> None:
        if task not in TASKS:
            raise unknown_task("metaworld", task, TASKS)
        self.name = f"metaworld:{task}"
        seen = known_views(self.name, dict(views or {}), tuple(VIEWS), {"front": "front"})
        self.interface = _interface(size, tuple(seen))
        self.camera = next(iter(seen))
        self.instruction = instruction(task)
        env = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[task + _SUFFIX]()
        env._freeze_rand_vec, env.seeded_rand_vec = False, True
        env.max_path_length = sys.maxsize  # the length of an episode is the caller's business
        self._env = env
        self._size = size
        self._renderer: _Renderer | None = None
        self._cameras = {camera: _fixed_camera(*VIEWS[view]) for camera, view in seen.items()}
        self._privileged: np.ndarray | None = None
        self._success = False
        _dress_scene(env.model, _GOAL_SITES.get(task))

    def reset(self, seed: int) -> None:
        """Go to the start state of `seed`, the same to the last bit whatever was done before."""
        self._env.seed(seed)
        self._env.reset()
        mujoco.mj_forward(self._env.model, self._env.data)  # Meta-World places objects after its own last forward pass
        self._env._prev_obs = self._env._get_curr_obs_combined_no_goal()
        self._privileged = self._env._get_obs()
        self._success = False

    def step(self, action: np.ndarray) -> None:
        """Obey `action` [4] for one period; values beyond the arm's limits are clipped as the arm would.

        Raises SimulationError for a wrong shape, for NaN, and before the first `reset`.
        """
        self._need_reset()
        action = np.asarray(action, np.float64)
        if action.shape != (4,) or not np.all(np.isfinite(action)):
            raise SimulationError(f"{self.name}: expected 4 finite values [vx, vy, vz, gripper], got {action.tolist()}")
        effort = np.append(action[:3] / FULL_SPEED_M_S, 2.0 * action[3] - 1.0)
        for _ in range(STEPS_PER_PERIOD):
            self._privileged, _, _, _, info = self._env.step(np.clip(effort, -1.0, 1.0).astype(np.float32))
            self._success = self._success or bool(info["success"])

    def rest(self) -> np.ndarray:
        """No velocity, the gripper open: float32 [4]."""
        return np.zeros(4, np.float32)

    def render(self, camera: str | None = None) -> np.ndarray:
        """What a camera sees now, uint8 [size, size, 3], RGB."""
        self._need_reset()
        if self._renderer is None:
            key = self.name, self._size
            self._renderer = _RENDERERS.get(key) or _Renderer(self._env.model, self._size)
            _RENDERERS[key] = self._renderer
        return self._renderer.render(self._env.model, self._env.data, self._cameras[camera or self.camera])

    def state(self) -> np.ndarray:
        """Hand position in metres and gripper opening in [0, 1], float32 [4]."""
        return self.privileged()[:4].astype(np.float32)

    def path(self, actions: np.ndarray) -> np.ndarray:
        """Positions [K + 1, 3] in metres of a hand that moves at the velocities `actions` [K, 4]."""
        moves = np.asarray(actions, np.float64)[:, :3] * self.period_s
        return self.privileged()[:3] + np.concatenate([np.zeros((1, 3)), np.cumsum(moves, axis=0)])

    def project(self, points: np.ndarray, camera: str | None = None) -> np.ndarray:
        """Column and row of points [N, 3] in metres, as shares of the picture, [N, 2]."""
        return _seen_at(np.asarray(points, np.float64), self._cameras[camera or self.camera],
                        float(self._env.model.vis.global_.fovy))

    def privileged(self) -> np.ndarray:
        """Meta-World's own observation with hand, objects and goal, float64 [39]."""
        self._need_reset()
        assert self._privileged is not None
        return self._privileged.copy()

    @property
    def success(self) -> bool:
        """Whether Meta-World called the task a success at any step since `reset`."""
        return self._success

    def close(self) -> None:
        """Free the renderer, unless others use it; it comes back at the next `render`."""
        self._renderer = None

    def _need_reset(self) -> None:
        if self._privileged is None:
            raise SimulationError(f"{self.name}: call reset(seed) first")


make = MetaWorld


def instruction(task: str) -> str:
    """What the robot is asked to do."""
    return task.rsplit("-v", 1)[0].replace("-", " ")


def _interface(size: int, cameras: tuple[str, ...]) -> Interface:
    """The installed interface of this robot with these cameras; one that it does not list has a topic of its own."""
    interface = load_interface(resource("config/interfaces/metaworld.yaml"))
    listed = next(iter(interface.cameras.values()))
    made = {name: dataclasses.replace(interface.cameras.get(name) or dataclasses.replace(
        listed, topic=f"{name}/{listed.topic}"), width=size, height=size) for name in cameras}
    return dataclasses.replace(interface, cameras=made)


def _dress_scene(model: mujoco.MjModel, goal_site: str | None) -> None:
    """Hide Meta-World's own marks, which are for debugging; show the goal's where a camera needs it."""
    model.site_group[:] = _HIDDEN_GROUP
    if goal_site is not None:
        goal = model.site(goal_site).id
        model.site_group[goal] = 0
        model.site_size[goal, 0] = _MARKER_RADIUS_M
        model.site_rgba[goal] = _MARKER_RGBA


def _fixed_camera(azimuth_deg: float, elevation_deg: float) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:] = _LOOKAT_M
    camera.distance, camera.azimuth, camera.elevation = _DISTANCE_M, azimuth_deg, elevation_deg
    return camera


def _seen_at(points: np.ndarray, camera: mujoco.MjvCamera, fovy_deg: float) -> np.ndarray:
    """Pinhole projection [N, 2] of points [N, 3] by a free camera, which looks at `lookat` from `distance` away."""
    azimuth, elevation = np.radians(camera.azimuth), np.radians(camera.elevation)
    forward = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
    up = np.cross(right, forward)
    offset = points - (camera.lookat - camera.distance * forward)
    scale = 0.5 / np.tan(np.radians(fovy_deg) / 2) / np.maximum(offset @ forward, 1e-6)
    return np.stack([0.5 + offset @ right * scale, 0.5 - offset @ up * scale], axis=1)


class _Renderer:
    """A renderer without multi-sampling, shadows and mirrors: three times as fast in software, same content.

    Simulators of one task in a process share it: making one costs more than a trial.
    """

    def __init__(self, model: mujoco.MjModel, size: int) -> None:
        model.vis.quality.offsamples = 0
        try:
            self._renderer = mujoco.Renderer(model, size, size)
        except (ImportError, RuntimeError, mujoco.FatalError) as error:
            raise explained(error) from error
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._options, self._nothing = mujoco.MjvOption(), mujoco.MjvPerturb()
        # MuJoCo ends EGL by atexit, which runs in reverse order: registered now, the context goes before it. The exit
        # hook of weakref itself is older, and would come too late.
        free = weakref.finalize(self, self._renderer.close)
        free.atexit = False
        atexit.register(free)

    def render(self, model: mujoco.MjModel, data: mujoco.MjData, camera: mujoco.MjvCamera) -> np.ndarray:
        """What `camera` sees of `data`: uint8 [size, size, 3]. Any model of the same task will do, each has its own
        places of things."""
        mujoco.mjv_updateScene(model, data, self._options, self._nothing, camera, mujoco.mjtCatBit.mjCAT_ALL,
                               self._renderer.scene)
        picture: np.ndarray = self._renderer.render().copy()
        return picture


_RENDERERS: weakref.WeakValueDictionary[tuple[str, int], _Renderer] = weakref.WeakValueDictionary()
