"""One episode on its way to disk: callbacks hand messages in, a thread of its own writes them, an audit judges."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from como_core.errors import ComoError
from como_core.formats.bag_audit import AUDIT_FILE, Audit, AuditReport, RecordedTopic
from como_core.formats.bag_compress import COMPRESSED_SUFFIX, COMPRESSED_TYPE, RAW_TYPE, ImageCompression
from como_core.formats.bag_streams import serialized_stamp_ns
from como_core.formats.rosbag import BagWriter
from como_ros.messages import NS_PER_S

# Seconds of messages at some hundred a second: a disk that is further behind than this does not catch up.
QUEUE_SIZE = 4000
# Beyond this distance a header stamp and the recorder's clock are of different clocks, not of a slow network.
FOREIGN_CLOCK_S = 2.0
# A clock that goes back by more was set: times before and after it are not of one episode.
CLOCK_SET_BACK_S = 0.1
# A message may just have missed a flush, and a flush takes its time: twice as often keeps the promise.
FLUSHES_PER_INTERVAL = 2


@dataclass(frozen=True)
class Finished:
    """A bag that was kept.

    messages  per topic as recorded;  start_s  log time of the first, seconds of the recorder's clock
    """

    path: str
    messages: Mapping[str, int]
    start_s: float
    instruction: str | None
    audit: AuditReport


class Recording:
    """Writes messages in the order of `take`; `finish` keeps the bag only where every topic was heard.

    flush_interval_s  what is older is on the disk, and survives a crash or a power loss
    compression       of raw pictures; None stores the bytes that arrived
    on_error          called once, from the writing thread, when this episode is not to be kept
    """

    def __init__(self, bag: BagWriter, topics: tuple[RecordedTopic, ...], instruction: str | None,
                 on_error: Callable[[str], None], flush_interval_s: float,
                 compression: ImageCompression | None = None) -> None:
        self.path = bag.path
        self._bag, self._instruction, self._on_error = bag, instruction, on_error
        self._compression, self._flush_s = compression, flush_interval_s / FLUSHES_PER_INTERVAL
        self._by_name = {topic.name: topic for topic in topics}
        self._audit = Audit(topics)
        self._end_ns: int | None = None
        self._error: ComoError | None = None
        self._queue: queue.Queue[tuple[str, int, bytes] | None] = queue.Queue(QUEUE_SIZE)
        self._thread = threading.Thread(target=self._write, name="bag", daemon=True)
        self._thread.start()

    @property
    def error(self) -> str | None:
        """Why the episode will not be kept, or None."""
        return str(self._error) if self._error is not None else None

    @property
    def waiting(self) -> int:
        """Messages that the disk has not taken yet."""
        return self._queue.qsize()

    def counts(self) -> dict[str, int]:
        """Messages written so far, by topic."""
        return {name: self._audit.count(name) for name in self._by_name}

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
        """Write what waits, and close the bag with its audit in it.

        Raises ComoError, and leaves no bag, where a topic was silent from start to end or the episode was refused.
        """
        self._join()
        audit = self._audit.report(self._end_ns)
        if self._error is None and audit.silent:
            first, *others = audit.silent
            self.refuse(f"topic {first!r} was silent: no message in the episode"
                        + (f" (nor on {', '.join(map(repr, others))})" if others else ""))
        if self._error is not None:
            self._bag.discard()
            raise self._error
        path = self._bag.close({AUDIT_FILE: audit.to_json()})
        return Finished(str(path), self.counts(), self._audit.start_ns / NS_PER_S, self._instruction, audit)

    def discard(self) -> None:
        """Stop, and leave no bag."""
        self._join()
        self._bag.discard()

    def _join(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _fail(self, error: ComoError) -> None:
        if self._error is None:
            self._error = error
            self._on_error(str(error))

    def _write(self) -> None:
        flush_at_s = time.monotonic() + self._flush_s
        unflushed = False
        while True:
            try:
                item = self._queue.get(timeout=max(0.0, flush_at_s - time.monotonic()))
            except queue.Empty:
                item = ("", 0, b"")
            if item is None:
                return
            try:
                if item[0] and self._error is None:
                    self._write_one(*item)
                    unflushed = True
                if time.monotonic() >= flush_at_s:
                    flush_at_s = time.monotonic() + self._flush_s
                    if unflushed and self._error is None:
                        self._bag.flush()
                        unflushed = False
            except ComoError as error:
                self._fail(error)
            except Exception as error:  # noqa: BLE001 - a thread that ends unseen would leave a bag with a hole
                self._fail(ComoError(f"{self.path}: {type(error).__name__}: {error}; the episode is dropped"))

    def _write_one(self, name: str, log_ns: int, cdr: bytes) -> None:
        topic = self._by_name[name]
        sent_ns = None
        if topic.stamped:
            sent_ns = serialized_stamp_ns(cdr)
            self._require_one_clock(name, sent_ns, log_ns)
            if self._end_ns is not None and sent_ns > self._end_ns:
                return
        if self._end_ns is not None:
            log_ns = min(log_ns, self._end_ns)
        back_s = (self._audit.last_ns - log_ns) / NS_PER_S
        if back_s > CLOCK_SET_BACK_S:
            raise ComoError(f"{self.path}: the clock went back by {back_s:.1f} s in the midst of the episode; "
                            "the episode is dropped")
        if self._compression is not None and topic.type == RAW_TYPE:
            self._bag.write(name + COMPRESSED_SUFFIX, COMPRESSED_TYPE, log_ns, self._compression.compress(name, cdr))
        else:
            self._bag.write(name, topic.type, log_ns, cdr)
        self._audit.add(name, log_ns, sent_ns)

    def _require_one_clock(self, name: str, sent_ns: int, log_ns: int) -> None:
        """Messages without a header are placed in time by the recorder's clock, which must be that of the others."""
        ahead_s = (sent_ns - log_ns) / NS_PER_S
        if abs(ahead_s) > FOREIGN_CLOCK_S:
            raise ComoError(f"{self.path}: topic {name!r}: header stamps are {ahead_s:.1f} s ahead of the recorder's "
                            "clock; start recorder and source both with use_sim_time, or both without; the episode is "
                            "dropped")
