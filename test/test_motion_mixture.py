"""Data from several places by weight: what is drawn, what is refused, and what the card and run.json say of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from motion_clips import FPS, moving_square, squares, tiny

from como_core import config
from como_core.cli import main as como
from como_core.config import parse_options
from como_core.errors import ComoError
from como_core.formats.video import write_video
from como_core.motion.mixture import Mixture, open_mixture, split_weight
from como_core.motion.train_data import open_training_data


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of robots, one of a person."""
    folder = tmp_path_factory.mktemp("places")
    for seed in range(5):
        write_video(folder / ("human" if seed == 4 else "robot") / f"{seed}.mp4", moving_square(seed, size=64), FPS)
    (folder / "robot" / "broken.mp4").write_bytes(b"no video")
    return folder


def shares(weights: tuple[float, ...] | None, tmp_path: Path) -> np.ndarray:
    """The share of 2000 drawn pairs that came from each of two places, of 6 clips and of 2."""
    mixture = Mixture(("a", "b"), np.array([0] * 6 + [1] * 2), weights)
    data = open_training_data(squares(8), mixture, tiny(), None, tmp_path)
    index = data.draws(2000, np.random.default_rng(0))
    assert index.min() == 0
    assert index.max() == len(data.pairs) - 1
    return np.bincount(mixture.place[data.pairs.episode[index]], minlength=2) / 2000


def test_weights_are_the_shares_of_what_is_drawn(tmp_path: Path) -> None:
    assert shares(None, tmp_path) == pytest.approx([0.75, 0.25], abs=0.03)
    assert shares((1, 1), tmp_path) == pytest.approx([0.5, 0.5], abs=0.03)
    assert shares((1, 9), tmp_path) == pytest.approx([0.1, 0.9], abs=0.03)


def test_a_place_of_weight_0_is_never_drawn(tmp_path: Path) -> None:
    mixture = Mixture(("a", "b", "c"), np.array([0, 0, 1, 1, 2, 2]), (1.0, 2.0, 0.0))
    data = open_training_data(squares(6), mixture, tiny(), None, tmp_path)
    index = data.draws(3000, np.random.default_rng(0))
    assert set(mixture.place[data.pairs.episode[index]].tolist()) == {0, 1}


def test_every_pair_of_a_place_is_drawn_alike(tmp_path: Path) -> None:
    data = open_training_data(squares(2), Mixture(("a", "b"), np.arange(2), (1, 1)), tiny(), None, tmp_path)
    counts = np.bincount(data.draws(20_000, np.random.default_rng(0)), minlength=len(data.pairs))
    assert counts.min() > 0.8 * counts.mean()
    assert counts.max() < 1.2 * counts.mean()


def test_paths_carry_their_weights(places: Path) -> None:
    sources, mixture = open_mixture([f"{places}/robot=3", f"{places / 'human'}=0.5"])
    assert mixture.names == (f"{places}/robot", f"{places}/human")
    assert mixture.weights == (3.0, 0.5)
    assert mixture.place.tolist() == [0, 0, 0, 0, 1]
    assert [path.name for path, _ in sources.skipped] == ["broken.mp4"]
    assert open_mixture([places / "robot", places / "human"])[1].weights is None
    sources, mixture = open_mixture([places / "human", places])
    assert mixture.place.tolist() == [0, 1, 1, 1, 1], "a recording that two paths hold is of the first"


def test_a_name_with_an_equals_sign_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "speed=2").mkdir()
    assert split_weight(str(tmp_path / "speed=2")) == (str(tmp_path / "speed=2"), None)
    assert split_weight(str(tmp_path / "speed=2=3")) == (str(tmp_path / "speed=2"), 3.0)
    assert split_weight("videos") == ("videos", None)
    (tmp_path / "demos.hdf5").touch()
    demo = f"{tmp_path}/demos.hdf5#demo_1"
    assert split_weight(f"{demo}=3") == (demo, 3.0)
    assert split_weight(f"{demo}=near") == (f"{demo}=near", None), "an episode of that name"


@pytest.mark.parametrize(("given", "message"), [
    (["robot=3", "human"], "human: has no weight while others have one"),
    (["robot=three"], "robot=three: no such path, and 'three' is no weight"),
    (["robot=-1"], "'-1' is no weight"), (["robot=nan"], "'nan' is no weight"), (["robot=inf"], "'inf' is no weight"),
    (["robot=0", "human=0"], "every weight is 0"),
    (["nowhere=1"], "nowhere: no such file or folder"),
    (["human=1", "human=3"], "human=3: all of its 1 recordings were given before"),
    (["robot/broken.mp4"], "broken.mp4: no recording that can be read"),
])
def test_what_is_no_mixture_is_refused(places: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], message: str
                                       ) -> None:
    monkeypatch.chdir(places)
    with pytest.raises(ComoError, match=message):
        open_mixture(given)


