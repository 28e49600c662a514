"""Timestamps of videos whose own are broken."""

from fractions import Fraction
from itertools import combinations, pairwise

import numpy as np
import pytest

from como_core.errors import ComoError
from como_core.formats.video_time import _longest_increasing, timestamps

MS = Fraction(1, 1000)


@pytest.mark.parametrize(
    ("pts", "rate_hz", "expected_ms"),
    [
        ([0, 25, 50, 75], 40.0, [0, 25, 50, 75]),
        ([-40, 0, 40], 25.0, [0, 40, 80]),  # an edit list: the first frame is where time begins
        ([0, 40, 140, 180], 25.0, [0, 40, 140, 180]),  # variable rate is kept as it is
        ([0, 25, 25, 75], 40.0, [0, 25, 50, 75]),  # repeated
        ([0, 25, 10, 75], 40.0, [0, 25, 50, 75]),  # runs backwards
        ([0, 90000, 50, 75], 40.0, [0, 25, 50, 75]),  # one stray value costs only itself
        ([0, None, 50, None], 40.0, [0, 25, 50, 75]),
        ([None, None, 50, 75], 40.0, [0, 25, 50, 75]),
        ([None, None, None], 20.0, [0, 50, 100]),
        ([100, None, 180, None], None, [0, 40, 80, 120]),
        ([7], None, [0]),
    ],
)
def test_times_that_stand_are_kept_and_the_others_mended(pts, rate_hz, expected_ms):
    times = timestamps(pts, MS, rate_hz, "a.mp4")
    np.testing.assert_allclose(times * 1000, expected_ms, atol=1e-9)
    assert times.dtype == np.float64


def test_frames_without_any_time_are_refused():
    with pytest.raises(ComoError, match="a.mp4: neither frame times nor a frame rate"):
        timestamps([None, None], MS, None, "a.mp4")


def test_as_many_times_stand_as_can():
    rng = np.random.default_rng(0)
    for _ in range(300):
        values = rng.integers(0, 10, rng.integers(0, 8)).tolist()
        kept = [values[i] for i in _longest_increasing(values)]
        runs = (run for n in range(len(values) + 1) for run in combinations(values, n))
        longest = max(len(run) for run in runs if all(a < b for a, b in pairwise(run)))
        assert len(kept) == longest and all(a < b for a, b in pairwise(kept)), values
