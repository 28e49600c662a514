"""`como policy show`: pictures of trials and of predictions over recordings, by the Policy protocol only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from policy_data import INTERFACE, RATE_HZ, demonstrations, untrained, videos
from test_policy_cli import _record

from como_core.action_chunk import ActionChunk, Observation
from como_core.cli.main import main
from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.evaluation.predictions import by_lead, observation_at, over_time, predict_along, value_names
from como_core.formats.png import read_png
from como_core.interface import Interface, load_interface
from como_core.resources import resource
from como_core.simulation.environment import make_env
from como_core.simulation.rollout import rollout
from como_core.simulation.witness import watch

Capture = pytest.CaptureFixture[str]
BUTTON = "metaworld:button-press-topdown-v3"
ROBOT = load_interface(resource("config/interfaces/metaworld.yaml"))


class Memory:
    """A policy that knows an episode by heart: from the time of an observation on, the recorded actions and `error`."""

    interface: Interface = INTERFACE

    def __init__(self, known: Episode, error: float = 0.0) -> None:
        self._known, self._error = known, error

    def warm_up(self) -> None:
        """Nothing to warm."""

    def predict(self, observation: Observation) -> ActionChunk:
        assert self._known.action is not None
        first = round(observation.stamp_s * RATE_HZ)
        rows = np.minimum(np.arange(first, first + 4), len(self._known) - 1)
        return ActionChunk(np.arange(4) / RATE_HZ, self._known.action[rows] + np.float32(self._error))


class Forward:
    """A policy that always drives along y at 0.3 m/s."""

    interface: Interface = ROBOT

    def warm_up(self) -> None:
        """Nothing to warm."""

    def predict(self, observation: Observation) -> ActionChunk:
        return ActionChunk(np.arange(12) * 0.025, np.tile(np.float32([0.0, 0.3, 0.0, 1.0]), (12, 1)))


def test_a_perfect_policy_has_no_error_and_a_shifted_one_has_its_shift() -> None:
    episode = demonstrations()[0]
    assert episode.action is not None
    for shift in (0.0, 0.5):
        figure = by_lead([predict_along(Memory(episode, shift), episode)], ["x", "y", "gripper"])
        assert figure is not None
        axes = figure.axes[0]
        lines = {line.get_label(): np.asarray(line.get_ydata()) for line in axes.get_lines()}
        np.testing.assert_allclose(lines["predicted"], shift / episode.action[:, 0].std(), atol=1e-5)
        held = episode.action[0:-1:2, 0] - episode.action[1::2, 0]
        assert lines["the action at hand, held"][0] == 0
        assert lines["the action at hand, held"][1] == pytest.approx(
            np.sqrt(np.mean(held**2)) / episode.action[:, 0].std(), rel=1e-5)


def test_chunks_are_drawn_where_they_are_due() -> None:
    episode = demonstrations()[0]
    along = predict_along(Memory(episode), episode)
    np.testing.assert_array_equal(along.steps, np.arange(0, 24, 2))
    figure = over_time(along, value_names(INTERFACE.action))
    panel = next(axes for axes in figure.axes if axes.get_ylabel() == "linear.x, m/s")
    recorded, *chunks = panel.get_lines()
    for drawn in chunks[::2]:
        x, y = np.asarray(drawn.get_xdata()), np.asarray(drawn.get_ydata())
        inside = x <= episode.duration_s
        truth = np.interp(x, recorded.get_xdata(), recorded.get_ydata())
        np.testing.assert_allclose(y[inside], truth[inside], atol=1e-5)


def test_a_policy_is_asked_about_what_the_recording_holds() -> None:
    episode = demonstrations()[0]
    seen = observation_at(episode, 5, ("front",))
    assert seen.stamp_s == 5 / RATE_HZ and seen.instruction == "left"
    np.testing.assert_array_equal(seen.images["front"], episode.images["front"][5])
    assert episode.state is not None and seen.state is not None
    np.testing.assert_array_equal(seen.state, episode.state[5])
    with pytest.raises(ComoError, match="no actions"):
        predict_along(Memory(episode), videos(1)[0])


def test_a_watched_trial_is_the_trial_and_its_plan_is_drawn_where_it_leads() -> None:
    watched = watch(Forward(), BUTTON, 3, size=96, horizon=24)
    done = rollout(make_env(BUTTON), Forward(), 3, horizon=24)
    assert (watched.success, watched.duration_s) == (done.success, done.periods * 0.025)
    assert [glance.time_s for glance in watched.glances] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    env = make_env(BUTTON, 96)
    env.reset(3)
    np.testing.assert_array_equal(watched.glances[0].picture, env.render())
    last = watched.glances[3]
    assert last.planned.shape == (13, 2)
    np.testing.assert_allclose(last.planned[0], last.went[0], atol=1e-6)
    way = last.planned[-1] - last.planned[0]
    went = last.went[8] - last.went[0]
    assert way @ went / np.linalg.norm(way) / np.linalg.norm(went) > 0.9, "the hand went another way than planned"


def test_pictures_are_written_and_named(tmp_path: Path, capsys: Capture) -> None:
    run = untrained(tmp_path / "run", ROBOT, ("button press topdown",))
    assert main(["policy", "show", str(run), "--env", BUTTON, "--trials", "1", "-o", str(tmp_path / "out")]) == 0
    picture = tmp_path / "out" / "rollouts_metaworld_button-press-topdown-v3.png"
    assert f"picture: {picture}" in capsys.readouterr().out
    assert read_png(picture).std() > 20


def test_recordings_of_the_robot_are_shown_and_others_are_named(tmp_path: Path, capsys: Capture) -> None:
    run, out = untrained(tmp_path / "run", INTERFACE, ("left", "right")), tmp_path / "out"
    for index, given in enumerate(demonstrations(1)):
        _record(tmp_path / "bags" / str(index), given)
    (tmp_path / "bags" / "broken.mcap").write_bytes(b"no bag")
    assert main(["policy", "show", str(run), "--data", str(tmp_path / "bags"), "-o", str(out), "--episodes", "1"]) == 0
    said = capsys.readouterr().out
    assert "2 recordings with actions" in said and "left out: " in said and "broken.mcap" in said
    assert sorted(path.name for path in out.iterdir()) == ["errors_by_lead.png", "predictions_0.png"]
    for words, expected in (([], "nothing to show"), (["--env", "metaworld:raech-v3"], "did you mean"),
                            (["--env", BUTTON, "--first-seed", "-1"], "--first-seed must be 0 or more"),
                            (["--data", str(tmp_path / "run")], "no recording")):
        assert main(["policy", "show", str(run), "-o", str(out), *words]) == 2
        assert expected in capsys.readouterr().err
    taken = str(out / "predictions_0.png")
    assert main(["policy", "show", str(run), "--data", str(tmp_path / "bags"), "-o", taken]) == 2
    said = capsys.readouterr()
    assert "predictions_0.png: cannot be written" in said.err and "predicting" not in said.out
