"""Scripted experts: from what only a simulator knows to an SI action, with noise that makes each episode different."""

from __future__ import annotations

import warnings
from typing import Protocol

import numpy as np

from como_core.simulation.environment import SimulationError, check_env
from como_core.simulation.graphics import select_backend

NOISE_MEMORY = 0.7  # correlation of the noise from one control period to the next
NOISE_STD_RANGE = (0.05, 0.4)  # of full speed; drawn once an episode
GRIPPER_NOISE = 0.2  # share of the noise that reaches the gripper


class Expert:
    """The scripted expert of one environment; it needs no more of its simulator than `Env.privileged()`.

    noise_std is a share of full speed (0 is the bare script); `seed` makes the noise reproducible.
    Raises SimulationError where the environment has no expert.
    """

    def __init__(self, env: str, noise_std: float = 0.0, seed: int | tuple[int, ...] = 0) -> None:
        suite, _, task = env.partition(":")
        if suite not in ("metaworld", "pusht"):
            raise SimulationError(f"no scripted expert for {env!r}: only suites 'metaworld' and 'pusht' have them")
        rng = np.random.default_rng(seed)
        self._script: _Script = (_MetaWorld(task, noise_std, rng) if suite == "metaworld"
                                 else _PushT(env, noise_std, rng))

    def act(self, privileged: np.ndarray) -> np.ndarray:
        """The noisy action for one control period, float32 [A], in the units of the environment's interface."""
        return self._script.act(privileged)


class _Script(Protocol):
    def act(self, privileged: np.ndarray) -> np.ndarray: ...


class _MetaWorld:
    """Meta-World's own script: [vx, vy, vz, gripper] in m/s and [0, 1]."""

    def __init__(self, task: str, noise_std: float, rng: np.random.Generator) -> None:
        select_backend()  # before anything below imports MuJoCo
        from metaworld.policies import ENV_POLICY_MAP

        from como_core.simulation import metaworld as world

        if task not in ENV_POLICY_MAP:
            raise world.unknown_task("metaworld", task, sorted(ENV_POLICY_MAP))
        script: type = ENV_POLICY_MAP[task]
        self._script = script()
        self._full_speed_m_s = world.FULL_SPEED_M_S
        self._noise = _SlowNoise(noise_std * np.array([1.0, 1.0, 1.0, GRIPPER_NOISE]), rng)

    def act(self, privileged: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():  # the scripts ask for more than full speed on purpose
            warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high")
            effort = np.clip(self._script.get_action(np.asarray(privileged, np.float64)), -1.0, 1.0)
        effort = np.clip(effort.astype(np.float64) + self._noise.draw(), -1.0, 1.0)
        return np.append(effort[:3] * self._full_speed_m_s, (effort[3] + 1.0) / 2.0).astype(np.float32)


class _PushT:
    """Our own: [x, y] in metres."""

    def __init__(self, env: str, noise_std: float, rng: np.random.Generator) -> None:
        check_env(env)
        from como_core.simulation.pusht import BOARD_M, M_PER_PIXEL
        from como_core.simulation.pusht_expert import NOISE_PX, PushTExpert

        self._board_m = BOARD_M
        self._noise = _SlowNoise(np.full(2, noise_std * NOISE_PX * M_PER_PIXEL), rng)
        self._expert = PushTExpert(rng)

    def act(self, privileged: np.ndarray) -> np.ndarray:
        return np.clip(self._expert.act(privileged) + self._noise.draw(), 0.0, self._board_m).astype(np.float32)


class _SlowNoise:
    """AR(1) noise of memory NOISE_MEMORY and stationary deviations `std`, [A] per draw."""

    def __init__(self, std: np.ndarray, rng: np.random.Generator) -> None:
        self._std = std
        self._rng = rng
        self._value = rng.standard_normal(len(std))

    def draw(self) -> np.ndarray:
        fresh = self._rng.standard_normal(len(self._std))
        self._value = NOISE_MEMORY * self._value + np.sqrt(1 - NOISE_MEMORY**2) * fresh
        return self._std * self._value
