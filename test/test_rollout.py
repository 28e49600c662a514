"""Trials stepped directly: chunks come into force when the real loop would have them, and logs go on."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from policy_data import untrained

from como_core.action_chunk import ActionChunk, Observation
from como_core.config import ConfigError
from como_core.errors import ComoError
from como_core.formats.trials import TrialLog
from como_core.formats.video import read_video
from como_core.interface import Action, Interface, load_interface
from como_core.policy.checkpoint import load_policy
from como_core.resources import resource
from como_core.simulation.chunk_player import ChunkPlayer, Timing, goes_on
from como_core.simulation.dataset import attempt
from como_core.simulation.environment import SimulationError, make_env
from como_core.simulation.rollout import require_fit, rollout, run_trials

BUTTON = "metaworld:button-press-topdown-v3"
INTERFACE = load_interface(resource("config/interfaces/metaworld.yaml"))
AT_ONCE = Timing(latency_periods=0, blend_periods=0)


class Replay:
    """A policy that knows an expert's actions by heart and gives 12 of them from the observation's time on."""

    interface: Interface = INTERFACE

    def __init__(self, actions: np.ndarray) -> None:
        self._actions = actions
        self.asked_s: list[float] = []

    def warm_up(self) -> None:
        """Nothing to warm."""

    def predict(self, observation: Observation) -> ActionChunk:
        self.asked_s.append(observation.stamp_s)
        assert observation.images["front"].shape == (64, 64, 3)
        assert observation.state is not None
        assert observation.instruction == "button press topdown"
        first = round(observation.stamp_s / 0.025)
        steps = np.minimum(np.arange(first, first + 12), len(self._actions) - 1)
        return ActionChunk(np.arange(12) * 0.025, self._actions[steps])


def _replay(seed: int) -> Replay:
    return Replay(attempt(make_env(BUTTON), seed, noise_std=0.05).actions)


def _chunk(values: list[float], spacing: int = 1) -> ActionChunk:
    """A chunk whose single velocity is `values`, gripper 0.5, a step every `spacing` periods of 0.1 s."""
    return ActionChunk(np.arange(len(values)) * spacing * 0.1,
                       np.array([[value, 0.5] for value in values], np.float32))


def _player(timing: Timing) -> ChunkPlayer:
    """Of one velocity and a gripper, at 10 Hz."""
    return ChunkPlayer(np.zeros(2), np.array([False, True]), 0.1, timing)


def _play(player: ChunkPlayer, periods: range) -> list[float]:
    return [round(float(player.action(period)[0]), 4) for period in periods]


def test_a_chunk_is_played_by_its_own_time_and_late_steps_are_dropped() -> None:
    player = _player(Timing(latency_periods=2, blend_periods=0))
    player.answer(0, _chunk([1, 2, 3, 4]))
    assert _play(player, range(6)) == [0, 0, 3, 4, 0, 0]


def test_the_old_chunk_goes_on_until_the_new_one_is_there() -> None:
    player = _player(Timing(latency_periods=1, blend_periods=0))
    player.answer(0, _chunk([1, 1, 1, 1, 1, 1]))
    assert _play(player, range(3)) == [0, 1, 1]
    player.answer(3, _chunk([2, 2, 2]))
    assert _play(player, range(3, 8)) == [1, 2, 2, 0, 0]


def test_a_new_chunk_fades_in() -> None:
    player = _player(Timing(latency_periods=0, blend_periods=4))
    player.answer(0, _chunk([1] * 9))
    assert _play(player, range(2)) == [1, 1]
    player.answer(2, _chunk([2] * 7))
    assert _play(player, range(2, 9)) == [1, 1.25, 1.5, 1.75, 2, 2, 2]


def test_steps_slower_than_the_control_period_are_held() -> None:
    player = _player(AT_ONCE)
    player.answer(0, _chunk([1, 2], spacing=3))
    assert _play(player, range(7)) == [1, 1, 1, 2, 2, 2, 0]


def test_with_no_plan_left_the_arm_stops_and_the_gripper_stays() -> None:
    player = _player(AT_ONCE)
    player.answer(0, _chunk([1]))
    np.testing.assert_array_equal(player.action(0), np.float32([1, 0.5]))
    np.testing.assert_array_equal(player.action(1), np.float32([0, 0.5]))


def test_a_chunk_that_is_late_as_a_whole_changes_nothing() -> None:
    player = _player(Timing(latency_periods=3, blend_periods=0))
    player.answer(0, _chunk([1, 1, 1, 1, 1, 1, 1]))
    player.answer(2, _chunk([9, 9]))
    assert _play(player, range(7)) == [0, 0, 0, 1, 1, 1, 1]


def test_timing_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="replan_periods must be 1 or more"):
        Timing(replan_periods=0)


def test_without_latency_a_replayed_expert_is_the_expert() -> None:
    env, policy = make_env(BUTTON), _replay(2)
    expert = attempt(env, 2, noise_std=0.05)
    done = rollout(env, policy, 2, timing=AT_ONCE)
    assert done.success
    assert done.periods == len(expert.actions) - 4
    np.testing.assert_allclose(np.diff(policy.asked_s), 0.1)


def test_latency_costs_the_arm_its_first_period() -> None:
    env, policy = make_env(BUTTON), _replay(2)
    seen = []
    env_step = env.step
    env.step = lambda action: (seen.append(np.array(action)), env_step(action))[1]  # type: ignore[method-assign]
    rollout(env, policy, 2, horizon=3, timing=Timing(latency_periods=1))
    np.testing.assert_array_equal(seen[0], np.zeros(4))
    np.testing.assert_array_equal(seen[1:], attempt(make_env(BUTTON), 2, noise_std=0.05).actions[1:3])


def test_a_trial_that_does_not_succeed_ends_at_the_horizon() -> None:
    done = rollout(make_env(BUTTON), Replay(np.zeros((1, 4), np.float32)), 2, horizon=20)
    assert not done.success
    assert done.periods == 20
    assert done.pictures.shape == (6, 64, 64, 3)


def test_processes_log_and_films_of_real_trials(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "trials.jsonl", {"policy": "replay"})
    load = partial(_replay, 2)
    trials = run_trials(load, [BUTTON], [2, 3], processes=2, horizon_s=1.5, log=log, films=tmp_path / "films")
    assert [(trial.env, trial.seed) for trial in trials] == [(BUTTON, 2), (BUTTON, 3)]
    assert trials[0].success
    assert 0.5 < trials[0].duration_s < 1.5
    assert trials == run_trials(load, [BUTTON], [2, 3], processes=1, horizon_s=1.5, films=tmp_path / "again")
    film = read_video(tmp_path / "films" / str(trials[0].film))
    np.testing.assert_allclose(np.diff(film.timestamps), 0.1, atol=1e-3)
    assert len(film) == int(np.ceil(round(trials[0].duration_s / 0.025) / 4)) + 1


class Homing:
    """A policy that drives the hand to a place, by what it sees of it; it may be asked about several at once."""

    interface: Interface = INTERFACE

    def __init__(self) -> None:
        self.batches: list[int] = []

    def warm_up(self) -> None:
        """Nothing to warm."""

    def predict(self, observation: Observation) -> ActionChunk:
        assert observation.state is not None
        way = np.array([0.0, 0.72, 0.1]) - observation.state[:3]
        return ActionChunk(np.arange(8) * 0.025, np.tile(np.append(4 * way, 1.0).astype(np.float32), (8, 1)))

    def predict_batch(self, observations: list[Observation]) -> list[ActionChunk]:
        self.batches.append(len(observations))
        return [self.predict(observation) for observation in observations]


def test_trials_do_not_depend_on_processes_nor_on_what_runs_beside_them(tmp_path: Path) -> None:
    """Strips hold what each trial looked like, so that a chunk that went to the wrong trial would show."""
    found, envs = {}, [BUTTON, "metaworld:drawer-close-v3"]
    for processes, batch in ((1, 1), (1, 4), (2, 4)):
        strips = tmp_path / f"{processes}_{batch}"
        found[strips] = run_trials(Homing, envs, range(5), processes=processes, batch=batch, horizon_s=1.0,
                                   strips=strips)
    first, *others = found
    assert len({trial.duration_s for trial in found[first]}) > 2
    for other in others:
        assert found[other] == found[first]
        for path in sorted(first.iterdir()):
            assert (other / path.name).read_bytes() == path.read_bytes(), path.name
    assert len(list(first.iterdir())) == 10


def test_a_policy_is_asked_once_for_all_trials_in_hand() -> None:
    policy = Homing()
    trials = run_trials(lambda: policy, [BUTTON], range(5), processes=1, batch=3, horizon_s=0.4)
    assert policy.batches == [3] * 8, "fewer were asked about at the end, which a network would round otherwise"
    assert all(len(trial.inference_ms) == 4 and trial.wall_s for trial in trials)


def test_inference_is_what_a_chunk_costs_however_many_trials_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call computes 4 chunks, for 4 trials as for the last one; who answers one by one has no more to share."""
    clock = 0.0

    class Slow(Homing):
        def predict_batch(self, observations: list[Observation]) -> list[ActionChunk]:
            nonlocal clock
            clock += 0.1 * len(observations)
            return super().predict_batch(observations)

    class Alone:
        interface, warm_up = INTERFACE, lambda _: None

        def predict(self, observation: Observation) -> ActionChunk:
            nonlocal clock
            clock += 0.1
            return Homing().predict(observation)

    monkeypatch.setattr("time.perf_counter", lambda: clock)
    for policy in (Slow, Alone):
        trials = run_trials(policy, [BUTTON], range(5), processes=1, batch=4, horizon_s=0.4)
        assert [ms for trial in trials for ms in trial.inference_ms] == pytest.approx([100.0] * 20)


