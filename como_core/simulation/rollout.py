"""Trials of a policy, stepped directly: many start states in parallel processes, with the latency of the real loop.

    trials = run_trials(partial(load_policy, "runs/policy"), ["metaworld:drawer-open-v3"], seeds=range(9000, 9040))
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from como_core import config
from como_core.action_chunk import ActionChunk, Observation, Policy, history_of
from como_core.errors import ComoError
from como_core.formats.png import write_png
from como_core.formats.trials import Trial, TrialLog
from como_core.formats.video import write_video
from como_core.interface import Interface, load_interface
from como_core.parallel import run_streams
from como_core.resources import resource
from como_core.simulation.chunk_player import Timing
from como_core.simulation.environment import SUITES, Env, SimulationError, env_with_instruction, make_env
from como_core.simulation.trial import Rollout, TrialRun
from como_core.training.progress import Progress

BATCH = 8
STRIP_FRAMES = 8

Start = tuple[str, int]


@runtime_checkable
class BatchPolicy(Policy, Protocol):
    """A policy that may be asked about several observations at once."""

    def predict_batch(self, observations: list[Observation]) -> list[ActionChunk]:
        """The chunk for each observation, as `predict` gives it up to rounding."""


def run_trials(load: Callable[[], Policy], envs: Sequence[str], seeds: Sequence[int], *, processes: int = 2,
               horizon_s: float | None = None, timing: Timing | None = None, log: TrialLog | None = None,
               films: Path | None = None, strips: Path | None = None, batch: int = BATCH,
               title: str = "trials") -> list[Trial]:
    """One trial from each start state (env, seed), in that order; the same policy gives the same trials.

    load     makes the policy, once in each process; it must be picklable, such as partial(load_policy, folder)
    horizon_s  simulated seconds after which a trial ends as a failure; the environment's time limit where None
    timing   how the policy is run; as policy_node does, where None
    log      trials in it are not run again, and each new one is in it as soon as it is done
    films    a folder for an mp4 of each trial, of the pictures that the policy was asked about
    strips   a folder for a PNG of each trial, a few of these pictures in a row
    batch    how many trials each process steps side by side; a policy that is a BatchPolicy is asked once for all,
             always about this many, so that a network rounds the same whatever runs beside a trial; what a chunk costs
             is the time of a call among all chunks that it computed, also those that no trial is there for

    Raises config.ConfigError where the policy's interface does not fit an environment (the key is named),
    SimulationError for an unknown environment and for a horizon below one control period, and whatever the policy
    raises.
    """
    known = {trial.start: trial for trial in log.trials} if log else {}
    starts = [(env, seed) for env in envs for seed in seeds]
    missing = [start for start in starts if start not in known]
    side_by_side = max(1, min(batch, -(-len(missing) // max(1, processes))))
    make_runner = partial(_Runner, load, horizon_s, timing, batch, side_by_side, _Pictures(films, strips))
    with Progress(len(starts), title, unit="trials", done=len(starts) - len(missing)) as progress:
        for start, trial in run_streams(make_runner, missing, processes):
            if log:
                log.append(trial)
            known[start] = trial
            successes = sum(known[s].success for s in starts if s in known)
            progress.advance(note=f"{successes} successes")
    return [known[start] for start in starts]


def rollout(env: Env, policy: Policy, seed: int, horizon: int | None = None, timing: Timing | None = None) -> Rollout:
    """Run `policy` from the start state of `seed` until success or for `horizon` periods; the arm begins at rest."""
    trial = TrialRun(env, seed, horizon, timing, history_of(policy))
    while trial.observation is not None:
        trial.answer(policy.predict(trial.observation))
    return trial.result()


def require_fit(interface: Interface, env: Env) -> None:
    """Raise config.ConfigError, naming the key, where a policy of `interface` cannot drive `env`.

    Topics and ages play no part: nothing is sent anywhere.
    """
    found = config.first_difference(_stepped(interface), _stepped(env.interface))
    if found:
        key, ours, theirs = found
        raise config.ConfigError(f"the policy does not fit the environment {env.name!r}: interface key {key!r} is "
                                 f"{ours!r} in the policy and {theirs!r} in the environment; train it with data of "
                                 "this environment")


def env_for(interface: Interface, name: str, size: int | None = None) -> Env:
    """The environment `name` with the cameras of `interface`, of its size unless `size` in pixels is given.

    Raises config.ConfigError where the interface does not fit, SimulationError as `make_env` does.
    """
    env = make_env(name, _camera_size(interface), tuple(interface.cameras))
    require_fit(interface, env)
    return env if size is None else make_env(name, size, tuple(interface.cameras))


def env_to_try(interface: Interface, instructions: Sequence[str], any_sentence: bool = False) -> str | None:
    """An environment that a policy of `interface` can be tried in, and that asks for one of `instructions`.

    any_sentence  whether the policy takes other instructions, too. None where no suite that is installed has such a one
    """
    ours = _stepped(interface)
    for suite in SUITES:
        robot = _stepped(load_interface(resource(f"config/interfaces/{suite}.yaml")))
        if any(ours[key] != robot[key] for key in ("state", "action")):
            continue  # known without loading a simulator
        try:
            name = env_with_instruction(suite, instructions, any_sentence)
            if name is not None:
                env_for(interface, name).close()
                return name
        except (ComoError, ImportError):
            continue
    return None


def periods_of(env: Env, horizon_s: float | None) -> int | None:
    """Control periods of a horizon in seconds, None where it is None. Raises SimulationError for less than one."""
    if horizon_s is None:
        return None
    if horizon_s < env.period_s * (1 - 1e-6):  # as rounding may have left it
        raise SimulationError(f"--horizon-s {horizon_s:g}: a trial in {env.name} could not take a single step; give "
                              f"one control period, {env.period_s:g}, or more")
    return round(horizon_s / env.period_s)


def picture_name(env: str, seed: int | None = None) -> str:
    """What the files of pictures of an environment, or of one trial in it, are called, without their ending."""
    name = re.sub("[^A-Za-z0-9._@-]", "_", env)
    return name if seed is None else f"{name}_{seed}"


def _stepped(interface: Interface) -> dict[str, Any]:
    """The part of an interface that matters when observations and actions are handed over in memory."""
    action = interface.action
    return {"cameras": {name: {"width": c.width, "height": c.height} for name, c in interface.cameras.items()},
            "state": {name: list(stream.names) for name, stream in interface.state.items()},
            "action": {"kind": action.kind, "names": list(action.names), "rate_hz": action.rate_hz,
                       "gripper": action.gripper is not None}}


@dataclass(frozen=True)
class _Pictures:
    """Where the pictures of a trial go."""

    films: Path | None
    strips: Path | None

    def keep(self, env: str, seed: int, done: Rollout, rate_hz: float) -> str | None:
        """Write them; the name of the film, if there is one."""
        name = picture_name(env, seed)
        if self.strips is not None:
            shown = np.linspace(0, len(done.pictures) - 1, min(STRIP_FRAMES, len(done.pictures))).round().astype(int)
            write_png(self.strips / f"{name}.png", np.concatenate(list(done.pictures[shown]), axis=1))
        if self.films is None:
            return None
        write_video(self.films / f"{name}.mp4", done.pictures, fps=rate_hz)
        return f"{name}.mp4"


@dataclass
class _Running:
    """A trial in hand: its start, its simulator, what it has cost."""

    start: Start
    env: Env
    run: TrialRun
    wall_s: float
    inference_ms: list[float] = field(default_factory=list)


class _Runner:
    """One policy and a few simulators per environment; steps several trials side by side."""

    def __init__(self, load: Callable[[], Policy], horizon_s: float | None, timing: Timing | None, batch: int,
                 side_by_side: int, pictures: _Pictures) -> None:
        self._policy = load()
        self._policy.warm_up()
        self._horizon_s, self._timing, self._pictures = horizon_s, timing, pictures
        self._batch, self._side_by_side = batch, side_by_side
        self._idle: dict[str, list[Env]] = defaultdict(list)

    def __call__(self, starts: Iterator[Start]) -> Iterator[tuple[Start, Trial]]:
        running: list[_Running] = []
        more = True
        while running or more:
            while more and len(running) < self._side_by_side:
                start = next(starts, None)
                more = start is not None
                if start is not None:
                    running.append(self._begin(start))
            waiting = [trial for trial in running if trial.run.observation is not None]
            self._answer(waiting)
            for trial in running:
                if trial.run.observation is None:
                    yield trial.start, self._end(trial)
            running = [trial for trial in running if trial.run.observation is not None]

    def _begin(self, start: Start) -> _Running:
        name, seed = start
        env = self._idle[name].pop() if self._idle[name] else self._make(name)
        began = time.perf_counter()
        run = TrialRun(env, seed, periods_of(env, self._horizon_s), self._timing, history_of(self._policy))
        return _Running(start, env, run, time.perf_counter() - began)

    def _answer(self, trials: list[_Running]) -> None:
        """Ask the policy about all trials, and step each to its next question."""
        if not trials:
            return
        observations = [trial.run.observation for trial in trials if trial.run.observation is not None]
        began = time.perf_counter()
        chunks = self._predict(observations)
        took_s = time.perf_counter() - began
        chunk_ms, share_s = round(1e3 * took_s / len(chunks), 3), took_s / len(trials)
        for trial, chunk in zip(trials, chunks[:len(trials)], strict=True):
            began = time.perf_counter()
            trial.run.answer(chunk)
            trial.wall_s += share_s + time.perf_counter() - began
            trial.inference_ms.append(chunk_ms)

    def _predict(self, observations: list[Observation]) -> list[ActionChunk]:
        """A chunk for each observation, and behind them those that fill up the batch."""
        if self._batch > 1 and isinstance(self._policy, BatchPolicy):
            filling = [observations[0]] * (self._batch - len(observations))
            return self._policy.predict_batch([*observations, *filling])
        return [self._policy.predict(observation) for observation in observations]

    def _end(self, trial: _Running) -> Trial:
        (name, seed), done, env = trial.start, trial.run.result(), trial.env
        self._idle[name].append(env)
        film = self._pictures.keep(name, seed, done, 1.0 / (trial.run.timing.replan_periods * env.period_s))
        return Trial(name, seed, done.success, done.periods * env.period_s, film, round(trial.wall_s, 4),
                     tuple(trial.inference_ms))

    def _make(self, name: str) -> Env:
        """A further simulator; those of other environments are closed, since starts come environment by environment."""
        for other in [other for other in self._idle if other != name]:
            for env in self._idle.pop(other):
                env.close()
        return env_for(self._policy.interface, name)


def _camera_size(interface: Interface) -> int:
    sizes = {(camera.width, camera.height) for camera in interface.cameras.values()}
    if len(sizes) != 1 or len(set(*sizes)) != 1:
        raise ComoError(f"simulated cameras are square and all of one size; the policy's interface {interface.name!r} "
                        f"has {', '.join(f'{w} x {h}' for w, h in sorted(sizes))}")
    return sizes.pop()[0]
