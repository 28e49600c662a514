"""A bench for policy_node: a robot's streams over real DDS, a watch on what the node sends, a hand on its services."""

import array
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Float64, String
from std_srvs.srv import SetBool, Trigger

from como_core.interface import Interface
from como_ros import qos
from como_ros.images import image_message
from como_ros.messages import header, message_class, state_message, to_stamp
from como_ros.processes import wait_until

REPOSITORY = Path(__file__).resolve().parents[1]
SERVICE_TIMEOUT_S = 20.0

# What a stall of a busy machine may add until the node knows of a fault, and until the bench has what was sent. The
# limits themselves are exact in test_control.py, where a test keeps the time.
SLACK_S = 0.5


class Bench:
    """A node in a context and a thread of its own.

    sent      (wall time, message) of everything on the command topic; `grips` likewise for the gripper
    """

    def __init__(self, interface: Interface, domain: dict[str, str], namespace: str = "") -> None:
        self.interface, self._namespace = interface, namespace
        self._context = Context()
        rclpy.init(context=self._context, domain_id=int(domain["ROS_DOMAIN_ID"]))
        self.node = rclpy.create_node("bench", context=self._context, namespace=namespace)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self.sent: list[tuple[float, Any]] = []
        self.grips: list[float] = []
        self._reports: dict[str, DiagnosticStatus] = {}
        self._clients: dict[str, Any] = {}
        action = interface.action
        self.node.create_subscription(message_class(action.type), action.topic, self._on_command, qos.command(100))
        if action.gripper:
            self.node.create_subscription(Float64, action.gripper.topic, lambda m: self.grips.append(m.data), 10)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_report, 10)
        self._instruction = self.node.create_publisher(String, "instruction", qos.latched())
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def transition(self, name: str) -> bool:
        """Ask policy_node for a transition; whether it was done."""
        request = ChangeState.Request()
        request.transition.id = getattr(Transition, f"TRANSITION_{name.upper()}")
        return bool(self._call(ChangeState, "policy_node/change_state", request).success)

    def state(self) -> str:
        return str(self._call(GetState, "policy_node/get_state", GetState.Request()).current_state.label)

    def reset(self) -> tuple[bool, str]:
        answer = self._call(Trigger, "policy_node/reset", Trigger.Request())
        return answer.success, answer.message

    def pause(self, paused: bool) -> None:
        assert self._call(SetBool, "policy_node/pause", SetBool.Request(data=paused)).success

    def set_parameter(self, name: str, value: object) -> None:
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        assert self._call(SetParameters, "policy_node/set_parameters", request).results[0].successful

    def instruct(self, text: str) -> None:
        self._instruction.publish(String(data=text))

    def report(self, name: str) -> DiagnosticStatus:
        """The newest diagnostic status `policy_node: <name>`; an empty one before the first."""
        node = f"{self._namespace}/policy_node".lstrip("/")
        return self._reports.get(f"{node}: {name}", DiagnosticStatus())

    def wait_report(self, name: str, text: str, timeout_s: float = 5.0) -> DiagnosticStatus:
        """Wait until a status says `text`."""
        assert wait_until(lambda: text in self.report(name).message, timeout_s), (name, text, self.report(name).message)
        return self.report(name)

    def wait_commands(self, count: int = 5, timeout_s: float = 60.0,
                      reopen: Callable[[], object] | None = None) -> None:
        """Wait for `count` further commands.

        Where a busy machine let the streams get old, so that the latch closed, as it must, it is opened again by
        `reopen` or a reset. No other cause is forgiven.
        """
        wanted, limit = len(self.sent) + count, time.monotonic() + timeout_s
        while not wait_until(lambda: len(self.sent) >= wanted, 1.2):  # a report comes each second
            latch = self.report("latch").message
            assert time.monotonic() < limit, f"{count - wanted + len(self.sent)} commands of {count}; latch: {latch}"
            if latch.startswith("closed") and "stale" in latch:
                (reopen or self.reset)()

    def commands_within(self, seconds: float) -> int:
        """How many commands come in the next seconds."""
        before = len(self.sent)
        time.sleep(seconds)
        return len(self.sent) - before

    def close(self) -> None:
        self._context.try_shutdown()
        self._thread.join(5.0)

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _call(self, kind: Any, name: str, request: Any) -> Any:
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, name)
        client = self._clients[name]
        assert client.wait_for_service(SERVICE_TIMEOUT_S), name
        future = client.call_async(request)
        assert wait_until(future.done, SERVICE_TIMEOUT_S, 0.002), name
        return future.result()

    def _on_command(self, message: Any) -> None:
        self.sent.append((time.monotonic(), message))

    def _on_report(self, message: DiagnosticArray) -> None:
        self._reports.update({status.name: status for status in message.status})

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return


