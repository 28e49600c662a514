"""An arm of the soak: two cameras of 640x480 at 30 Hz and joints at 100 Hz over real DDS, and what may befall them."""

from __future__ import annotations

import array
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from rclpy.exceptions import InvalidHandle
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState

from como_core.interface import Interface
from como_ros import qos
from como_ros.images import image_message
from como_ros.messages import NS_PER_S, header, stamp_ns, to_stamp

CAMERA_PERIOD_S, JOINT_PERIOD_S = 1 / 30, 1 / 100
SIM_START_NS = 1000 * NS_PER_S
IMAGE_FAULTS = ("size", "encoding", "step", "short", "empty")
JOINT_FAULTS = ("nan", "infinite", "missing", "short", "empty")


def reliability(reliable: bool, depth: int = 5, latched: bool = False) -> QoSProfile:
    """A publisher's profile."""
    return QoSProfile(depth=depth,
                      reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
                      durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE)


@dataclass
class Stream:
    """A publisher and what is wrong with it at present.

    sent     wall ns of each message that was fresh, whole and right
    spoilt   one of IMAGE_FAULTS or JOINT_FAULTS, "deaf" where nobody can hear it, or None
    """

    name: str
    topic: str
    kind: type
    profile: QoSProfile
    publisher: Any = None
    silent: bool = False
    frozen_ns: int | None = None
    offset_ns: int = 0
    spoilt: str | None = None
    reordered: bool = False
    sent: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def heal(self) -> None:
        """Nothing is wrong any more; the publisher stays."""
        self.silent, self.frozen_ns, self.offset_ns, self.spoilt, self.reordered = False, None, 0, None, False


class Trajectory(NamedTuple):
    """A trajectory message as arrays: thousands of messages would keep the garbage collector busy."""

    stamp_ns: int
    times_s: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray

    @classmethod
    def of(cls, message: Any) -> Trajectory:
        points = message.points
        return cls(stamp_ns(message.header.stamp), np.array([stamp_ns(p.time_from_start) / NS_PER_S for p in points]),
                   np.array([p.positions for p in points]), np.array([p.velocities for p in points]))


