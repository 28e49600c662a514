"""What every lifecycle node of the package does alike: plain errors in transitions, a clean end, autostart."""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from como_core.errors import ComoError

NodeT = TypeVar("NodeT", bound=LifecycleNode)

try:  # newer distributions: in C++, at half the processor time and two thirds of the latency (`como bench node`)
    from rclpy.experimental import EventsExecutor as _Executor
except ImportError:
    _Executor = SingleThreadedExecutor  # type: ignore[assignment,misc]

# How long a signal may wait for the executor to come round.
_SIGNAL_POLL_S = 0.1


def transition(work: Callable[[NodeT], None]) -> Callable[[NodeT, LifecycleState], TransitionCallbackReturn]:
    """Make an `on_<transition>` method of one that raises where it fails.

    A ComoError is logged as its one sentence and the node stays in its state; anything else, which rclpy would
    swallow, is logged with its traceback and leads to error processing.
    """
    @wraps(work)
    def method(self: NodeT, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            work(self)
        except ComoError as error:
            self.get_logger().error(f"{work.__name__.removeprefix('on_')} refused: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception:  # noqa: BLE001 - rclpy would hide it
            self.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS
    return method


def serve(node: LifecycleNode, autostart: bool) -> None:
    """Serve callbacks until SIGINT or SIGTERM; with `autostart`, configure and activate first.

    Where a transition is refused, its reason is in the log and the node stays, to be mended and configured again.
    rclpy's own signal handlers, which these replace, end the middleware at once; here it stays, so that the node can
    still send a last command.
    """
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    if autostart and node.trigger_configure() == TransitionCallbackReturn.SUCCESS and not ended.is_set():
        node.trigger_activate()
    executor = _Executor()
    executor.add_node(node)
    while rclpy.ok() and not ended.is_set():
        executor.spin_once(timeout_sec=_SIGNAL_POLL_S)
    executor.remove_node(node)


def shut_down(node: LifecycleNode) -> None:
    """Go through the shutdown transition, from whatever state the node is in."""
    state: Any = node._state_machine.current_state[1]
    if rclpy.ok() and state in ("unconfigured", "inactive", "active"):
        node.trigger_shutdown()
