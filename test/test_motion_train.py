"""The motion model on small videos of a moving square: training, and what a user sees of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from moving_square import FPS, moving_square, tiny

from como_core import config
from como_core.cli import motion as cli
from como_core.cli.relabel import relabel as cli_relabel
from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.formats.video import write_video
from como_core.motion.mixture import Mixture
from como_core.motion.model import load_motion
from como_core.motion.train import train
from como_core.training.checkpoint import CheckpointError


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for seed in range(3):
        write_video(folder / "squares" / f"{seed}.mp4", moving_square(100 + seed).images["top"], FPS)
    return folder


def test_a_loaded_model_says_what_the_trained_one_said(tmp_path: Path) -> None:
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


def test_recordings_that_give_no_pair_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = moving_square(1)
    slow = dataclasses.replace(clip, timestamps=clip.timestamps * 7, source="slow")
    still = dataclasses.replace(clip, images={"top": np.repeat(clip.images["top"][:1], len(clip), axis=0)},
                                source="still")
    train([moving_square(0), slow, still], tiny(steps=2), tmp_path)
    assert "no pair in 2 of them" in (said := capsys.readouterr().out) and ": slow, still\n" in said
    assert json.loads((tmp_path / "run.json").read_text())["data"]["without_pairs"] == ["slow", "still"]
    train([moving_square(0)], tiny(steps=2), tmp_path / "whole")
    assert "no pair in" not in capsys.readouterr().out


def test_commands_say_what_they_did(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.train((videos,), tmp_path / "run", preset=str(_preset_file(tmp_path)), steps=3)
    assert "next: como relabel" in capsys.readouterr().out
    cli_relabel((videos,), tmp_path / "run", tmp_path / "labels")
    assert "3 recordings, 90 frames labelled" in capsys.readouterr().out


def _preset_file(folder: Path) -> Path:
    path = folder / "tiny.yaml"
    config.save(tiny(), path)
    return path


def test_a_run_goes_on_with_its_own_data_wherever_it_lies_and_with_no_other(tmp_path: Path) -> None:
    def film(seed: int) -> Episode:
        found = moving_square(seed)
        return dataclasses.replace(found, images={"top": found.images["top"], "side": found.images["top"][:, ::-1]})

    run, mine, config = tmp_path / "run", [film(0), film(1)], tiny(steps=3)
    mirrored = [dataclasses.replace(e, images={name: e.images[name][:, :, ::-1] for name in e.images}) for e in mine]
    _, done = train(mine, config, run)
    card = (run / "card.md").read_text()
    moved = [dataclasses.replace(episode, source=f"elsewhere/{episode.source}") for episode in mine]
    assert train(moved, config, run, cache=tmp_path / "cache")[1] == done
    places = Mixture(("a", "b"), np.arange(2), (1.0, 3.0))
    for episodes, camera, mixture in ((mirrored, None, None), (mine, "side", None), (mine[::-1], None, None),
                                      (mine, None, places)):
        with pytest.raises(CheckpointError, match=r"lies here \(run\.(contents|weights)"):
            train(episodes, config, run, camera, tmp_path / "cache", mixture)
    assert (run / "card.md").read_text() == card


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "card.md", "run.json"])
def test_files_that_no_training_here_wrote_are_not_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(CheckpointError, match=f"holds {name}, and no state of a training that wrote them"):
        train([moving_square(0)], tiny(steps=2), tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "mine"}
