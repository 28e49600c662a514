"""One trial as a conversation: it stops where the policy has to be asked, and goes on with the chunk that it is given.

    trial = TrialRun(env, seed=7)
    while trial.observation is not None:
        trial.answer(policy.predict(trial.observation))
    print(trial.result().success)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from como_core.action_chunk import ActionChunk, Observation
from como_core.simulation.chunk_player import ChunkPlayer, Timing, goes_on
from como_core.simulation.environment import Env, SimulationError


@dataclass(frozen=True)
class Rollout:
    """What happened in one trial.

    success   whether the task was achieved
    periods   control periods until then, or until the end
    pictures  uint8 [N, H, W, 3], what the first camera showed whenever the policy was asked, and at the end
    actions   float32 [periods, A], what was carried out
    """

    success: bool
    periods: int
    pictures: np.ndarray
    actions: np.ndarray


class TrialRun:
    """A trial from the start state of `seed`, until success or for `horizon` periods; the robot begins at rest.

    horizon and timing are the environment's time limit and those of policy_node where None. `observation` is what the
    policy is to answer, None once the trial has ended; `actions` are those carried out so far.
    """

    def __init__(self, env: Env, seed: int, horizon: int | None = None, timing: Timing | None = None) -> None:
        self._env = env
        self.timing = timing or Timing.real_time(env.period_s)
        self._horizon = round(env.time_limit_s / env.period_s) if horizon is None else horizon
        env.reset(seed)
        self._player = ChunkPlayer(env.rest(), goes_on(env.interface.action), env.period_s, self.timing)
        self._pictures: list[np.ndarray] = []
        self.actions: list[np.ndarray] = []
        self.observation: Observation | None = None
        self._look()

    def answer(self, chunk: ActionChunk) -> None:
        """Take the chunk for `observation`, which is None afterwards where the trial has ended.

        Raises SimulationError for a chunk whose values are not [K, A].
        """
        size = self._env.interface.action.size
        if np.shape(chunk.values) != (len(chunk.times_s), size):
            raise SimulationError(f"{self._env.name}: expected a chunk of [{len(chunk.times_s)}, {size}] values, got "
                                  f"{list(np.shape(chunk.values))} from {chunk.source or 'the policy'}")
        self._player.answer(len(self.actions), chunk)
        for _ in range(self.timing.replan_periods):
            self.actions.append(self._player.action(len(self.actions)))
            self._env.step(self.actions[-1])
            if self._ended():
                break
        self._look()

    def result(self) -> Rollout:
        """What happened so far."""
        actions = np.array(self.actions, np.float32).reshape(-1, self._env.interface.action.size)
        return Rollout(self._env.success, len(self.actions), np.stack(self._pictures), actions)

    def _ended(self) -> bool:
        return self._env.success or len(self.actions) >= self._horizon

    def _look(self) -> None:
        env = self._env
        self._pictures.append(env.render())
        self.observation = None
        if not self._ended():
            others = {name: env.render(name) for name in env.interface.cameras if name != env.camera}
            self.observation = Observation(len(self.actions) * env.period_s, {env.camera: self._pictures[-1]} | others,
                                           env.state(), env.instruction)
