"""Pairs: the gap is in seconds at any frame rate, and the contrast's delta is never 0."""

from __future__ import annotations

import numpy as np
import pytest

from como_core.errors import ComoError
from como_core.motion.pairs import Pairs, partner

GAP_S = 0.5
VARIABLE = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.08, 200))


def clip(fps: float, seconds: float = 4.0) -> np.ndarray:
    return np.arange(round(seconds * fps)) / fps


def build(timestamps: np.ndarray, gap_s: float = GAP_S) -> Pairs:
    return Pairs.build(timestamps, np.array([0, len(timestamps)]), gap_s)


@pytest.mark.parametrize("fps", [10, 24, 30, 60])
def test_the_gap_is_the_same_time_at_every_rate(fps: int) -> None:
    pairs = build(clip(fps))
    gaps = pairs.timestamps[pairs.second] - pairs.timestamps[pairs.first]
    assert np.allclose(gaps, GAP_S)
    assert len(pairs) == 4 * fps - GAP_S * fps


@pytest.mark.parametrize("fps", [10, 24, 30, 60])
def test_an_odd_gap_is_met_to_half_a_frame(fps: int) -> None:
    pairs = build(clip(fps), 0.125)
    gaps = pairs.timestamps[pairs.second] - pairs.timestamps[pairs.first]
    assert np.abs(gaps - 0.125).max() <= 0.5 / fps + 1e-9


def test_timestamps_rule_where_the_rate_varies() -> None:
    pairs = build(VARIABLE)
    gaps = pairs.timestamps[pairs.second] - pairs.timestamps[pairs.first]
    assert np.abs(gaps - GAP_S).max() <= 0.04
    assert len(np.unique(pairs.second - pairs.first)) > 3  # as frames, the gap is not constant


def test_no_pair_spans_a_hole_or_two_clips() -> None:
    holed = np.concatenate([clip(30, 2), 10 + clip(30, 2)])
    whole = build(holed)
    assert ((whole.first < 60) == (whole.second < 60)).all()
    times = np.concatenate([clip(30, 2), clip(30, 2)])
    pairs = Pairs.build(times, np.array([0, 60, 120]), GAP_S)
    assert ((pairs.first < 60) == (pairs.second < 60)).all()
    assert (pairs.episode == (pairs.first >= 60)).all()


def test_the_last_frames_have_no_partner() -> None:
    assert partner(clip(10, 0.1), 0.5).tolist() == [-1]
    assert partner(clip(10, 1.0), 0.5).tolist() == [5, 6, 7, 8, 9, -1, -1, -1, -1, -1]
    with pytest.raises(ComoError, match="none of 1 clips holds two frames that are 2 s apart"):
        build(clip(10, 1.0), 2.0)


@pytest.mark.parametrize("times", [*map(clip, (10, 24, 30, 60)), VARIABLE], ids=["10", "24", "30", "60", "variable"])
@pytest.mark.parametrize("gap_s", [0.125, 0.5])
def test_delta_is_never_zero_and_stays_small(times: np.ndarray, gap_s: float) -> None:
    pairs = build(times, gap_s)
    index = np.arange(len(pairs))
    frame_s = np.diff(times).max()
    both = set()
    for seed in range(20):
        third = pairs.third(index, np.random.default_rng(seed))
        delta = times[third] - times[pairs.second]
        assert (third != pairs.second).all()
        assert np.abs(delta).max() <= max(0.2 * gap_s, frame_s) + frame_s
        if len(times) > 60:
            assert (third > pairs.first).all()
        both |= set(np.sign(delta))
    assert both == {-1.0, 1.0}


def test_delta_stays_inside_the_clip() -> None:
    times = np.concatenate([clip(10, 0.6), clip(10, 0.6)])
    pairs = Pairs.build(times, np.array([0, 6, 12]), 0.5)
    assert pairs.second.tolist() == [5, 11]
    for seed in range(20):
        assert pairs.third(np.array([0, 1]), np.random.default_rng(seed)).tolist() == [4, 10]
