"""The graph of a replay: a player of the bag, an ear for the node's chunks, and a hand on its services."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

import rclpy
from lifecycle_msgs.srv import GetState
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from como_core.action_chunk import ActionChunk
from como_core.errors import ComoError
from como_core.formats.bag_reader import BagReader
from como_core.interface import Interface
from como_ros import qos
from como_ros.bag_player import BagPlayer
from como_ros.chunk_topic import DEPTH, chunk_of
from como_ros.processes import NodeProcess, wait_until

NODE, OURS = "policy_node", "replay"
# Within which a node on this machine is seen.
DISCOVERY_S = 3.5  # participants announce themselves every three seconds
SERVICE_TIMEOUT_S = 5.0
# A chunk has its observation's stamp, but for the rounding of seconds in float64.
SAME_STAMP_NS = 1_000_000


class Session:
    """A node in a context and a thread of its own. Use it in `with`."""

    def __init__(self, interface: Interface, bag: BagReader, domain: int) -> None:
        self._domain = domain
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._node = rclpy.create_node(OURS, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._chunks: list[tuple[int, ActionChunk]] = []
        self._player = BagPlayer(self._node, interface, bag)
        self._ear = self._node.create_subscription(JointTrajectory, f"{NODE}/chunk", self._on_chunk, qos.command(DEPTH))
        self._state: Any = self._node.create_client(GetState, f"{NODE}/get_state")
        self._reset: Any = self._node.create_client(Trigger, f"{NODE}/reset")
        self._thread = threading.Thread(target=self._spin, name=OURS, daemon=True)
        self._thread.start()

    def require_alone(self) -> None:
        """Raise ComoError where other nodes are on the domain: the bag's clock and states are not for them."""
        def others() -> list[str]:
            return sorted(name for name in self._node.get_node_names() if name != OURS)

        if wait_until(lambda: bool(others()), DISCOVERY_S):
            raise ComoError(f"ROS domain {self._domain} is in use by {', '.join(others())}; a replay needs one of its "
                            "own: give another with --domain")

    def wait_active(self, node: NodeProcess, timeout_s: float) -> None:
        """Wait until the node is active and hears every stream. Raises ComoError, with its words, where it does not."""
        def ready() -> bool:
            node.require_alive()
            if "refused" in node.log.read_text(errors="replace"):
                raise ComoError(f"policy_node does not start: {_last_refusal(node)}")
            return self._player.heard() and self._ear.get_publisher_count() > 0 and self._is_active()

        if not wait_until(ready, timeout_s, 0.1):
            raise ComoError(f"policy_node was not active after {timeout_s:g} s; nobody subscribes to "
                            f"{', '.join(self._player.unheard()) or 'nothing: all topics are heard'}")

    def play(self, node: NodeProcess, chunk_timeout_s: float) -> list[tuple[int, ActionChunk]]:
        """Play the bag, waiting after each frame for its chunk; every chunk that came, with its stamp in ns."""
        answered = missed = 0
        for stamp_ns in self._player.frames():
            node.require_alive()
            # Until the first answer a frame may have come before all streams; afterwards each is worth its time.
            timeout_s = chunk_timeout_s if answered else min(chunk_timeout_s, SERVICE_TIMEOUT_S / 10)
            if wait_until(lambda stamp_ns=stamp_ns: self._has(stamp_ns), timeout_s, 0.002):  # type: ignore[misc]
                answered, missed = answered + 1, 0
                continue
            missed += 1
            self._call(self._reset, Trigger.Request())  # a latch that closed for the wait must not cost the rest
            if answered and missed > 5:
                break
        return list(self._chunks)

    def _has(self, stamp_ns: int) -> bool:
        return any(abs(found - stamp_ns) < SAME_STAMP_NS for found, _ in self._chunks[-5:])

    def _on_chunk(self, message: JointTrajectory) -> None:
        self._chunks.append(chunk_of(message))

    def _is_active(self) -> bool:
        answer = self._call(self._state, GetState.Request()) if self._state.service_is_ready() else None
        return answer is not None and answer.current_state.label == "active"

    def _call(self, client: Any, request: Any) -> Any:
        if not client.service_is_ready():
            return None
        done = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: done.set())
        return future.result() if done.wait(SERVICE_TIMEOUT_S) else None

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._context.try_shutdown()
        self._thread.join(5.0)


def _last_refusal(node: NodeProcess) -> str:
    lines = node.log.read_text(errors="replace").splitlines()
    return next((line.partition("refused: ")[2] for line in reversed(lines) if "refused: " in line), lines[-1])
