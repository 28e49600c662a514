"""A bag's streams over DDS on the bag's own clock, frame by frame, as fast as whoever listens can follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rosgraph_msgs.msg import Clock

from como_core.formats.bag_compress import RAW_TYPE
from como_core.formats.bag_frames import decode_picture
from como_core.formats.bag_reader import BagReader, RawMessage, deserialize
from como_core.formats.bag_streams import serialized_stamp_ns
from como_core.formats.bag_topics import resolve
from como_core.interface import Camera, Interface, StateStream
from como_ros import qos
from como_ros.images import image_message
from como_ros.messages import message_class, to_stamp

DEPTH = 50


class BagPlayer:
    """Publishes the cameras and states of `interface` out of a bag: the stored bytes, with their stamps, and /clock.

    A camera that was recorded compressed is published as the raw pictures that the interface names.
    """

    def __init__(self, node: Node, interface: Interface, bag: BagReader) -> None:
        self._bag = bag
        streams: tuple[Camera | StateStream, ...] = (*interface.cameras.values(), *interface.state.values())
        found = resolve(interface, bag.topics, bag.path)
        self._types = {found[stream.topic]: stream.type for stream in streams}
        self._publishers: Mapping[str, Publisher[Any]] = {
            found[stream.topic]: qos.publish(node, message_class(stream.type), stream.topic, qos.stream(DEPTH))
            for stream in streams}
        self._clock = qos.publish(node, Clock, "/clock", qos.clock())
        self._frames_of = found[next(iter(interface.cameras.values())).topic]

    def heard(self) -> bool:
        """Whether every stream and the clock have a subscriber."""
        return all(p.get_subscription_count() for p in (*self._publishers.values(), self._clock))

    def unheard(self) -> list[str]:
        """Topics that nobody subscribes to."""
        return [p.topic_name for p in (*self._publishers.values(), self._clock) if not p.get_subscription_count()]

    def frames(self) -> Iterator[int]:
        """Publish up to and after each picture of the first camera; yields its header stamp, nanoseconds."""
        frame: int | None = None
        for message in self._bag.messages(self._publishers):
            if message.topic == self._frames_of:
                if frame is not None:
                    yield frame
                frame = serialized_stamp_ns(message.cdr)
            self._publish(message)
        if frame is not None:
            yield frame

    def _publish(self, message: RawMessage) -> None:
        self._clock.publish(Clock(clock=to_stamp(message.log_ns)))
        publisher = self._publishers[message.topic]
        if message.type == self._types[message.topic]:
            publisher.publish(message.cdr)
            return
        assert self._types[message.topic] == RAW_TYPE, "only pictures are recorded as another type"
        rgb = decode_picture(deserialize(message, Path(self._bag.path)), message.topic, self._bag.path)
        publisher.publish(image_message(rgb, serialized_stamp_ns(message.cdr)))
