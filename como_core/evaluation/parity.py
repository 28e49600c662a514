"""Train/serve parity: chunks that a deployed node gave, against those of the same checkpoint offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from como_core.action_chunk import ActionChunk


@dataclass(frozen=True)
class Difference:
    """One value of the action, over all compared steps: its largest size offline, and how far the node was from it."""

    name: str
    size: float
    mean: float
    p99: float
    max: float


@dataclass(frozen=True)
class Parity:
    """What the comparison found.

    frames      that could have been answered;  compared  that were;  unmatched  chunks of no frame of the bag
    shapes      sentences on chunks whose steps or times differ
    tolerance   largest difference that passes, in the action's units
    """

    frames: int
    compared: int
    unmatched: int
    differences: tuple[Difference, ...]
    shapes: tuple[str, ...]
    tolerance: float
    min_share: float

    @property
    def faults(self) -> list[str]:
        """Why the node does not do what training says; empty where it does."""
        found = list(self.shapes)
        found += [f"{d.name}: the node was {d.max:.3g} off, the tolerance is {self.tolerance:g}"
                  for d in self.differences if not d.max <= self.tolerance]
        if self.compared < self.min_share * self.frames or not self.compared:
            found.append(f"only {self.compared} of {self.frames} frames were answered by the node")
        return found

    def table(self) -> str:
        """For people."""
        width = max([len(d.name) for d in self.differences] + [6])
        lines = [f"{'action':<{width}}  {'largest':>10}  {'mean diff':>10}  {'p99 diff':>10}  {'max diff':>10}"]
        lines += [f"{d.name:<{width}}  {d.size:>10.4g}  {d.mean:>10.3g}  {d.p99:>10.3g}  {d.max:>10.3g}"
                  f"{'' if d.max <= self.tolerance else '  <-'}" for d in self.differences]
        return "\n".join([*lines, f"{self.compared} of {self.frames} frames compared, tolerance {self.tolerance:g}"])

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "faults": self.faults}


def compare(names: Sequence[str], offline: Mapping[int, ActionChunk], served: Mapping[int, ActionChunk], frames: int,
            unmatched: int, tolerance: float, min_share: float) -> Parity:
    """Compare chunks by frame; `names` are the action's values, `offline` holds every frame that was `served`."""
    shapes, off, size = [], [], []
    for frame, chunk in served.items():
        expected = offline[frame]
        if chunk.values.shape != expected.values.shape or not np.allclose(chunk.times_s, expected.times_s, atol=1e-6):
            shapes.append(f"frame {frame}: a chunk of {list(chunk.values.shape)}, offline "
                          f"{list(expected.values.shape)}, or at other times")
            continue
        off.append(np.abs(np.float64(chunk.values) - expected.values))
        size.append(np.abs(expected.values))
    differences = []
    if off:
        apart, sizes = np.concatenate(off), np.concatenate(size)
        differences = [Difference(name, float(sizes[:, i].max()), float(apart[:, i].mean()),
                                  float(np.quantile(apart[:, i], 0.99)), float(apart[:, i].max()))
                       for i, name in enumerate(names)]
    return Parity(frames, len(off), unmatched, tuple(differences), tuple(shapes[:3]), tolerance, min_share)
