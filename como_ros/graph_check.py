"""An interface beside the running graph: topics, types, QoS, rates, ages, image sizes and joint names."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.duration import Infinite
from rclpy.exceptions import InvalidNamespaceException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.validate_namespace import validate_namespace
from sensor_msgs.msg import Image

from como_core.errors import ComoError
from como_core.interface import Camera, Gripper, Interface, StateStream
from como_ros import qos
from como_ros.images import message_fault, rgb_image
from como_ros.messages import NS_PER_S, message_class, stamp_ns, state_values

OK, FAIL = "ok", "fail"
RATE_TOLERANCE = 0.2
_DISCOVERY_S = 10.0
_POLL_S = 0.05
_INFINITE_NS = Infinite.nanoseconds


@dataclass(frozen=True)
class Row:
    """One line of the table: `what` of `topic` is as the interface says (ok), or not (fail); `found` tells."""

    topic: str
    what: str
    status: str
    found: str


@dataclass
class _Heard:
    """Messages of one stream: header stamps in nanoseconds, what is wrong with them, whether one was decoded."""

    stamps_ns: list[int] = field(default_factory=list)
    age_s: float = 0.0
    faults: set[str] = field(default_factory=set)
    decoded: bool = False


def check_graph(interface: Interface, seconds: float, namespace: str = "", use_sim_time: bool = False) -> list[Row]:
    """Listen for `seconds` after discovery and compare.

    Raises ComoError where a message type is not installed, or `seconds` or `namespace` cannot be used.
    """
    if not 0 < seconds < math.inf:
        raise ComoError(f"--seconds {seconds:g}: expected a time above 0, long enough for two messages of each stream")
    with _node(namespace, use_sim_time) as (node, executor):
        streams: dict[str, Camera | StateStream] = {**interface.cameras, **interface.state}
        heard: dict[str, _Heard] = {name: _Heard() for name in streams}
        for name, stream in streams.items():
            node.create_subscription(message_class(stream.type), stream.topic,
                                     partial(_hear, node, heard[name], stream), qos.stream(200))
        _spin(executor, _DISCOVERY_S, lambda: all(node.count_publishers(s.topic) for s in streams.values()))
        for entry in heard.values():
            entry.stamps_ns.clear()
        _spin(executor, seconds, lambda: False)
        rows: list[Row] = []
        for name, stream in streams.items():
            rows += _stream_rows(node, stream, heard[name], seconds)
        return [*rows, *_command_rows(node, interface)]


def _hear(node: Node, heard: _Heard, stream: Camera | StateStream, message: Any) -> None:
    stamp = stamp_ns(message.header.stamp)
    heard.stamps_ns.append(stamp)
    heard.age_s = (node.get_clock().now().nanoseconds - stamp) / NS_PER_S
    try:
        if isinstance(stream, StateStream):
            state_values(message, stream)
        elif isinstance(message, Image):
            _require_picture(message, stream)
        elif not heard.decoded:  # one tells what all are, and decoding each would slow the rates that are measured
            heard.decoded = True
            rgb_image(message, stream)
    except ComoError as error:
        heard.faults.add(str(error))


def _require_picture(message: Image, camera: Camera) -> None:
    given = (message.width, message.height, message.encoding)
    if given != (camera.width, camera.height, camera.encoding):
        raise ComoError(f"{given[0]} x {given[1]} {given[2]}, the interface says {camera.width} x {camera.height} "
                        f"{camera.encoding}")
    fault = message_fault(message, camera)
    if fault:
        raise ComoError(fault)


def _stream_rows(node: Node, stream: Camera | StateStream, heard: _Heard, seconds: float) -> Iterator[Row]:
    name = node.resolve_topic_name(stream.topic)
    publishers = node.get_publishers_info_by_topic(stream.topic)
    if not publishers:
        yield Row(name, "publisher", FAIL, "nobody publishes it; start the driver, or mend the topic")
        return
    yield from _ends(name, "publisher", [(p.topic_type, p.qos_profile) for p in publishers], stream.type,
                     lambda offered: (offered, qos.stream()))
    stamps = heard.stamps_ns
    if len(stamps) < 2 or stamps[-1] <= stamps[0]:
        yield Row(name, "rate", FAIL, f"{len(stamps)} messages in {seconds:g} s"
                  + ("; their header stamp does not move" if len(stamps) > 1 else ""))
        return
    rate_hz = (len(stamps) - 1) * NS_PER_S / (stamps[-1] - stamps[0])
    fits = abs(rate_hz / stream.rate_hz - 1) <= RATE_TOLERANCE
    yield Row(name, "rate", OK if fits else FAIL, f"{rate_hz:.1f} Hz, rate_hz is {stream.rate_hz:g}")
    fresh = abs(heard.age_s) <= stream.max_age_s
    yield Row(name, "age", OK if fresh else FAIL, f"{heard.age_s:.3f} s by header stamp, max_age_s is "
              f"{stream.max_age_s:g}" + ("" if fresh else "; are both clocks the same (use_sim_time)?"))
    what = "names" if isinstance(stream, StateStream) else "image"
    good = ", ".join(stream.names) if isinstance(stream, StateStream) else f"{stream.width} x {stream.height}"
    yield Row(name, what, FAIL if heard.faults else OK, "; ".join(sorted(heard.faults)) or good)


def _command_rows(node: Node, interface: Interface) -> Iterator[Row]:
    action = interface.action
    name = node.resolve_topic_name(action.topic)
    subscribers = node.get_subscriptions_info_by_topic(action.topic)
    if subscribers:
        yield from _ends(name, "subscriber", [(s.topic_type, s.qos_profile) for s in subscribers], action.type,
                         lambda wanted: (qos.command(), wanted))
    else:
        yield Row(name, "subscriber", FAIL, "nobody listens to commands; start the controller, or mend the topic")
    others = [info.node_name for info in node.get_publishers_info_by_topic(action.topic)]
    yield Row(name, "publisher", OK if len(others) < 2 else FAIL,
              f"{len(others)} send commands{': ' if others else ''}{', '.join(sorted(others))}")
    if action.gripper is not None:
        yield _gripper_row(node, action.gripper)


def _gripper_row(node: Node, gripper: Gripper) -> Row:
    if gripper.action is not None:
        name = node.resolve_service_name(f"{gripper.action}/_action/send_goal")
        types = dict(node.get_service_names_and_types()).get(name, [])
        wanted = f"control_msgs/action/{gripper.action_type}_SendGoal"
        found = ", ".join(types) or "no such action server; start its controller, or mend action.gripper.action"
        return Row(node.resolve_service_name(gripper.action), "action", OK if wanted in types else FAIL, found)
    name = node.resolve_topic_name(gripper.topic)
    listeners = node.count_subscribers(gripper.topic)
    driven = listeners > 0 or gripper.joint is not None
    return Row(name, "subscriber", OK if driven else FAIL, f"{listeners} listen to the gripper's command")


def _ends(name: str, what: str, ends: list[tuple[str, QoSProfile]], wanted: str, pair: Any) -> Iterator[Row]:
    """Rows on type and QoS of a topic's publishers or subscribers; `pair` orders (publisher's, subscriber's) QoS."""
    types = {kind for kind, _ in ends}
    yield Row(name, "type", OK if types == {wanted} else FAIL,
              ", ".join(sorted(types)) + ("" if types == {wanted} else f", the interface says {wanted}"))
    reasons = {reason for _, profile in ends for reason in _misfits(*pair(profile))}
    yield Row(name, "QoS", FAIL if reasons else OK, "; ".join(sorted(reasons)) or f"fits {len(ends)} {what}(s)")


