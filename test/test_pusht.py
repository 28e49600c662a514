"""PushT behind Env: metres, the package's own success test, and trials that hold positions."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from como_core.action_chunk import ActionChunk, Observation
from como_core.simulation.dataset import attempt, collect_episode, record_demonstrations
from como_core.simulation.environment import Env, SimulationError, make_env
from como_core.simulation.rollout import rollout, run_trials
from como_core.simulation.trial import TrialRun

pytest.importorskip("gym_pusht", reason="gym-pusht is not installed; `como policy eval --env pusht:` says how")


@pytest.fixture
def env() -> Env:
    made = make_env("pusht:", 96)
    made.reset(3)
    return made


class Pushing:
    """A policy that goes from where the pusher is towards the middle of the board, 4 cm a step."""

    def __init__(self) -> None:
        self.interface = make_env("pusht:").interface

    def warm_up(self) -> None:
        """Nothing to warm."""

    def predict(self, observation: Observation) -> ActionChunk:
        assert observation.state is not None and observation.images["top"].shape == (64, 64, 3)
        way = np.array([0.256, 0.256]) - observation.state
        steps = np.minimum(np.arange(1, 9) * 0.04 / max(np.linalg.norm(way), 1e-9), 1.0)
        return ActionChunk(np.arange(8) * 0.1, (observation.state + steps[:, None] * way).astype(np.float32))


def test_a_seed_gives_the_same_bits_whatever_came_before(env: Env) -> None:
    def drive(seed: int) -> np.ndarray:
        env.reset(seed)
        seen = [env.privileged()]
        for offset in np.random.default_rng(1).uniform(-0.1, 0.1, (15, 2)):
            env.step(seen[0][2:4] + offset)
            seen.append(env.privileged())
        return np.stack(seen)

    first = drive(7)
    drive(8)
    np.testing.assert_array_equal(drive(7), first)
    assert np.ptp(first[:, 2:5], axis=0).max() > 0.01, "the block was never pushed"
    assert not np.array_equal(drive(8)[0], first[0])


def test_an_action_is_a_place_in_metres(env: Env) -> None:
    for place in ([0.06, 0.45], [0.45, 0.45]):
        for _ in range(20):
            env.step(np.array(place))
        np.testing.assert_allclose(env.state(), place, atol=0.003)
    for _ in range(20):
        env.step(np.array([0.45, 5.0]))
    assert 0.48 < env.state()[1] <= 0.512


def test_the_picture_shows_the_pusher_where_it_is(env: Env) -> None:
    picture = env.render().astype(int)
    assert picture.shape == (96, 96, 3)
    blue = (picture[..., 2] > 180) & (picture[..., 0] < 120) & (picture[..., 1] < 150)
    seen = np.argwhere(blue).mean(axis=0)[::-1] + 0.5
    np.testing.assert_allclose(seen, 96 * env.project(env.path(np.zeros((0, 2))))[0], atol=1.5)
    np.testing.assert_array_equal(env.render(), env.render("top"))


def test_success_is_more_than_95_percent_of_the_mark(env: Env) -> None:
    """The block is put onto its mark, then 15 mm beside it: only a step counts, and success stays."""
    physics = env._env  # type: ignore[attr-defined]
    x, y, angle = physics.goal_pose

    def put(offset: float) -> None:
        # Turning moves the block about its centre of mass, so that the place comes last.
        physics.block.angle = angle
        physics.block.position = x + offset, y
        physics.space.reindex_shapes_for_body(physics.block)

    put(15.0)
    env.step(env.rest())
    assert not env.success and 0.3 < env.privileged()[-1] < 0.95
    put(0.0)
    assert not env.success
    env.step(env.rest())
    assert env.success and env.privileged()[-1] > 0.95
    put(15.0)
    env.step(env.rest())
    assert env.success and env.privileged()[-1] < 0.95
    env.reset(3)
    assert not env.success


def test_the_pusher_stays_until_the_first_chunk_comes(env: Env) -> None:
    """A position of zero would slam it into the corner."""
    run = TrialRun(env, 3)
    assert run.timing.latency_periods == 1 and run.observation is not None
    start = env.state()
    run.answer(ActionChunk(np.arange(2) * 0.1, np.float32([[0.4, 0.4], [0.4, 0.4]])))
    np.testing.assert_array_equal(run.actions[0], start)
    np.testing.assert_allclose(env.state(), start, atol=1e-6)


def test_trials_run_as_in_any_other_environment() -> None:
    done = rollout(make_env("pusht:", 64), Pushing(), 3, horizon=12)
    assert done.periods == 12 and not done.success and done.pictures.shape == (13, 64, 64, 3)
    start, end = done.actions[0], done.actions[-1]
    assert np.linalg.norm(end - [0.256, 0.256]) < np.linalg.norm(start - [0.256, 0.256])
    one, two = (run_trials(Pushing, ["pusht:"], [1, 2, 3], processes=1, batch=batch, horizon_s=1.0) for batch in (1, 3))
    assert one == two and [trial.duration_s for trial in one] == [1.0] * 3


def test_the_expert_puts_the_block_onto_its_mark_whatever_the_start() -> None:
    env = make_env("pusht:")
    tries = [attempt(env, seed, noise_std=0.1) for seed in range(6)]
    assert sum(done.success for done in tries) >= 5
    assert all(done.actions.min() >= 0.0 and done.actions.max() <= 0.512 for done in tries)


def test_demonstrations_are_the_same_each_time_and_hold_what_was_seen() -> None:
    (episode,) = record_demonstrations(["pusht:"], [5], processes=1, size=48)
    assert episode.action is not None and episode.state is not None
    again = collect_episode(make_env("pusht:", 48), 5)
    assert again.action is not None
    np.testing.assert_array_equal(episode.action, again.action)
    env = make_env("pusht:", 48)
    env.reset(5)
    for step, action in enumerate(episode.action):
        np.testing.assert_array_equal(episode.images["top"][step], env.render())
        np.testing.assert_array_equal(episode.state[step], env.state())
        env.step(action)
    assert env.success
    assert episode.instruction == "push the T-shaped block onto its mark"


@pytest.mark.parametrize("action", [np.zeros(3), np.array([0.1, np.nan])])
def test_a_bad_action_is_refused(env: Env, action: np.ndarray) -> None:
    with pytest.raises(SimulationError, match="2 finite values"):
        env.step(action)


def test_nothing_is_known_before_the_first_reset() -> None:
    made = make_env("pusht")
    for call in (made.render, made.state, made.privileged, lambda: made.step(np.zeros(2))):
        with pytest.raises(SimulationError, match="call reset"):
            call()


def test_python_ends_well_where_a_simulator_is_still_there() -> None:
    program = ("from como_core.simulation.environment import make_env\n"
               "from como_core.simulation.experts import Expert\n"
               "kept = make_env('pusht:'), Expert('pusht:')\nkept[0].reset(3)\nkept[1].act(kept[0].privileged())\n"
               "import sys\nsys.kept = kept")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_the_package_the_way_to_get_it_is_said() -> None:
    program = ("import sys\nfrom importlib import util\nfound = util.find_spec\n"
               "util.find_spec = lambda name, *rest: None if name == 'gym_pusht' else found(name, *rest)\n"
               "from como_core.simulation.environment import make_env\nmake_env('pusht:')")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "suite 'pusht' needs gym_pusht: pip install" in done.stderr and "--no-deps gym-pusht" in done.stderr
