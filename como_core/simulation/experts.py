"""Scripted experts: from what only a simulator knows to an SI action, with noise that makes each episode different."""

from __future__ import annotations

import warnings

import numpy as np

from como_core.simulation.environment import SimulationError
from como_core.simulation.graphics import select_backend

NOISE_MEMORY = 0.7  # correlation of the noise from one control period to the next
NOISE_STD_RANGE = (0.05, 0.4)  # of full speed; drawn once an episode
GRIPPER_NOISE = 0.2  # share of the noise that reaches the gripper


class Expert:
    """The scripted expert of one environment; it needs no simulator of its own, only `Env.privileged()`.

    noise_std is a share of full speed (0 is the bare script); `seed` makes the noise reproducible.
    Raises SimulationError where the environment has no expert.
    """

    def __init__(self, env: str, noise_std: float = 0.0, seed: int | tuple[int, ...] = 0) -> None:
        suite, _, task = env.partition(":")
        if suite != "metaworld":
            raise SimulationError(f"no scripted expert for {env!r}: only suite 'metaworld' has them")
        select_backend()  # before anything below imports MuJoCo
        from metaworld.policies import ENV_POLICY_MAP

        from como_core.simulation import metaworld as world

        if task not in ENV_POLICY_MAP:
            raise world.unknown_task("metaworld", task, sorted(ENV_POLICY_MAP))
        script: type = ENV_POLICY_MAP[task]
        self._script = script()
        self._full_speed_m_s = world.FULL_SPEED_M_S
        self._noise = _SlowNoise(noise_std, np.random.default_rng(seed))

    def act(self, privileged: np.ndarray) -> np.ndarray:
        """The noisy action [vx, vy, vz, gripper] in m/s and [0, 1], float32 [4], for one control period."""
        with warnings.catch_warnings():  # the scripts ask for more than full speed on purpose
            warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high")
            effort = np.clip(self._script.get_action(np.asarray(privileged, np.float64)), -1.0, 1.0)
        effort = np.clip(effort.astype(np.float64) + self._noise.draw(), -1.0, 1.0)
        return np.append(effort[:3] * self._full_speed_m_s, (effort[3] + 1.0) / 2.0).astype(np.float32)


class _SlowNoise:
    """AR(1) noise of unit memory NOISE_MEMORY and stationary deviation `std`, [4] per draw."""

    def __init__(self, std: float, rng: np.random.Generator) -> None:
        self._std = std * np.array([1.0, 1.0, 1.0, GRIPPER_NOISE])
        self._rng = rng
        self._value = rng.standard_normal(4)

    def draw(self) -> np.ndarray:
        self._value = NOISE_MEMORY * self._value + np.sqrt(1 - NOISE_MEMORY**2) * self._rng.standard_normal(4)
        return self._std * self._value
