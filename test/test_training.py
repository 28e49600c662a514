"""The training loop: exact resume, a stop at NaN, averaged weights, and nothing pickled on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from como_core import config
from como_core.config import ConfigError
from como_core.errors import ComoError
from como_core.interface import load_interface
from como_core.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from como_core.training.loop import LoopConfig, TrainingError, fit
from como_core.training.progress import Progress
from como_core.training.ranks import named_device

INTERFACE = Path(__file__).parents[1] / "config/interfaces/metaworld.yaml"


@dataclass(frozen=True)
class NetConfig:
    width: int
    depth: int = 1


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Linear(8, 1))


def sample(rng: np.random.Generator) -> dict[str, torch.Tensor]:
    x = torch.from_numpy(rng.standard_normal((16, 3)).astype(np.float32))
    return {"x": x, "y": x.sum(1, keepdim=True)}


def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    noise = 0.1 * torch.randn_like(batch["y"])
    return {"loss": torch.mean((model(batch["x"]) - batch["y"] - noise) ** 2)}


class Breaks:
    """A sampler that breaks off once, at its n-th batch, as Ctrl-C would."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return sample(rng)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_broken_run_resumes_on_the_same_curve(tmp_path: Path, precision: str) -> None:
    settings = config.build(LoopConfig, {"steps": 60, "save_every": 20, "log_every": 7, "ema_decay": 0.9,
                                         "precision": precision, "learning_rate": 1e-2})
    whole, broken = make_net(), make_net()
    expected = fit(whole, sample, loss, settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(broken, Breaks(at=47), loss, settings, tmp_path / "broken")
    broken = make_net()
    history = fit(broken, sample, loss, settings, tmp_path / "broken")
    assert history.steps == expected.steps
    assert history.loss == expected.loss
    for a, b in zip(whole.parameters(), broken.parameters(), strict=True):
        assert torch.equal(a, b)
    assert history.loss[-1] < 0.5 * history.loss[0]


def test_a_finished_run_returns_at_once(tmp_path: Path) -> None:
    settings = LoopConfig(steps=5)
    first = make_net()
    fit(first, sample, loss, settings, tmp_path)
    again = make_net()
    history = fit(again, Breaks(at=0), loss, settings, tmp_path)
    assert history.steps == [5]
    assert torch.equal(first[0].weight, again[0].weight)


def test_other_settings_are_refused_with_the_key(tmp_path: Path) -> None:
    fit(make_net(), sample, loss, LoopConfig(steps=5), tmp_path, identity=NetConfig(8))
    with pytest.raises(CheckpointError, match=r"loop\.learning_rate: 0.001 there, 0.5 now"):
        fit(make_net(), sample, loss, LoopConfig(steps=5, learning_rate=0.5), tmp_path, identity=NetConfig(8))
    with pytest.raises(CheckpointError, match=r"run\.width: 8 there, 9 now"):
        fit(make_net(), sample, loss, LoopConfig(steps=5), tmp_path, identity=NetConfig(9))


def test_a_setting_that_is_younger_than_a_state_counts_as_its_default(tmp_path: Path) -> None:
    """A new key must not cost anybody an unfinished training of the version before."""
    done = fit(make_net(), sample, loss, LoopConfig(steps=5), tmp_path, identity={"net": NetConfig(8)})
    (header,) = tmp_path.glob("training/step_*/state.json")
    state = json.loads(header.read_text())
    del state["identity"]["loop"]["clip_norm"]
    del state["identity"]["run"]["net"]["depth"]
    header.write_text(json.dumps(state))
    assert fit(make_net(), sample, loss, LoopConfig(steps=5), tmp_path, identity={"net": NetConfig(8)}) == done
    with pytest.raises(CheckpointError, match=r"loop\.clip_norm: 1.0 there, 2.0 now"):
        fit(make_net(), sample, loss, LoopConfig(steps=5, clip_norm=2.0), tmp_path, identity={"net": NetConfig(8)})
    with pytest.raises(CheckpointError, match=r"run\.net\.depth: 1 there, 2 now"):
        fit(make_net(), sample, loss, LoopConfig(steps=5), tmp_path, identity={"net": NetConfig(8, depth=2)})
    del state["identity"]["run"]["net"]["width"]
    header.write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match=r"run\.net\.width: 'absent' there, 8 now"):
        fit(make_net(), sample, loss, LoopConfig(steps=5), tmp_path, identity={"net": NetConfig(8)})


