"""recorder_node: episodes of the interface's topics as rosbag2, an episode a bag, the interface inside.

    ros2 run como_ros recorder_node --ros-args -p interface:=config/interfaces/metaworld.yaml -p output:=bags

Messages are stored as the bytes that arrived, pictures compressed where that is asked for. An episode is kept whole or
not at all; what a crash has cut off is recovered at the next start.

    subscribes  every topic of the interface; instruction (latched); record/button (std_msgs/String: a verb); joy
    publishes   /diagnostics at 1 Hz
    serves      record/start, stop, discard, success, failure (std_srvs/Trigger)
                start waits for a publisher of every topic and is refused with the name of the topic that has none;
                stop answers JSON {path, messages, seconds, instruction, success, faults, warnings}, or is refused with
                the name of a topic that was silent and leaves nothing; discard leaves nothing; success and failure
                label the episode that is being recorded or, after it, the last one
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Trigger

from como_core.errors import ComoError
from como_core.formats import episode_index
from como_core.formats.bag_compress import ImageCompression
from como_core.formats.bag_recovery import PART, Recovered, cut_bags, recover
from como_core.formats.episode_index import EpisodeEntry
from como_core.formats.rosbag import BagWriter
from como_ros import qos, recorder_diagnostics
from como_ros.messages import NS_PER_S
from como_ros.parameters import INTERFACE, Parameter, declare, interface_of
from como_ros.recorder_folder import next_path
from como_ros.recorder_remote import RecorderRemote
from como_ros.recorder_topics import RecorderTopics
from como_ros.recording import Finished, Recording
from como_ros.running import run_node, spin
from como_ros.waiting import Waiting

# Time for what was sent just before a call to arrive: an instruction at the start, the last messages at the end.
SETTLE_S = 0.1
# How long record/stop takes what has arrived and lies in the queues of a busy machine.
DRAIN_S = 5.0
# Between two polls every subscription that has a message is served at least once; the first has nothing before it.
QUIET_POLLS = 2
DIAGNOSTICS_PERIOD_S = 1.0
PARAMETERS = (
    INTERFACE,
    Parameter("output", "bags", "Folder for the bags, made where missing; applied at record/start"),
    Parameter("storage", "mcap", "mcap or sqlite3; applied at record/start"),
    Parameter("compress", "none", "Raw pictures as none, jpeg (small, changes pixels) or png (exact); applied at "
              "record/start"),
    Parameter("jpeg_quality", 95, "Quality of jpeg; applied at record/start", low=1, high=100),
    Parameter("flush_interval_s", 1.0, "What is older survives a crash or a power loss; applied at record/start",
              unit="s", low=0.05, high=60.0),
    Parameter("publisher_timeout_s", 5.0, "How long record/start waits for a publisher of every topic", unit="s",
              low=0.0, high=600.0),
    Parameter("instruction", "", "What the robot is asked to do, until the instruction topic says otherwise",
              read_only=True),
    Parameter("joy_buttons", "", "Buttons of a joystick on joy, such as \"start:7 stop:6 discard:1 success:0 "
              "failure:2\"; empty: none", read_only=True),
)


class RecorderNode(Node):
    """Stores what it hears between record/start and record/stop."""

    def __init__(self) -> None:
        super().__init__("recorder_node")
        values = declare(self, PARAMETERS)
        self._interface = interface_of(values)
        self._recording: Recording | None = None
        self._label: bool | None = None
        self._last: tuple[Path, EpisodeEntry] | None = None
        self._dropped: Path | None = None
        self._instruction: str | None = values["instruction"] or None
        self._recovery: threading.Thread | None = None
        self._topics = RecorderTopics(self, self._interface, self._take)
        qos.subscribe(self, String, "instruction", self._on_instruction, qos.latched())
        # record/start waits without blocking the subscriptions, and no second call comes in between.
        verbs_group = MutuallyExclusiveCallbackGroup()
        self._waiting = Waiting(self)
        verbs = {"start": self._start, "stop": self._stop, "discard": self._discard,
                 "success": self._success, "failure": self._failure}
        for name, answer in verbs.items():
            self.create_service(Trigger, f"record/{name}", _service(answer), callback_group=verbs_group)
        RecorderRemote(self, verbs, values["joy_buttons"], verbs_group)
        self._report = qos.publish(self, DiagnosticArray, "/diagnostics", qos.command(10))
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._diagnose, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._recover(Path(values["output"]).expanduser().absolute())

    def close(self) -> None:
        """End as record/stop does: an episode under way is kept where it is whole."""
        if self._recovery is not None:
            self._recovery.join()
        if self._recording is not None:
            try:
                self._keep(self._end())
            except ComoError as error:
                print(f"como: {error}", file=sys.stderr)

    def _take(self, topic: str, cdr: bytes) -> None:
        if self._recording is not None:
            self._recording.take(topic, self.get_clock().now().nanoseconds, cdr)

    def _on_instruction(self, message: String) -> None:
        instruction = message.data or None  # an empty one says that there is none, as to policy_node
        if self._recording is not None and instruction != self._instruction:
            self._recording.refuse(f"the instruction changed from {self._instruction!r} to {instruction!r}; publish "
                                   "it before record/start")
        self._instruction = instruction

    async def _start(self) -> str:
        if self._recording is not None:
            raise ComoError(f"{self._recording.path} is being recorded; call record/stop or record/discard first")
        timeout_s = self._value("publisher_timeout_s")
        await self._waiting.until(lambda: not self._topics.unheard(), timeout_s)
        if unheard := self._topics.unheard():
            raise ComoError(f"{self._topics.why_unheard(unheard[0])} (waited {timeout_s:g} s)")
        await self._waiting.seconds(SETTLE_S)
        now_ns = self.get_clock().now().nanoseconds
        if now_ns == 0:
            raise ComoError("use_sim_time is set, and nobody publishes /clock; start the simulation first")
        storage, codec = self._choice("storage", "mcap", "sqlite3"), self._choice("compress", "none", "jpeg", "png")
        compression = None if codec == "none" else ImageCompression(codec, self._value("jpeg_quality"))
        bag = BagWriter(next_path(self._value("output")), self._interface, self._instruction, storage)
        self._label = None
        self._recording = Recording(bag, self._topics.all, self._instruction, self._log_error,
                                    self._value("flush_interval_s"), compression)
        for name, cdr in self._topics.held.items():
            self._recording.take(name, now_ns, cdr)
        if self._instruction is None:
            self.get_logger().warning("no instruction was published; the episode will have none")
        return f"recording {bag.path}"

    def _log_error(self, text: str) -> None:
        self.get_logger().error(text)

    async def _stop(self) -> str:
        if self._recording is not None:
            self._recording.end_at(self.get_clock().now().nanoseconds)
            await self._drain()
        finished, entry = self._keep(self._end())
        for text in finished.audit.faults:
            self.get_logger().error(f"{finished.path}: {text}")
        for text in finished.audit.warnings:
            self.get_logger().warning(text)
        self.get_logger().info(f"kept {finished.path}: {entry.messages} messages in {entry.seconds:.1f} s, audit "
                               f"{'found faults' if entry.faults else 'found no fault'}")
        return json.dumps({"path": finished.path, "messages": finished.messages, "seconds": entry.seconds,
                           "instruction": entry.instruction, "success": entry.success, "faults": entry.faults,
                           "warnings": entry.warnings})

    async def _drain(self) -> None:
        """Take what arrives within SETTLE_S, however far this process is behind."""
        settled_ns, quiet = time.time_ns() + round(SETTLE_S * NS_PER_S), 0

        def empty() -> bool:
            nonlocal quiet
            quiet = 0 if self._topics.took_of_before(settled_ns) else quiet + 1
            return quiet >= QUIET_POLLS

        await self._waiting.seconds(SETTLE_S)
        await self._waiting.until(empty, DRAIN_S)

    async def _discard(self) -> str:
        recording = self._end()
        recording.discard()
        return f"discarded {recording.path}"

    async def _success(self) -> str:
        return self._say(True)

    async def _failure(self) -> str:
        return self._say(False)

    def _say(self, success: bool) -> str:
        """Label the episode under way, or the last one."""
        word = "a success" if success else "a failure"
        if self._recording is not None:
            self._label = success
            return f"{self._recording.path.name} will be {word}"
        if self._dropped is not None:
            raise ComoError(f"{self._dropped} was not kept, so there is nothing to label; label an episode before it "
                            "with `como data label`")
        if self._last is None:
            raise ComoError("there is no episode to label; call record/start first")
        folder, entry = self._last
        self._last = folder, episode_index.label(folder, entry.name, success)
        return f"{entry.name} is {word}"

    def _end(self) -> Recording:
        if self._recording is None:
            raise ComoError("nothing is being recorded; call record/start first")
        recording, self._recording = self._recording, None
        self._dropped = recording.path  # until it is kept
        return recording

    def _keep(self, recording: Recording) -> tuple[Finished, EpisodeEntry]:
        """Close the bag and add it to the index of its folder. Raises ComoError where the episode is refused."""
        finished = recording.finish()
        path, audit = Path(finished.path), finished.audit
        entry = EpisodeEntry(path.name, finished.start_s, audit.seconds, sum(finished.messages.values()),
                             finished.instruction, self._label, audit.faults, audit.warnings)
        episode_index.append_entry(path.parent, entry)
        self._last, self._dropped = (path.parent, entry), None
        return finished, entry

    def _recover(self, output: Path) -> None:
        """Save, beside the work, the episodes that a crash has cut off in the output folder."""
        cuts = [cut for cut in cut_bags(output) if cut.suffix == PART] if output.is_dir() else []
        if cuts:
            self._recovery = threading.Thread(target=recover, args=(cuts, self._tell), name="recovery")
            self._recovery.start()

    def _tell(self, found: Recovered) -> None:
        self.get_logger().warning(f"an episode was cut off by a crash: {found.summary()}")

    def _diagnose(self) -> None:
        self._report.publish(recorder_diagnostics.report(
            self.get_fully_qualified_name().lstrip("/"), self._interface.name, self.get_clock().now().to_msg(),
            self._recording, self._last, self._topics))

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _choice(self, name: str, *choices: str) -> Any:
        value = self._value(name)
        if value not in choices:
            raise ComoError(f"parameter {name!r}: expected {' or '.join(choices)}, got {value!r}")
        return value


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
