"""Features of a frozen backbone, once per frame: the same losses, no pass in a training step, limits and resumption."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from motion_clips import SIZE, squares, tiny

from como_core.cli import main as como
from como_core.formats.video import write_video
from como_core.motion import backbone as backbones
from como_core.motion import feature_cache
from como_core.motion.backbone import PretrainedBackbone
from como_core.motion.config import MotionConfig
from como_core.motion.model import load_motion
from como_core.motion.train import train


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A vision model with random weights, in a folder as the hub has it."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    transformers.Dinov2Model(transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, patch_size=8, image_size=SIZE, mlp_ratio=2,
    )).save_pretrained(folder)
    return str(folder)


def settings(vit: str, **options: object) -> MotionConfig:
    small = {"backbone.kind": "pretrained", "backbone.model": vit, "inverse.kind": "qformer", "inverse.width": 16,
             "inverse.hidden": 32, "inverse.queries": 4, "inverse.layers": 1, "inverse.heads": 2, "loop.steps": 6,
             "loop.log_every": 1, "loss.feature": 0.5, "loss.composition": 0.1}
    return tiny("como", **(small | options))


class Passes:
    """Counts how many frames pass through vision models."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.frames: list[int] = []
        forward = PretrainedBackbone.forward

        def counted(module: PretrainedBackbone, pixels: torch.Tensor) -> torch.Tensor:
            self.frames.append(len(pixels))
            return forward(module, pixels)

        monkeypatch.setattr(PretrainedBackbone, "forward", counted)


@pytest.mark.parametrize("preset", ["como", "rgb-difference"])
def test_cached_features_train_as_computed_ones_do(vit: str, tmp_path: Path, preset: str) -> None:
    motion = "rgb" if preset == "rgb-difference" else "difference"
    config = settings(vit, **{"inverse.motion": motion})
    _, cached = train(squares(3), config, tmp_path / "cached")
    _, computed = train(squares(3), config, tmp_path / "computed", cache_limit_gb=3 * 30 * SIZE * SIZE * 3 / 1e9 + 1e-6)
    assert list((tmp_path / "cached").rglob("features-*.bin"))
    assert not list((tmp_path / "computed").rglob("features-*"))
    for name, values in computed.terms.items():
        assert cached.terms[name] == pytest.approx(values, rel=5e-3, abs=5e-4), name
    assert set(computed.terms) == {"loss", "pixel", "contrast", "feature", "composition"}


