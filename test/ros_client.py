"""A second terminal: a plain rclpy node of the test's own, spun by a thread, that looks at a running graph."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Self

import rclpy
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from std_srvs.srv import Trigger

from como_ros.processes import wait_until

TIMEOUT_S = 60.0
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class RosClient:
    """Use it in a test with the `ros_domain` fixture; everything heard is kept with its time of arrival."""

    def __init__(self) -> None:
        self._context = Context()
        rclpy.init(context=self._context)
        self.node = rclpy.create_node("second_terminal", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._clients: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def listen(self, kind: type, topic: str, qos: Any = qos_profile_sensor_data) -> list[tuple[float, Any]]:
        """A list that grows by (time.monotonic(), message) with each message."""
        heard: list[tuple[float, Any]] = []
        self.node.create_subscription(kind, topic, lambda message: heard.append((time.monotonic(), message)), qos)
        return heard

    def publisher(self, kind: type, topic: str, qos: Any = 1, peers: int = 1) -> Publisher[Any]:
        """A publisher that `peers` subscribers have found."""
        publisher = self.node.create_publisher(kind, topic, qos)
        assert wait_until(lambda: publisher.get_subscription_count() >= peers, TIMEOUT_S), f"nobody listens to {topic}"
        return publisher

    def trigger(self, service: str) -> Trigger.Response:
        """The answer of a std_srvs/Trigger service."""
        return self._call(Trigger, service, Trigger.Request())

    def set(self, node: str, **values: object) -> None:
        """Set parameters; each must be taken."""
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        answer = self._call(SetParameters, f"{node}/set_parameters", SetParameters.Request(parameters=parameters))
        assert all(result.successful for result in answer.results), answer

    def _call(self, kind: Any, name: str, request: Any) -> Any:
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        client = self._clients[name]
        assert client.wait_for_service(TIMEOUT_S), f"no service {name}"
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        assert done.wait(TIMEOUT_S), f"no answer from {name}"
        return future.result()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._context.try_shutdown()
        self._thread.join(5.0)
