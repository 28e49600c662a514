"""Numbers with intervals over recordings: every metric here is a function of sums over pairs, kept per recording."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000

Statistic = Callable[[np.ndarray], np.ndarray]
"""From sums over the pairs of N samples of recordings, [N, K], to a number for each, [N]."""


@dataclass(frozen=True)
class Score:
    """A metric with its 95 % interval over recordings; `low` and `high` are NaN where there is but one recording."""

    mean: float
    low: float
    high: float

    @property
    def interval(self) -> str:
        """The interval for people, or why there is none."""
        return f"[{self.low:.3f}, {self.high:.3f}]" if math.isfinite(self.low) else "[one recording]"

    def __str__(self) -> str:
        return f"{self.mean:.3f} {self.interval}"


def bootstrap(sums: np.ndarray, statistic: Statistic) -> Score:
    """`statistic` of sums [E, K] over recordings, with the percentile interval of drawing recordings again."""
    count = len(sums)
    mean = float(statistic(sums.sum(axis=0, keepdims=True))[0])
    if count < 2:
        return Score(mean, math.nan, math.nan)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    found = statistic(draws @ sums)
    low, high = np.nanpercentile(found, [2.5, 97.5]) if np.isfinite(found).any() else (math.nan, math.nan)
    return Score(mean, float(low), float(high))


def sums_by_recording(values: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """Sums of values [P, K] over the pairs of each recording that has any, [E, K]; episode [P] says which."""
    present, place = np.unique(episode, return_inverse=True)
    sums = np.zeros((len(present), values.shape[1]))
    np.add.at(sums, place, values)
    return sums


def mean_of(values: np.ndarray, episode: np.ndarray) -> Score:
    """The mean of values [P], those that are not finite left out, with its interval over recordings."""
    known = np.isfinite(values)
    sums = sums_by_recording(np.stack([values[known], np.ones(known.sum())], axis=1), episode[known])
    return ratio_of(sums)


def ratio_of(sums: np.ndarray) -> Score:
    """First column over second, of sums [E, 2] over recordings."""
    return bootstrap(sums, lambda total: total[:, 0] / np.maximum(total[:, 1], 1e-12))
