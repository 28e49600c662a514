"""The next batch is drawn in a thread while the present one is computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self


class Ahead:
    """An iterator over the results of `draw` for each of `steps`, the next one under way; a context manager.

    `draw` is called in one thread, so one call at a time; what it raises is raised by the iterator, at its own step.
    `waited_s` grows by the time that a batch was asked for and not there yet.
    """

    def __init__(self, draw: Callable[[int], Any], steps: Iterable[int]) -> None:
        self._draw, self._steps = draw, iter(steps)
        self._thread = ThreadPoolExecutor(1, "batches")
        self._under_way: Future[Any] | None = None
        self.waited_s = 0.0

    def __enter__(self) -> Self:
        self._start()
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if self._under_way is None:
            raise StopIteration
        start = time.monotonic()
        batch = self._under_way.result()
        self.waited_s += time.monotonic() - start
        self._start()
        return batch

    def _start(self) -> None:
        step = next(self._steps, None)
        self._under_way = None if step is None else self._thread.submit(self._draw, step)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._thread.shutdown(cancel_futures=True)
