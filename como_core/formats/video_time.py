"""Presentation times of real videos: mended where they repeat, run backwards or are missing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from como_core.errors import ComoError


def timestamps(pts: Sequence[int | None], time_base: Fraction, rate_hz: float | None, source: str) -> np.ndarray:
    """Seconds from the first frame, float64 [T], strictly increasing, for frames in the order they are shown.

    The times that stand are the longest increasing subsequence of `pts`, so that one stray value costs only itself.
    The others are spaced evenly between their neighbours that stand and, at either end, at `rate_hz` (the median step
    where the file gives no rate). Raises ComoError where neither the times nor the rate say how long a frame lasts.
    """
    good = _longest_increasing(pts)
    known = np.array([float(pts[i] * time_base) for i in good])  # type: ignore[operator]
    if len(good) > 1:
        period_s = 1 / rate_hz if rate_hz else float(np.median(np.diff(known) / np.diff(good)))
    elif rate_hz:
        period_s = 1 / rate_hz
    elif len(pts) == 1:
        return np.zeros(1)
    else:
        raise ComoError(f"{source}: neither frame times nor a frame rate; write it again with `ffmpeg -r RATE -i`")
    if not good:
        return np.arange(len(pts)) * period_s
    index = np.arange(len(pts))
    times = np.interp(index, good, known)
    times[: good[0]] = known[0] - period_s * (good[0] - index[: good[0]])
    times[good[-1] + 1 :] = known[-1] + period_s * (index[good[-1] + 1 :] - good[-1])
    return times - times[0]


def _longest_increasing(values: Sequence[int | None]) -> list[int]:
    """Indices of a longest strictly increasing subsequence, None left out (patience sorting).

    Of several it takes the one whose members come earliest before the last: where a time repeats, the first stands.
    """
    piles: list[list[int]] = []  # pile k: ends of increasing runs of k + 1 values, in file order, values falling
    tops: list[int] = []
    for i, value in enumerate(values):
        if value is None:
            continue
        k = bisect_left(tops, value)
        if k == len(piles):
            piles.append([])
            tops.append(value)
        piles[k].append(i)
        tops[k] = value
    chain = [piles[-1][-1]] if piles else []
    for pile in reversed(piles[:-1]):
        chain.append(next(i for i in pile if values[i] < values[chain[-1]]))  # type: ignore[operator]
    return chain[::-1]
