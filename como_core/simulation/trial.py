"""One trial as a conversation: it stops where the policy has to be asked, and goes on with the chunk that it is given.

    trial = TrialRun(env, seed=7)
    while trial.observation is not None:
        trial.answer(policy.predict(trial.observation))
    print(trial.result().success)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from como_core.action_chunk import ActionChunk, Observation, history_rows
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

    horizon and timing are the environment's time limit and those of policy_node where None. history_s are the lags of
    `Observation.past`; before the start there is only the start. `observation` is what the policy is to answer, None
    once the trial has ended; `actions` are those carried out so far.
    """

    def __init__(self, env: Env, seed: int, horizon: int | None = None, timing: Timing | None = None,
                 history_s: Sequence[float] = ()) -> None:
        self._env = env
        reach = math.ceil(max(history_s, default=0.0) / env.period_s) + 1
        self._lags = (reach - history_rows(env.period_s * np.arange(reach + 1), history_s)[-1, 1:]).tolist()
        self._seen: dict[int, Mapping[str, np.ndarray]] = {}  # period -> pictures that a later observation needs
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
        asked_next = len(self.actions) + self.timing.replan_periods
        for period in range(len(self.actions), asked_next):
            if period not in self._seen and self._is_past_of(period, asked_next):
                self._seen[period] = self._render()
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
        env, now = self._env, len(self.actions)
        self.observation = None
        if self._ended():
            self._pictures.append(env.render())
            return
        images = self._seen[now] = self._render()
        self._pictures.append(images[env.camera])
        past = tuple(self._seen[max(0, now - lag)] for lag in self._lags)
        self._seen = {period: seen for period, seen in self._seen.items() if period + max(self._lags, default=0) > now}
        self.observation = Observation(now * env.period_s, images, env.state(), env.instruction, past=past)

    def _is_past_of(self, period: int, asked: int) -> bool:
        """Whether the policy, asked at `asked` and at intervals from there on, will want pictures of `period`."""
        return any(lag >= asked - period and (lag - (asked - period)) % self.timing.replan_periods == 0
                   for lag in self._lags)

    def _render(self) -> dict[str, np.ndarray]:
        return {name: self._env.render(name) for name in self._env.interface.cameras}
