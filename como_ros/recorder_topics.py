"""What a recorder hears: subscriptions of an interface's topics as raw bytes, and what they said last."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.subscription import MessageInfo, Subscription

from como_core.formats.bag_audit import RecordedTopic, recorded_topics
from como_core.interface import Interface
from como_ros import qos
from como_ros.messages import message_class

Taker = Callable[[str, bytes], None]

COMMAND_DEPTH = 200


class RecorderTopics:
    """Subscriptions of every topic of `interface`; `take` gets the name and the bytes of each message.

    held        topic -> last message of those that come on change only, so what holds now may have been said before
    mismatches  topic -> the sentence on a publisher whose QoS does not fit
    """

    def __init__(self, node: Node, interface: Interface, take: Taker) -> None:
        self._node, self._take = node, take
        self.all = recorded_topics(interface, node.resolve_topic_name)
        self.held: dict[str, bytes] = {}
        self.mismatches: dict[str, str] = {}
        self.heard_s: dict[str, float] = {}
        self._taken_of_ns: int | None = None
        self._commands = {node.resolve_topic_name(interface.action.topic)}
        self._sources: dict[str, Subscription[Any]] = {topic.name: self._listen(topic) for topic in self.all}

    def took_of_before(self, ns: int) -> bool:
        """Whether a message was taken since the last question that had arrived before `ns`, of the system's clock."""
        taken_of_ns, self._taken_of_ns = self._taken_of_ns, None
        return taken_of_ns is not None and taken_of_ns < ns

    def unheard(self) -> list[RecordedTopic]:
        """Topics that have no publisher of their type and QoS."""
        return [topic for topic in self.all if not self._sources[topic.name].get_publisher_count()]

    def why_unheard(self, topic: RecordedTopic) -> str:
        """Why nothing comes on a topic: a QoS or a type that does not fit, or nobody."""
        if topic.name in self.mismatches:
            return self.mismatches[topic.name]
        others = {info.topic_type for info in self._node.get_publishers_info_by_topic(topic.name)} - {topic.type}
        if others:
            return (f"topic {topic.name!r} is published as {', '.join(sorted(others))}, the interface says "
                    f"{topic.type}; mend the interface or the source")
        return (f"topic {topic.name!r} has no publisher of {topic.type}; start its node, or mend the topic in the "
                "interface")

    def _listen(self, topic: RecordedTopic) -> Subscription[Any]:
        reliable = topic.on_change or topic.name in self._commands
        profile = qos.command(depth=COMMAND_DEPTH) if reliable else qos.recording()
        return qos.subscribe(self._node, message_class(topic.type), topic.name, partial(self._on_message, topic),
                             profile, raw=True, on_incompatible=partial(self.mismatches.__setitem__, topic.name))

    def _on_message(self, topic: RecordedTopic, cdr: bytes, info: MessageInfo) -> None:
        self.heard_s[topic.name] = time.monotonic()
        arrived_ns = info["received_timestamp"] or info["source_timestamp"]  # not every middleware knows the first
        self._taken_of_ns = min(arrived_ns, self._taken_of_ns or arrived_ns)
        if topic.on_change:
            self.held[topic.name] = cdr
        self._take(topic.name, cdr)