@pytest.mark.parametrize(("change", "why"), [
    (lambda state: state.clear(), "step and identity and history missing"),
    (lambda state: state.pop("history"), "history missing"), (lambda state: state.update(step="5"), "format"),
    (lambda state: state.update(step=4), "it is of step 4, its folder step_00000005"),
    (lambda state: state.update(step=None), "format"), (lambda state: state.update(history=3), "mapping"),
    (lambda state: state.update(history={"step": []}), "unexpected keyword argument 'step'"),
    (lambda state: state["history"].update(terms=[1.0]), "sequence"),
    (lambda state: state["history"].update(terms={"loss": 1.0}), "iterable"),
    (lambda state: state["history"].update(steps="5"), "no loss curve"),
    (lambda state: state["history"].update(seconds=None), "no loss curve")])
def test_a_damaged_state_is_named_with_what_to_do(tmp_path: Path, change: Callable[[Any], object], why: str) -> None:
    fit(make_net(), sample, loss, LoopConfig(steps=5), tmp_path)
    (path,) = tmp_path.glob("training/step_*/state.json")
    state = json.loads(path.read_text())
    change(state)
    for text in (json.dumps(state), "[]", "3", "", '{"step": 5, '):
        path.write_text(text)
        with pytest.raises(CheckpointError) as error:
            fit(make_net(), sample, loss, LoopConfig(steps=5), tmp_path)
        assert str(error.value).startswith(f"{path}: damaged (")
        assert str(error.value).endswith(f"; delete {tmp_path / 'training'} to train from the start")
        if text == json.dumps(state):
            assert why in str(error.value)
    path.write_text(json.dumps({"step": 5, "identity": 3, "history": {}}))
    with pytest.raises(CheckpointError, match="run with other settings or data lies here"):
        fit(make_net(), sample, loss, LoopConfig(steps=5), tmp_path)


def test_nan_stops_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    def poisoned(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        terms = loss(model, batch)
        return {"loss": terms["loss"] * (float("nan") if calls.pop() else 1.0)}

    calls = [True] + [False] * 30

    def named(rng: np.random.Generator) -> dict[str, object]:
        return {**sample(rng), "source": ["good.mp4", "bad.mp4"]}

    with pytest.raises(TrainingError, match=r"step 31: the loss is nan.*bad\.mp4, good\.mp4"):
        fit(make_net(), named, poisoned, LoopConfig(steps=40, save_every=10), tmp_path)
    kept = list((tmp_path / "training").glob("step_*"))
    assert [path.name for path in kept] == ["step_00000030"]
    assert json.loads((kept[0] / "state.json").read_text())["step"] == 30
    with safe_open(kept[0] / "state.safetensors", "pt") as tensors:
        assert all(torch.isfinite(tensors.get_tensor(name)).all() for name in list(tensors.keys()))


def test_nan_before_the_first_save_promises_no_state(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step 1: .*so training stopped; none of its states was saved before"):
        fit(make_net(), sample, lambda model, batch: {"loss": loss(model, batch)["loss"] * float("nan")},
            LoopConfig(steps=4), tmp_path)


def test_averaged_weights_are_what_the_model_ends_with(tmp_path: Path) -> None:
    plain, averaged = make_net(), make_net()
    fit(plain, sample, loss, LoopConfig(steps=30), tmp_path / "plain")
    fit(averaged, sample, loss, LoopConfig(steps=30, ema_decay=0.99), tmp_path / "averaged")
    start = make_net()[0].weight
    assert 0 < (averaged[0].weight - start).norm() < (plain[0].weight - start).norm()


def test_nothing_on_disk_is_a_pickle(tmp_path: Path) -> None:
    model = make_net()
    fit(model, sample, loss, LoopConfig(steps=5, ema_decay=0.9), tmp_path)
    save_checkpoint(tmp_path, NetConfig(8), model.state_dict(), load_interface(INTERFACE), {"mean": [0.0]}, "# card")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files if "tfevents" not in path.name} == {".safetensors", ".json", ".yaml", ".md"}
    assert not any(path.read_bytes().startswith((b"\x80", b"PK")) for path in files)
    assert not list(tmp_path.glob(".*")), "what was written aside must be gone"


def test_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    model, interface = make_net(), load_interface(INTERFACE)
    save_checkpoint(tmp_path, NetConfig(16), model.state_dict(), interface, {"mean": [1.5]}, "# card\n")
    back = load_checkpoint(tmp_path, NetConfig)
    assert (back.config, back.interface) == (NetConfig(16), interface)
    assert (back.normaliser, back.card) == ({"mean": [1.5]}, "# card\n")
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in model.state_dict().items())
    save_checkpoint(tmp_path, NetConfig(4), {"w": torch.ones(2)})
    back = load_checkpoint(tmp_path, NetConfig)
    assert (back.interface, back.normaliser) == (None, None)
    assert list(back.tensors) == ["w"]


