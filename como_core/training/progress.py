"""Progress for people: a bar with rate and time left on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar, overload

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

T = TypeVar("T")

# Often enough to see that a log file still grows, seldom enough to read it.
PLAIN_INTERVAL_S = 5.0


class Progress:
    """Counts towards `total`; a context manager. `done` is what an earlier run has already finished.

    The rate and the time left count only what was done since the start.
    """

    def __init__(self, total: int, title: str, unit: str = "steps", done: int = 0) -> None:
        self.total, self.title, self.unit, self.done = total, title, unit, done
        self._first, self._start, self._last_line, self._note = done, time.monotonic(), time.monotonic(), ""
        self._bar: RichProgress | None = None
        if sys.stdout.isatty():
            self._bar = RichProgress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                                     TextColumn("{task.fields[note]}"), TimeElapsedColumn(), TextColumn("left"),
                                     TimeRemainingColumn(), console=Console(file=sys.stdout))
            self._task = self._bar.add_task(title, total=total, completed=done, note="")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more; `note` (such as a loss) stands beside the rate until the next note."""
        self.done += count
        self._note = note or self._note
        now = time.monotonic()
        if self._bar:
            self._bar.update(self._task, completed=self.done, note=self._text(now))
        elif self.done < self.total and now - self._last_line >= PLAIN_INTERVAL_S:  # the end has a line of its own
            self._last_line = now
            print(f"{self.title}: {self.done}/{self.total} {self._text(now)}, {self._left(now)} left", flush=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()
        elif kind is None:
            now = time.monotonic()
            print(f"{self.title}: {self.done}/{self.total} {self._text(now)}, took {duration(now - self._start)}",
                  flush=True)

    def _rate(self, now: float) -> float:
        return (self.done - self._first) / max(now - self._start, 1e-9)

    def _text(self, now: float) -> str:
        return f"{self._rate(now):.3g} {self.unit}/s" + (f", {self._note}" if self._note else "")

    def _left(self, now: float) -> str:
        rate = self._rate(now)
        return duration((self.total - self.done) / rate) if rate > 0 else "unknown time"


@overload
def track(items: int, title: str, unit: str = ..., total: int | None = ...) -> Iterator[int]: ...
@overload
def track(items: Iterable[T], title: str, unit: str = ..., total: int | None = ...) -> Iterator[T]: ...
def track(items: int | Iterable[T], title: str, unit: str = "items", total: int | None = None) -> Iterator[int | T]:
    """Yield `items` (or 0 .. items-1) while a progress bar counts them. `total` is needed for what has no length."""
    sequence: Iterable[int | T] = range(items) if isinstance(items, int) else items
    if total is None:
        if not isinstance(sequence, Sized):
            raise ValueError(f"{title}: total is needed, since {type(items).__name__} has no length")
        total = len(sequence)
    with Progress(total, title, unit) as progress:
        for item in sequence:
            yield item
            progress.advance()


@contextmanager
def stage(title: str) -> Iterator[None]:
    """Announce a stage and, when it is done, how long it took."""
    print(f"== {title}", flush=True)
    start = time.monotonic()
    yield
    print(f"== {title}: done in {duration(time.monotonic() - start)}", flush=True)


def duration(seconds: float) -> str:
    """Seconds as people say them: `41 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
