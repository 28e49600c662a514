"""One episode on its way to disk: callbacks hand messages in, a thread of its own writes them, an audit judges."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from como_core.errors import ComoError
from como_core.formats.rosbag import BagWriter
from como_ros.messages import NS_PER_S, serialized_stamp_ns

# Seconds of messages at some hundred a second: a disk that is further behind than this does not catch up.
QUEUE_SIZE = 4000
# Beyond this distance a header stamp and the recorder's clock are of different clocks, not of a slow network.
FOREIGN_CLOCK_S = 2.0
# Below this share of the interface's rate a stream is called sparse in the answer.
SPARSE_SHARE = 0.8


@dataclass(frozen=True)
class RecordedTopic:
    """A topic that every episode must hold.

    rate_hz is None where messages have no header and come on change only.
    """

    name: str
    type: str
    rate_hz: float | None = None


@dataclass(frozen=True)
class Finished:
    """A bag that passed the audit: messages per topic, its length, and which streams came in too slowly."""

    path: str
    messages: Mapping[str, int]
    seconds: float
    instruction: str | None
    warnings: tuple[str, ...]


class Recording:
    """Writes messages in the order of `take`; `finish` keeps the bag only where every topic was heard.

    on_error is called once, from the writing thread, when the disk takes no more.
    """

    def __init__(self, bag: BagWriter, topics: tuple[RecordedTopic, ...], instruction: str | None,
                 on_error: Callable[[str], None]) -> None:
        self.path = bag.path
        self._bag, self._topics, self._instruction, self._on_error = bag, topics, instruction, on_error
        self._by_name = {topic.name: topic for topic in topics}
        self._first_ns: int | None = None
        self._last_ns = 0
        self._end_ns: int | None = None
        self._error: ComoError | None = None
        self._queue: queue.Queue[tuple[str, int, bytes] | None] = queue.Queue(QUEUE_SIZE)
        self._thread = threading.Thread(target=self._write, name="bag", daemon=True)
        self._thread.start()

    def take(self, topic: str, stamp_ns: int, cdr: bytes) -> None:
        """Store one serialized message; never blocks."""
        try:
            self._queue.put_nowait((topic, stamp_ns, cdr))
        except queue.Full:
            self._fail(ComoError(f"{self.path}: the disk is slower than the messages come, {QUEUE_SIZE} of them wait; "
                                 "the episode is dropped"))

    def refuse(self, reason: str) -> None:
        """Whatever comes now, this episode is not to be kept."""
        self._fail(ComoError(f"{self.path}: {reason}; the episode is dropped"))

    def end_at(self, now_ns: int) -> None:
        """The episode ends now: of what is still on its way, only what was sent before belongs to it."""
        self._end_ns = now_ns

    def finish(self) -> Finished:
        """Write what waits, and close the bag. Raises ComoError, and leaves no bag, where the audit finds a fault."""
        self._join()
        silent = [topic.name for topic in self._topics if not self._bag.counts.get(topic.name)]
        if self._error is None and silent:
            self.refuse(f"topic {silent[0]!r} was silent: no message in the episode"
                        + (f" (nor on {', '.join(repr(name) for name in silent[1:])})" if silent[1:] else ""))
        if self._error is not None:
            self._bag.discard()
            raise self._error
        path = self._bag.close()
        seconds = (self._last_ns - (self._first_ns or 0)) / NS_PER_S
        messages = {topic.name: self._bag.counts[topic.name] for topic in self._topics}
        return Finished(str(path), messages, seconds, self._instruction, self._sparse(messages, seconds))

    def discard(self) -> None:
        """Stop, and leave no bag."""
        self._join()
        self._bag.discard()

    def _sparse(self, messages: Mapping[str, int], seconds: float) -> tuple[str, ...]:
        found = []
        for topic in self._topics:
            expected = seconds * (topic.rate_hz or 0.0)
            if messages[topic.name] < SPARSE_SHARE * expected:
                found.append(f"topic {topic.name!r}: {messages[topic.name] / seconds:.1f} messages a second, the "
                             f"interface says {topic.rate_hz:g}: messages were lost, or the source is slow")
        return tuple(found)

    def _join(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _fail(self, error: ComoError) -> None:
        if self._error is None:
            self._error = error
            self._on_error(str(error))

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._write_one(*item)
                except ComoError as error:
                    self._fail(error)

    def _write_one(self, name: str, log_ns: int, cdr: bytes) -> None:
        topic = self._by_name[name]
        if topic.rate_hz is not None:
            sent_ns = serialized_stamp_ns(cdr)
            self._require_one_clock(name, sent_ns, log_ns)
            if self._end_ns is not None and sent_ns > self._end_ns:
                return
        if self._end_ns is not None:
            log_ns = min(log_ns, self._end_ns)
        self._bag.write(name, topic.type, log_ns, cdr)
        self._first_ns = log_ns if self._first_ns is None else self._first_ns
        self._last_ns = log_ns

    def _require_one_clock(self, name: str, sent_ns: int, log_ns: int) -> None:
        """Messages without a header are placed in time by the recorder's clock, which must be that of the others."""
        ahead_s = (sent_ns - log_ns) / NS_PER_S
        if abs(ahead_s) > FOREIGN_CLOCK_S:
            raise ComoError(f"{self.path}: topic {name!r}: header stamps are {ahead_s:.1f} s ahead of the recorder's "
                            "clock; start recorder and source both with use_sim_time, or both without; the episode is "
                            "dropped")
