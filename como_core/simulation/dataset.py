"""Episodes of scripted experts: demonstrations in memory, or videos on disk that hold no action at all.

    episodes = record_demonstrations(["drawer-open-v3"], seeds=range(8))
    render_videos(["drawer-open-v3"], seeds=range(1000, 1048), out=Path("videos"))
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from como_core.episode import Episode
from como_core.formats.video import write_video
from como_core.parallel import run_jobs
from como_core.simulation.environment import Env, SimulationError, make_env
from como_core.simulation.experts import NOISE_STD_RANGE, Expert
from como_core.training.progress import Progress

AFTER_SUCCESS_PERIODS = 4
TRIES_PER_START = 6  # with other noise each, before another start state takes the place of a hopeless one
STARTS = 3
SUBSTITUTE_SEED_STEP = 1_000_000  # far from any seed that data or trials use


@dataclass(frozen=True)
class Attempt:
    """What an expert did from the start state of `seed`: actions float32 [T, 4] in SI units, and how it ended."""

    seed: int
    noise_std: float
    actions: np.ndarray
    success: bool


def attempt(env: Env, seed: int, noise_std: float | None = None, number: int = 0,
            horizon: int | None = None) -> Attempt:
    """Drive the expert until just after success, or for `horizon` periods, without pictures.

    Without a horizon the suite's time limit is it; Meta-World's experts are done after 1 s, the noisiest after 3.5 s.

    noise_std is a share of full speed; None draws it evenly from NOISE_STD_RANGE. `number` chooses other noise.
    """
    rng = np.random.default_rng((_digest(env.name), seed, number))
    std = float(rng.uniform(*NOISE_STD_RANGE)) if noise_std is None else noise_std
    expert = Expert(env.name, std, int(rng.integers(2**32)))
    env.reset(seed)
    actions: list[np.ndarray] = []
    left = _periods(env, horizon)
    while left > 0:
        actions.append(expert.act(env.privileged()))
        env.step(actions[-1])
        left = min(left - 1, AFTER_SUCCESS_PERIODS) if env.success else left - 1
    return Attempt(seed, std, np.stack(actions), env.success)


def render_attempt(env: Env, done: Attempt) -> Episode:
    """Run the actions of an attempt again, now with pictures and state; step t is what was seen before action t."""
    env.reset(done.seed)
    images: dict[str, list[np.ndarray]] = {camera: [] for camera in env.interface.cameras}
    states = []
    for action in done.actions:
        for camera, seen in images.items():
            seen.append(env.render(camera))
        states.append(env.state())
        env.step(action)
    return Episode(timestamps=np.arange(len(states)) * env.period_s,
                   images={camera: np.stack(seen) for camera, seen in images.items()},
                   source=f"{env.name}#{done.seed}", state=np.stack(states), action=done.actions,
                   instruction=env.instruction)


def collect_episode(env: Env, seed: int, noise_std: float | None = None, horizon: int | None = None) -> Episode:
    """A successful noisy demonstration from the start state of `seed`: the same one each time it is asked for.

    The stored action is the one that was executed, noise included. Failures are dropped before any picture is made and
    driven again with other noise; a start state that stays hopeless (a few are beyond the script's reach) gives way to
    that of seed + SUBSTITUTE_SEED_STEP, and `Episode.source` names the seed in use. Raises SimulationError where no
    attempt succeeds, which with the default noise and horizon means that the expert cannot do the task.
    """
    for start in range(STARTS):
        for number in range(TRIES_PER_START):
            done = attempt(env, seed + start * SUBSTITUTE_SEED_STEP, noise_std, number, horizon)
            if done.success:
                return render_attempt(env, done)
    raise SimulationError(f"{env.name}: the expert failed in all {STARTS * TRIES_PER_START} attempts from seed {seed}, "
                          f"each of {_periods(env, horizon) * env.period_s:.1f} s; give less noise or a longer horizon")


def record_demonstrations(tasks: Sequence[str], seeds: Sequence[int], processes: int = 2, size: int = 64,
                          noise_std: float | None = None) -> list[Episode]:
    """Labelled demonstrations in memory, for probes and experiments: each seed of each task, in that order.

    tasks are Meta-World names such as "drawer-open-v3", or environments such as "pusht:". Raises SimulationError as
    `make_env` and `collect_episode` do.
    """
    jobs = [_Job(task if ":" in task else f"metaworld:{task}", seed) for task in tasks for seed in seeds]
    found: dict[_Job, Episode] = {}
    with Progress(len(jobs), "demonstrations", unit="episodes") as progress:
        for job, episode in run_jobs(partial(_Demonstrator, size, noise_std), jobs, processes):
            found[job] = episode
            progress.advance()
    return [found[job] for job in jobs]


def render_videos(tasks: Sequence[str], seeds: Sequence[int], out: Path, processes: int = 2,
                  size: int = 64) -> list[Path]:
    """Write out/<task>/<seed>.mp4 and out/<task>/instruction.txt: pictures and words, no state and no action anywhere.

    A video that is there already is left as it is, so that an interrupted call goes on where it stopped.
    Raises SimulationError as `collect_episode` does and ComoError where `out` cannot be written.
    """
    jobs = [_Job(f"metaworld:{task}", seed, out / task / f"{seed}.mp4") for task in tasks for seed in seeds]
    missing = [job for job in jobs if not job.video.is_file()]
    with Progress(len(jobs), "videos", unit="videos", done=len(jobs) - len(missing)) as progress:
        for _ in run_jobs(partial(_Filmer, size), missing, processes):
            progress.advance()
    return [job.video for job in jobs]


def _periods(env: Env, horizon: int | None) -> int:
    return round(env.time_limit_s / env.period_s) if horizon is None else horizon


@dataclass(frozen=True)
class _Job:
    env: str
    seed: int
    video: Path = Path()


class _Demonstrator:
    """Collects episodes, keeping one simulator per task: building one costs more than an episode."""

    def __init__(self, size: int, noise_std: float | None) -> None:
        self._size, self._noise_std = size, noise_std
        self._envs: dict[str, Env] = {}

    def __call__(self, job: _Job) -> Episode:
        if job.env not in self._envs:
            self._envs[job.env] = make_env(job.env, self._size)
        return collect_episode(self._envs[job.env], job.seed, self._noise_std)


class _Filmer:
    """Writes the pictures of collected episodes, and nothing else of them, beside the task's words."""

    def __init__(self, size: int) -> None:
        self._demonstrate = _Demonstrator(size, None)

    def __call__(self, job: _Job) -> None:
        episode = self._demonstrate(job)
        rate_hz = (len(episode) - 1) / episode.duration_s
        _write_words(job.video.parent / "instruction.txt", f"{episode.instruction}\n")
        for frames in episode.images.values():
            write_video(job.video, frames[:], fps=rate_hz)


def _write_words(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SimulationError(f"{path}: cannot be written: {error.strerror}") from error


def _digest(text: str) -> int:
    """A number for seeding that is the same in every process, unlike hash()."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
