"""When actions are due: late steps, gaps, interpolation, and a new chunk over an old one."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from como_core.action_chunk import ActionChunk
from como_core.control.blending import Blender
from como_core.control.plan import Plan, chunk_fault, chunk_plan, interpolation_of

PERIOD_S = 0.025


def chunk(values: list[float], first_s: float = 0.0) -> ActionChunk:
    return ActionChunk(first_s + np.arange(len(values)) * PERIOD_S, np.array(values, np.float32)[:, None], "test")


def plan(values: list[float], stamp_s: float = 100.0, first_s: float = 0.0, kind: str = "ee_twist") -> Plan:
    return chunk_plan(chunk(values, first_s), stamp_s, PERIOD_S, interpolation_of(kind))  # type: ignore[arg-type]


def spliced(old: Plan | None, new: Plan, now_s: float, blend_s: float) -> Plan | None:
    return Blender("cross_fade", blend_s, 0.0, PERIOD_S).take(old, new, 100.0, now_s)


def at(made: Plan | None, now_s: float) -> float | None:
    value = None if made is None else made.at(now_s)
    return None if value is None else float(value[0])


def test_step_k_is_due_at_the_stamp_plus_its_time_and_lasts_until_the_next() -> None:
    made = plan([1, 2, 3])
    assert [at(made, 100 + t) for t in (-0.01, 0.0, 0.02, 0.025, 0.047, 0.06)] == [None, 1, 1, 2, 2, 3]
    assert at(made, 100.0749) is None and at(made, 100.0739) == 3, "the last step lasts one period"
    assert made.remaining(100.03) == 2 and made.end_s == pytest.approx(100.075)


def test_rounded_stamps_do_not_cost_a_step() -> None:
    """Image stamp and timer tick of the same period differ by rounding only."""
    made = plan([1, 2, 3], stamp_s=1_795_223_454.000000)
    assert at(made, 1_795_223_454.024999999) == 2


def test_positions_move_in_a_straight_line_and_stay_at_the_last() -> None:
    made = plan([0, 1, 3], kind="joint_position")
    assert at(made, 100.0125) == pytest.approx(0.5) and at(made, 100.0375) == pytest.approx(2.0)
    assert at(made, 100.06) == 3


def test_late_steps_are_dropped_and_nothing_is_stretched() -> None:
    """A prediction that took 60 ms begins with its third step, the one that is in force."""
    made = spliced(None, plan([1, 2, 3, 4]), 100.06, 0.0)
    assert at(made, 100.06) == 3 and made is not None and made.remaining(100.06) == 2


def test_the_first_chunk_starts_at_its_first_step() -> None:
    assert at(spliced(None, plan([1, 2, 3]), 100.01, 0.05), 100.01) == 1


def test_a_chunk_that_is_late_as_a_whole_changes_nothing() -> None:
    old = plan([7] * 20)
    assert spliced(old, plan([1, 2], stamp_s=99.0), 100.1, 0.05) is old


def test_the_old_chunk_goes_on_until_the_new_one_begins() -> None:
    made = spliced(plan([1] * 10), plan([2] * 4, first_s=0.1), 100.0, 0.0)
    assert [at(made, 100 + t) for t in (0.0, 0.09, 0.1, 0.19)] == [1, 1, 2, 2]
    assert at(made, 100.21) is None


def test_a_gap_between_two_chunks_stays_empty() -> None:
    made = spliced(plan([1] * 2), plan([2] * 4, first_s=0.1), 100.0, 0.05)
    assert [at(made, 100 + t) for t in (0.03, 0.06, 0.1)] == [1, None, 2]


def test_a_new_chunk_fades_in() -> None:
    made = spliced(plan([0] * 12), plan([1] * 12), 100.0, 0.1)
    assert [at(made, 100 + t) for t in (0.0, 0.025, 0.05, 0.1, 0.2)] == pytest.approx([0, 0.25, 0.5, 1, 1])


def test_where_the_old_chunk_has_nothing_the_new_one_counts_whole() -> None:
    made = spliced(plan([0, 0]), plan([1] * 12), 100.0, 1.0)
    assert at(made, 100.05) == 1


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=6), st.floats(0, 0.2))
def test_any_sequence_of_chunks_gives_increasing_times_and_values_between_theirs(late_s: list[float],
                                                                                 blend_s: float) -> None:
    made: Plan | None = None
    now_s = 100.0
    for number, delay_s in enumerate(late_s):
        made = spliced(made, plan([float(number % 2)] * 12, stamp_s=now_s), now_s + delay_s, blend_s)
        now_s += delay_s
        if made is not None:
            assert np.all(np.diff(made.due_s) > 0) and np.all(made.until_s[:-1] <= made.due_s[1:] + 1e-9)
            assert made.values.min() >= 0 and made.values.max() <= 1 and np.isfinite(made.values).all()


@pytest.mark.parametrize(("values", "times_s", "fault"), [
    ([[0.0, np.nan]], [0.0], "NaN or infinity"), ([[0.0, np.inf]], [0.0], "NaN or infinity"),
    ([[0.0, 1.0]], [np.nan], "NaN or infinity"), ([[0.0]], [0.0], r"shape \(1, 1\)"),
    ([[0.0, 0.0], [0.0, 0.0]], [0.0], "1 times"), ([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0], "do not increase"),
    (np.zeros((0, 2)), [], r"shape \(0, 2\)"),
])
def test_a_chunk_is_refused_whole(values: list[list[float]], times_s: list[float], fault: str) -> None:
    found = chunk_fault(ActionChunk(np.array(times_s), np.array(values, np.float32)), 2)
    assert found is not None and re.search(fault, found)


def test_a_good_chunk_has_no_fault() -> None:
    assert chunk_fault(chunk([1, 2, 3]), 1) is None
