"""A thread that works ahead: order, errors at their place, what was waited, and an end when nobody wants more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from como_core.ahead import Ahead


def test_items_come_in_order_from_one_other_thread_while_the_last_is_used() -> None:
    """Items of 40 ms and work of 50 ms: only the first one is waited for."""
    makers: set[threading.Thread] = set()

    def slow(i: int) -> int:
        makers.add(threading.current_thread())
        time.sleep(0.04)
        return i

    with Ahead(map(slow, range(6)), depth=1) as items:
        used = []
        for item in items:
            used.append(item)
            time.sleep(0.05)
        assert list(items) == [], "asking again is no wait for ever"
    assert used == list(range(6))
    assert 0.02 < items.waited_s < 0.12
    assert len(makers) == 1
    assert threading.current_thread() not in makers


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with Ahead(items()) as found:
        assert next(found) == 1
        with pytest.raises(ValueError, match="broken"):
            next(found)


def test_no_more_than_the_depth_is_made_in_advance_and_the_thread_ends_with_its_user() -> None:
    made: list[int] = []
    ahead_of_use = threading.Event()

    def items() -> Iterator[int]:
        for i in range(1000):
            made.append(i)
            if i == 3:
                ahead_of_use.set()
            yield i

    with Ahead(items(), depth=2) as found:
        assert next(found) == 0
        assert ahead_of_use.wait(10), "two in the queue and the one that waits for room"
    assert len(made) <= 5
    assert not any(thread.name == "ahead" for thread in threading.enumerate())