def test_a_network_gives_the_same_chunks_whatever_runs_beside_a_trial(tmp_path: Path) -> None:
    """To the last bit, where 5, 2 or 1 trials are in hand: rounding differs with the size of a batch."""
    network = load_policy(untrained(tmp_path, INTERFACE, ("button press topdown",), noise=0.1))

    class Recording(Homing):
        def predict_batch(self, observations: list[Observation]) -> list[ActionChunk]:
            found = network.predict_batch(observations)
            chunks.update(chunk.values.tobytes() for chunk in found)
            return found

    given, trials = [], []
    for groups in ([range(5)], [[0, 1], [2], [3, 4]]):
        chunks: set[bytes] = set()
        trials.append([trial for seeds in groups for trial in run_trials(
            Recording, [BUTTON], seeds, processes=1, batch=5, horizon_s=0.5)])
        given.append(chunks)
    assert trials[0] == trials[1] and given[0] == given[1] and len(given[0]) >= 20


def test_a_policy_with_a_history_gets_the_pictures_of_those_times() -> None:
    """At 40 Hz with a question every 4 periods: lags of 2 and 7 periods, the second not a multiple of anything."""
    asked: list[Observation] = []

    class Looking(Homing):
        history_s = (0.05, 0.17)

        def predict(self, observation: Observation) -> ActionChunk:
            asked.append(observation)
            return super().predict(observation)

    done = rollout(make_env(BUTTON), Looking(), 3, horizon=16)
    env, shown = make_env(BUTTON), []
    env.reset(3)
    for action in done.actions:
        shown.append(env.render())
        env.step(action)
    assert len(asked) == 4
    for period, observation in zip((0, 4, 8, 12), asked, strict=True):
        for lag, past in zip((2, 7), observation.past, strict=True):
            np.testing.assert_array_equal(past["front"], shown[max(0, period - lag)])
        np.testing.assert_array_equal(observation.images["front"], shown[period])


