"""A motion run that was broken off goes on along the same curve, whatever the model is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from motion_clips import squares, tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from como_core.motion.config import MotionConfig
from como_core.motion.sampler import PairSampler
from como_core.motion.train import train
from como_core.training.loop import TrainingError


def break_at(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """Make the n-th batch that is drawn from now on fail as Ctrl-C would."""
    draw, left = PairSampler.__call__, [batch]

    def drawn(self: PairSampler, *given: Any) -> dict[str, Any]:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return draw(self, *given)

    monkeypatch.setattr(PairSampler, "__call__", drawn)


def check_resume(config: MotionConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """A run of 12 steps that broke off in the tenth, saved after the eighth, ends as an unbroken one does."""
    whole, expected = train(squares(3), config, folder / "whole")
    with monkeypatch.context() as patch:
        break_at(patch, 9)
        with pytest.raises(KeyboardInterrupt):
            train(squares(3), config, folder / "broken")
    assert [path.name for path in (folder / "broken/training").glob("step_*")] == ["step_00000008"]
    again, history = train(squares(3), config, folder / "broken")
    assert history.steps == expected.steps
    assert history.terms == expected.terms
    for (name, a), (_, b) in zip(whole.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    return whole


@pytest.mark.parametrize(("preset", "options"), [
    ("como", {}), ("como", {"loop.precision": "bf16"}), ("como", {"loop.ema_decay": 0.9}), ("vq", {}),
    ("vq", {"loop.ema_decay": 0.9}), ("como-plus", {"loss.composition": 0.1, "loss.reversal": 0.1}),
    ("como-v1", {"bottleneck.kind": "variational", "loss.kl": 1e-6})])
def test_a_broken_run_resumes_on_the_same_curve(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str, options: dict[str, object]) -> None:
    model = check_resume(tiny(preset, **options), tmp_path, monkeypatch)
    if preset == "vq":
        assert any("cluster_size" in name for name in model.state_dict()), "the codebook's running counts"


def test_averaged_weights_are_others_than_the_last(tmp_path: Path) -> None:
    plain, _ = train(squares(3), tiny(), tmp_path / "plain")
    averaged, _ = train(squares(3), tiny(**{"loop.ema_decay": 0.9}), tmp_path / "averaged")
    assert not torch.equal(plain.bottleneck.to_code.weight, averaged.bottleneck.to_code.weight)


def test_other_data_or_weights_are_another_run(tmp_path: Path) -> None:
    train(squares(3), tiny(), tmp_path)
    with pytest.raises(Exception, match=r"run\.clips: 3 there, 2 now"):
        train(squares(2), tiny(), tmp_path)
    with pytest.raises(Exception, match=r"run\.motion\.selection\.still_share: 0\.005 there, 0\.0 now"):
        train(squares(3), tiny(**{"selection.still_share": 0.0}), tmp_path)


def test_nan_stops_keeps_the_last_good_state_and_names_the_files(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from como_core.motion import train as module

    calls = iter(range(100))

    def poisoned(*given: Any) -> dict[str, torch.Tensor]:
        terms = honest(*given)
        return {**terms, "loss": terms["loss"] * (float("nan") if next(calls) == 6 else 1)}

    honest = module.motion_loss
    monkeypatch.setattr(module, "motion_loss", poisoned)
    with pytest.raises(TrainingError, match=r"step 7: the loss is nan.*the batch came from square#0, square#1"):
        train(squares(3), tiny(), tmp_path)
    assert [path.name for path in (tmp_path / "training").glob("step_*")] == ["step_00000004"]
    assert not (tmp_path / "model.safetensors").exists()
    monkeypatch.setattr(module, "motion_loss", honest)
    _, history = train(squares(3), tiny(), tmp_path)
    assert np.isfinite(history.loss).all()
    assert history.steps[-1] == 12


def test_tensorboard_has_the_curve(tmp_path: Path) -> None:
    _, history = train(squares(3), tiny(), tmp_path)
    folder = next((tmp_path / "training").rglob("*tfevents*")).parent
    events = EventAccumulator(str(folder)).Reload()
    assert {"loss", "pixel", "contrast", "learning_rate"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss")] == history.steps
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(history.loss)
