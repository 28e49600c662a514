"""Probes on features whose answer is known, and the targets that they are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from como_core.errors import ComoError
from como_core.intervals import SHARES, Score, jackknife, mean_of, sums_by_recording
from como_core.motion.measure.baselines import pair_components
from como_core.motion.measure.mlp_probe import mlp
from como_core.motion.measure.probe import Probe, ridge, run_probe, split
from como_core.motion.measure.probe_store import ProbeStore
from como_core.motion.pairs import Pairs
from como_core.motion.targets import Target, TargetKind, window_target

EPISODE = np.repeat(np.arange(20), 30)


def test_whole_recordings_are_held_out() -> None:
    rng = np.random.default_rng(0)
    offset = rng.standard_normal((20, 2))[EPISODE]
    identity = np.eye(20)[EPISODE]  # tells a recording's own mean, and nothing of any other
    target = offset + 0.1 * rng.standard_normal((600, 2))
    leak = run_probe("identity", identity, target, EPISODE)
    assert leak.r2().mean < 0.05
    linear = rng.standard_normal((600, 5))
    probe = run_probe("linear", linear, linear[:, :2] - 3, EPISODE)
    assert probe.r2().mean > 0.99
    assert probe.mse().mean < 0.01
    assert probe.r2_gain(leak).low > 0.9


@pytest.mark.parametrize("recordings", [2, 3, 7, 20])
def test_every_recording_is_held_out_once_and_never_learned_from(recordings: int) -> None:
    episode = np.repeat(np.arange(recordings), 6)
    folds = split(episode, seed=1)
    assert sorted(np.concatenate([fold.held for fold in folds])) == list(range(len(episode)))
    for fold in folds:
        held, learned = set(episode[fold.held]), set(episode[fold.training])
        assert not held & learned
        assert held | learned == set(range(recordings))
        assert len(fold.fitted) and len(fold.aside) and not set(fold.fitted) & set(fold.aside)


def test_one_recording_cannot_be_split() -> None:
    with pytest.raises(ComoError, match="needs at least 2 with actions, got 1"):
        split(np.zeros(9, int), seed=0)


def test_the_mlp_reads_what_is_not_on_a_line_and_learns_no_noise() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((600, 4))
    bent = np.abs(values[:, :1]) + np.abs(values[:, 1:2])
    assert run_probe("bent", values, bent, EPISODE).r2().mean < 0.1
    assert run_probe("bent", values, bent, EPISODE, fit=mlp).r2().mean > 0.8
    assert run_probe("noise", values, rng.standard_normal((600, 1)), EPISODE, fit=mlp).r2().mean > -0.2
    again = [mlp(values, [bent] * 2, split(EPISODE, 0)[:2], seed=5) for _ in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(*again, strict=True))


def test_the_ridge_is_that_of_the_normal_equations() -> None:
    rng = np.random.default_rng(0)
    values, fold = rng.standard_normal((600, 3)), split(EPISODE, 0)[0]
    target = values @ np.array([[1.0], [2.0], [-1.0]]) + 0.01 * rng.standard_normal((600, 1))
    known = np.column_stack([values[fold.training], np.ones(len(fold.training))])
    weights = np.linalg.lstsq(known, target[fold.training], rcond=None)[0]
    expected = np.column_stack([values[fold.held], np.ones(len(fold.held))]) @ weights
    centred = target - target[fold.training].mean(axis=0)
    assert np.allclose(ridge(values, [centred], [fold], 0)[0] + (target - centred)[0], expected, atol=2e-3)


def test_intervals_are_over_recordings_and_seeds_spread() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((600, 3))
    noise = np.where(EPISODE[:, None] < 10, 0.1, 3.0) * rng.standard_normal((600, 1))  # half of the recordings are bad
    probe = run_probe("mixed", values, values[:, :1] + noise, EPISODE, seeds=range(3))
    score = probe.r2()
    assert score.low < score.mean < score.high and score.high - score.low > 0.1
    assert probe.sums.shape == (3, 20, 4) and 0 < probe.seed_spread() < 0.05


@pytest.mark.parametrize("recordings", [2, 4, 12, 20])
def test_the_interval_of_r2_holds_its_own_number_where_every_resample_lies_below(recordings: int) -> None:
    """Of the mean of the actions: its error is the targets' spread, which is less about the mean of a resample."""
    rng = np.random.default_rng(recordings)
    episode = np.repeat(np.arange(recordings), 38)
    target = 0.6 * rng.standard_normal((recordings, 3))[episode] + rng.standard_normal((len(episode), 3))
    score = run_probe("mean of the actions", np.zeros((len(episode), 1)), target, episode).r2()
    assert score.low <= score.mean <= score.high and score.low <= 0 <= score.high


@pytest.mark.parametrize("recordings", [4, 8, 12])
def test_intervals_of_few_recordings_hold_the_true_r2(recordings: int) -> None:
    """The percentile bootstrap's held it 79, 89 and 92 times of 100 here."""
    rng = np.random.default_rng(0)
    pairs, place = rng.integers(10, 80, (2000, 1)), 0.55 * rng.standard_normal((2000, 3))
    error = 0.6 * pairs * np.exp(0.6 * rng.standard_normal((2000, 1)) - 0.18)
    sums = np.concatenate([pairs, error + 0 * place, pairs * place, pairs * (0.7 + place**2)], axis=1)
    true = Probe("all", 1, sums[None]).r2().mean
    scores = [Probe("some", 1, sums[None, rng.integers(0, len(sums), recordings)]).r2() for _ in range(400)]
    assert np.mean([score.low <= true <= score.high for score in scores]) > 0.93
    assert max(score.high for score in scores) <= 1


