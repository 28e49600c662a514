"""`torchrun` on this machine, two processes on the CPU: the curve is that of one process, and only the first writes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from motion_clips import FPS, moving_square, tiny
from torchrun import started, torchrun

from como_core import config
from como_core.formats.video import write_video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for seed in range(4):
        write_video(folder / f"{seed}.mp4", moving_square(seed, size=64), FPS)
    return folder


def train(videos: Path, out: Path, processes: int, preset: str = "como", **options: Any
          ) -> subprocess.CompletedProcess[str]:
    config.save(tiny(preset, **options), out.parent / f"{out.name}.yaml")
    return started([*(torchrun(processes) if processes > 1 else []), "-m", "como_core.cli.main", "motion", "train",
                    "--preset", str(out.parent / f"{out.name}.yaml"), "--data", str(videos), "-o", str(out),
                    "--device", "cpu"])


def losses(out: Path) -> dict[str, list[float]]:
    return json.loads((out / "run.json").read_text())["losses"]


@pytest.mark.parametrize(("preset", "options", "rel"), [
    ("como", {"loop.ema_decay": 0.9}, 1e-4),
    # Which codes are drawn anew is chance, and each process has its own.
    ("vq", {}, 0.05),
])
def test_two_processes_train_as_one_does(videos: Path, tmp_path: Path, preset: str, options: dict[str, Any], rel: float
                                         ) -> None:
    one = train(videos, tmp_path / "one", 1, preset, **options)
    assert one.returncode == 0, one.stderr
    two = train(videos, tmp_path / "two", 2, preset, **options)
    assert two.returncode == 0, two.stderr
    alone, shared = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert set(shared) == set(alone)
    assert len(alone["loss"]) == 6
    assert shared["loss"] == pytest.approx(alone["loss"], rel=rel)
    assert shared["pixel"] == pytest.approx(alone["pixel"], rel=rel)
    assert two.stdout.count("motion: 192/192") == 1
    assert two.stdout.count("next: como relabel") == 1
    assert not [name for name in ("end_training", "Warning") if name in two.stderr]


def test_two_processes_resume_on_the_curve_of_one(videos: Path, tmp_path: Path) -> None:
    """The state is of no number of processes: begun by one, gone on with by two."""
    assert train(videos, tmp_path / "whole", 1).returncode == 0
    broken = tmp_path / "broken"
    stop = ("import sys; from como_core.training import state, loop\n"
            "save = state.save_state\n"
            "def once(*a):\n    save(*a)\n    raise KeyboardInterrupt\n"
            "loop.save_state = once\n"
            "from como_core.cli.main import main\nsys.exit(main(sys.argv[1:]))")
    config.save(tiny(), tmp_path / "broken.yaml")
    words = ["motion", "train", "--preset", str(tmp_path / "broken.yaml"), "--data", str(videos), "-o", str(broken),
             "--device", "cpu"]
    begun = started(["-c", stop, *words])
    assert begun.returncode == 130, begun.stderr
    assert [path.name for path in (broken / "training").glob("step_*")] == ["step_00000004"]
    again = train(videos, broken, 2)
    assert again.returncode == 0, again.stderr
    assert losses(broken)["loss"] == pytest.approx(losses(tmp_path / "whole")["loss"], rel=1e-4)


def test_only_the_first_process_decodes_and_writes(videos: Path, tmp_path: Path) -> None:
    script = tmp_path / "spied.py"
    script.write_text("""
import os
import sys
from como_core.formats import cache
from como_core.motion import selection, train
from como_core.training import loop
from como_core.cli.main import main

def spied(module, name):
    honest = getattr(module, name)
    def called(*given, **options):
        print(name, "in", os.environ["RANK"], file=sys.stderr, flush=True)
        return honest(*given, **options)
    setattr(module, name, called)

for module, name in ((cache, "_write"), (selection, "_measure"), (train, "save_checkpoint"), (loop, "save_state")):
    spied(module, name)
sys.exit(main(sys.argv[1:]))
""")
    config.save(tiny(), tmp_path / "tiny.yaml")
    ran = started([*torchrun(2), str(script), "motion", "train", "--preset", str(tmp_path / "tiny.yaml"), "--data",
                   str(videos), "-o", str(tmp_path / "run"), "--device", "cpu"])
    assert ran.returncode == 0, ran.stderr
    calls = [line for line in ran.stderr.splitlines() if " in " in line]
    assert sorted(calls) == ["_measure in 0", "_write in 0", "save_checkpoint in 0", *3 * ["save_state in 0"]]


def test_a_batch_that_cannot_be_shared_is_refused_before_the_work(videos: Path, tmp_path: Path) -> None:
    odd = train(videos, tmp_path / "odd", 2, **{"loop.batch_size": 15})
    assert odd.returncode != 0
    assert "loop.batch_size must be a multiple of the 2 processes, which share a batch equally; got 15" in odd.stderr
    assert "give --set loop.batch_size=14" in odd.stderr
    assert not (tmp_path / "odd" / "cache").exists()


def test_a_training_that_cannot_be_shared_says_so(tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    script.write_text("""
import sys
import numpy as np
import torch
from como_core.errors import ComoError
from como_core.training.loop import LoopConfig, fit

def batch(rng: np.random.Generator) -> dict:
    return {"x": torch.ones(4, 3)}

try:
    fit(torch.nn.Linear(3, 1), batch, lambda m, b: {"loss": m(b["x"]).mean()}, LoopConfig(steps=2), sys.argv[1],
        device="cpu")
except ComoError as error:
    print(error)
    sys.exit(2)
""")
    ran = started([*torchrun(2), str(script), str(tmp_path / "out")])
    assert ran.returncode != 0
    assert "this training runs in one process, 2 were started; start it without torchrun" in ran.stdout