def test_a_broken_path_beside_a_good_one_costs_itself_alone(places: Path) -> None:
    sources, mixture = open_mixture([places / "robot" / "broken.mp4", places / "human"])
    assert len(sources.episodes) == 1
    ((path, reason),) = sources.skipped
    assert path.name == "broken.mp4" and sources.summary().count("broken.mp4") == 1, reason
    assert mixture.place.tolist() == [1]


def test_a_weight_for_nothing_that_moves_is_refused(tmp_path: Path) -> None:
    still = squares(1)[0]
    frames = np.repeat(still.images["top"][:1], 30, 0)
    clips = [*squares(1), type(still)(still.timestamps, {"top": frames}, "still")]
    with pytest.raises(ComoError, match="b: its weight is 2, and none of its frame pairs is left"):
        open_training_data(clips, Mixture(("a", "b"), np.arange(2), (1.0, 2.0)), tiny(), None, tmp_path)
    data = open_training_data(clips, Mixture(("a", "b"), np.arange(2)), tiny(), None, tmp_path)
    assert [place["pairs"] for place in data.places()] == [28, 0]


def test_the_command_trains_on_a_mixture_and_accounts_for_it(
        places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    preset = tmp_path / "tiny.yaml"
    config.save(tiny(), preset)
    monkeypatch.chdir(places)
    run = tmp_path / "run"
    words = ["motion", "train", "--preset", str(preset), "--data", "robot=1", "human=3", "-o", str(run), "--device",
             "cpu", "--steps", "3", "--set", "loss.contrast=0.01", "loop.batch_size=8"]
    assert como.main(words) == 0
    shown = capsys.readouterr().out
    assert "25.0 % of batches from robot: 4 clips, 112 pairs" in shown
    assert "0 across 0 scene cuts, 0 still" in shown
    assert "parameters: backbone" in shown
    assert "motion: 24/24" in shown
    assert "pairs/s" in shown
    report = json.loads((run / "run.json").read_text())
    assert [(place["path"], place["weight"], place["share"]) for place in report["data"]["places"]] == [
        ("robot", 1.0, 0.25), ("human", 3.0, 0.75)]
    assert report["data"]["selection"] == {"pairs": 140, "found": 140, "scene_cuts": 0, "left_out_across_cuts": 0,
                                           "left_out_still": 0}
    assert report["parameters"]["inverse"] > 0
    card = (run / "card.md").read_text()
    assert "  - human: 1 clips, 28 pairs, 75.0 % of batches (weight 3)" in card
    assert "left out of 140 pairs: 0 across 0 scene cuts, 0 still" in card
    assert "contrast: 0.01" in (run / "config.yaml").read_text()


@pytest.mark.parametrize(("options", "message"), [
    (["loss.kll=1"], r"unknown key 'loss.kll'; did you mean 'kl'"),
    (["lossy.kl=1"], r"unknown key 'lossy'; did you mean 'loss'"),
    (["gap_s"], r"option 'gap_s': expected KEY=VALUE"),
    (["gap_s=fast"], "gap_s: expected a number, got 'fast'"),
    (["gap_s=[1"], r"option 'gap_s=\[1': '\[1' is no value"),
    (["loop.precision=fp16"], "loop.precision: 'fp16' is not one of auto, bf16, no"),
])
def test_options_that_do_not_fit_are_refused_with_the_nearest(
        places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str) -> None:
    import re

    words = ["motion", "train", "--data", str(places), "-o", str(tmp_path / "run"), "--set", *options]
    assert como.main(words) == como.EXIT_MENDABLE
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_values_are_read_as_people_write_them() -> None:
    given = ["loss.kl=1e-6", "loop.precision=no", "backbone.frozen=true", "loop.betas=[0.9, 0.95]", "loop.steps=7",
             "backbone.model=a=b", "loop.ema_decay=null"]
    assert parse_options(given) == {
        "loss.kl": 1e-6, "loop.precision": "no", "backbone.frozen": True, "loop.betas": [0.9, 0.95], "loop.steps": 7,
        "backbone.model": "a=b", "loop.ema_decay": None}
