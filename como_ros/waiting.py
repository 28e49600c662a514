"""Waiting in a coroutine of a node, while its other callbacks are served."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.task import Future

POLL_S = 0.02


class Waiting:
    """Waits on the wall clock, for callbacks of `node` that are coroutines."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._group = ReentrantCallbackGroup()

    async def until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Serve other callbacks until `condition` holds or `timeout_s` are over."""
        done: Future[None] = Future(executor=self._node.executor)
        end = time.monotonic() + timeout_s

        def poll() -> None:
            if not done.done() and (condition() or time.monotonic() >= end):
                done.set_result(None)

        steady = Clock(clock_type=ClockType.STEADY_TIME)
        timer = self._node.create_timer(POLL_S, poll, callback_group=self._group, clock=steady)
        try:
            await done
        finally:
            self._node.destroy_timer(timer)

    async def seconds(self, duration_s: float) -> None:
        """Serve other callbacks for so long."""
        await self.until(lambda: False, duration_s)
