"""A thread that works ahead: order, errors at their place, and an end when nobody wants more."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from como_core.ahead import ahead


def test_items_come_in_order_from_another_thread() -> None:
    makers: set[threading.Thread] = set()

    def items() -> Iterator[int]:
        for i in range(20):
            makers.add(threading.current_thread())
            yield i

    assert list(ahead(items(), depth=2)) == list(range(20))
    assert len(makers) == 1
    assert threading.current_thread() not in makers


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    found = ahead(items())
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

    found = ahead(items(), depth=2)
    assert next(found) == 0
    assert ahead_of_use.wait(10), "two in the queue and the one that waits for room"
    found.close()  # type: ignore[attr-defined]
    assert len(made) <= 5
    assert not any(thread.name == "ahead" for thread in threading.enumerate())
