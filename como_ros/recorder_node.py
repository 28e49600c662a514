"""recorder_node: episodes of the interface's topics as rosbag2, an episode a bag, the interface inside.

    ros2 run como_ros recorder_node --ros-args -p interface:=config/interfaces/metaworld.yaml -p output:=bags

Messages are stored as the bytes that arrived. An episode is kept whole or not at all.

    subscribes  every topic of the interface; instruction (latched)
    serves      record/start, record/stop, record/discard (std_srvs/Trigger)
                start waits for a publisher of every topic and is refused with the name of the topic that has none;
                stop answers JSON {path, messages, seconds, instruction, warnings}, or is refused with the name of a
                topic that was silent and leaves nothing; discard leaves nothing
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.subscription import Subscription
from rclpy.task import Future
from std_msgs.msg import String
from std_srvs.srv import Trigger

from como_core.errors import ComoError
from como_core.formats.rosbag import BagWriter
from como_core.interface import Camera, StateStream
from como_ros import qos
from como_ros.messages import message_class
from como_ros.parameters import INTERFACE, Parameter, declare, interface_of
from como_ros.recording import RecordedTopic, Recording
from como_ros.running import run_node, spin

POLL_S = 0.02
# Time for what was sent just before a call to arrive: an instruction at the start, the last messages at the end.
SETTLE_S = 0.1
PARAMETERS = (
    INTERFACE,
    Parameter("output", "bags", "Folder for the bags, made where missing; applied at record/start"),
    Parameter("storage", "mcap", "mcap or sqlite3; applied at record/start"),
    Parameter("publisher_timeout_s", 5.0, "How long record/start waits for a publisher of every topic", unit="s",
              low=0.0, high=600.0),
)


class RecorderNode(Node):
    """Stores what it hears between record/start and record/stop."""

    def __init__(self) -> None:
        super().__init__("recorder_node")
        self._interface = interface_of(declare(self, PARAMETERS))
        self._recording: Recording | None = None
        self._instruction: str | None = None
        self._held_gripper: tuple[str, bytes] | None = None
        self._mismatches: dict[str, str] = {}
        self._sources: dict[str, Subscription[Any]] = {}
        self._topics = self._listen()
        qos.subscribe(self, String, "instruction", self._on_instruction, qos.latched())
        # record/start waits without blocking the subscriptions, and no second call comes in between.
        services = MutuallyExclusiveCallbackGroup()
        self._polling = ReentrantCallbackGroup()
        for name, answer in (("start", self._start), ("stop", self._stop), ("discard", self._discard)):
            self.create_service(Trigger, f"record/{name}", _service(answer), callback_group=services)

    def close(self) -> None:
        """Leave no half-written bag."""
        if self._recording is not None:
            self._recording.discard()

    def _listen(self) -> tuple[RecordedTopic, ...]:
        action = self._interface.action
        streams: tuple[Camera | StateStream, ...] = (*self._interface.cameras.values(), *self._interface.state.values())
        topics = [self._record(s.topic, s.type, s.rate_hz, qos.recording()) for s in streams]
        topics.append(self._record(action.topic, action.type, action.rate_hz, qos.command(depth=200)))
        if action.gripper:
            topics.append(self._record(action.gripper.topic, "std_msgs/msg/Float64", None, qos.command(depth=200)))
        return tuple(topics)

    def _record(self, topic: str, type_name: str, rate_hz: float | None, profile: Any) -> RecordedTopic:
        name = self.resolve_topic_name(topic)
        on_change = rate_hz is None

        def store(cdr: bytes) -> None:
            if on_change:
                self._held_gripper = (name, cdr)
            if self._recording is not None:
                self._recording.take(name, self.get_clock().now().nanoseconds, cdr)

        def mismatch(text: str) -> None:
            self._mismatches[name] = text

        self._sources[name] = qos.subscribe(self, message_class(type_name), topic, store, profile, raw=True,
                                            on_incompatible=mismatch)
        return RecordedTopic(name, type_name, rate_hz)

    def _on_instruction(self, message: String) -> None:
        if self._recording is not None and message.data != self._instruction:
            self._recording.refuse(f"the instruction changed from {self._instruction!r} to {message.data!r}; publish "
                                   "it before record/start")
        self._instruction = message.data

    async def _start(self) -> str:
        if self._recording is not None:
            raise ComoError(f"{self._recording.path} is being recorded; call record/stop or record/discard first")
        timeout_s = self.get_parameter("publisher_timeout_s").value
        await self._until(lambda: not self._unheard(), timeout_s)
        unheard = self._unheard()
        if unheard:
            name, kind = unheard[0].name, unheard[0].type
            raise ComoError(self._mismatches.get(name) or
                            f"topic {name!r} has no publisher of {kind} after {timeout_s:g} s; start its node, "
                            "or mend the topic in the interface")
        await self._until(lambda: False, SETTLE_S)
        now_ns = self.get_clock().now().nanoseconds
        if now_ns == 0:
            raise ComoError("use_sim_time is set, and nobody publishes /clock; start the simulation first")
        bag = BagWriter(self._next_path(), self._interface, self._instruction, self._storage())
        self._recording = Recording(bag, self._topics, self._instruction, self._log_error)
        if self._held_gripper is not None:
            # Sent on change only, so what holds now may have been said before.
            name, cdr = self._held_gripper
            self._recording.take(name, now_ns, cdr)
        if self._instruction is None:
            self.get_logger().warning("no instruction was published; the episode will have none")
        return f"recording {bag.path}"

    def _log_error(self, text: str) -> None:
        self.get_logger().error(text)

    async def _stop(self) -> str:
        if self._recording is not None:
            self._recording.end_at(self.get_clock().now().nanoseconds)
            await self._until(lambda: False, SETTLE_S)
        finished = self._end().finish()
        for warning in finished.warnings:
            self.get_logger().warning(warning)
        self.get_logger().info(f"kept {finished.path}: {sum(finished.messages.values())} messages")
        return json.dumps(dataclasses.asdict(finished))

    async def _discard(self) -> str:
        recording = self._end()
        recording.discard()
        return f"discarded {recording.path}"

    def _end(self) -> Recording:
        if self._recording is None:
            raise ComoError("nothing is being recorded; call record/start first")
        recording, self._recording = self._recording, None
        return recording

    def _unheard(self) -> list[RecordedTopic]:
        return [topic for topic in self._topics if not self._sources[topic.name].get_publisher_count()]

    def _storage(self) -> Any:
        storage = self.get_parameter("storage").value
        if storage not in ("mcap", "sqlite3"):
            raise ComoError(f"parameter 'storage': expected mcap or sqlite3, got {storage!r}")
        return storage

    def _next_path(self) -> Path:
        """The next free episode_NNNN below the output folder. Raises ComoError where the folder cannot be used."""
        output = Path(self.get_parameter("output").value).expanduser().absolute()
        try:
            output.mkdir(parents=True, exist_ok=True)
            numbers = [int(found[1]) for entry in output.iterdir()
                       if (found := re.fullmatch(r"episode_(\d+)(\.part)?", entry.name))]
        except OSError as error:
            raise ComoError(f"output folder {output} cannot be used: {error.strerror}; set parameter 'output' of "
                            f"{self.get_name()} to a folder that can be written") from error
        return output / f"episode_{max(numbers, default=-1) + 1:04d}"

    async def _until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Serve other callbacks until `condition` holds or `timeout_s` of wall time are over."""
        done: Future[None] = Future(executor=self.executor)
        end = time.monotonic() + timeout_s

        def poll() -> None:
            if not done.done() and (condition() or time.monotonic() >= end):
                done.set_result(None)

        steady = Clock(clock_type=ClockType.STEADY_TIME)
        timer = self.create_timer(POLL_S, poll, callback_group=self._polling, clock=steady)
        try:
            await done
        finally:
            self.destroy_timer(timer)


def _service(answer: Callable[[], Any]) -> Callable[[Trigger.Request, Trigger.Response], Any]:
    """A Trigger service of a coroutine function that returns the answer's message or raises ComoError."""
    async def serve(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.message, response.success = await answer(), True
        except ComoError as error:
            response.message = str(error)
        return response

    return serve


def main(args: list[str] | None = None) -> int:
    """Entry point of `ros2 run como_ros recorder_node`."""
    return run_node(RecorderNode, spin, RecorderNode.close, args)


if __name__ == "__main__":
    sys.exit(main())
