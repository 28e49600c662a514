"""The motion model on small videos of a moving square: training, probe, relabelling, and what a user sees of each."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from moving_square import FPS, moving_square, tiny, write_bag

from como_core import config
from como_core.cli import motion as cli
from como_core.cli.relabel import relabel as cli_relabel
from como_core.errors import ComoError
from como_core.formats.video import write_video
from como_core.motion.evaluate import evaluate
from como_core.motion.model import load_motion
from como_core.motion.probe import run_probe, window_sums
from como_core.motion.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on 40 clips; only their pictures are read."""
    out = tmp_path_factory.mktemp("motion") / "run"
    clips = [dataclasses.replace(moving_square(seed), action=None, provenance=None) for seed in range(40)]
    train(clips, tiny(), out)
    return out


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for seed in range(3):
        write_video(folder / "squares" / f"{seed}.mp4", moving_square(100 + seed).images["top"], FPS)
    return folder


def test_z_knows_more_of_the_motion_than_the_pca_does(run: Path, tmp_path: Path) -> None:
    held_out = [moving_square(seed) for seed in range(200, 230)]
    report = evaluate(load_motion(run), held_out, ["down", "right"], cache=tmp_path)
    rows = {row.features: row for row in report.rows}
    assert rows["mean of the actions"].r2.mean < 0.05
    assert rows["z"].r2.mean > 0.6
    assert report.gain.low > 0.3
    assert rows["z"].r2.low < rows["z"].r2.mean < rows["z"].r2.high
    assert report.reconstruction_gain > 0.2
    assert report.episodes == 30
    json.dumps(report.to_dict())


def test_a_loaded_model_says_what_the_trained_one_said(run: Path, tmp_path: Path) -> None:
    clips = [moving_square(seed) for seed in range(4)]
    model, history = train(clips, tiny(steps=20), tmp_path)
    frames = moving_square(9).images["top"]
    assert torch.equal(model.encode(frames[:5], frames[2:7]), load_motion(tmp_path).encode(frames[:5], frames[2:7]))
    assert "20 steps of 32, seed 0" in (tmp_path / "card.md").read_text()
    assert set(history.terms) == {"loss", "pixel", "contrast"}


def test_batches_come_from_the_seed_and_name_their_files(tmp_path: Path) -> None:
    clips = [moving_square(seed) for seed in range(4)]
    first, _ = train(clips, tiny(steps=5), tmp_path / "a")
    again, _ = train(clips, tiny(steps=5), tmp_path / "b")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    broken = dataclasses.replace(tiny(steps=5), loop=dataclasses.replace(tiny(steps=5).loop, learning_rate=1e30))
    with pytest.raises(ComoError, match=r"training stopped.*square#0, square#1"):
        train(clips, broken, tmp_path / "c")


def test_commands_say_what_they_did(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.train((videos,), tmp_path / "run", preset=str(_preset_file(tmp_path)), steps=3)
    assert "next: como relabel" in capsys.readouterr().out
    cli_relabel((videos,), tmp_path / "run", tmp_path / "labels")
    assert "3 recordings, 90 frames labelled" in capsys.readouterr().out
    with pytest.raises(ComoError, match="none of 3 recordings has actions and says what they mean"):
        cli.evaluate(tmp_path / "run", (videos,))


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten recorded bags; the arm is the moving square."""
    folder = tmp_path_factory.mktemp("bags")
    for seed in range(10):
        write_bag(folder / f"{seed:04d}", moving_square(300 + seed))
    return folder


def test_eval_reads_bags(run: Path, bags: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.evaluate(run, (bags,), cache=tmp_path)
    shown = capsys.readouterr().out
    assert "PCA of the RGB difference" in shown
    assert "10 episodes read" in shown
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["actions"] == ["linear.x", "linear.y", "linear.z"]
    assert [row["features"] for row in metrics["rows"]][-1] == "z"
    assert metrics["rows"][-1]["r2"]["mean"] > 0.3


def _preset_file(folder: Path) -> Path:
    path = folder / "tiny.yaml"
    config.save(tiny(), path)
    return path


def test_the_probe_holds_out_whole_episodes() -> None:
    rng = np.random.default_rng(0)
    episode = np.repeat(np.arange(20), 30)
    offset = rng.standard_normal((20, 2))[episode]
    identity = np.eye(20)[episode]  # tells an episode's own mean, and nothing of any other
    target = offset + 0.1 * rng.standard_normal((600, 2))
    leak = run_probe("identity", lambda train, every: identity[every], target, episode)
    assert leak.r2([0, 1]).mean < 0.05
    linear = rng.standard_normal((600, 5))
    probe = run_probe("linear", lambda train, every: linear[every], linear[:, :2] - 3, episode)
    assert probe.r2([0, 1]).mean > 0.99
    assert probe.mse([0, 1]).mean < 0.01
    assert probe.r2_gain(leak, [0, 1]).low > -1e9
    with pytest.raises(ComoError, match="at least 10 labelled episodes to split, got 3"):
        run_probe("few", lambda train, every: linear[every], target[:90], episode[:90])


def test_window_sums_are_the_actions_between_the_two_frames() -> None:
    action = np.arange(12, dtype=np.float32).reshape(6, 2)
    sums = window_sums(action, np.array([0, 2]), np.array([3, 4]))
    assert np.array_equal(sums, [action[0:3].sum(0), action[2:4].sum(0)])
