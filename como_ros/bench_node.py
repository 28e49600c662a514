"""`como bench node`: how long policy_node takes from a camera's stamp to the command, and how even its commands come.

    report = bench_node(quick=False)

Processes of their own over DDS, as on a robot (`bench_rig`): cameras and joints (`rig`), policy_node with a policy
that costs nothing (`policy`), and the least node that can be written with rclpy, which receives the same images and
answers each with one small message (`echo`). The figures of policy_node stand beside its, measured in the same
run.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from trajectory_msgs.msg import JointTrajectory

from como_core import config
from como_core.bench.measure import Report, Row, machine
from como_core.errors import ComoError
from como_core.interface import Action, Camera, Interface, Limits, StateStream
from como_core.resources import resource
from como_ros import qos
from como_ros.bench_rig import COMMAND_HZ, GO, JOINTS, RATE_HZ, STATE_HZ
from como_ros.messages import NS_PER_S, message_class, stamp_ns
from como_ros.policy_inputs import PROFILE
from como_ros.processes import NodeProcess, wait_until

SLOW_S = 0.3
START_S = 40.0  # for processes to load, discover one another and pass the first message
GOALS_MS = {(2, "224x224"): 5.0, (2, "640x480"): 15.0}
JITTER_GOAL_MS = 2.0
MAX_AGE_S = 10.0  # of pictures and joints: a machine that stalls is measured as it is, and does not stop the node
_SAME_NS = 10_000


@dataclass(frozen=True)
class Case:
    """Cameras and their pictures."""

    cameras: int
    width: int
    height: int
    compressed: bool

    @property
    def name(self) -> str:
        kind = "jpeg" if self.compressed else "raw"
        return f"{self.cameras} camera{'s' if self.cameras > 1 else ''} {self.width}x{self.height} {kind}"

    def interface(self, target: str) -> Interface:
        """A robot of six joints, commanded by trajectories (at once) or by velocities (at COMMAND_HZ)."""
        kind = "sensor_msgs/msg/CompressedImage" if self.compressed else "sensor_msgs/msg/Image"
        cameras = {f"camera_{i}": Camera(f"camera_{i}/image", self.width, self.height, RATE_HZ, MAX_AGE_S,
                                         kind)  # type: ignore[arg-type]
                   for i in range(self.cameras)}
        action = (Action("joint_position", "joint_trajectory", "joint_trajectory", JOINTS, COMMAND_HZ)
                  if target == "joint_trajectory" else
                  Action("joint_velocity", "forward_command", "commands", JOINTS, COMMAND_HZ, limits=Limits()))
        state = {"joints": StateStream("joint_states", "sensor_msgs/msg/JointState", JOINTS, STATE_HZ, MAX_AGE_S)}
        return Interface("bench", cameras, action, state)


CASES = tuple(Case(cameras, width, height, compressed) for width, height in ((224, 224), (640, 480), (640, 640))
              for cameras in (1, 2) for compressed in (False, True))


@dataclass(frozen=True)
class Answers:
    """What one run of a node gave: latency in seconds of each answered frame, frames sent, processor share."""

    latency_s: np.ndarray
    frames: int
    share: float

    @property
    def lost(self) -> int:
        """Frames that nothing came of."""
        return max(self.frames - len(self.latency_s), 0)


def bench_node(quick: bool = False) -> Report:
    """Measure everything in one run; `quick` only shows that it runs. Raises ComoError where a process ends."""
    here, start = machine(), time.monotonic()
    frames = 90 if quick else 450
    cases = (Case(1, 224, 224, False),) if quick else CASES
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="como_bench_") as folder:
        for i, case in enumerate(cases):
            print(f"{case.name} ...", flush=True)
            echo = _run(case, "echo", Path(folder) / f"{i}_echo", frames)
            node = _run(case, "policy", Path(folder) / f"{i}_node", frames)
            rows += _latency_rows(case, node, echo)
        print("commands while the policy takes 300 ms ...", flush=True)
        rows.append(_jitter_row(Path(folder) / "jitter", 4.0 if quick else 20.0))
    settings = {"rate_hz": RATE_HZ, "state_hz": STATE_HZ, "frames": frames, "quick": quick,
                "seconds": round(time.monotonic() - start)}
    return Report("node", tuple(rows), here, settings)


def _latency_rows(case: Case, node: Answers, echo: Answers) -> list[Row]:
    goal = GOALS_MS.get((case.cameras, f"{case.width}x{case.height}")) if not case.compressed else None
    rows = []
    for share in (50, 99):
        mine, least = (float(np.percentile(a.latency_s, share)) * 1e3 for a in (node, echo))
        ends = [float(np.percentile(part, share)) * 1e3 for part in np.array_split(node.latency_s, 3)]
        rows.append(Row(f"{case.name}: stamp to command, p{share}", mine, min(ends), max(ends), "ms"))
        rows.append(Row(f"{case.name}: added to the least node, p{share}", mine - least, mine - least, mine - least,
                        "ms", goal if share == 99 else None, at_most=True, note=f"least node {least:.2f} ms"))
        rows.append(Row(f"{case.name}: over the least node, p{share}", mine / least, mine / least, mine / least))
    rows.append(Row(f"{case.name}: processor share", 100 * node.share, 100 * node.share, 100 * node.share, "%",
                    note=f"least node {100 * echo.share:.1f} %"))
    rows.append(Row(f"{case.name}: frames without a command", node.lost, node.lost, node.lost, f"of {node.frames}", 0,
                    at_most=True, note=f"least node {echo.lost}"))
    return rows


def _run(case: Case, kind: str, folder: Path, frames: int) -> Answers:
    """One node against the rig: `policy` or `echo`."""
    folder.mkdir(parents=True)
    interface = case.interface("joint_trajectory")
    with _Listener(JointTrajectory, interface.action.topic) as listener, \
            _processes(kind, interface, folder, listener.domain, frames) as (node, rig):
        _require(wait_until(lambda: len(listener.heard) > 3 or not _alive(node, rig), START_S), node, rig)
        (folder / GO).touch()
        before, began = _processor_s(node.pid), time.monotonic()
        _require(wait_until(lambda: (folder / "sent.json").exists(), START_S + 2 * frames / RATE_HZ), node, rig)
        share = (_processor_s(node.pid) - before) / (time.monotonic() - began)
        time.sleep(0.5)
    sent = np.array(json.loads((folder / "sent.json").read_text()), np.int64)
    latency: dict[int, float] = {}
    for arrival_ns, message in listener.heard:
        # Stamps pass through seconds in floating point, which keeps them to less than a microsecond.
        stamp = int(sent[np.abs(sent - stamp_ns(message.header.stamp)).argmin()])
        if abs(stamp - stamp_ns(message.header.stamp)) < _SAME_NS:
            latency.setdefault(stamp, (arrival_ns - stamp) / NS_PER_S)
    if not latency:
        raise ComoError(f"{case.name}: no answer to any of {len(sent)} frames; {_end_of(node.log)}")
    return Answers(np.array([latency[stamp] for stamp in sorted(latency)]), len(sent), share)


def _jitter_row(folder: Path, seconds: float) -> Row:
    """How far the time between two commands is from the period, while each prediction takes SLOW_S."""
    folder.mkdir(parents=True)
    interface = Case(1, 224, 224, False).interface("forward_command")
    with _Listener(message_class(interface.action.type), interface.action.topic) as listener, \
            _processes("policy", interface, folder, listener.domain, 100_000, SLOW_S) as (node, rig):
        _require(wait_until(lambda: len(listener.heard) > COMMAND_HZ or not _alive(node, rig), START_S), node, rig)
        first = len(listener.heard)
        time.sleep(seconds)
        times_s = np.array([arrival / NS_PER_S for arrival, _ in listener.heard[first:]])
    off_ms = np.abs(np.diff(times_s) - 1 / COMMAND_HZ) * 1e3
    ends = [float(np.percentile(part, 99)) for part in np.array_split(off_ms, 3)]
    name = f"commands at {COMMAND_HZ:g} Hz beside a policy of 300 ms: jitter, p99"
    return Row(name, float(np.percentile(off_ms, 99)), min(ends), max(ends), "ms", JITTER_GOAL_MS, at_most=True,
               note=f"{len(times_s)} commands")


@contextmanager
def _processes(kind: str, interface: Interface, folder: Path, domain: int, frames: int, slow_s: float = 0.0
               ) -> Iterator[tuple[NodeProcess, NodeProcess]]:
    """The node under test and the rig; ended afterwards."""
    config.save(interface, folder / "interface.yaml")
    (folder / "slow.json").write_text(json.dumps(slow_s))
    environment = {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
                   "FASTDDS_DEFAULT_PROFILES_FILE": str(resource(PROFILE))}
    given = {"policy": folder, "interface": folder / "interface.yaml", "enable_output": True, "autostart": True,
             "replan_hz": RATE_HZ if not slow_s else 1 / SLOW_S}
    program = [sys.executable, "-m", "como_ros.bench_rig"]
    with NodeProcess("bench_rig", given if kind == "policy" else {}, folder / f"{kind}.log", environment,
                     program=[*program, kind, str(folder)]) as node, \
            NodeProcess("bench_rig", {}, folder / "rig.log", environment,
                        program=[*program, "rig", str(folder), str(frames)]) as rig:
        yield node, rig


def _alive(*processes: NodeProcess) -> bool:
    try:
        for process in processes:
            process.require_alive()
    except ComoError:
        return False
    return True


def _require(happened: bool, *processes: NodeProcess) -> None:
    for process in processes:
        process.require_alive()
    if not happened:
        raise ComoError(f"nothing came within {START_S:g} s; {'; '.join(_end_of(p.log) for p in processes)}")


def _end_of(log: Path) -> str:
    return f"the end of {log.name}: {' / '.join(log.read_text(errors='replace').splitlines()[-4:])}"


def _processor_s(pid: int) -> float:
    """Seconds of processor time that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Listener:
    """Hears a topic in a context and a thread of its own: (arrival in ns of the system's clock, message).

    The arrival is DDS' own, which no pause of this process delays, such as a collection of torch's many objects.
    """

    def __init__(self, message_type: type, topic: str) -> None:
        self.domain = 1 + os.getpid() % 100
        self.heard: list[tuple[int, Any]] = []
        self._context = Context()
        rclpy.init(context=self._context, domain_id=self.domain)
        node = rclpy.create_node("bench_listener", context=self._context)
        node.create_subscription(message_type, topic, self._on_message, qos.command(100))
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, daemon=True)

    def __enter__(self) -> _Listener:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._context.try_shutdown()
        self._thread.join(5.0)

    def _on_message(self, message: Any, info: Any) -> None:
        self.heard.append((info["received_timestamp"], message))

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return
