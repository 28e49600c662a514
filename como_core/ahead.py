"""Work that goes on in a thread while its last results are used: decoding beside encoding.

    for chunk in ahead(decoded(video)): encode(chunk)
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

_POLL_S = 0.1  # how long a thread that is no longer wanted may take to notice


def ahead(items: Iterable[T], depth: int = 4) -> Iterator[T]:
    """Yield `items`, which a thread makes up to `depth` of in advance.

    What it raises is raised here, after the items before it. Where the caller stops early, the thread ends after the
    item it is at. `items` is iterated over in that thread alone.
    """
    made: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
    unwanted = threading.Event()

    def put(kind: str, value: Any = None) -> None:
        while not unwanted.is_set():
            try:
                return made.put((kind, value), timeout=_POLL_S)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put("item", item)
                if unwanted.is_set():
                    return
            put("end")
        except BaseException as error:  # noqa: BLE001 - it is raised where the items are used
            put("error", error)

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = made.get()
            if kind == "item":
                yield value
            elif kind == "error":
                raise value
            else:
                return
    finally:
        unwanted.set()
        thread.join()
