"""Pairs: the gap is in seconds at any frame rate, and the contrast's delta is never 0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from como_core.errors import ComoError
from como_core.formats.video import read_video
from como_core.motion.pairs import TIE, TOLERANCE, Pairs, nearest, nearest_within, partner

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


@pytest.mark.parametrize(("fps", "gap_s"), [
    (20, 0.125), (60, 0.125), (10, 0.25), (30, 0.25), (50, 0.25), (15, 0.3), (25, 0.3)])
@pytest.mark.parametrize("stamp_s", [1e-9, 1e-3])
def test_a_gap_between_two_frames_is_the_same_for_every_pair(fps: int, gap_s: float, stamp_s: float) -> None:
    """Neither rounding nor stamps in milliseconds, as of mkv, choose between 2 and 3 frames; the earlier is it."""
    times = np.round(clip(fps, 20) / stamp_s) * stamp_s + 1.7e9
    pairs = build(times, gap_s)
    assert np.unique(pairs.second - pairs.first).tolist() == [int(gap_s * fps)]
    index = np.arange(len(pairs))
    assert np.unique(pairs.middle(index) - pairs.first).tolist() == [int(gap_s * fps) // 2]


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
@pytest.mark.parametrize("gap_s", [0.125, 0.3, 0.5])
def test_delta_is_never_zero_and_stays_small(times: np.ndarray, gap_s: float) -> None:
    pairs = build(times, gap_s)
    index = np.arange(len(pairs))
    frame_s = np.diff(times).max()
    both = set()
    for seed in range(20):
        third = pairs.third(index, np.random.default_rng(seed))
        delta = times[third] - times[pairs.second]
        assert (third != pairs.second).all()
        assert np.abs(delta).max() <= max(0.2 * gap_s, frame_s) + 1e-6
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


@st.composite
def timelines(draw: st.DrawFn) -> np.ndarray:
    """Timestamps of a clip: at a steady rate, with jitter, with frames dropped, or with a pause."""
    count, fps = draw(st.integers(2, 120)), draw(st.floats(1, 240))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    steps = np.full(count, 1 / fps)
    steps *= draw(st.sampled_from((np.ones(count), rng.uniform(0.3, 1.7, count), rng.integers(1, 4, count))))
    if draw(st.booleans()):
        steps[rng.integers(count)] += draw(st.floats(0, 3))
    return draw(st.floats(0, 1e6)) + np.cumsum(steps)


@given(clips=st.lists(timelines(), min_size=1, max_size=3), gap=st.floats(0.01, 3), seed=st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_delta_is_never_zero_on_any_timeline(clips: list[np.ndarray], gap: float, seed: int) -> None:
    offsets = np.cumsum([0, *map(len, clips)])
    try:
        pairs = Pairs.build(np.concatenate(clips), offsets, gap)
    except ComoError:
        return
    index = np.arange(len(pairs))
    third, middle = pairs.third(index, np.random.default_rng(seed)), pairs.middle(index)
    assert (pairs.second > pairs.first).all()
    assert (third != pairs.second).all()
    assert (third >= offsets[pairs.episode]).all()
    assert (third < offsets[pairs.episode + 1]).all()
    assert ((pairs.first <= middle) & (middle <= pairs.second)).all()
    gaps = pairs.timestamps[pairs.second] - pairs.timestamps[pairs.first]
    assert (np.abs(gaps - gap) <= TOLERANCE * gap * (1 + 1e-6) + 1e-9).all()
    expected_third, expected_middle = one_by_one(pairs, index, np.random.default_rng(seed))
    assert third.tolist() == expected_third
    assert middle.tolist() == expected_middle


def one_by_one(pairs: Pairs, index: np.ndarray, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """What `third` and `middle` say, by a search in each clip alone."""
    shift = rng.uniform(-0.2, 0.2, len(index)) * pairs.gap_s
    third, middle = [], []
    for i, moved in zip(index, shift, strict=True):
        low, high = pairs.offsets[pairs.episode[i]], pairs.offsets[pairs.episode[i] + 1]
        first, second = pairs.first[i], pairs.second[i]
        found = low + nearest(pairs.timestamps[low:high], pairs.timestamps[[second]] + moved)[0]
        if abs(pairs.timestamps[found] - pairs.timestamps[second]) > 0.2 * pairs.gap_s * (1 + 1e-6):
            found -= 1 if moved >= 0 else -1
        if found == second:
            found += 1 if moved >= 0 else -1
        other = 2 * second - found
        third.append(int(other if (found <= first and other < high) or found >= high else found))
        halfway = (pairs.timestamps[[first]] + pairs.timestamps[[second]]) / 2
        middle.append(int(first + nearest(pairs.timestamps[first:second + 1], halfway)[0]))
    return third, middle


@pytest.mark.parametrize("gap_s", [0.1, 0.125, 0.3, 0.5])
def test_pairs_lie_at_the_same_times_at_every_rate(gap_s: float) -> None:
    """Every pair at 10, 24 or 30 fps has one at 60 fps whose frames are less than half a frame away."""
    fine = build(clip(60), gap_s)
    times = fine.timestamps[np.stack([fine.first, fine.second])]
    for fps in (10, 24, 30, 60):
        coarse = build(clip(fps), gap_s)
        assert len(coarse) == pytest.approx((4 - gap_s) * fps, abs=1)
        for first, second in zip(coarse.timestamps[coarse.first], coarse.timestamps[coarse.second], strict=True):
            away = np.abs(times - [[first], [second]]).max(axis=0).min()
            assert away <= 0.5 / fps + 0.5 / 60 + 1e-9


def test_a_real_recording_of_varying_rate_is_paired_by_its_clock(shared_data: Path) -> None:
    """As it is, with one frame 10 ms late, and with a third of its frames dropped, as a loaded camera does."""
    recorded = read_video(shared_data / "video/robot/crisp_franka_pap_demo.mp4").timestamps
    assert np.ptp(np.diff(recorded)) > 0.01
    dropped = recorded[np.random.default_rng(0).random(len(recorded)) < 0.67]
    for times in (recorded, dropped):
        pairs = build(times, 0.3)
        gaps = times[pairs.second] - times[pairs.first]
        longest = np.diff(times).max()
        assert np.abs(gaps - 0.3).max() <= min(longest * (1 + TIE) / 2, 0.075) + 1e-9
        wanted = times[pairs.first] + 0.3
        assert (np.abs(gaps - 0.3) <= np.abs(times[None] - wanted[:, None]).min(axis=1) + TIE * longest + 1e-9).all()


def test_a_search_within_stretches_is_that_of_each_alone() -> None:
    rng = np.random.default_rng(0)
    times = np.concatenate([np.cumsum(rng.uniform(0.01, 1, 50)) for _ in range(4)])
    low = 50 * rng.integers(4, size=500) + rng.integers(20, size=500)
    high = low + rng.integers(30, size=500)
    wanted = rng.uniform(-1, 30, 500)
    found = nearest_within(times, low, high, wanted)
    assert found.tolist() == [a + nearest(times[a:b + 1], np.array([time]))[0]
                              for a, b, time in zip(low, high, wanted, strict=True)]
