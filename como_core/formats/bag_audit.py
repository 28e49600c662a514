"""What is wrong with a recorded episode: silent topics, gaps, rates, lost messages, clocks that jump.

    audit = Audit(recorded_topics(interface))
    audit.add("/camera/image_raw", log_ns, stamp_ns)
    report = audit.report(end_ns)
"""

from __future__ import annotations

import dataclasses
import json
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from como_core.interface import Camera, Interface, StateStream

AUDIT_FILE = "audit.json"
_FORMAT = "como-audit-1"
_S = 1e9
# Below this share of the interface's rate a stream is called sparse.
SPARSE_SHARE = 0.8
# A distance between stamps of this many of their median is a message that is missing.
_MISSING_FROM = 1.5
# A log time that goes back by less is a clock that is being disciplined, not one that was set.
CLOCK_BACK_NS = 1_000_000


@dataclass(frozen=True)
class RecordedTopic:
    """A topic that every episode must hold.

    rate_hz    as the interface says; None where messages come when they must (a trajectory, a gripper)
    max_age_s  the longest silence after which nobody may rely on the stream; None where silence is allowed
    stamped    whether its messages begin with a std_msgs/Header
    on_change  whether its last value from before the episode is still in force in it
    """

    name: str
    type: str
    rate_hz: float | None = None
    max_age_s: float | None = None
    stamped: bool = True
    on_change: bool = False


@dataclass(frozen=True)
class TopicAudit:
    """One topic in numbers.

    rate_hz         messages a second over the episode; expected_hz as the interface says, or None
    longest_gap_s   longest silence, the episode's ends included, and gap_at_s when it began; None without messages
    missing         messages that the distances between header stamps say were lost on the way
    stamps_back     messages whose header stamp is before that of the one before
    stamps_again    messages whose header stamp another one has too, less one for each such stamp
    """

    messages: int
    rate_hz: float
    expected_hz: float | None
    longest_gap_s: float | None
    gap_at_s: float | None
    missing: int
    stamps_back: int
    stamps_again: int


@dataclass(frozen=True)
class AuditReport:
    """The verdict on an episode: faults make it unfit as it is, warnings are to be looked at."""

    seconds: float
    topics: dict[str, TopicAudit]
    faults: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def silent(self) -> list[str]:
        """Topics without a message."""
        return [name for name, topic in self.topics.items() if not topic.messages]

    def to_json(self) -> str:
        """As it lies in the bag."""
        return json.dumps({"format": _FORMAT, **dataclasses.asdict(self)}, indent=1)


def recorded_topics(interface: Interface, resolve: Callable[[str], str] = lambda topic: topic
                    ) -> tuple[RecordedTopic, ...]:
    """What an episode of `interface` is made of; `resolve` turns a topic of it into its full name."""
    action = interface.action
    streams: tuple[Camera | StateStream, ...] = (*interface.cameras.values(), *interface.state.values())
    topics = [RecordedTopic(resolve(s.topic), s.type, s.rate_hz, s.max_age_s) for s in streams]
    rate_hz = None if action.target == "joint_trajectory" else action.rate_hz
    topics.append(RecordedTopic(resolve(action.topic), action.type, rate_hz,
                                stamped=action.target != "forward_command"))
    if action.gripper:
        topics.append(RecordedTopic(resolve(action.gripper.topic), "std_msgs/msg/Float64", stamped=False,
                                    on_change=True))
    return tuple(topics)


class Audit:
    """Takes the times of messages as they are written, in the order of log time; 16 bytes a message."""

    def __init__(self, topics: Sequence[RecordedTopic]) -> None:
        self._topics = topics
        self._stamps = {topic.name: array("q") for topic in topics}
        self._first_ns: int | None = None
        self.last_ns = 0
        self._jumps: list[tuple[float, float]] = []

    @property
    def start_ns(self) -> int:
        """Log time of the first message; 0 before it."""
        return self._first_ns or 0

    def count(self, topic: str) -> int:
        """Messages of a topic so far."""
        return len(self._stamps[topic])

    def add(self, topic: str, log_ns: int, stamp_ns: int | None) -> None:
        """One message: when it was logged and, where it has a header, its stamp, nanoseconds."""
        if self._first_ns is None:
            self._first_ns = log_ns
        elif log_ns < self.last_ns - CLOCK_BACK_NS:
            self._jumps.append(((self.last_ns - self._first_ns) / _S, (log_ns - self.last_ns) / _S))
        self.last_ns = log_ns
        self._stamps[topic].append(log_ns if stamp_ns is None else stamp_ns)

    def report(self, end_ns: int | None = None) -> AuditReport:
        """The verdict on an episode that ends at `end_ns`, or with its last message."""
        end_ns = self.last_ns if end_ns is None else end_ns
        seconds = max(0.0, (end_ns - self.start_ns) / _S)
        topics = {topic.name: self._of(topic, seconds, end_ns) for topic in self._topics}
        faults = [f"the clock went back by {-by_s:.3f} s, {at_s:.2f} s after the start" for at_s, by_s in self._jumps]
        warnings: list[str] = []
        for topic in self._topics:
            _judge(topic, topics[topic.name], faults, warnings)
        return AuditReport(seconds, topics, tuple(faults), tuple(warnings))

    def _of(self, topic: RecordedTopic, seconds: float, end_ns: int) -> TopicAudit:
        stamps = np.array(self._stamps[topic.name], np.int64)
        rate_hz = len(stamps) / seconds if seconds > 0 else 0.0
        if not len(stamps):
            return TopicAudit(0, 0.0, topic.rate_hz, None, None, 0, 0, 0)
        order = np.unique(stamps)
        missing = 0
        if topic.rate_hz is not None and topic.stamped and len(order) > 2:
            periods = np.diff(order) / np.median(np.diff(order))
            missing = int(np.sum(np.round(periods[periods > _MISSING_FROM]) - 1))
        edges = np.concatenate([[self.start_ns], order, [end_ns]])
        gaps = np.diff(edges)
        longest = int(np.argmax(gaps))
        return TopicAudit(len(stamps), rate_hz, topic.rate_hz, float(gaps[longest]) / _S,
                          float(edges[longest] - self.start_ns) / _S, missing, int(np.sum(np.diff(stamps) < 0)),
                          len(stamps) - len(order) if topic.stamped else 0)


def _judge(topic: RecordedTopic, found: TopicAudit, faults: list[str], warnings: list[str]) -> None:
    name = f"topic {topic.name!r}"
    if not found.messages:
        faults.append(f"{name} was silent: no message in the episode")
        return
    if topic.max_age_s is not None and found.longest_gap_s is not None and found.longest_gap_s > topic.max_age_s:
        faults.append(f"{name} was silent for {found.longest_gap_s:.2f} s, from {found.gap_at_s:.2f} s after the start "
                      f"on, and its max_age_s is {topic.max_age_s:g}")
    if topic.rate_hz and found.rate_hz < SPARSE_SHARE * topic.rate_hz:
        warnings.append(f"{name}: {found.rate_hz:.1f} messages a second, the interface says {topic.rate_hz:g}: "
                        "messages were lost, or the source is slow")
    if found.missing:
        warnings.append(f"{name}: {found.missing} of {found.messages + found.missing} messages are missing by their "
                        "header stamps")
    if found.stamps_back:
        warnings.append(f"{name}: {found.stamps_back} header stamps go back")
    if found.stamps_again:
        warnings.append(f"{name}: {found.stamps_again} messages have the header stamp of another one; of those with "
                        "one stamp the last is read")
