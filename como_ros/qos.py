"""Quality of service, in one place, and endpoints that say aloud when a peer's QoS does not fit theirs.

| kind      | reliability | durability      | depth | for                                            |
|-----------|-------------|-----------------|-------|------------------------------------------------|
| stream    | best effort | volatile        | 5     | cameras and states: the newest counts           |
| recording | best effort | volatile        | 200   | cameras and states of which every one counts    |
| command   | reliable    | volatile        | 1     | twists, gripper                                 |
| latched   | reliable    | transient local | 1     | what a late subscriber must find: instruction   |
| clock     | reliable    | volatile        | 10    | /clock: matches best-effort and reliable readers |

Each call makes a new profile: rclpy writes parameter overrides into the profile that it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription


def stream(depth: int = 5) -> QoSProfile:
    """Sensor data: best effort, the same as rclpy's qos_profile_sensor_data."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)


def recording(depth: int = 200) -> QoSProfile:
    """Sensor data with a queue that outlasts seconds of a busy disk."""
    return stream(depth)


def command(depth: int = 1) -> QoSProfile:
    """Commands: reliable, and by default only the newest."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def latched() -> QoSProfile:
    """State that must be found later: reliable, transient local, depth 1."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def clock() -> QoSProfile:
    """What /clock is published with."""
    return QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


def subscribe(node: Node, message_type: type, topic: str, callback: Callable[[Any], None], profile: QoSProfile, *,
              raw: bool = False, on_incompatible: Callable[[str], None] | None = None) -> Subscription[Any]:
    """Subscribe with `qos_overrides.*` parameters; an incompatible publisher is logged as an error.

    raw              the callback gets the serialized bytes (CDR) of each message instead of the message
    on_incompatible  called with the same sentence that is logged, for diagnostics
    """
    name = node.resolve_topic_name(topic)

    def tell(event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        text = (f"topic {name!r}: a publisher offers an incompatible QoS ({policy}), nothing arrives from it; change "
                f"the publisher, or our parameter qos_overrides.{name}.subscription.{policy.lower()}")
        node.get_logger().error(text)
        if on_incompatible is not None:
            on_incompatible(text)

    return node.create_subscription(message_type, topic, callback, profile, raw=raw,
                                    event_callbacks=SubscriptionEventCallbacks(incompatible_qos=tell),
                                    qos_overriding_options=QoSOverridingOptions.with_default_policies())


def publish(node: Node, message_type: type, topic: str, profile: QoSProfile) -> Publisher[Any]:
    """Create a publisher; an incompatible subscriber is logged as an error."""
    name = node.resolve_topic_name(topic)

    def tell(event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        node.get_logger().error(f"topic {name!r}: a subscriber asks for an incompatible QoS ({policy}) "
                                "and gets nothing from us; change the subscriber's QoS")

    return node.create_publisher(message_type, topic, profile,
                                 event_callbacks=PublisherEventCallbacks(incompatible_qos=tell))
