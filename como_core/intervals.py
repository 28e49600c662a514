"""Numbers with intervals over recordings: every metric here is a function of sums over pairs, kept per recording.

How often an interval of 95 % holds the true value, of sums drawn 1000 times from the 288 recordings of docs/motion.md
(`percentile`: the percentile bootstrap, whose intervals of R2 need not even hold their own number):

    recordings                 4     8    12    20    50
    R2, PCA of RGB   percentile 56    75    81    86    92 %
                     BCa        55    79    86    89    94 %
                     jackknife  96    94    94    93    94 %
    MSE, the same    percentile 73    87    88    91    94 %
                     jackknife  89    92    91    92    95 %
    R2 gain          percentile 64    81    85    89    94 %
                     jackknife  96    95    95    94    95 %

A symmetric bootstrap-t is within 5 points of the jackknife from 8 recordings on; at 4 it holds up to 12 more and is two
to four times as wide. Of ratios of sums with heavy tails (made up) all hold less: percentile 71 to 83, jackknife 82 to
87 %. Probes of one run share recordings that they were trained on, which no interval over recordings sees: through
`run_probe`, 81 to 93 % for R2 and its gain (100 to 200 sets of recordings; percentile: 63 to 91 %).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]
"""From sums over the pairs of N samples of recordings, [N, K], to a number for each, [N]."""

Bounds = tuple[float, float]
"""The least and the greatest value that a metric can have."""

UNBOUNDED: Bounds = (-math.inf, math.inf)
NOT_NEGATIVE: Bounds = (0.0, math.inf)
AT_MOST_ONE: Bounds = (-math.inf, 1.0)
SHARES: Bounds = (0.0, 1.0)
COSINES: Bounds = (-1.0, 1.0)

_STUDENT = (1.95996, 2.37227, 2.82250, 2.55585, 1.58953)  # of powers of 1 / degrees of freedom


@dataclass(frozen=True)
class Score:
    """A metric with its 95 % interval over recordings; `low` and `high` are NaN where there are too few recordings.

    recordings  how many have a part in it
    """

    mean: float
    low: float
    high: float
    recordings: int

    @property
    def interval(self) -> str:
        """The interval for people, or why there is none."""
        return f"[{self.low:.3f}, {self.high:.3f}]" if math.isfinite(self.low) else "[too few recordings]"

    def __str__(self) -> str:
        return f"{self.mean:.3f} {self.interval}"


def jackknife(sums: np.ndarray, statistic: Statistic, bounds: Bounds = UNBOUNDED) -> Score:
    """`statistic` of sums [E, K] over recordings, plus and minus Student's t times its jackknife standard error.

    The error is that of leaving out one recording at a time (Efron and Tibshirani 1993, An Introduction to the
    Bootstrap, chapter 11), t has E - 1 degrees of freedom (Tukey 1958). So the interval holds its own number. Drawing
    recordings again does not see to that for R2: the spread of a resample's targets, about a mean of its own, is less
    than the whole's, so R2 of resamples lies below that of the whole, as every one does for the mean of the actions.

    bounds  the interval is cut off at these
    """
    count, total = len(sums), sums.sum(axis=0, keepdims=True)
    mean = float(statistic(total)[0])
    if count < 2:
        return Score(mean, math.nan, math.nan, count)
    without = statistic(total - sums)
    half = _student(count - 1) * math.sqrt((count - 1) * float(np.var(without)))
    least, most = bounds
    return Score(mean, min(max(mean - half, least), mean), max(min(mean + half, most), mean), count)


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, right to 0.2 % (Abramowitz and Stegun 26.7.5, from 3 degrees of freedom)."""
    exact = {1: 12.7062, 2: 4.3027}
    return exact.get(freedom) or sum(part / freedom**power for power, part in enumerate(_STUDENT))


def sums_by_recording(values: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """Sums of values [P, K] over the pairs of each recording that has any, [E, K]; episode [P] says which."""
    present, place = np.unique(episode, return_inverse=True)
    sums = np.zeros((len(present), values.shape[1]))
    np.add.at(sums, place, values)
    return sums


def mean_of(values: np.ndarray, episode: np.ndarray, bounds: Bounds = UNBOUNDED) -> Score:
    """The mean of values [P], those that are not finite left out, with its interval over recordings."""
    known = np.isfinite(values)
    sums = sums_by_recording(np.stack([values[known], np.ones(known.sum())], axis=1), episode[known])
    return ratio_of(sums, bounds)


def ratio_of(sums: np.ndarray, bounds: Bounds = UNBOUNDED) -> Score:
    """First column over second, of sums [E, 2] over recordings."""
    return jackknife(sums, lambda total: total[:, 0] / np.maximum(total[:, 1], 1e-12), bounds)