class Robot:
    """Publishes an interface's streams at 40 Hz from a thread: what a robot's drivers do, and their faults.

    silent    names of streams that send nothing
    frozen    names of streams that repeat the stamp which they had when they froze
    image     what the cameras send, uint8 [H, W, 3]
    late_s    how long before it is sent a picture was taken, as its stamp says
    drifts    the hand's x is the seconds since the start, at the stamp of its message
    clock_s   start of a simulated clock, published on /clock; None for the wall's time
    """

    PERIOD_S = 0.025

    def __init__(self, bench: Bench, clock_s: float | None = None) -> None:
        interface = bench.interface
        self._interface, self._node = interface, bench.node
        camera = next(iter(interface.cameras.values()))
        self.silent: set[str] = set()
        self.frozen: dict[str, int] = {}
        self.late_s, self.drifts = 0.0, False
        self.image = np.full((camera.height, camera.width, 3), 90, np.uint8)
        self.values = {name: np.full(len(s.names), 0.5, np.float32) for name, s in interface.state.items()}
        self.values |= {name: np.array([0.0, 0.6, 0.3], np.float32) for name in ("ee_pose",) if name in self.values}
        self.clock_s = clock_s
        self.start_ns = self._now_ns()
        streams = {**interface.cameras, **interface.state}
        self._out = {name: qos.publish(bench.node, message_class(stream.type), stream.topic, qos.stream())
                     for name, stream in streams.items()}
        self._clock = qos.publish(bench.node, Clock, "/clock", qos.clock()) if clock_s is not None else None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def freeze(self, name: str) -> None:
        """Go on sending this stream with the stamp of now."""
        self.frozen[name] = self._now_ns()

    def close(self) -> None:
        self._ended.set()
        self._thread.join(2.0)

    def _now_ns(self) -> int:
        return time.time_ns() if self.clock_s is None else round(self.clock_s * 1e9)

    def _picture(self, name: str, ns: int) -> Any:
        if self._interface.cameras[name].type == "sensor_msgs/msg/Image":
            return image_message(self.image, ns, name)
        jpeg = cv2.imencode(".jpg", self.image[..., ::-1])[1].tobytes()
        return CompressedImage(header=header(ns, name), format="jpeg", data=array.array("B", jpeg))

    def _run(self) -> None:
        while not self._ended.wait(self.PERIOD_S):
            if self._clock is not None and self.clock_s is not None:
                self.clock_s += self.PERIOD_S
                self._clock.publish(Clock(clock=to_stamp(self._now_ns())))
            for name, publisher in self._out.items():
                if name in self.silent:
                    continue
                ns = self.frozen.get(name, self._now_ns())
                if name in self._interface.cameras:
                    publisher.publish(self._picture(name, ns - round(self.late_s * 1e9)))
                else:
                    if self.drifts and name == "ee_pose":
                        self.values[name][0] = (ns - self.start_ns) / 1e9
                    stream = self._interface.state[name]
                    publisher.publish(state_message(self.values[name], stream, ns, self._interface.action.frame))


class PolicyProcess:
    """policy_node as a process, its output in a log file; `program` is what Python runs."""

    def __init__(self, program: list[str], parameters: dict[str, object], log: Path, domain: dict[str, str]) -> None:
        self.log = log
        arguments = [f"{name}:={str(value).lower() if isinstance(value, bool) else value}"
                     for name, value in parameters.items()]
        command = [sys.executable, *program, "--ros-args", *(word for text in arguments for word in ("-p", text))]
        path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=REPOSITORY,
                                            env={**os.environ, **domain, "PYTHONPATH": path})

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_text(self, text: str, timeout_s: float = 15.0) -> None:
        assert wait_until(lambda: text in self.text(), timeout_s), self.text()

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(10.0)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(8.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextmanager
def robot(bench: Bench, clock_s: float | None = None) -> Iterator[Robot]:
    """A robot that ends with the block."""
    made = Robot(bench, clock_s)
    try:
        yield made
    finally:
        made.close()