@pytest.mark.parametrize("recordings", [2, 3, 5, 40])
def test_the_interval_of_a_mean_is_students(recordings: int) -> None:
    values = np.random.default_rng(0).standard_normal(recordings)
    found = mean_of(values, np.arange(recordings))
    low, high = stats.t.interval(0.95, recordings - 1, values.mean(), stats.sem(values))
    assert found.mean == pytest.approx(values.mean())
    assert (found.high - found.low) == pytest.approx(high - low, rel=2e-3)
    assert found.high - found.mean == pytest.approx(found.mean - found.low)


def test_intervals_where_there_is_little_to_go_by() -> None:
    def first_over_second(sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return sums[:, 0] / sums[:, 1]

    alone = jackknife(np.array([[1.0, 4.0]]), first_over_second)
    assert alone.mean == 0.25 and np.isnan([alone.low, alone.high]).all() and str(alone) == "0.250 [too few recordings]"
    assert jackknife(np.array([[1.0, 4.0]] * 5), first_over_second) == Score(0.25, 0.25, 0.25, 5)
    two = jackknife(np.array([[0.0, 1.0], [1.0, 1.0]]), first_over_second, SHARES)
    assert two == Score(0.5, 0.0, 1.0, 2)
    undefined = jackknife(np.array([[1.0, 2.0], [0.0, 0.0]]), first_over_second)
    assert undefined.mean == 0.5 and np.isnan([undefined.low, undefined.high]).all()


def test_scores_are_those_of_the_pairs_whatever_the_mean_of_the_target() -> None:
    rng = np.random.default_rng(0)
    target = 2 + rng.standard_normal((40, 2))
    guess, episode = target + 0.5 * rng.standard_normal((40, 2)), np.repeat(np.arange(4), 10)
    columns = np.concatenate([np.ones((40, 1)), (guess - target) ** 2, target, target**2], axis=1)
    probe = Probe("by hand", 1, sums_by_recording(columns, episode)[None])
    share = ((guess - target) ** 2).sum(axis=0) / ((target - target.mean(axis=0)) ** 2).sum(axis=0)
    assert probe.r2().mean == pytest.approx(1 - share.mean())
    assert probe.r2([1]).mean == pytest.approx(1 - share[1])
    assert probe.mse([0]).mean == pytest.approx(((guess - target) ** 2)[:, 0].mean())


def test_a_probe_is_run_once_for_the_same_question(tmp_path: Path) -> None:
    values, target, runs = np.random.default_rng(0).standard_normal((600, 3)), EPISODE[:, None] / 20.0, []

    def run() -> list[Probe]:
        runs.append(1)
        return [run_probe("some", values, target, EPISODE)]

    store = ProbeStore(tmp_path)
    first, again = (store.probes(("some", 3, target), run)[0] for _ in range(2))
    assert len(runs) == 1 and np.array_equal(first.sums, again.sums) and again.name == "some"
    store.probes(("some", 3, target + 1), run)
    assert len(runs) == 2
    next(tmp_path.glob("*.json")).write_text("[{")
    store.probes(("some", 3, target), run)
    store.probes(("some", 3, target + 1), run)
    assert len(runs) == 3, "a broken file is made anew"


@pytest.mark.parametrize(("kind", "expected"), [
    ("sum", [[0 + 2 + 4, 1 + 3 + 5], [4 + 6, 5 + 7]]),
    ("difference", [[6, 6], [4, 4]]),
    ("absolute", [[2, 3], [5, 6]]),
    ("stack", [[0, 1, 4, 5], [4, 5, 6, 7]]),
])
def test_targets_are_the_actions_between_the_two_frames(kind: TargetKind, expected: list[list[float]]) -> None:
    action, times = np.arange(12, dtype=np.float32).reshape(6, 2), np.arange(6) * 0.1
    values, kept = window_target(action, times, np.array([0, 2]), np.array([3, 4]), Target(kind, times=2))
    assert kept.all()
    assert np.allclose(values, expected)


def test_a_lag_moves_the_window_back_and_drops_what_starts_before_the_recording() -> None:
    action, times = np.arange(6.0)[:, None], np.arange(6) * 0.1
    first, second = np.arange(4), np.arange(2, 6)
    values, kept = window_target(action, times, first, second, Target("sum", lag_s=0.2))
    assert kept.tolist() == [False, False, True, True]
    assert values[2:].tolist() == [[0 + 1], [1 + 2]]
    with pytest.raises(ComoError, match="target: lag_s must be 0 or more, got -1"):
        Target("sum", lag_s=-1)


def test_components_of_pairs_keep_distances_where_there_are_enough_of_them() -> None:
    places = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    pairs = Pairs.build(np.arange(40) / 10, np.array([0, 20, 40]), gap_s=0.2)
    difference, both = pair_components(lambda index: torch.from_numpy(places[index]), pairs, size=6)
    first, second = places[pairs.first], places[pairs.second]
    assert difference.shape == (len(pairs), 3) and both.shape == (len(pairs), 6)
    for found, expected in ((difference, second - first), (both, np.concatenate([first, second], axis=1))):
        assert np.allclose(np.linalg.norm(found[1:] - found[:-1], axis=1),
                           np.linalg.norm(expected[1:] - expected[:-1], axis=1), atol=1e-4)
    assert np.allclose(np.linalg.norm(difference, axis=1), np.linalg.norm(second - first, axis=1), atol=1e-4)