def test_each_frame_passes_once_and_none_in_a_step(vit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Passes(monkeypatch)
    train(squares(3), settings(vit), tmp_path / "a", cache=tmp_path / "cache")
    assert passes.frames == [64, 26]
    train(squares(3), settings(vit, **{"loop.seed": 1}), tmp_path / "b", cache=tmp_path / "cache")
    assert passes.frames == [64, 26], "a second run finds them"
    train(squares(3), settings(vit, **{"backbone.layer": 1}), tmp_path / "c", cache=tmp_path / "cache")
    assert passes.frames == [64, 26] * 2, "another layer has features of its own"
    train(squares(3), settings(vit), tmp_path / "d", cache=tmp_path / "cache", cache_limit_gb=1e-3)
    assert passes.frames == [64, 26] * 2, "what is there already needs no room"


def test_where_they_do_not_fit_they_are_computed_and_that_is_said(
        vit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(feature_cache, "DEFAULT_LIMIT_GB", 1e-5)
    passes = Passes(monkeypatch)
    train(squares(3), settings(vit), tmp_path)
    shown = capsys.readouterr().out
    assert "features are computed anew in every step, which is slower: features of 90 frames need" in shown
    assert "--cache-limit-gb allows more" in shown
    assert len(passes.frames) == 6 * 4  # first, second, third and middle of each of 6 steps


def test_features_that_float16_cannot_hold_are_computed(
        vit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    forward = PretrainedBackbone.forward
    monkeypatch.setattr(PretrainedBackbone, "forward", lambda module, pixels: 1e6 * forward(module, pixels))
    train(squares(2), settings(vit, **{"loop.steps": 1}), tmp_path)
    assert "its features exceed the range of float16" in capsys.readouterr().out
    assert not list(tmp_path.rglob("features-*"))


def test_making_them_is_taken_up_where_it_broke_off(vit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(vit)
    train(squares(3), config, tmp_path / "whole")
    forward, calls = PretrainedBackbone.forward, []

    def breaks(module: PretrainedBackbone, pixels: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixels))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return forward(module, pixels)

    monkeypatch.setattr(PretrainedBackbone, "forward", breaks)
    with pytest.raises(KeyboardInterrupt):
        train(squares(3), config, tmp_path / "broken")
    part = next((tmp_path / "broken").rglob("features-*.part"))
    with part.open("ab") as file:
        file.write(b"half a frame")
    train(squares(3), config, tmp_path / "broken")
    assert calls == [64, 26, 26]
    made = [next((tmp_path / name).rglob("features-*.bin")).read_bytes() for name in ("whole", "broken")]
    values = [np.frombuffer(content, np.float16) for content in made]
    assert np.allclose(*values, atol=2e-3)
    assert not list(tmp_path.rglob("features-*.part"))


def test_features_that_were_cut_off_are_made_anew(
        vit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(squares(2), settings(vit), tmp_path / "a", cache=tmp_path / "cache")
    (path,) = (tmp_path / "cache").rglob("features-*.bin")
    whole = path.read_bytes()
    os.truncate(path, len(whole) - 3)
    train(squares(2), settings(vit), tmp_path / "b", cache=tmp_path / "cache")
    said = f"{path}: damaged: it has {len(whole) - 3} bytes, expected {len(whole)}; its features are made anew"
    assert capsys.readouterr().out.count(said) == 1
    assert path.read_bytes() == whole


def test_a_perceptual_loss_from_the_command_line(vit: str, tmp_path: Path) -> None:
    """It moves the loss, is resumed to the same curve, and none of its weights are in the checkpoint."""
    write_video(tmp_path / "videos" / "a.mp4", squares(1)[0].images["top"].repeat(2, 1).repeat(2, 2), 20)
    run = tmp_path / "run"
    words = ["motion", "train", "--data", str(tmp_path / "videos"), "--device", "cpu", "--set", "image_size=32",
             "inverse.width=32", "inverse.hidden=32", "loss.perceptual=0.5", f"loss.perceptual_model={vit}",
             "loop.precision=no", "loop.batch_size=8", "loop.save_every=2", "loop.log_every=1", "gap_s=0.1"]
    assert como.main([*words, "-o", str(run), "--steps", "4"]) == 0
    model = load_motion(run)
    assert not [name for name in model.state_dict() if "network" in name or "eye" in name]
    state = next((run / "training").glob("step_*")) / "state.safetensors"
    assert state.stat().st_size < 4 * 4 * sum(p.numel() for p in model.parameters())
    assert como.main([*words, "-o", str(run), "--steps", "4"]) == 0


def test_a_run_with_a_perceptual_loss_resumes_on_the_same_curve(
        vit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_motion_resume import check_resume

    check_resume(tiny("como-v1", **{"loss.perceptual": 0.5, "loss.perceptual_model": vit}), tmp_path, monkeypatch)


@pytest.mark.parametrize("key", ["backbone", "perceptual"])
def test_a_model_that_cannot_be_had_is_said_at_once(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str) -> None:
    """No minutes of retries, neither where there is no network nor where it swallows everything."""
    monkeypatch.setattr(backbones, "_PATIENCE_S", 0.5)
    monkeypatch.setattr(backbones, "_hub", lambda: "https://192.0.2.1")  # a documentation address: nobody answers
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    backbones._hub_answers.cache_clear()
    write_video(tmp_path / "a.mp4", squares(1)[0].images["top"].repeat(2, 1).repeat(2, 2), 20)
    options = {"backbone": ["backbone.kind=pretrained", "backbone.model=nobody/nothing"],
               "perceptual": ["loss.perceptual=1", "loss.perceptual_model=nobody/nothing"]}[key]
    start = time.monotonic()
    words = ["motion", "train", "--data", str(tmp_path), "-o", str(tmp_path / "run"), "--set", "gap_s=0.1", *options]
    assert como.main(words) == como.EXIT_MENDABLE
    assert time.monotonic() - start < 20
    said = capsys.readouterr().err
    assert "nobody/nothing: no vision model of `transformers` can be loaded from it: the hub at" in said
    assert "cannot be reached from here, and no copy lies on this machine" in said
    backbones._hub_answers.cache_clear()
