"""Intervals and tests against scipy, published values and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from como_core.errors import ComoError
from como_core.evaluation.statistics import mcnemar_exact, newcombe, paired_bootstrap, wilson
from como_core.evaluation.trials import compare, rate, rates_by_env
from como_core.formats.trials import Trial


@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (0, 1), (131, 240), (239, 240)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_agrees_with_scipy(k: int, n: int, confidence: float) -> None:
    theirs = stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
    assert wilson(k, n, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_impossible_counts(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"{k} of {n}"):
        wilson(k, n)


@pytest.mark.parametrize(("counts", "published"), [
    ((48, 80, 56, 70), (0.0524, 0.3339)),  # Newcombe 1998, table II, method 10, among its examples
    ((3, 10, 9, 10), (0.1705, 0.8090)),
    ((0, 10, 10, 10), (0.6075, 1.0)),
    ((0, 29, 5, 56), (-0.0381, 0.1926)),
])
def test_newcombe_gives_the_published_intervals(counts: tuple[int, int, int, int],
                                                published: tuple[float, float]) -> None:
    assert newcombe(*counts) == pytest.approx(published, abs=5e-5)


def test_newcombe_turns_its_sign_with_the_order() -> None:
    low, high = newcombe(3, 20, 12, 30)
    assert newcombe(12, 30, 3, 20) == pytest.approx((-high, -low))


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (5, 5), (3, 12), (40, 12)])
def test_mcnemar_is_the_binomial_test_of_differing_pairs(only_a: int, only_b: int) -> None:
    a = [True] * only_a + [False] * only_b + [True, False] * 7
    b = [False] * only_a + [True] * only_b + [True, False] * 7
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar_exact(a, b) == pytest.approx(expected)


def test_paired_bootstrap_agrees_with_the_normal_interval_of_the_stratified_difference() -> None:
    rng = np.random.default_rng(3)
    tasks = np.repeat(np.arange(4), 100)
    a, b = rng.random(400) < 0.2 + 0.15 * tasks, rng.random(400) < 0.3 + 0.15 * tasks
    d = b.astype(float) - a
    error = np.sqrt(sum(d[tasks == t].var() * 100 for t in range(4))) / 400
    low, high = paired_bootstrap(a.tolist(), b.tolist(), tasks.tolist())
    assert (low, high) == pytest.approx((d.mean() - 1.96 * error, d.mean() + 1.96 * error), abs=0.006)


def test_paired_bootstrap_keeps_each_task_at_its_size() -> None:
    """One task always gains, the other never: no uncertainty is left once tasks are fixed."""
    a, b = [False] * 30, [True] * 10 + [False] * 20
    assert paired_bootstrap(a, b, ["x"] * 10 + ["y"] * 20) == pytest.approx((1 / 3, 1 / 3))
    low, high = paired_bootstrap(a, b, ["all"] * 30)
    assert low < 0.25 < 0.4 < high


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="2 and 1"):
        mcnemar_exact([True, False], [True])
    with pytest.raises(ValueError, match="a stratum for each"):
        paired_bootstrap([True], [True], [])


def _trials(outcomes: str, env: str = "metaworld:reach-v3") -> list[Trial]:
    return [Trial(env, seed, mark == "+", 1.0) for seed, mark in enumerate(outcomes)]


def test_compare_pairs_by_start_state_in_any_order() -> None:
    base = _trials("++--") + _trials("--", "metaworld:push-v3")
    other = _trials("++++") + _trials("+-", "metaworld:push-v3")
    result = compare(base, other[::-1])
    assert (result.base.successes, result.other.successes, result.base.trials) == (2, 5, 6)
    assert result.difference == pytest.approx(0.5)
    assert result.interval.low < 0.5 <= result.interval.high
    assert result.p_value == pytest.approx(stats.binomtest(0, 3).pvalue)
    assert [(env, r.successes) for env, r in rates_by_env(other).items()] == [("metaworld:reach-v3", 4),
                                                                              ("metaworld:push-v3", 1)]


def test_compare_refuses_trials_that_are_no_pairs() -> None:
    with pytest.raises(ComoError, match="metaworld:reach-v3 from seed 2"):
        compare(_trials("++"), _trials("+++"))
    with pytest.raises(ComoError, match="stands twice"):
        compare(_trials("+") * 2, _trials("+"))
    with pytest.raises(ComoError, match="no trials"):
        rate([])


def test_a_rate_is_printed_with_its_counts() -> None:
    assert str(rate(_trials("+++-"))) == "3/4 = 75.0% [30.1%, 95.4%]"
