"""Work that goes on in a thread while its last results are used: decoding beside encoding, batches beside training.

    with Ahead(decoded(video)) as chunks:
        for chunk in chunks:
            encode(chunk)
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")

_END: tuple[str, Any] = ("end", None)

_POLL_S = 0.1  # how long a thread that is no longer wanted may take to notice


class Ahead(Iterator[T], Generic[T]):
    """An iterator over `items`, which a thread makes up to `depth` of in advance; a context manager.

    What `items` raises is raised here, after the items before it. On leaving, the thread ends after the item it is at.
    `items` is iterated over in that thread alone. `waited_s` grows by the time that an item was asked for and not there
    yet.
    """

    def __init__(self, items: Iterable[T], depth: int = 4) -> None:
        self._items = items
        self._made: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
        self._unwanted = threading.Event()
        self._thread = threading.Thread(target=self._work, name="ahead", daemon=True)
        self._ended = False
        self.waited_s = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __next__(self) -> T:
        start = time.monotonic()
        kind, value = _END if self._ended else self._made.get()
        self.waited_s += time.monotonic() - start
        if kind == "item":
            made: T = value
            return made
        self._ended = True
        if kind == "error":
            raise value
        raise StopIteration

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._unwanted.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            for item in self._items:
                self._put("item", item)
                if self._unwanted.is_set():
                    return
            self._put(*_END)
        except BaseException as error:  # noqa: BLE001 - it is raised where the items are used
            self._put("error", error)

    def _put(self, kind: str, value: Any = None) -> None:
        while not self._unwanted.is_set():
            try:
                return self._made.put((kind, value), timeout=_POLL_S)
            except queue.Full:
                continue
