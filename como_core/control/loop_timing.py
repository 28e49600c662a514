"""Loop timing: how long it takes from a camera image to the command made of it, and how even the commands come."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

# The newest samples of each kind are kept: 8 minutes of commands at 40 Hz, 33 minutes of chunks at 10 Hz.
_KEPT = 20_000


def _samples() -> deque[float]:
    return deque(maxlen=_KEPT)


@dataclass
class LoopTiming:
    """Samples of one node's life, in seconds.

    arrival_to_command_s  wall: from an image's arrival to the first command of the chunk that was made of it
    stamp_to_command_s    node clock: from that image's header stamp to the same command
    inference_s           wall: decoding and prediction
    command_interval_s    wall: between two commands that follow one another
    """

    arrival_to_command_s: deque[float] = field(default_factory=_samples)
    stamp_to_command_s: deque[float] = field(default_factory=_samples)
    inference_s: deque[float] = field(default_factory=_samples)
    command_interval_s: deque[float] = field(default_factory=_samples)

    def summary(self) -> dict[str, Any]:
        """n, p50, p99 and max of each, in milliseconds; the three figures are absent where n is 0."""
        return {f"{name.removesuffix('_s')}_ms": _figures(samples) for name, samples in vars(self).items()}

    def write(self, path: Path, **about: object) -> None:
        """Write the summary and `about` as JSON, whole or not at all. Raises OSError where that fails."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.part")
        temporary.write_text(json.dumps({**about, **self.summary()}, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)


def _figures(samples_s: Sequence[float]) -> dict[str, float]:
    if not samples_s:
        return {"n": 0}
    milliseconds = np.array(samples_s) * 1e3
    p50, p99 = np.percentile(milliseconds, [50, 99])
    figures = {"p50": p50, "p99": p99, "max": milliseconds.max()}
    return {"n": len(samples_s), **{name: round(float(value), 3) for name, value in figures.items()}}
