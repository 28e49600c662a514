"""Plan: when each action is due, and what a new chunk does to the actions that are still to come.

Time belongs to actions: step k of a chunk is due at observation stamp + times_s[k], however long the policy took. Steps
that are late when the chunk arrives are dropped; the others are blended into what was planned before (blending.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from como_core.action_chunk import ActionChunk
from como_core.interface import ActionKind

Interpolation = Literal["hold", "linear"]
Mix = Callable[[float, np.ndarray, np.ndarray | None], np.ndarray]

# Stamps and periods are rounded on their way here: a step counts as due this much before its time.
EARLY_S = 1e-3

# No value of a robot in SI units comes near the one, no chunk near the other. What is beyond would overflow on its way:
# blending and interpolation are in float32, and a message counts seconds in 32 bits.
LARGEST = 1e9
LONGEST_S = 3600.0


def interpolation_of(kind: ActionKind) -> Interpolation:
    """Velocities hold until the next step; positions move in a straight line to it."""
    return "hold" if kind in ("joint_velocity", "ee_twist") else "linear"


@dataclass(frozen=True)
class Plan:
    """Actions on the node's clock.

    due_s    float64 [N], seconds, increasing: when each action comes into force
    until_s  float64 [N]: when it ends, which is the next one's due time unless there is a gap
    values   float32 [N, A]
    """

    due_s: np.ndarray
    until_s: np.ndarray
    values: np.ndarray
    interpolation: Interpolation

    def at(self, now_s: float) -> np.ndarray | None:
        """The action [A] in force at `now_s`; None before the first, after the last and in a gap."""
        index = self._index(now_s)
        if index < 0 or now_s + EARLY_S >= self.until_s[index]:
            return None
        followed = index + 1 < len(self.due_s) and self.until_s[index] == self.due_s[index + 1]
        if self.interpolation == "hold" or not followed:
            return self.values[index]
        way = (now_s - self.due_s[index]) / (self.until_s[index] - self.due_s[index])
        weight = np.float32(np.clip(way, 0.0, 1.0))
        return (1 - weight) * self.values[index] + weight * self.values[index + 1]

    @property
    def end_s(self) -> float:
        """When the last action ends."""
        return float(self.until_s[-1])

    def remaining(self, now_s: float) -> int:
        """How many actions are in force or still to come at `now_s`."""
        return int(np.count_nonzero(self.until_s > now_s + EARLY_S))

    def _index(self, now_s: float) -> int:
        return int(np.searchsorted(self.due_s, now_s + EARLY_S, side="right")) - 1

    def _from(self, now_s: float) -> Plan | None:
        """Without the actions that are over at `now_s`; None where none is left."""
        kept = self.until_s > now_s + EARLY_S
        if not kept.any():
            return None
        return Plan(self.due_s[kept], self.until_s[kept], self.values[kept], self.interpolation)

    def _before(self, time_s: float) -> Plan | None:
        """The actions due before `time_s`, the last one cut there; None where there is none."""
        kept = self.due_s < time_s - EARLY_S
        if not kept.any():
            return None
        until = np.minimum(self.until_s[kept], time_s)
        return Plan(self.due_s[kept], until, self.values[kept], self.interpolation)


def chunk_plan(chunk: ActionChunk, stamp_s: float, period_s: float, interpolation: Interpolation) -> Plan:
    """The plan of a chunk that was predicted from the observation stamped `stamp_s`; its last step lasts `period_s`."""
    due = stamp_s + np.asarray(chunk.times_s, np.float64)
    until = np.append(due[1:], due[-1] + period_s)
    return Plan(due, until, np.asarray(chunk.values, np.float32), interpolation)


def spliced(old: Plan | None, new: Plan, now_s: float, mix: Mix) -> Plan | None:
    """What is planned at `now_s` once `new` has arrived.

    Late steps of `new` are dropped; before its first step `old` goes on. `mix` says what is done at the due time of
    each other step: it gets that time, the action of `new` and that of `old`, None where `old` has none. A chunk that
    is late as a whole changes nothing.
    """
    fresh = new._from(now_s)
    if fresh is None:
        return old
    values = fresh.values.copy()
    for k, due_s in enumerate(fresh.due_s):
        at_s = max(due_s, now_s)
        values[k] = mix(at_s, values[k], None if old is None else old.at(at_s))
    left = old._from(now_s) if old is not None else None
    head = left._before(fresh.due_s[0]) if left is not None else None
    if head is None:
        return Plan(fresh.due_s, fresh.until_s, values, fresh.interpolation)
    return Plan(np.concatenate([head.due_s, fresh.due_s]), np.concatenate([head.until_s, fresh.until_s]),
                np.concatenate([head.values, values]), fresh.interpolation)


def chunk_fault(chunk: ActionChunk, size: int) -> str | None:
    """What makes a chunk unusable as a whole, or None: shape, order of times, NaN, infinity or what is as good as that.

    `size` is the length A of the action vector.
    """
    times, values = _numbers(chunk.times_s), _numbers(chunk.values)
    if times is None or values is None:
        return "a chunk that does not hold numbers; expected times [K] in seconds and values [K, A], both floats"
    if values.ndim != 2 or values.shape[1] != size or times.shape != values.shape[:1] or not len(times):
        return f"chunk of shape {values.shape} with {times.size} times, expected [K, {size}] with K of 1 or more"
    if not (np.isfinite(times).all() and np.isfinite(values).all()):
        return "NaN or infinity in an action"
    if np.abs(values).max() > LARGEST:
        largest = values.flat[np.argmax(np.abs(values))]
        return f"an action of {largest:.3g}, expected at most {LARGEST:g} either way"
    if np.abs(times).max() > LONGEST_S:
        return (f"an action due {times[np.argmax(np.abs(times))]:.3g} s from its observation, expected at most "
                f"{LONGEST_S:g} s")
    if np.any(np.diff(times) <= 0):
        return "times of a chunk that do not increase"
    return None


def _numbers(rows: object) -> np.ndarray | None:
    """An array of real numbers, or None where it is something else."""
    try:
        array = np.asarray(rows)
    except ValueError:  # rows of different lengths
        return None
    return array.astype(np.float64) if array.dtype.kind in "fiu" else None