def test_a_chunk_of_another_size_is_refused() -> None:
    env = make_env(BUTTON)
    with pytest.raises(SimulationError, match=r"\[12, 4\] values, got \[12, 3\]"):
        rollout(env, Replay(np.zeros((1, 3), np.float32)), 2)


def test_the_time_limit_is_the_suites_own() -> None:
    done = rollout(make_env(BUTTON), Replay(np.zeros((1, 4), np.float32)), 2)
    assert done.periods == 160 and done.actions.shape == (160, 4)


def test_timing_follows_the_control_period() -> None:
    assert Timing.real_time(0.025) == Timing(4, 1, 2)
    assert Timing.real_time(0.05) == Timing(2, 1, 1)
    assert Timing.real_time(0.1) == Timing(1, 1, 0)


def test_positions_stay_and_velocities_end_where_nothing_is_planned() -> None:
    action = INTERFACE.action
    np.testing.assert_array_equal(goes_on(action), [False, False, False, True])
    joints = Action("joint_position", "forward_command", "commands", ("x", "y"), 10.0)
    np.testing.assert_array_equal(goes_on(joints), [True, True])
    player = ChunkPlayer(np.array([0.3, 0.4]), goes_on(joints), 0.1, AT_ONCE)
    np.testing.assert_array_equal(player.action(0), np.float32([0.3, 0.4]))
    player.answer(1, ActionChunk(np.zeros(1), np.float32([[0.5, 0.6]])))
    for period in (1, 2, 9):
        np.testing.assert_array_equal(player.action(period), np.float32([0.5, 0.6]))


def _no_policy() -> Replay:
    raise ComoError("the policy is not needed")


def test_trials_in_the_log_are_not_run_again(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    first = run_trials(partial(_replay, 2), [BUTTON], [2], processes=1, horizon_s=0.2, log=TrialLog(path))
    again = run_trials(_no_policy, [BUTTON], [2], processes=1, horizon_s=0.2, log=TrialLog(path))
    assert again == first
    with pytest.raises(ComoError, match="not needed"):
        run_trials(_no_policy, [BUTTON], [2, 4], processes=2, horizon_s=0.2, log=TrialLog(path))


def test_a_policy_of_another_robot_is_refused_with_the_key() -> None:
    env = make_env(BUTTON)
    require_fit(INTERFACE, env)
    faster = dataclasses.replace(INTERFACE, action=dataclasses.replace(INTERFACE.action, rate_hz=50.0))
    with pytest.raises(ConfigError, match=r"'action.rate_hz' is 50.0 in the policy and 40.0"):
        require_fit(faster, env)
    wrist = dataclasses.replace(INTERFACE, cameras={"wrist": INTERFACE.cameras["front"]})
    with pytest.raises(ConfigError, match="cameras.wrist"):
        require_fit(wrist, env)


def test_an_unknown_task_is_an_error_before_any_trial() -> None:
    with pytest.raises(SimulationError, match="did you mean"):
        run_trials(partial(Replay, np.zeros((1, 4), np.float32)), ["metaworld:reach"], [2], processes=1)
