"""How fast motion training is: pairs per second, against the machine's matrix products, and what it waits for data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from como_core.bench.measure import Row, in_turns, matmul_flops_per_s
from como_core.formats.sources import open_sources
from como_core.motion.config import MotionConfig
from como_core.motion.mixture import Mixture
from como_core.motion.model import MotionModel
from como_core.motion.train import REPORT, MotionLoss, time_motion_steps, train
from como_core.motion.train_data import TrainingData, open_training_data
from como_core.training.precision import resolved

_MATRIX = 2048


def learning_rows(name: str, config: MotionConfig, clips: list[Path], work: Path, steps: int, repeats: int
                  ) -> list[Row]:
    """Training of `config` on `clips`: `steps` of a real run for the waiting, and turns of fewer for the speed."""
    episodes = open_sources(clips).episodes
    loop = dataclasses.replace(config.loop, steps=steps, save_every=steps)
    config = dataclasses.replace(config, loop=loop)
    data = open_training_data(episodes, Mixture.of_one("clips", len(episodes)), config, None, work / "cache")
    flops = flops_per_step(data, config)
    device = torch.device("cpu")
    bf16 = resolved(config.loop.precision, device) == "bf16"
    dtype = torch.bfloat16 if bf16 else torch.float32
    counted = max(5, steps // 4)
    drawing: list[float] = []

    def pairs_per_s() -> float:
        times = time_motion_steps(data, config, steps=counted, device="cpu")
        drawing.append(times.sample_s / (times.sample_s + times.compute_s))
        return config.loop.batch_size / times.compute_s

    cases: dict[str, Callable[[], float]] = {
        "pairs/s": pairs_per_s, "peak": lambda: matmul_flops_per_s(dtype, device, _MATRIX)}
    turns = in_turns(cases, repeats)
    train(episodes, config, work / "run", cache=work / "cache", device="cpu")
    ran = json.loads((work / "run" / REPORT).read_text(encoding="utf-8"))
    used = turns["pairs/s"] / config.loop.batch_size * flops
    waited = np.array([ran["waited_for_data_s"] / ran["seconds"]])
    note = f"batch of {config.loop.batch_size}, {config.image_size} px, {'bfloat16' if bf16 else 'float32'}"
    return [
        Row.of(f"{name}: training", turns["pairs/s"], "pairs/s", note=note),
        Row.of(f"{name}: forward and backward", np.full(repeats, flops / 1e9), "GFLOP/step", note=note),
        Row.of(f"{name}: FLOPs over those of matrix products", used / turns["peak"],
               note=f"{note}; products of {_MATRIX} x {_MATRIX}: {np.median(turns['peak']) / 1e9:.0f} GFLOP/s"),
        Row.of(f"{name}: share of a step that training waits for its batch", waited, goal=0.05, at_most=True,
               note=f"{steps} steps of `como motion train`, batches drawn in a thread"),
        Row.of(f"{name}: share of a step that drawing would be without the thread", np.array(drawing[1:]),
               goal=0.05, at_most=True, note=note),
    ]


def flops_per_step(data: TrainingData, config: MotionConfig) -> int:
    """Floating-point operations of one forward and backward pass; what torch counts: products and convolutions."""
    model, loss = MotionModel(config).train(), MotionLoss(config)
    with FlopCounterMode(display=False) as counter:
        loss(model, data.sampler(config)(np.random.default_rng(0)))["loss"].backward()
    return counter.get_total_flops()
