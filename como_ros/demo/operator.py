"""The demo's hand on the running graph: services, parameters, lifecycle and a watch on what the arm does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped, TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from como_core.errors import ComoError
from como_core.interface import Interface
from como_ros.processes import wait_until

SERVICE_TIMEOUT_S = 60.0
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Operator:
    """A small client node in its own ROS context, spun by a thread of its own.

    It watches the end effector, the commands and the simulation's word on success.
    """

    def __init__(self, interface: Interface, namespace: str, domain_id: int) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self._node = rclpy.create_node("operator", namespace=namespace, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()
        self.success = False
        self._positions: list[tuple[float, float, float]] = []
        self._commands = 0
        pose = next((s for s in interface.state.values() if s.type.endswith("PoseStamped")), None)
        if pose is not None:
            self._node.create_subscription(PoseStamped, pose.topic, self._on_pose, qos_profile_sensor_data)
        self._node.create_subscription(TwistStamped, interface.action.topic, self._on_command, 10)
        self._node.create_subscription(Bool, "sim/success", self._on_success, LATCHED)
        self._instruction = self._node.create_publisher(String, "instruction", LATCHED)
        self._thread = threading.Thread(target=self._spin, name="operator", daemon=True)
        self._thread.start()

    def trigger(self, service: str) -> str:
        """Call a std_srvs/Trigger service; the answer's message. Raises ComoError where it refuses or is silent."""
        answer = self._call(Trigger, service, Trigger.Request())
        if not answer.success:
            raise ComoError(f"{service} refused: {answer.message}")
        return str(answer.message)

    def trigger_json(self, service: str) -> dict[str, Any]:
        """As `trigger`, for services that answer JSON."""
        return dict(json.loads(self.trigger(service)))

    def set_parameters(self, node: str, **values: bool | int | float | str) -> None:
        """Set parameters of a node. Raises ComoError with the node's reason where one is refused."""
        request = SetParameters.Request()
        request.parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        answer = self._call(SetParameters, f"{node}/set_parameters", request)
        for name, result in zip(values, answer.results, strict=True):
            if not result.successful:
                raise ComoError(f"{node} refused parameter {name}={values[name]!r}: {result.reason}")

    def transition(self, node: str, name: str) -> None:
        """Drive a lifecycle node: configure, activate, deactivate or cleanup."""
        request = ChangeState.Request()
        request.transition.id = getattr(Transition, f"TRANSITION_{name.upper()}")
        if not self._call(ChangeState, f"{node}/change_state", request).success:
            raise ComoError(f"{node} refused to {name}; its log says why")

    def instruct(self, text: str) -> None:
        """Publish what the robot is asked to do, latched."""
        self._instruction.publish(String(data=text))

    def begin_watch(self) -> None:
        """Forget what was seen so far: a new trial begins."""
        with self._lock:
            self.success = False
            self._positions.clear()
            self._commands = 0

    def wait_success(self, timeout_s: float, alive: Callable[[], None]) -> bool:
        """Whether the simulation reports success within `timeout_s` of wall time; `alive` raises where a node died."""
        end = time.monotonic() + timeout_s
        while not self.success and time.monotonic() < end:
            alive()
            wait_until(lambda: self.success, 0.25)
        return self.success

    def settle(self, seconds: float) -> None:
        """Let the graph go on for this much wall time."""
        threading.Event().wait(seconds)

    def travel_m(self) -> float:
        """Length of the end effector's way since `begin_watch`, in metres."""
        with self._lock:
            positions = np.array(self._positions)
        return float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum()) if len(positions) > 1 else 0.0

    def commands_seen(self) -> int:
        """Command messages received since `begin_watch`."""
        with self._lock:
            return self._commands

    def topics(self) -> Sequence[tuple[str, list[str]]]:
        """Names and types of the topics in the graph."""
        return self._node.get_topic_names_and_types()

    def close(self) -> None:
        """Leave the graph."""
        self._context.try_shutdown()
        self._thread.join(5.0)

    def __enter__(self) -> Operator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, kind: Any, name: str, request: Any) -> Any:
        if name not in self._clients:
            self._clients[name] = self._node.create_client(kind, name)
        client = self._clients[name]
        if not client.wait_for_service(timeout_sec=SERVICE_TIMEOUT_S):
            raise ComoError(f"no service {name!r} after {SERVICE_TIMEOUT_S:.0f} s; is its node running?")
        future = client.call_async(request)
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        if not done.wait(SERVICE_TIMEOUT_S):
            raise ComoError(f"service {name!r} did not answer within {SERVICE_TIMEOUT_S:.0f} s")
        return future.result()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def _on_pose(self, message: PoseStamped) -> None:
        p = message.pose.position
        with self._lock:
            self._positions.append((p.x, p.y, p.z))

    def _on_command(self, _: TwistStamped) -> None:
        with self._lock:
            self._commands += 1

    def _on_success(self, message: Bool) -> None:
        if message.data:
            self.success = True
