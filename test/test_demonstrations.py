"""Scripted experts and what is recorded of them: reproducible, successful, and videos that hold no action."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from como_core.errors import ComoError
from como_core.formats.video import read_video
from como_core.parallel import run_jobs
from como_core.simulation.dataset import (
    AFTER_SUCCESS_PERIODS,
    attempt,
    collect_episode,
    record_demonstrations,
    render_videos,
)
from como_core.simulation.environment import Env, SimulationError, make_env
from como_core.simulation.experts import Expert

BUTTON = "metaworld:button-press-topdown-v3"


@pytest.fixture(scope="module")
def button() -> Env:
    return make_env(BUTTON)


@pytest.fixture(scope="module")
def drawer() -> Env:
    return make_env("metaworld:drawer-open-v3")


def test_the_bare_expert_solves_its_task(drawer: Env) -> None:
    done = [attempt(drawer, seed, noise_std=0.0) for seed in range(500, 512)]
    assert sum(d.success for d in done) >= 11


def test_an_expert_needs_only_what_the_simulator_publishes(button: Env) -> None:
    button.reset(5)
    quiet, noisy, again = Expert(BUTTON), Expert(BUTTON, 0.3, seed=4), Expert(BUTTON, 0.3, seed=4)
    seen = button.privileged()
    a, b, c = quiet.act(seen), noisy.act(seen), again.act(seen)
    assert a.shape == (4,)
    assert a.dtype == np.float32
    np.testing.assert_array_equal(b, c)
    assert not np.array_equal(a, b)
    assert np.abs(a[:3]).max() <= 0.8
    assert 0.0 <= a[3] <= 1.0


def test_expert_noise_has_the_size_and_memory_it_was_given(button: Env) -> None:
    button.reset(5)
    seen = button.privileged()
    seen[0] = seen[4]  # above the button, where the script asks for no motion in x that the noise could saturate
    quiet, noisy = Expert(BUTTON), Expert(BUTTON, 0.1, seed=1)
    noise = np.array([noisy.act(seen) - quiet.act(seen) for _ in range(4000)])[:, 0] / 0.8
    assert noise.std() == pytest.approx(0.1, rel=0.1)
    assert np.corrcoef(noise[:-1], noise[1:])[0, 1] == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize(("env", "hint"), [("metaworld:buton-press-v3", "button-press"), ("libero:a", "only suite")])
def test_an_environment_without_an_expert_is_named(env: str, hint: str) -> None:
    with pytest.raises(SimulationError, match=hint):
        Expert(env)


def test_an_episode_is_a_success_with_the_actions_that_were_executed(button: Env) -> None:
    episode = collect_episode(button, seed=1)
    assert episode.instruction == "button press topdown"
    assert episode.images["front"].shape == (len(episode), 64, 64, 3)
    np.testing.assert_allclose(np.diff(episode.timestamps), 0.025)
    assert episode.action is not None
    assert episode.state is not None
    button.reset(1)
    success_at = None
    for t, action in enumerate(episode.action):
        np.testing.assert_array_equal(button.state(), episode.state[t])
        if t % 10 == 0:
            np.testing.assert_array_equal(button.render(), episode.images["front"][t])
        button.step(action)
        success_at = t if button.success and success_at is None else success_at
    assert success_at == len(episode) - 1 - AFTER_SUCCESS_PERIODS


def test_actions_explain_the_motion(drawer: Env) -> None:
    """The hand lags its target a little, so compare over 0.1 s."""
    episode = collect_episode(drawer, seed=2, noise_std=0.1)
    assert episode.action is not None
    assert episode.state is not None
    moved = episode.state[6:-2, :3] - episode.state[2:-6, :3]
    asked = np.stack([episode.action[t:t + 4, :3].sum(axis=0) * 0.025 for t in range(len(episode) - 8)])
    assert np.corrcoef(moved.ravel(), asked.ravel())[0, 1] > 0.9


def test_a_task_beyond_the_expert_is_an_error_with_a_remedy(button: Env) -> None:
    with pytest.raises(SimulationError, match=r"failed in all 18 attempts from seed 1, each of 0.1 s"):
        collect_episode(button, seed=1, horizon=5)


def test_processes_give_what_one_process_gives(button: Env) -> None:
    found = record_demonstrations(["button-press-topdown-v3"], [3, 4], processes=2)
    for seed, episode in zip((3, 4), found, strict=True):
        here = collect_episode(button, seed)
        np.testing.assert_array_equal(episode.action, here.action)
        np.testing.assert_array_equal(episode.images["front"][:], here.images["front"][:])


def test_videos_hold_pictures_and_words_and_nothing_else(tmp_path: Path, button: Env) -> None:
    task = "button-press-topdown-v3"
    videos = render_videos([task], [3, 4], tmp_path, processes=1)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")} == {
        f"{task}/3.mp4", f"{task}/4.mp4", f"{task}/instruction.txt"}
    film, truth = read_video(videos[0]), collect_episode(button, 3)
    assert film.action is None
    assert film.state is None
    assert film.instruction == "button press topdown"
    assert len(film) == len(truth)
    np.testing.assert_allclose(np.diff(film.timestamps), 0.025, atol=1e-4)
    (frames,) = film.images.values()
    assert np.abs(frames[:].astype(int) - truth.images["front"][:]).mean() < 6


def test_videos_that_are_there_are_not_rendered_again(tmp_path: Path) -> None:
    task = "button-press-topdown-v3"
    kept = tmp_path / task / "3.mp4"
    kept.parent.mkdir()
    kept.write_bytes(b"kept")
    videos = render_videos([task], [3, 4], tmp_path, processes=1)
    assert kept.read_bytes() == b"kept"
    assert videos[1].stat().st_size > 2000


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ComoError, match="file/button-press-topdown-v3/instruction.txt: cannot be written"):
        render_videos(["button-press-topdown-v3"], [3], tmp_path / "file", processes=1)


class _Root:
    """A job for `run_jobs` that can fail."""

    def __call__(self, number: int) -> float:
        if number < 0:
            raise SimulationError(f"no root of {number}")
        return float(number**0.5)


def test_jobs_come_back_with_their_results_and_errors() -> None:
    for processes in (1, 2):
        assert sorted(run_jobs(_Root, [4, 9, 16], processes)) == [(4, 2.0), (9, 3.0), (16, 4.0)]
        with pytest.raises(SimulationError, match="no root of -1"):
            list(run_jobs(_Root, [4, -1], processes))
    assert list(run_jobs(_Root, [], 2)) == []


def _die() -> Callable[[int], None]:
    os._exit(9)


def test_a_process_that_dies_is_an_error_with_a_remedy() -> None:
    with pytest.raises(ComoError, match="ended from outside.*fewer processes"):
        list(run_jobs(_die, [1, 2, 3], 2))


class _Sleeper:
    """A job for `run_jobs` that tells its process and then takes long."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, number: int) -> None:
        (self._folder / str(os.getpid())).write_text(str(number))
        time.sleep(60)


def _sleep_in_processes(folder: str) -> None:
    list(run_jobs(partial(_Sleeper, Path(folder)), [1, 2], 2))


def test_processes_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    program = f"import test_demonstrations as t; t._sleep_in_processes({json.dumps(str(tmp_path))})"
    main = tmp_path.parent / "main.py"
    main.write_text(f"if __name__ == '__main__':\n    {program}\n")
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    parent = subprocess.Popen([sys.executable, str(main)], env={**os.environ, "PYTHONPATH": path})
    try:
        _wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        workers = [int(path.name) for path in tmp_path.iterdir()]
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
        _wait_until(lambda: not any(_alive(pid) for pid in workers))
    finally:
        parent.kill()


def _wait_until(condition: Callable[[], bool], timeout_s: float = 40.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