class Arm:
    """Publishes its streams from threads and follows what it is sent, as a forward or a trajectory controller does.

    measured  (wall ns, joints) of each joint state
    clocks    (wall ns, ns to be added) of the simulated clock; empty without one
    """

    def __init__(self, node: Node, interface: Interface) -> None:
        self._node, self.interface = node, interface
        limits = interface.action.limits
        assert limits.lower and limits.upper and limits.max_velocity_per_s
        self._joints = (np.array(limits.lower) + np.array(limits.upper)) / 2
        self._speed = np.array(limits.max_velocity_per_s)
        self._goal: np.ndarray | None = None
        self._way: Trajectory | None = None
        self.measured: list[tuple[int, np.ndarray]] = []
        self.clocks: list[tuple[int, int]] = []
        self._held_ns: int | None = None
        camera = next(iter(interface.cameras.values()))
        picture = np.random.default_rng(0).integers(0, 256, (camera.height, camera.width, 3), np.uint8)
        self._images = {name: image_message(picture, 0, name) for name in interface.cameras}
        self.streams = {name: Stream(name, c.topic, Image, reliability(False)) for name, c in interface.cameras.items()}
        state, = interface.state.items()
        self.streams[state[0]] = Stream(state[0], state[1].topic, JointState, reliability(True, 10))
        self._state = state[1]
        for stream in self.streams.values():
            self.announce(stream)
        self._clock = qos.publish(node, Clock, "/clock", qos.clock())
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._repeat, args=work, daemon=True)
                         for work in ((CAMERA_PERIOD_S, self._shoot), (JOINT_PERIOD_S, self._move))]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(5.0)

    def announce(self, stream: Stream, profile: QoSProfile | None = None) -> None:
        """Make a stream's publisher, anew where it has one."""
        with stream.lock:
            if stream.publisher is not None:
                self._node.destroy_publisher(stream.publisher)
            stream.publisher = qos.publish(self._node, stream.kind, stream.topic, profile or stream.profile)

    def withdraw(self, stream: Stream) -> None:
        """Destroy a stream's publisher."""
        with stream.lock:
            self._node.destroy_publisher(stream.publisher)
            stream.publisher = None

    def simulate(self, simulated: bool) -> None:
        """Stamp by a clock of our own on /clock, or by the wall."""
        self._held_ns = None
        self.clocks.append((time.time_ns(), SIM_START_NS - time.time_ns() if simulated else 0))
        self._drop()

    def jump(self, seconds: float) -> None:
        """The simulated clock goes forward or back."""
        self.clocks.append((time.time_ns(), self.clocks[-1][1] + round(seconds * NS_PER_S)))
        self._drop()

    def hold_clock(self, held: bool) -> None:
        """The simulated clock stands still, or goes on from where it would be."""
        self._held_ns = self.now_ns() if held else None

    def now_ns(self) -> int:
        if self._held_ns is not None:
            return self._held_ns
        return time.time_ns() + (self.clocks[-1][1] if self.clocks else 0)

    def obey(self, values: np.ndarray) -> None:
        """A forward command."""
        self._goal = values

    def follow(self, way: Trajectory) -> None:
        """A trajectory; one without a point is none."""
        self._goal, self._way = None, way if len(way.times_s) else None

    def _drop(self) -> None:
        self._goal = self._way = None

    def _repeat(self, period_s: float, work: Callable[[], None]) -> None:
        due_s = time.monotonic()
        while not self._ended.is_set():
            with suppress(InvalidHandle, rclpy_implementation.RCLError):  # the end of the context
                work()
            due_s = max(due_s + period_s, time.monotonic() - period_s)
            self._ended.wait(max(due_s - time.monotonic(), 0.0))

    def _shoot(self) -> None:
        for name in self._images:
            self._send(self.streams[name], self._picture)

    def _move(self) -> None:
        if self.clocks and self.clocks[-1][1]:
            self._clock.publish(Clock(clock=to_stamp(self.now_ns())))
        self._joints = self._there()
        self.measured.append((time.time_ns(), self._joints.copy()))
        self._send(self.streams[next(iter(self.interface.state))], self._joint_state)

    def _send(self, stream: Stream, make: Callable[[Stream, int], Any]) -> None:
        with stream.lock:
            if stream.silent or stream.publisher is None:
                return
            wall_ns = time.time_ns()
            ns = self.now_ns() + stream.offset_ns if stream.frozen_ns is None else stream.frozen_ns
            stream.publisher.publish(make(stream, ns))
            if stream.spoilt is None and stream.frozen_ns is None and not stream.offset_ns:
                stream.sent.append(wall_ns)

    def _picture(self, stream: Stream, ns: int) -> Image:
        message, fault = self._images[stream.name], stream.spoilt
        message.header = header(ns, stream.name)
        message.data[:8] = array.array("B", max(ns, 0).to_bytes(8, "little"))
        if fault in (None, "deaf"):
            return message
        height, width, data = message.height, message.width, message.data
        spoilt = Image(header=message.header, height=height, width=width, encoding="rgb8", step=message.step, data=data)
        if fault == "size":
            spoilt.width, spoilt.step = width // 2, width // 2 * 3
            spoilt.data = data[:height * spoilt.step]
        elif fault == "encoding":
            spoilt.encoding = "bgr8"
        elif fault == "step":
            spoilt.step = message.step - 1
        else:
            spoilt.data = data[:len(data) // 2] if fault == "short" else array.array("B")
        return spoilt

    def _joint_state(self, stream: Stream, ns: int) -> JointState:
        names = list(self._state.names)
        values = [*self._joints.tolist(), 0.02][:len(names)]
        if stream.reordered:
            names, values = [*names[::-1], "elsewhere"], [*values[::-1], np.nan]
        message = JointState(header=header(ns), name=names, position=values)
        if stream.spoilt in ("nan", "infinite"):
            message.position[2] = np.nan if stream.spoilt == "nan" else -np.inf
        elif stream.spoilt == "missing":
            message.name[1] = "elsewhere"
        elif stream.spoilt == "short":
            message.position = message.position[:3]
        elif stream.spoilt == "empty":
            message.name, message.position = [], []
        return message

    def _there(self) -> np.ndarray:
        """Where the arm is now."""
        goal, way = self._goal, self._way
        if goal is not None:
            reach = self._speed * JOINT_PERIOD_S * 1.5
            return self._joints + np.clip(goal - self._joints, -reach, reach)
        if way is None:
            return self._joints
        stamp, times, positions, velocities = way
        at_s = (self.now_ns() - stamp) / NS_PER_S
        if at_s < times[0]:
            return self._joints
        if at_s >= times[-1]:
            return np.asarray(positions[-1])
        k = int(np.searchsorted(times, at_s, side="right")) - 1
        gap_s = times[k + 1] - times[k]
        u = (at_s - times[k]) / gap_s
        return np.asarray((1 + 2 * u) * (1 - u)**2 * positions[k] + u * (1 - u)**2 * gap_s * velocities[k]
                          + u**2 * (3 - 2 * u) * positions[k + 1] - u**2 * (1 - u) * gap_s * velocities[k + 1])