def _misfits(offered: QoSProfile, wanted: QoSProfile) -> Iterator[str]:
    """Why nothing passes between a publisher and a subscriber. rclpy's own check takes an unset deadline for none."""
    if offered.reliability == ReliabilityPolicy.BEST_EFFORT and wanted.reliability == ReliabilityPolicy.RELIABLE:
        yield "reliability: the publisher is best effort, the subscriber wants reliable"
    if offered.durability == DurabilityPolicy.VOLATILE and wanted.durability == DurabilityPolicy.TRANSIENT_LOCAL:
        yield "durability: the publisher is volatile, the subscriber wants transient local"
    asked = wanted.deadline.nanoseconds
    if 0 < asked < _INFINITE_NS and not 0 < offered.deadline.nanoseconds <= asked:
        yield f"deadline: the subscriber wants a message every {asked / NS_PER_S:g} s, which is not promised"


def _spin(executor: SingleThreadedExecutor, seconds: float, done: Any) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not done():
        executor.spin_once(timeout_sec=_POLL_S)


@contextmanager
def _node(namespace: str, use_sim_time: bool) -> Iterator[tuple[Node, SingleThreadedExecutor]]:
    context = Context()
    rclpy.init(context=context)
    try:
        validate_namespace("/" + namespace.lstrip("/"))
        node = Node("como_interface_check", namespace=namespace, context=context,
                    parameter_overrides=[rclpy.Parameter("use_sim_time", value=use_sim_time)])
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        yield node, executor
        node.destroy_node()
    except InvalidNamespaceException as error:
        raise ComoError(f"--namespace {namespace!r} cannot be used: {' '.join(str(error).split())}; expected words of "
                        "letters, digits and _, such as /left") from error
    finally:
        context.try_shutdown()
