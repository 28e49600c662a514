"""bfloat16 is used where the hardware multiplies in it, and float32 elsewhere, which is then much faster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from como_core.motion.config import load_preset as load_motion_preset
from como_core.policy.config import load_preset as load_policy_preset
from como_core.training.checkpoint import CheckpointError
from como_core.training.loop import LoopConfig, fit
from como_core.training.precision import has_bfloat16, resolved

CPU = torch.device("cpu")


class Seen(nn.Module):
    """Remembers which type its products had."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.types: set[torch.dtype] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product = self.linear(x)
        self.types.add(product.dtype)
        return product.float().square().mean()


def train(out: Path, precision: str, steps: int = 4) -> Seen:
    torch.manual_seed(0)
    model = Seen()
    fit(model, lambda rng: torch.from_numpy(rng.normal(size=(8, 4)).astype(np.float32)),
        lambda network, batch: {"loss": network(batch)},
        LoopConfig(steps=steps, precision=precision, save_every=2), out, device="cpu")  # type: ignore[arg-type]
    return model


def pretend(monkeypatch: pytest.MonkeyPatch, **capabilities: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


@pytest.mark.parametrize(("capabilities", "expected"), [
    ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "no"), ({"avx512_bf16": True}, "bf16"),
    ({"amx_bf16": True}, "bf16"), ({"neon": True, "bf16": True}, "bf16"), ({"neon": True}, "no")])
def test_auto_asks_the_cpu(monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: str) -> None:
    pretend(monkeypatch, **capabilities)
    assert resolved("auto", CPU) == expected
    assert resolved("bf16", CPU) == "bf16"
    assert resolved("no", CPU) == "no"


@pytest.mark.parametrize(("has_it", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_training_computes_in_what_the_cpu_multiplies_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_it: bool,
                                                         dtype: torch.dtype) -> None:
    pretend(monkeypatch, avx512_bf16=has_it)
    assert train(tmp_path, "auto").types == {dtype}


def test_a_run_is_not_gone_on_with_in_another_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, avx512_bf16=True)
    train(tmp_path, "auto")
    pretend(monkeypatch, avx512_bf16=False)
    with pytest.raises(CheckpointError, match=r"loop\.precision: 'bf16' there, 'no' now"):
        train(tmp_path, "auto")
    assert train(tmp_path, "bf16").types == set()  # a finished run, of the precision that it was begun in


@pytest.mark.parametrize(("precision", "has_it", "said"), [("bf16", False, True), ("bf16", True, False),
                                                          ("auto", False, False), ("no", False, False)])
def test_bfloat16_that_was_asked_for_where_there_is_none_is_computed_and_said(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], precision: str,
        has_it: bool, said: bool) -> None:
    pretend(monkeypatch, avx512_bf16=has_it)
    train(tmp_path, precision)
    assert ("with precision auto it trains in float32" in capsys.readouterr().out) == said
    train(tmp_path, precision)  # a finished run says nothing
    assert "precision" not in capsys.readouterr().out


@pytest.mark.parametrize("size", ["small", "full"])
def test_no_preset_asks_for_bfloat16_where_there_is_none(size: str) -> None:
    assert load_motion_preset("como-plus", size).loop.precision == "auto"  # type: ignore[arg-type]
    assert load_policy_preset("diffusion", size=size).training.precision == "auto"  # type: ignore[arg-type]


def test_the_answer_is_that_of_the_processor() -> None:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        pytest.skip("no /proc/cpuinfo to compare with")
    words = set(info.read_text().split())
    assert has_bfloat16(CPU) == bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def test_the_doctor_says_which_it_is() -> None:
    program = "from como_core.doctor import torch; print(torch().found)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    if "no GPU" in said:
        assert ("trains in bfloat16" in said) == has_bfloat16(CPU)
