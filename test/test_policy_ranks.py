"""A policy trained by two processes on the CPU: the loss is that of one, though one of them has no labelled window."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from policy_data import INTERFACE, config, demonstrations, videos
from torchrun import started, torchrun

from como_core.config import save, with_options
from como_core.policy.config import Family, PolicyConfig
from como_core.policy.cotraining import CotrainingMode
from como_core.policy.train import train

SCRIPT = f"""
import json
import sys
from pathlib import Path

sys.path.insert(0, {str(Path(__file__).parent)!r})
from policy_data import INTERFACE, demonstrations, videos

from como_core.config import load
from como_core.policy.config import PolicyConfig
from como_core.policy.train import train
from como_core.training.ranks import leave, rank

out = Path(sys.argv[1])
found = train(demonstrations(), videos(), INTERFACE, load(PolicyConfig, out / "given.yaml"), out / "run", device="cpu")
if rank() == 0:
    (out / "terms.json").write_text(json.dumps(found.history.terms))
leave()
"""


def one_labelled(family: Family, mode: CotrainingMode) -> PolicyConfig:
    """Batches of 8 windows of which one is labelled: the first process's. What is chance is left out or averaged."""
    return with_options(config(mode, steps=6, family=family),
                        **{"training.batch_size": 8, "cotraining.video_share": 0.9, "autoregressive.input_noise": 0.0,
                           "autoregressive.input_dropout": 0.0, "diffusion.noise_draws": 64})


@pytest.mark.parametrize(("family", "mode", "rel"), [
    ("autoregressive", "heads", 1e-4), ("autoregressive", "joint", 1e-4),
    # Each process draws noise of its own.
    ("diffusion", "heads", 0.2), ("diffusion", "joint", 0.2),
])
def test_two_processes_learn_from_one_labelled_window_as_one_does(tmp_path: Path, family: Family, mode: CotrainingMode,
                                                                 rel: float) -> None:
    given = one_labelled(family, mode)
    alone = train(demonstrations(), videos(), INTERFACE, given, tmp_path / "alone", device="cpu").history.terms
    save(given, tmp_path / "given.yaml")
    (tmp_path / "script.py").write_text(SCRIPT)
    ran = started([*torchrun(2), str(tmp_path / "script.py"), str(tmp_path)])
    assert ran.returncode == 0, ran.stderr
    shared = json.loads((tmp_path / "terms.json").read_text())
    assert set(shared) == set(alone) == {"loss", "action", "latent"}
    for name, curve in alone.items():
        assert shared[name] == pytest.approx(curve, rel=rel), name
