"""The topics of a policy node: messages into a Controller, commands out of it. Callbacks only stamp and store."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Float64, Float64MultiArray, String

from como_core.control.controller import Controller
from como_core.control.status import Command
from como_core.errors import ComoError
from como_core.interface import Action, Camera, Interface, StateStream
from como_ros import qos
from como_ros.images import rgb_image
from como_ros.messages import NS_PER_S, message_class, stamp_ns, state_values, twist_message

_REPEAT_S = 2.0  # a fault that lasts is told again this often


class Inputs:
    """Subscriptions of an interface's streams and of `instruction`.

    faults     stream name -> why its newest message, or its publisher's QoS, cannot be used
    on_stored  called after each stored message
    """

    def __init__(self, node: LifecycleNode, interface: Interface, controller: Controller,
                 on_stored: Callable[[], None]) -> None:
        self._node, self._interface, self._controller, self._on_stored = node, interface, controller, on_stored
        self.faults: dict[str, str] = {}
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
        arrival_s = time.monotonic()
        fault = _image_fault(message, camera)
        if fault:
            self._refuse(name, fault)
            return
        self.faults.pop(name, None)
        self._controller.put_image(name, _stamp_s(message), arrival_s, partial(rgb_image, message, camera))
        self._on_stored()

    def _on_state(self, name: str, stream: StateStream, message: Any) -> None:
        arrival_s = time.monotonic()
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
        frame = self._interface.action.frame
        if name == self._controller.position_stream and message.header.frame_id != frame:
            raise ComoError(f"topic {stream.topic!r}: frame {message.header.frame_id!r}, expected {frame!r}, "
                            "action.frame, in which the workspace box is; publish the pose in it or mend the interface")
        return values

    def _on_instruction(self, message: String) -> None:
        self._node.get_logger().info(f"instruction: {message.data!r}")
        self._controller.put_instruction(message.data or None)

    def _refuse(self, name: str, fault: str) -> None:
        """A message that cannot be used counts as none: the stream goes stale."""
        self.faults[name] = fault
        # Not rclpy's throttle, which counts per line of code and so would tell of one stream and hide the others.
        if time.monotonic() - self._told_s.get(name, -_REPEAT_S) >= _REPEAT_S:
            self._told_s[name] = time.monotonic()
            self._node.get_logger().error(fault)


class Outputs:
    """Publishers of the command topics. Raises ComoError where the interface's target cannot be driven from here."""

    def __init__(self, node: LifecycleNode, action: Action) -> None:
        if action.target not in _MESSAGES:
            raise ComoError(f"action.target: {action.target!r} cannot be driven by policy_node; "
                            f"expected {' or '.join(map(repr, _MESSAGES))}")
        self._node, self._action = node, action
        self._commands = qos.publish(node, message_class(action.type), action.topic, qos.command())
        self._gripper = qos.publish(node, Float64, action.gripper.topic, qos.command()) if action.gripper else None

    def send(self, command: Command) -> None:
        """Publish, stamped with the time of publishing; the gripper only where it has changed."""
        now_ns = self._node.get_clock().now().nanoseconds
        self._commands.publish(_MESSAGES[self._action.target](command.values, self._action, now_ns))
        if self._gripper is not None and command.gripper is not None:
            self._gripper.publish(Float64(data=command.gripper))

    def close(self) -> None:
        for publisher in (self._commands, self._gripper):
            if publisher is not None:
                self._node.destroy_publisher(publisher)


def _forward_message(values: np.ndarray, action: Action, ns: int) -> Float64MultiArray:
    return Float64MultiArray(data=[float(value) for value in values])


_MESSAGES: dict[str, Callable[[np.ndarray, Action, int], Any]] = {
    "servo_twist": twist_message,
    "forward_command": _forward_message,
}


def _image_fault(message: Any, camera: Camera) -> str | None:
    """Why an image is a default or foreign one, seen without decoding it; None where it may be used."""
    if not len(message.data):
        return f"topic {camera.topic!r}: an image without data"
    if camera.type == "sensor_msgs/msg/Image" and (message.width, message.height) != (camera.width, camera.height):
        return (f"topic {camera.topic!r}: an image of {message.width} x {message.height} pixels, expected "
                f"{camera.width} x {camera.height}; mend the interface or the camera's driver")
    return None


def _stamp_s(message: Any) -> float:
    return stamp_ns(message.header.stamp) / NS_PER_S
