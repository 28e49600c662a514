"""Blending: how a new chunk takes over from what was planned before.

| blend              | where the old and the new chunk both have an action                             |
|--------------------|---------------------------------------------------------------------------------|
| cross_fade         | the weight of the new one grows from 0 to 1 over blend_s                        |
| temporal_ensemble  | the mean of all chunks so far, weighted exp(-decay * i), i = 0 for the oldest   |
| real_time_chunking | the old one for as long as inference takes, then its weight falls off to zero   |

Temporal ensembles are those of ACT (arXiv 2304.13705, section IV-B), the weights of real-time chunking those of its
soft mask (arXiv 2506.07339, equation 5).

For real-time chunking the policy is also told which actions are already decided (Observation.prefix), so that one that
can continue them does.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

import numpy as np

from como_core.control.plan import Plan, spliced

Blend = Literal["cross_fade", "temporal_ensemble", "real_time_chunking"]
BLENDS: tuple[Blend, ...] = ("cross_fade", "temporal_ensemble", "real_time_chunking")

# The longest of the last inference times says how much of a motion is decided before an answer can change it.
_DELAYS_KEPT = 10


class Blender:
    """Makes one plan of the chunks of a run.

    blend      which way
    blend_s    duration of the cross-fade
    decay      of the weights of a temporal ensemble, per chunk; 0 weights all alike
    period_s   from one action to the next
    """

    def __init__(self, blend: Blend, blend_s: float, decay: float, period_s: float) -> None:
        self._blend, self._blend_s, self._decay, self._period_s = blend, blend_s, decay, period_s
        self._delays_s: deque[float] = deque(maxlen=_DELAYS_KEPT)
        self.forget()

    def forget(self) -> None:
        """No chunk has come in this run. How long inference takes is remembered."""
        self._chunks: list[Plan] = []

    def take(self, old: Plan | None, new: Plan, stamp_s: float, now_s: float) -> Plan | None:
        """The plan at `now_s`, when `new` arrives that was predicted from the observation stamped `stamp_s`."""
        self._delays_s.append(max(now_s - stamp_s, 0.0))
        if self._blend == "temporal_ensemble":
            self._chunks = [chunk for chunk in [*self._chunks, new] if chunk.remaining(now_s)]
            return spliced(old, new, now_s, self._ensemble)
        if self._blend == "real_time_chunking":
            return spliced(old, new, now_s, lambda due_s, ours, planned: self._continued(due_s, ours, planned, old,
                                                                                         stamp_s, now_s))
        return spliced(old, new, now_s, lambda due_s, ours, planned: self._faded(due_s, ours, planned, now_s))

    def prefix(self, plan: Plan | None, last: np.ndarray | None, stamp_s: float) -> np.ndarray | None:
        """What is decided from `stamp_s` on for as long as inference takes: float32 [P, A]; None where nothing is.

        last  the command that was sent last [A]. Where the plan ends it is held: an absent action is never zero.
        """
        if self._blend != "real_time_chunking" or last is None:
            return None
        rows, held = [], last
        for k in range(self._frozen_steps()):
            planned = plan.at(stamp_s + k * self._period_s) if plan is not None else None
            held = held if planned is None else planned
            rows.append(held)
        return np.array(rows, np.float32)

    def _frozen_steps(self) -> int:
        return 1 + math.ceil(max(self._delays_s, default=0.0) / self._period_s)

    def _faded(self, due_s: float, new: np.ndarray, planned: np.ndarray | None, now_s: float) -> np.ndarray:
        if planned is None or self._blend_s <= 0:
            return new
        weight = 1.0 if due_s - now_s >= self._blend_s else (due_s - now_s) / self._blend_s
        return np.asarray(weight * new + (1 - weight) * planned, np.float32)

    def _ensemble(self, due_s: float, new: np.ndarray, planned: np.ndarray | None) -> np.ndarray:
        said = [value for chunk in self._chunks if (value := chunk.at(due_s)) is not None]
        if not said:
            return new
        weights = np.exp(-self._decay * np.arange(len(said)))
        return np.asarray(np.average(said, axis=0, weights=weights), np.float32)

    def _continued(self, due_s: float, new: np.ndarray, planned: np.ndarray | None, old: Plan | None, stamp_s: float,
                   now_s: float) -> np.ndarray:
        if planned is None or old is None:
            return new
        frozen_s = max(now_s, stamp_s + max(self._delays_s))
        if due_s <= frozen_s:
            return planned
        left = (old.end_s - due_s) / max(old.end_s - frozen_s, self._period_s)
        weight = left * math.expm1(left) / math.expm1(1.0) if left > 0 else 0.0
        return np.asarray((1 - weight) * new + weight * planned, np.float32)
