"""Another robot for the motion table: the Fetch arm of gymnasium-robotics (7 joints, mobile base), scripted and noisy.

Installed by `pip install gymnasium-robotics`. The action is the velocity of the gripper in m/s and the opening.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from como_core.episode import Episode
from como_core.simulation.experts import NOISE_MEMORY, NOISE_STD_RANGE
from como_core.simulation.graphics import select_backend

select_backend()

import gymnasium_robotics  # noqa: E402  # both read MUJOCO_GL when they are imported
import mujoco  # noqa: E402

gymnasium.register_envs(gymnasium_robotics)

_STEP_M = 0.05  # what an action of 1 moves the gripper's target by
_GAIN = 10.0  # action per metre that is missing
_STEPS = 50
_SIZE = 64


def record(task: str, seeds: range) -> list[Episode]:
    """An episode of 2 s at 25 Hz for each seed: state [T, 3] gripper in metres, action [T, 4] in m/s and opening."""
    env: Any = gymnasium.make(f"{task}-v4", max_episode_steps=10_000).unwrapped
    env.model.vis.quality.offsamples = 0
    renderer = mujoco.Renderer(env.model, _SIZE, _SIZE)
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:], camera.distance, camera.azimuth, camera.elevation = (1.3, 0.75, 0.5), 1.3, 150.0, -30.0
    try:
        return [_episode(env, renderer, camera, task, seed) for seed in seeds]
    finally:
        renderer.close()


def _episode(env: Any, renderer: mujoco.Renderer, camera: mujoco.MjvCamera, task: str, seed: int) -> Episode:
    rng = np.random.default_rng(seed)
    std, noise = rng.uniform(*NOISE_STD_RANGE), rng.standard_normal(3)
    seen, _ = env.reset(seed=seed)
    images, states, actions = [], [], []
    for _ in range(_STEPS):
        noise = NOISE_MEMORY * noise + np.sqrt(1 - NOISE_MEMORY**2) * rng.standard_normal(3)
        effort = np.clip(_GAIN * (_target(task, seen) - seen["observation"][:3]) + std * noise, -1, 1)
        opening = 1.0 if task != "FetchPickAndPlace" or not _held(seen) else -1.0
        renderer.update_scene(env.data, camera)
        images.append(renderer.render().copy())
        states.append(seen["observation"][:3].astype(np.float32))
        actions.append(np.append(effort * _STEP_M / env.dt, (opening + 1) / 2).astype(np.float32))
        seen, *_ = env.step(np.append(effort, opening).astype(np.float32))
    return Episode(np.arange(_STEPS) * env.dt, {"front": np.stack(images)}, f"{task}#{seed}", np.stack(states),
                   np.stack(actions))


def _target(task: str, seen: dict[str, np.ndarray]) -> np.ndarray:
    """Where the gripper should be next, [3] in metres."""
    goal = seen["desired_goal"]
    if task == "FetchReach":
        return goal
    hand, block = seen["observation"][:3], seen["achieved_goal"]
    if task == "FetchPickAndPlace":
        if _held(seen):
            return goal
        above = np.linalg.norm(hand[:2] - block[:2]) > 0.02
        return block + np.array([0.0, 0.0, 0.08 if above else 0.0])
    way = (goal - block)[:2] / max(float(np.linalg.norm((goal - block)[:2])), 1e-6)
    behind = np.append(block[:2] - 0.08 * way, block[2])
    if np.linalg.norm(hand[:2] - behind[:2]) > 0.03 and np.dot(block[:2] - hand[:2], way) < 0.04:
        return behind + np.array([0.0, 0.0, 0.1 if np.linalg.norm(hand[:2] - behind[:2]) > 0.06 else 0.0])
    return np.append(block[:2] + 0.05 * way, block[2])


def _held(seen: dict[str, np.ndarray]) -> bool:
    return bool(np.linalg.norm(seen["observation"][:3] - seen["achieved_goal"]) < 0.015)
