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
    """Indices of a longest strictly increasing subsequence, None left out (patience sorting)."""
    tails: list[int] = []
    ends: list[int] = []
    previous: dict[int, int] = {}
    for i, value in enumerate(values):
        if value is None:
            continue
        place = bisect_left(tails, value)
        tails[place:place + 1] = [value]
        ends[place:place + 1] = [i]
        previous[i] = ends[place - 1] if place else -1
    chain = [ends[-1]] if ends else []
    while chain and previous[chain[-1]] >= 0:
        chain.append(previous[chain[-1]])
    return chain[::-1]
