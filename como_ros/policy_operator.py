"""What a person says to a policy node: e-stop, deadman switch, pause.

A stop must be heard whatever QoS it is sent with. A latched (transient local) e-stop is also found by a node that
starts later, though not at once; estop_required waits for it. The second, best-effort subscription hears publishers
that do not latch, such as `ros2 topic pub`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from como_core.control.controller import Controller
from como_core.errors import ComoError
from como_core.interface.names import require_topic
from como_ros import qos


@dataclass(frozen=True)
class Switches:
    """Topics of std_msgs/Bool; empty: there is no such switch.

    Raises ComoError, naming the parameter, for what is no topic name.
    """

    estop_topic: str
    deadman_topic: str

    def __post_init__(self) -> None:
        for parameter in ("estop_topic", "deadman_topic"):
            if getattr(self, parameter):
                try:
                    require_topic(f"parameter {parameter!r} of policy_node", getattr(self, parameter))
                except ValueError as error:
                    raise ComoError(str(error)) from error


class OperatorInputs:
    """Subscriptions of the switches and the service ~/pause."""

    def __init__(self, node: LifecycleNode, controller: Controller, switches: Switches) -> None:
        self._node, self._controller = node, controller
        self._subscriptions: list[Subscription[Bool]] = []
        if switches.estop_topic:
            for profile in (qos.latched(), qos.stream()):
                self._listen(switches.estop_topic, profile, self._on_estop)
        if switches.deadman_topic:
            self._listen(switches.deadman_topic, qos.stream(1), self._on_deadman)
        self._pause = node.create_service(SetBool, "~/pause", self._on_pause)

    def close(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._node.destroy_service(self._pause)

    def _listen(self, topic: str, profile: QoSProfile, callback: Callable[[Bool], None]) -> None:
        # Without qos.subscribe: one of the two e-stop subscriptions is meant not to fit.
        self._subscriptions.append(self._node.create_subscription(Bool, topic, callback, profile))

    def _on_estop(self, message: Bool) -> None:
        self._controller.estop(message.data)

    def _on_deadman(self, message: Bool) -> None:
        self._controller.deadman(message.data, time.monotonic())

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._controller.pause(request.data, time.monotonic())
        response.success, response.message = True, "paused" if request.data else "not paused"
        self._node.get_logger().info(response.message)
        return response
