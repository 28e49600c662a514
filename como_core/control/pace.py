"""Pace: how far a value may move in one period, from the limits on step, velocity and acceleration."""

from __future__ import annotations

import numpy as np

from como_core.control.reference import VELOCITY_KINDS
from como_core.interface import Action


def clipped(values: np.ndarray, lower: np.ndarray | float, upper: np.ndarray | float) -> np.ndarray:
    """As np.clip, in a third of its time for a handful of values."""
    return np.minimum(np.maximum(values, lower), upper)


class Pace:
    """Moves values towards a target no faster than the interface allows. Arrays are float64 [len(Action.names)].

    unlimited  whether nothing limits the change of a value
    """

    def __init__(self, action: Action) -> None:
        limits = action.limits
        self._velocities = action.kind in VELOCITY_KINDS
        self._period_s = 1 / action.rate_hz
        size = len(action.names)
        self._step, self._velocity, self._acceleration = (
            np.full(size, np.inf) if bound is None else np.array(bound, np.float64)
            for bound in (limits.step, limits.max_velocity_per_s, limits.max_acceleration_per_s2))
        self.unlimited = bool(np.isinf([self._step, self._velocity, self._acceleration]).all())

    def reach(self, period_s: float | None = None) -> np.ndarray:
        """The largest change of each value in a period, without regard to acceleration."""
        period_s = self._period_s if period_s is None else period_s
        # `step` is between two commands, whatever lies between them; a rate is over the time.
        return np.minimum(self._step, self._velocity * period_s)

    def toward(self, target: np.ndarray, before: np.ndarray, velocity: np.ndarray,
               period_s: float | None = None) -> np.ndarray:
        """The next value on the way from `before` to `target`.

        velocity  how fast each value changes now; it is what acceleration is counted from (positions only)
        """
        period_s = self._period_s if period_s is None else period_s
        reach = self.reach(period_s)
        if self._velocities:
            reach = np.minimum(reach, self._acceleration * period_s)
            return before + clipped(target - before, -reach, reach)
        step = clipped(target - before, -reach, reach)
        change = self._acceleration * period_s * period_s
        bounded = np.isfinite(change)
        if bounded.any():
            step = np.where(bounded, self._braked(step, target - before, velocity * period_s, change), step)
        return before + step

    @staticmethod
    def _braked(step: np.ndarray, distance: np.ndarray, step_before: np.ndarray, change: np.ndarray) -> np.ndarray:
        """Steps that differ from the ones before by `change` at most, and shrink in time to end at `distance`."""
        change = np.where(np.isfinite(change), change, 1.0)
        # The first step of the row that shrinks by `change` each time, has `more` further ones and adds up to distance.
        more = np.floor((np.sqrt(1 + 8 * np.abs(distance) / change) - 1) / 2)
        braking = np.abs(distance) / (more + 1) + change * more / 2
        wanted = np.sign(distance) * np.minimum(np.abs(step), braking)
        return clipped(wanted, step_before - change, step_before + change)