def test_bad_checkpoints_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no complete checkpoint here .config.yaml, model.safetensors missing"):
        load_checkpoint(tmp_path, NetConfig)
    save_checkpoint(tmp_path, NetConfig(8), {"w": torch.ones(200)})
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a readable safetensors file"):
        load_checkpoint(tmp_path, NetConfig)
    save_checkpoint(tmp_path, NetConfig(8), {"w": torch.ones(2)})
    (tmp_path / "card.md").write_bytes(b"\xff caf\xe9")
    assert load_checkpoint(tmp_path, NetConfig).card == "\ufffd caf\ufffd", "a card is for people"
    save_checkpoint(tmp_path, LoopConfig(steps=5), {"w": torch.ones(2)}, card="# Model of another kind\n\n- more")
    with pytest.raises(ConfigError, match=r"unknown key 'steps'.*card\.md says.*: 'Model of another kind'$"):
        load_checkpoint(tmp_path, NetConfig)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        save_checkpoint(tmp_path / "file" / "run", NetConfig(8), {"w": torch.ones(2)})


def test_what_was_waited_for_data_is_in_the_history(tmp_path: Path) -> None:
    def slow(rng: np.random.Generator) -> dict[str, torch.Tensor]:
        time.sleep(0.05)
        return sample(rng)

    history = fit(make_net(), slow, loss, LoopConfig(steps=8), tmp_path)
    assert 0.2 < history.waited_s <= history.seconds
    again = fit(make_net(), slow, loss, LoopConfig(steps=8), tmp_path)
    assert again.waited_s == pytest.approx(history.waited_s, abs=0.01)


def test_progress_counts_the_items_of_a_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(make_net(), sample, loss, LoopConfig(steps=5, batch_size=16), tmp_path, "motion", unit="pairs")
    shown = capsys.readouterr().out
    assert "motion: 80/80" in shown
    assert "pairs/s" in shown


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ComoError, match="device cuda: this machine has no GPU that torch can use"):
        fit(make_net(), sample, loss, LoopConfig(steps=5), tmp_path, device="cuda")
    assert fit(make_net(), sample, loss, LoopConfig(steps=5), tmp_path / "cpu", device="cpu").steps == [5]
    assert fit(make_net(), sample, loss, LoopConfig(steps=5), tmp_path / "auto").steps == [5]
    assert named_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:1", "gpu"):
        with pytest.raises(ComoError, match=f"device {name}: not one that torch can use.*give --device cpu"):
            named_device(name)


def test_a_seed_below_0_is_refused() -> None:
    with pytest.raises(ValueError, match="seed must be 0 or more, got -1"):
        LoopConfig(steps=5, seed=-1)


def test_slow_steps_are_told_once_each(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal each step that takes long has a line, and the last one is that of the end."""
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    with Progress(3, "slow") as progress:
        for _ in range(3):
            progress.advance()
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in said] == ["1/3", "2/3", "3/3"]
    assert "left" in said[0] and "took" in said[-1]
