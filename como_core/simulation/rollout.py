"""Trials of a policy, stepped directly: many start states in parallel processes, with the latency of the real loop.

    trials = run_trials(partial(load_policy, "runs/policy"), ["metaworld:drawer-open-v3"], seeds=range(9000, 9040))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from como_core import config
from como_core.action_chunk import Observation, Policy
from como_core.errors import ComoError
from como_core.formats.trials import Trial, TrialLog
from como_core.formats.video import write_video
from como_core.interface import Interface
from como_core.parallel import run_jobs
from como_core.simulation.chunk_player import ChunkPlayer, Timing
from como_core.simulation.environment import Env, make_env
from como_core.training.progress import Progress

HORIZON_PERIODS = 160


def run_trials(load: Callable[[], Policy], envs: Sequence[str], seeds: Sequence[int], *, processes: int = 2,
               horizon: int = HORIZON_PERIODS, timing: Timing = Timing(), log: TrialLog | None = None,  # noqa: B008
               films: Path | None = None, title: str = "trials") -> list[Trial]:
    """One trial from each start state (env, seed), in that order; the same policy gives the same trials.

    load     makes the policy, once in each process; it must be picklable, such as partial(load_policy, folder)
    horizon  control periods after which a trial ends as a failure
    log      trials in it are not run again, and each new one is in it as soon as it is done
    films    a folder for an mp4 of each trial, of the pictures that the policy was asked about

    Raises config.ConfigError where the policy's interface does not fit an environment (the key is named),
    SimulationError for an unknown environment, and whatever the policy raises.
    """
    known = {trial.start: trial for trial in log.trials} if log else {}
    starts = [(env, seed) for env in envs for seed in seeds]
    missing = [start for start in starts if start not in known]
    with Progress(len(starts), title, unit="trials", done=len(starts) - len(missing)) as progress:
        for start, trial in run_jobs(partial(_Runner, load, horizon, timing, films), missing, processes):
            if log:
                log.append(trial)
            known[start] = trial
            successes = sum(known[s].success for s in starts if s in known)
            progress.advance(note=f"{successes} successes")
    return [known[start] for start in starts]


@dataclass(frozen=True)
class Rollout:
    """What happened in one trial: periods until success or the end, pictures [N, H, W, 3] that the policy saw."""

    success: bool
    periods: int
    pictures: np.ndarray


def rollout(env: Env, policy: Policy, seed: int, horizon: int = HORIZON_PERIODS,
            timing: Timing = Timing()) -> Rollout:  # noqa: B008
    """Run `policy` from the start state of `seed` until success or for `horizon` periods; the arm begins at rest."""
    player = ChunkPlayer(policy.interface.action.size, env.period_s, timing)
    env.reset(seed)
    pictures: list[np.ndarray] = []
    period = 0
    while period < horizon and not env.success:
        if period % timing.replan_periods == 0:
            pictures.append(env.render())
            observation = Observation(period * env.period_s, {env.camera: pictures[-1]}, env.state(), env.instruction)
            player.answer(period, policy.predict(observation))
        env.step(player.action(period))
        period += 1
    pictures.append(env.render())
    return Rollout(env.success, period, np.stack(pictures))


def require_fit(interface: Interface, env: Env) -> None:
    """Raise config.ConfigError, naming the key, where a policy of `interface` cannot drive `env`.

    Topics and ages play no part: nothing is sent anywhere.
    """
    found = config.first_difference(_stepped(interface), _stepped(env.interface))
    if found:
        key, ours, theirs = found
        raise config.ConfigError(f"the policy does not fit {env.name}: interface key {key!r} is {ours!r} in the policy "
                                 f"and {theirs!r} in the environment; train it with data of this environment")


def _stepped(interface: Interface) -> dict[str, Any]:
    """The part of an interface that matters when observations and actions are handed over in memory."""
    action = interface.action
    return {"cameras": {name: {"width": c.width, "height": c.height} for name, c in interface.cameras.items()},
            "state": {name: list(stream.names) for name, stream in interface.state.items()},
            "action": {"kind": action.kind, "names": list(action.names), "rate_hz": action.rate_hz,
                       "gripper": action.gripper is not None}}


class _Runner:
    """One policy and one simulator per environment, kept from trial to trial."""

    def __init__(self, load: Callable[[], Policy], horizon: int, timing: Timing, films: Path | None) -> None:
        self._policy = load()
        self._policy.warm_up()
        self._horizon, self._timing, self._films = horizon, timing, films
        self._envs: dict[str, Env] = {}

    def __call__(self, start: tuple[str, int]) -> Trial:
        name, seed = start
        env = self._env(name)
        done = rollout(env, self._policy, seed, self._horizon, self._timing)
        film = None
        if self._films is not None:
            film = f"{name.replace(':', '_')}_{seed}.mp4"
            write_video(self._films / film, done.pictures, fps=1.0 / (self._timing.replan_periods * env.period_s))
        return Trial(name, seed, done.success, done.periods * env.period_s, film)

    def _env(self, name: str) -> Env:
        if name not in self._envs:
            size = _camera_size(self._policy.interface)
            env = make_env(name, size)
            require_fit(self._policy.interface, env)
            self._envs[name] = env
        return self._envs[name]


def _camera_size(interface: Interface) -> int:
    sizes = {(camera.width, camera.height) for camera in interface.cameras.values()}
    if len(sizes) != 1 or len(set(*sizes)) != 1:
        raise ComoError(f"simulated cameras are square and all of one size; the policy's interface {interface.name!r} "
                        f"has {', '.join(f'{w} x {h}' for w, h in sorted(sizes))}")
    return sizes.pop()[0]
