"""What a policy node hears: streams and the instruction, put into a Controller. Callbacks only stamp and store."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import String

from como_core.control.controller import Controller
from como_core.control.frame_loss import WINDOW_S, FrameLoss
from como_core.errors import ComoError
from como_core.interface import Camera, Interface, StateStream
from como_core.resources import resource
from como_ros import qos
from como_ros.images import message_fault, rgb_image
from como_ros.messages import NS_PER_S, message_class, stamp_ns, state_values

_REPEAT_S = 2.0  # a fault that lasts is told again this often
LOSS_SHARE = 0.1  # frames lost beyond this are told of
_LOSS_REPEAT_S = 10.0
_NO_TURN = 1e-3  # a quaternion shorter than this is none
PROFILE = "config/fastdds/large_images.xml"


class Inputs:
    """Subscriptions of an interface's streams and of `instruction`.

    faults     stream name -> why its newest message, or its publisher's QoS, cannot be used
    losses     camera name -> how many of its frames never came
    heard      whether any message has arrived, usable or not
    on_stored  called after each stored message
    """

    def __init__(self, node: LifecycleNode, interface: Interface, controller: Controller,
                 on_stored: Callable[[], None]) -> None:
        self._node, self._interface, self._controller, self._on_stored = node, interface, controller, on_stored
        self.faults: dict[str, str] = {}
        self.losses = {name: FrameLoss(camera.rate_hz) for name, camera in interface.cameras.items()}
        self.heard = False
        self._told_s: dict[str, float] = {}
        self._subscriptions = []
        handlers: dict[str, tuple[str, str, Callable[[Any], None]]] = {}
        for name, camera in interface.cameras.items():
            handlers[name] = camera.topic, camera.type, partial(self._on_image, name, camera)
        for name, stream in interface.state.items():
            handlers[name] = stream.topic, stream.type, partial(self._on_state, name, stream)
        for name, (topic, message_type, callback) in handlers.items():
            self._subscriptions.append(qos.subscribe(
                node, message_class(message_type), topic, callback, qos.stream(),
                on_incompatible=partial(self.faults.__setitem__, name)))
        self._subscriptions.append(qos.subscribe(
            node, String, "instruction", self._on_instruction, qos.latched(),
            on_incompatible=partial(self.faults.__setitem__, "instruction")))

    def without_publisher(self) -> list[str]:
        """Topics that nobody publishes."""
        streams: list[Camera | StateStream] = [*self._interface.cameras.values(), *self._interface.state.values()]
        return [s.topic for s in streams if self._node.count_publishers(s.topic) == 0]

    def close(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _on_image(self, name: str, camera: Camera, message: Any) -> None:
        arrival_s, self.heard = time.monotonic(), True
        fault = message_fault(message, camera)
        if fault:
            self._refuse(name, fault)
            return
        self.faults.pop(name, None)
        self.losses[name].arrived(_stamp_s(message))
        if self.losses[name].share > LOSS_SHARE:
            self._tell_loss(name, camera, len(message.data))
        self._controller.put_image(name, _stamp_s(message), arrival_s, partial(rgb_image, message, camera))
        self._on_stored()

    def _on_state(self, name: str, stream: StateStream, message: Any) -> None:
        arrival_s, self.heard = time.monotonic(), True
        try:
            values = self._usable_state(name, stream, message)
        except ComoError as error:
            self._refuse(name, str(error))
            return
        self.faults.pop(name, None)
        self._controller.put_state(name, _stamp_s(message), arrival_s, values)
        self._on_stored()

    def _usable_state(self, name: str, stream: StateStream, message: Any) -> np.ndarray:
        values = state_values(message, stream)
        if not np.isfinite(values).all():
            raise ComoError(f"topic {stream.topic!r}: NaN or infinity in the state")
        turns = any(name.startswith("orientation.") for name in stream.names)
        if turns and _length(message.pose.orientation) < _NO_TURN:
            raise ComoError(f"topic {stream.topic!r}: a quaternion of length 0 is no orientation; mend its publisher, "
                            "which has not set it")
        frame = self._interface.action.frame
        if name == self._controller.position_stream and message.header.frame_id != frame:
            raise ComoError(f"topic {stream.topic!r}: frame {message.header.frame_id!r}, expected {frame!r}, "
                            "action.frame, in which the workspace box is; publish the pose in it or mend the interface")
        return values

    def _on_instruction(self, message: String) -> None:
        self._node.get_logger().info(f"instruction: {message.data!r}")
        self._controller.put_instruction(message.data or None)

    def _tell_loss(self, name: str, camera: Camera, size: int) -> None:
        if time.monotonic() - self._told_s.get(f"{name} loss", -_LOSS_REPEAT_S) < _LOSS_REPEAT_S:
            return
        self._told_s[f"{name} loss"] = time.monotonic()
        loss = self.losses[name]
        self._node.get_logger().warning(
            f"topic {camera.topic!r}: {loss.lost} frames ({loss.share:.0%}) of the last {WINDOW_S:g} s never came, by "
            f"their header stamps at rate_hz {camera.rate_hz:g}. Images of {size / 1e6:.1f} MB: start this node and "
            f"the camera with FASTDDS_DEFAULT_PROFILES_FILE={resource(PROFILE)}, send a CompressedImage, or mend "
            "rate_hz where the camera is slower")

    def _refuse(self, name: str, fault: str) -> None:
        """A message that cannot be used counts as none: the stream goes stale."""
        self.faults[name] = fault
        # Not rclpy's throttle, which counts per line of code and so would tell of one stream and hide the others.
        if time.monotonic() - self._told_s.get(name, -_REPEAT_S) >= _REPEAT_S:
            self._told_s[name] = time.monotonic()
            self._node.get_logger().error(fault)


def _length(quaternion: Any) -> float:
    return math.hypot(quaternion.x, quaternion.y, quaternion.z, quaternion.w)


def _stamp_s(message: Any) -> float:
    return stamp_ns(message.header.stamp) / NS_PER_S
