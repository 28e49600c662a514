"""What a configured policy node runs: timers, topics, the controller and the inference thread."""

from __future__ import annotations

import time
import traceback
from contextlib import ExitStack
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher

from como_core.action_chunk import Policy
from como_core.control.controller import Controller
from como_core.control.status import Command, Phase, Settings
from como_core.control.worker import Inference, InferenceWorker
from como_core.errors import ComoError
from como_core.interface import Interface
from como_ros.chunk_topic import ChunkTopic
from como_ros.diagnostics import diagnostics
from como_ros.messages import NS_PER_S
from como_ros.policy_inputs import Inputs
from como_ros.policy_operator import OperatorInputs, Switches
from como_ros.policy_outputs import Outputs

WATCH_PERIOD_S = 0.01
DIAGNOSTICS_PERIOD_S = 1.0
WAITING_REPEAT_S = 5.0
DEAF_S = 10.0  # discovery is over by then


class PolicyLoop:
    """Carries messages between the graph, a Controller and an InferenceWorker; all judgement is the Controller's.

    Callbacks store, one thread infers, a timer on the node's clock sends, and a timer on the wall watches the streams,
    because a simulation that dies takes the node's clock with it. Everything but `_answer` runs in the executor's
    thread, and only that thread sends commands: after `deactivate` returns, nothing does.

    Raises ComoError where the interface's command target or limits cannot be served.
    """

    def __init__(self, node: LifecycleNode, policy: Policy, interface: Interface, settings: Settings,
                 switches: Switches, report: Publisher[DiagnosticArray]) -> None:
        self._node, self._interface, self._report = node, interface, report
        self._active = self._output = False
        self._told: str | None = None
        self._start_s = time.monotonic()
        self.controller = Controller(interface, settings)
        with ExitStack() as stack:
            self._outputs = Outputs(node, interface.action)
            stack.callback(self._outputs.close)
            self._chunks = ChunkTopic(node, interface.action)
            stack.callback(self._chunks.close)
            # A trajectory goes out when its chunk has come; what is sent at a rate waits for its timer.
            self._sends_at_once = interface.action.target == "joint_trajectory"
            self._worker = InferenceWorker(policy, self._answer)
            stack.callback(self._worker.close)
            stack.callback(OperatorInputs(node, self.controller, switches).close)
            self._inputs = Inputs(node, interface, self.controller, self._ask)
            stack.callback(self._inputs.close)
            wall = Clock(clock_type=ClockType.STEADY_TIME)
            for timer in (node.create_timer(1 / interface.action.rate_hz, self._send_due),
                          node.create_timer(WATCH_PERIOD_S, self._watch, clock=wall),
                          node.create_timer(DIAGNOSTICS_PERIOD_S, self.report, clock=wall)):
                stack.callback(node.destroy_timer, timer)
            self._resources = stack.pop_all()

    def activate(self, output: bool) -> None:
        """Permit commands; `output` says whether they are really sent."""
        self._active, self._output, self._told = True, output, None
        self.controller.start()

    def deactivate(self) -> None:
        """Send nothing from now on; a velocity that is under way gets its final zero first, a trajectory its end."""
        self.controller.stop()
        self._send(self.controller.take_halt(self._now_s()))
        self._active = self._output = False

    def disable_output(self) -> None:
        """Go on without sending; a velocity that is under way gets its final zero first."""
        if self._output:
            self.deactivate()
            self.activate(output=False)

    def reset(self) -> tuple[bool, str]:
        """Open the latch. Returns whether it is open now, and why not, or what had closed it."""
        if not self._active:
            return False, "the node is not active; activate it, which opens the latch"
        cause = self.controller.cause
        refusal = self.controller.reset(self._now_s(), time.monotonic())
        if refusal is None:
            self._told = None
            return True, f"the latch is open; it was closed by: {cause}" if cause else "the latch is open, and was open"
        return False, refusal

    def close(self) -> None:
        """End the thread and free topics and timers."""
        self._resources.close()

    def report(self) -> None:
        """Publish /diagnostics, and log what the node is waiting for."""
        now_s, wall_s = self._now_s(), time.monotonic()
        status = self.controller.status(now_s, wall_s)
        self._report.publish(diagnostics(
            self._node.get_fully_qualified_name().lstrip("/"), self._interface.name,
            self._node.get_clock().now().to_msg(), status, self.controller.timing(), self._inputs.faults,
            self._inputs.losses, self._output))
        if status.phase is Phase.WAITING:
            silent = self._inputs.without_publisher()
            hint = f"; no publisher on {', '.join(silent)}" if silent else self._deaf()
            self._node.get_logger().warning(f"waiting for: {'; '.join(status.waiting_for)}{hint}",
                                            throttle_duration_sec=WAITING_REPEAT_S)

    def _deaf(self) -> str:
        """What to do where publishers are there and no message has come from any of them."""
        if self._inputs.heard or self._inputs.faults or time.monotonic() - self._start_s < DEAF_S:
            return ""
        return ("; publishers are there, and nothing comes from any of them: a node that was killed may have left Fast "
                "DDS' shared memory locked; end this node, run `fastdds shm clean` (`como doctor` says more), start it "
                "again")

    def write_timing(self, path: Path, **about: object) -> None:
        """Write the loop timing; a folder that cannot be written is an error in the log and nothing more."""
        try:
            self.controller.write_timing(path, **about)
        except OSError as error:
            self._node.get_logger().error(f"timing_file {path}: {error.strerror}; choose a folder that can be written")

    def _ask(self) -> None:
        """Hand a snapshot to the worker where a chunk is due."""
        if self._worker.idle:
            question = self.controller.question(self._now_s(), time.monotonic())
            if question is not None:
                self._worker.submit(*question)

    def _answer(self, inference: Inference) -> None:
        error = inference.error
        if error is not None and not isinstance(error, ComoError):
            self._node.get_logger().error("".join(traceback.format_exception(error)))
        self.controller.answer(inference, self._now_s())
        if self._sends_at_once and self._node.executor is not None:
            self._node.executor.create_task(self._send_due)
        if self._active:
            self._chunks.publish(inference)

    def _send_due(self) -> None:
        self._send(self.controller.command(self._now_s(), time.monotonic()))

    def _watch(self) -> None:
        self.controller.check(self._now_s(), time.monotonic())
        self._send(self.controller.take_halt(self._now_s()))
        cause = self.controller.cause
        if self._active and cause is not None and cause != self._told:
            self._told = cause
            self._node.get_logger().error(f"output stopped: {cause}. When that is mended, deactivate and activate, or "
                                          f"call {self._node.get_fully_qualified_name()}/reset")
            self.report()
        self._ask()

    def _send(self, command: Command | None) -> None:
        if command is not None and self._output:
            self._outputs.send(command)

    def _now_s(self) -> float:
        return self._node.get_clock().now().nanoseconds / NS_PER_S
