"""Messages and chunks of every kind through the real conversions, input assembly and control stack.

What comes is an observation that is whole and finite, a fault in words, or nothing; and no command out of limits.

COMO_FUZZ=1000 COMO_FUZZ_SEED=1 pytest test/test_fuzz_messages.py     # so many cases a test, instead of 60
"""

from __future__ import annotations

import array
import os
import queue
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import rclpy
from command_judge import Judge
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, Twist, TwistStamped, Vector3
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool, Header, String

from como_core.action_chunk import ActionChunk, Observation
from como_core.control.controller import Controller
from como_core.control.status import Command, Phase, Settings
from como_core.control.worker import Inference, InferenceWorker
from como_core.errors import ComoError
from como_core.interface import Action, Camera, Interface, Limits, StateStream, load_interface
from como_core.interface.names import IMAGE_ENCODINGS, POSE_FIELDS, TWIST_FIELDS
from como_core.resources import resources
from como_ros.commands import forward_message, pose_message, trajectory_message
from como_ros.images import message_fault, rgb_image
from como_ros.messages import NS_PER_S, stamp_ns, state_values, twist_message
from como_ros.policy_inputs import Inputs
from como_ros.policy_operator import OperatorInputs, Switches

CASES, SEED = int(os.environ.get("COMO_FUZZ", "60")), int(os.environ.get("COMO_FUZZ_SEED", "0"))
NOW_S = 1000.0
NUMBERS = st.floats(width=64) | st.sampled_from([0.0, -0.0, 1e30, 1e39, -1e39, 1e308, 5e-324])
TEXT = st.text(st.characters(), max_size=12)


def cases(test: Callable[..., None]) -> Callable[..., None]:
    """CASES examples, the same for the same COMO_FUZZ_SEED; nothing is kept on disk."""
    fixed = settings(max_examples=CASES, deadline=None, database=None, report_multiple_bugs=False,
                     suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large,
                                            HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture])
    return seed(SEED)(fixed(test))


@st.composite
def headers(draw: st.DrawFn) -> Header:
    """Mostly of now; else negative, far in the future, or with more nanoseconds than a second has."""
    header = Header(frame_id=draw(st.sampled_from(["base", "base", "", "camera"]) | TEXT))
    if draw(st.integers(0, 3)):
        header.stamp.sec, header.stamp.nanosec = int(NOW_S) - 1, draw(st.integers(900_000_000, 999_999_999))
    else:
        header.stamp.sec = draw(st.integers(-2**31, 2**31 - 1) | st.sampled_from([0, -1, 2**31 - 1, -2**31]))
        header.stamp.nanosec = draw(st.integers(0, 2**32 - 1))
    return header


@st.composite
def images(draw: st.DrawFn, camera: Camera) -> Image:
    """A right picture of a camera, in which none to three fields are something else."""
    widths = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono16": 2, "16UC1": 2, "32FC1": 4, "yuv422": 2,
              "yuv422_yuy2": 2}
    width, height = camera.width, camera.height
    step = width * widths.get(camera.encoding, 1) + draw(st.sampled_from([0, 0, 1, 5]))
    image = Image(header=draw(headers()), encoding=camera.encoding, width=width, height=height, step=step,
                  is_bigendian=draw(st.integers(0, 255)))
    data = draw(st.binary(min_size=step * height, max_size=step * height))
    sizes = st.integers(0, 40) | st.sampled_from([2**31, 2**32 - 1])
    for what in draw(st.lists(st.sampled_from(["encoding", "width", "height", "step", "data"]), max_size=3)):
        if what == "encoding":
            image.encoding = draw(st.sampled_from(IMAGE_ENCODINGS) | TEXT)
        elif what == "data":
            data = draw(st.binary(max_size=400))
        else:
            setattr(image, what, draw(sizes))
    image.data = array.array("B", data)
    return image


def encoded(kind: str, width: int, height: int) -> bytes:
    picture = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
    return bytes(cv2.imencode(kind, picture)[1].tobytes())


PICTURES = {kind: encoded(kind, 16, 12) for kind in (".jpg", ".png", ".bmp", ".webp", ".tiff")}


@st.composite
def compressed(draw: st.DrawFn) -> CompressedImage:
    """A picture of some format, cut off, with bytes changed or put in between, or no picture at all."""
    data = bytearray(draw(st.sampled_from(list(PICTURES.values())) | st.binary(max_size=64)))
    for what in draw(st.lists(st.sampled_from(["cut", "flip", "flip", "insert", "remove"]), max_size=4)):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        if what == "cut":
            del data[at:]
        elif what == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "insert":
            data[at:at] = draw(st.binary(max_size=16))
        else:
            del data[at:at + draw(st.integers(1, 16))]
    return CompressedImage(header=draw(headers()), format=draw(st.sampled_from(["jpeg", "png"]) | TEXT),
                           data=array.array("B", bytes(data)))


@st.composite
def joint_states(draw: st.DrawFn, names: tuple[str, ...]) -> JointState:
    """Joints in any order, missing, twice or strange, with arrays of any length."""
    given_names = list(names)
    if draw(st.integers(0, 2)) == 0:
        given_names = draw(st.lists(st.sampled_from([*names, "other"]) | TEXT, max_size=8))
    elif draw(st.booleans()):
        given_names = list(draw(st.permutations(given_names)))
    message = JointState(header=draw(headers()), name=given_names)
    for name in ("position", "velocity", "effort"):
        usual = st.lists(st.floats(-3, 3), min_size=len(given_names), max_size=len(given_names))
        setattr(message, name, draw(usual if draw(st.integers(0, 3)) else st.lists(NUMBERS, max_size=8)))
    return message


@st.composite
def poses(draw: st.DrawFn) -> PoseStamped:
    """Any place with any quaternion, often one of length 0."""
    place = [draw(st.floats(-1, 1) if draw(st.integers(0, 3)) else NUMBERS) for _ in range(3)]
    turn = draw(st.sampled_from([[0.0, 0.0, 0.0, 1.0], [0.0] * 4, [0.5] * 4])
                | st.lists(NUMBERS, min_size=4, max_size=4))
    pose = Pose(position=Point(x=place[0], y=place[1], z=place[2]),
                orientation=Quaternion(x=turn[0], y=turn[1], z=turn[2], w=turn[3]))
    return PoseStamped(header=draw(headers()), pose=pose)


@st.composite
def twists(draw: st.DrawFn) -> TwistStamped:
    a, b, c = (draw(st.floats(-1, 1) | NUMBERS) for _ in range(3))
    twist = Twist(linear=Vector3(x=a, y=b, z=c), angular=Vector3(x=c, y=a, z=b))
    return TwistStamped(header=draw(headers()), twist=twist)


# Pictures


@pytest.mark.parametrize("encoding", IMAGE_ENCODINGS)
def test_an_image_is_a_picture_of_the_cameras_size_or_a_fault(encoding: str) -> None:
    camera = Camera("camera", 8, 6, 30.0, 0.3, encoding=encoding)

    @cases
    @given(images(camera))
    def check(message: Image) -> None:
        fault = message_fault(message, camera)
        try:
            rgb = rgb_image(message, camera)
        except ComoError as error:
            assert fault is not None, f"it was taken on arrival and cannot be decoded: {error}"
            assert "camera" in str(error)
            return
        assert rgb.shape == (6, 8, 3) and rgb.dtype == np.uint8 and rgb.base is None

    check()


def test_a_compressed_image_is_a_picture_of_the_cameras_size_or_a_fault() -> None:
    camera = Camera("camera", 16, 12, 30.0, 0.3, "sensor_msgs/msg/CompressedImage")

    @cases
    @given(compressed())
    def check(message: CompressedImage) -> None:
        message_fault(message, camera)
        with suppress(ComoError):
            rgb = rgb_image(message, camera)
            assert rgb.shape == (12, 16, 3) and rgb.dtype == np.uint8

    check()


# States

STREAMS: dict[str, tuple[StateStream, Any]] = {
    "joints": (StateStream("joints", "sensor_msgs/msg/JointState", ("a", "b", "c"), 100.0, 0.5),
               joint_states(("a", "b", "c"))),
    "speeds": (StateStream("speeds", "sensor_msgs/msg/JointState", ("b", "a"), 100.0, 0.5, "velocity"),
               joint_states(("a", "b"))),
    "hand": (StateStream("hand", "geometry_msgs/msg/PoseStamped", POSE_FIELDS, 100.0, 0.5), poses()),
    "motion": (StateStream("motion", "geometry_msgs/msg/TwistStamped", TWIST_FIELDS, 100.0, 0.5), twists())}


@pytest.mark.parametrize("name", STREAMS)
def test_a_state_is_its_values_in_order_or_a_fault(name: str) -> None:
    stream, messages = STREAMS[name]

    @cases
    @given(messages)
    def check(message: Any) -> None:
        with suppress(ComoError):
            values = state_values(message, stream)
            assert values.shape == (len(stream.names),) and values.dtype == np.float32
            if isinstance(message, JointState):
                field = getattr(message, stream.field)
                for joint, value in zip(stream.names, values, strict=True):
                    at = message.name.index(joint)
                    assert message.name.count(joint) == 1, "which of the two?"
                    with np.errstate(over="ignore"):
                        np.testing.assert_array_equal(value, np.float32(field[at]))

    check()


# From messages to observations

CAMERAS = {"raw": Camera("raw", 8, 6, 30.0, 0.5), "depth": Camera("depth", 8, 6, 30.0, 0.5, encoding="32FC1"),
           "packed": Camera("packed", 16, 12, 30.0, 0.5, "sensor_msgs/msg/CompressedImage")}
BOX = Limits(workspace_lower=(-1, -1, -1), workspace_upper=(1, 1, 1))
ROBOT = Interface("fuzzed", CAMERAS, Action("ee_twist", "servo_twist", "twist", ("linear.x", "linear.y", "linear.z"),
                                            20.0, limits=BOX), {name: stream for name, (stream, _) in STREAMS.items()})


@pytest.fixture(scope="module")
def node(module_ros_domain: dict[str, str]) -> Iterator[LifecycleNode]:
    """A real node; its subscriptions' callbacks are called as the executor would call them."""
    context = Context()
    rclpy.init(context=context, domain_id=int(module_ros_domain["ROS_DOMAIN_ID"]))
    made = LifecycleNode("fuzzed", context=context)
    made.get_logger().set_level(rclpy.logging.LoggingSeverity.FATAL)
    yield made
    made.destroy_node()
    context.try_shutdown()


def arrivals() -> st.SearchStrategy[list[tuple[str, Any]]]:
    """A few messages of every stream and switch."""
    made: dict[str, Any] = {"raw": images(CAMERAS["raw"]), "depth": images(CAMERAS["depth"]), "packed": compressed(),
                            "instruction": TEXT.map(lambda text: String(data=text)),
                            "e_stop": st.booleans().map(lambda on: Bool(data=on))}
    made |= {name: messages for name, (_, messages) in STREAMS.items()}
    return st.lists(st.one_of([st.tuples(st.just(name), messages) for name, messages in made.items()]), max_size=12)


def right(controller: Controller, number: int) -> None:
    """Every stream once, as it should be, so that what came before meets an observation."""
    stamp_s = NOW_S - 0.05 + 0.01 * number
    for name, camera in CAMERAS.items():
        controller.put_image(name, stamp_s, NOW_S, lambda camera=camera: np.zeros((camera.height, camera.width, 3),
                                                                                  np.uint8))
    for name, (stream, _) in STREAMS.items():
        values = np.zeros(len(stream.names), np.float32)
        values[-1] = 1.0
        controller.put_state(name, stamp_s, NOW_S, values)


def test_what_arrives_makes_a_whole_and_finite_observation_or_none(node: LifecycleNode) -> None:
    asked: list[Observation] = []

    @cases
    @given(arrivals(), st.lists(st.booleans(), min_size=12, max_size=12))
    def check(messages: list[tuple[str, Any]], mended: list[bool]) -> None:
        controller = Controller(ROBOT, Settings(100.0, history_s=(0.02, 0.1)))
        inputs = Inputs(node, ROBOT, controller, lambda: None)
        operator = OperatorInputs(node, controller, Switches("e_stop", ""))
        callbacks = {s.topic_name.strip("/"): s.callback for s in [*inputs._subscriptions, *operator._subscriptions]}
        controller.start()
        try:
            for number, ((topic, message), mend) in enumerate(zip(messages, mended, strict=False)):
                if mend:
                    right(controller, number)
                callbacks[topic](message)
                # Later than pictures of the same instant are waited for, earlier than a stream is stale.
                question = controller.question(NOW_S, NOW_S + 0.1 if mend else NOW_S)
                for faulty in inputs.faults.values():
                    assert isinstance(faulty, str) and faulty
                if question is not None:
                    with suppress(ComoError):
                        asked.append(whole(question[0].observation()))
        finally:
            inputs.close()
            operator.close()

    def whole(seen: Observation) -> Observation:
        for pictures in (seen.images, *seen.past):
            for name, camera in CAMERAS.items():
                assert pictures[name].shape == (camera.height, camera.width, 3) and pictures[name].dtype == np.uint8
        size = sum(len(stream.names) for stream, _ in STREAMS.values())
        assert seen.state is not None and seen.state.shape == (size,) and seen.state.dtype == np.float32
        assert np.isfinite(seen.state).all() and np.isfinite(seen.stamp_s) and len(seen.past) == 2
        turn = seen.state[8:12]
        assert np.linalg.norm(turn) > 1e-3, f"{turn} is no rotation"
        return seen

    check()
    assert len(asked) > CASES // 30, "or the fuzz would prove nothing"


# From chunks to commands

FILES = {name: load_interface(path) for name, path in resources("config/interfaces").items()}
PANDA = FILES["panda"]
SPEEDS = Limits(lower=(-1.0,) * 7, upper=(1.0,) * 7, max_acceleration_per_s2=(5.0,) * 7, step=(0.2,) * 7)
HAND = StateStream("hand", "geometry_msgs/msg/PoseStamped", POSE_FIELDS, 100.0, 0.3)
ROBOTS = {**FILES,
          "panda forward": replace(PANDA, action=replace(PANDA.action, target="forward_command", gripper=None)),
          "panda speeds": replace(PANDA, action=replace(PANDA.action, kind="joint_velocity", target="forward_command",
                                                        limits=SPEEDS)),
          "pose": replace(PANDA, state={"hand": HAND}, action=Action(
              "ee_pose", "pose", "target_pose", POSE_FIELDS, 40.0, limits=Limits(
                  step=(0.01,) * 3 + (0.02,) * 4, max_velocity_per_s=(0.3,) * 7, jump=(0.2,) * 7,
                  workspace_lower=(-1, -1, -1), workspace_upper=(1, 1, 1))))}
SHARES = st.floats(-1.5, 1.5) | st.sampled_from([-1.0, 0.0, 0.5, 1.0])


@st.composite
def chunks(draw: st.DrawFn, size: int) -> tuple[Any, Any]:
    """Times and values of a chunk: sensible ones, in shares of each limit, or anything at all."""
    count = draw(st.integers(0 if draw(st.integers(0, 4)) == 0 else 2, 10))
    times: Any = np.arange(count) * draw(st.sampled_from([0.01, 0.02, 0.05, 0.1]))
    times = times + draw(st.sampled_from([0.0, 0.0, -0.02]))
    values: Any = np.tile(draw(hnp.arrays(np.float64, size, elements=SHARES)), (count, 1))
    if count:
        values = values * np.linspace(draw(st.floats(0, 1)), 1, count)[:, None]
    what = draw(st.sampled_from(["right"] * 4 + ["value", "value", "values", "times", "time", "shape", "type"]))
    if what == "value" and count:
        values[draw(st.integers(0, count - 1)), draw(st.integers(0, size - 1))] = draw(NUMBERS)
    elif what == "values":
        values = draw(hnp.arrays(st.sampled_from([np.float16, np.float32, np.float64]).map(np.dtype), (count, size)))
    elif what == "times":
        times = draw(hnp.arrays(np.float64, count, elements=NUMBERS))
    elif what == "time" and count:
        times[draw(st.integers(0, count - 1))] += draw(NUMBERS)
    elif what == "shape":
        values = draw(hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
        times = draw(st.just(times) | hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, max_dims=2, max_side=5)))
    elif what == "type":
        values = draw(st.sampled_from([None, "nan", [[1.0], [2.0, 3.0]], values.astype(str), values.astype(object),
                                       values.astype(complex), values.astype(bool), values.tolist(), [["x"] * size]]))
    return times, values


class _Told:
    """A policy that answers what it is told to."""

    def __init__(self, robot: Interface) -> None:
        self.interface, self.answer = robot, (np.zeros(0), np.zeros((0, 0)))

    def warm_up(self) -> None:
        """There is nothing to warm up."""

    def predict(self, observation: Observation) -> ActionChunk:
        return ActionChunk(*self.answer, "fuzz")


class _Stack:
    """Controller, inference thread and message conversion of a robot that follows what it is sent."""

    def __init__(self, robot: Interface) -> None:
        self.robot, self.action, self.policy = robot, robot.action, _Told(robot)
        self._answers: queue.Queue[Inference] = queue.Queue()
        self.worker = InferenceWorker(self.policy, self._answers.put)
        limits, size = robot.action.limits, len(robot.action.names)
        lower = np.full(size, -1.0) if limits.lower is None else np.array(limits.lower)
        upper = np.full(size, 1.0) if limits.upper is None else np.array(limits.upper)
        self.middle, self.half = (lower + upper) / 2, (upper - lower) / 2
        self.sent = 0

    def begin(self, ahead_s: float) -> None:
        """Anew, with streams stamped so much ahead of the clock."""
        self.ahead_s = ahead_s
        self.controller, self.judge = Controller(self.robot, Settings(200.0)), Judge(self.action)
        self.now_s, self.before_s = NOW_S, -np.inf
        self.place = np.array([0.0, 0, 0, 0, 0, 0, 1]) if self.action.kind == "ee_pose" else self.middle.copy()
        self.controller.start()

    def feel(self) -> None:
        """Every stream says where the arm is."""
        stamp_s = self.now_s + self.ahead_s
        for name in self.robot.cameras:
            self.controller.put_image(name, stamp_s, self.now_s, lambda: np.zeros((4, 4, 3), np.uint8))
        for name, stream in self.robot.state.items():
            here = dict(zip(self.action.names, self.place, strict=True)) if "joint_p" in self.action.kind or \
                self.action.kind == "ee_pose" else {"position.y": 0.6}
            self.controller.put_state(name, stamp_s, self.now_s,
                                      np.array([here.get(value, 0.0) for value in stream.names], np.float32))

    def think(self, times: Any, shares: Any) -> None:
        """A question, and the chunk as its answer; `shares` of the way to the limits where they are numbers."""
        question = self.controller.question(self.now_s, self.now_s)
        if question is None:
            return
        values, size = shares, len(self.action.names)
        if isinstance(shares, np.ndarray) and shares.dtype.kind == "f" and shares.ndim == 2 \
                and shares.shape[1] == self.action.size:
            with np.errstate(over="ignore", invalid="ignore"):
                values = shares.astype(np.float64)
                values[:, :size] = self.place + 0.1 * values[:, :size] * self.half
        self.policy.answer = times, values
        self.worker.submit(*question)
        answer = self._answers.get(timeout=20.0)
        assert self.worker._thread.is_alive()
        self.controller.answer(answer, self.now_s)

    def tick(self) -> None:
        """What goes out now; it must be allowed."""
        command = self.controller.command(self.now_s, self.now_s)
        for sent in (command, self.controller.take_halt(self.now_s)):
            if sent is not None:
                self._send(sent)

    def _send(self, command: Command) -> None:
        ns = round(self.now_s * NS_PER_S)
        assert command.gripper is None or 0 <= command.gripper <= 1
        size = len(self.action.names)
        if command.trajectory is not None:
            message = trajectory_message(command.trajectory, self.action)
            times_s = [stamp_ns(p.time_from_start) / NS_PER_S for p in message.points]
            wrong = self.judge.trajectory(self.now_s - stamp_ns(message.header.stamp) / NS_PER_S, times_s,
                                          [p.positions for p in message.points],
                                          [p.velocities for p in message.points], [self.place])
            assert not wrong, wrong
            self.sent += 1
            self.place = np.clip(np.array(message.points[min(1, len(times_s) - 1)].positions[:size]),
                                 self.middle - self.half, self.middle + self.half)
        if command.values is not None:
            values = command.values
            if self.action.target == "forward_command":
                values = np.array(forward_message(values, self.action, ns).data)
            elif self.action.target == "servo_twist":
                twist_message(values, self.action, ns)
            else:
                pose_message(values, self.action, ns)
            wrong = self.judge.values(values, [self.place], self.now_s - self.before_s > 1.2 / self.action.rate_hz)
            assert not wrong, wrong
            self.sent, self.before_s = self.sent + 1, self.now_s
            if self.action.kind in ("joint_position", "ee_pose"):
                self.place = np.array(values, np.float64)


@pytest.mark.parametrize("name", ROBOTS)
def test_whatever_a_policy_gives_what_is_sent_is_within_limits(name: str) -> None:
    stack = _Stack(ROBOTS[name])
    start = np.arange(8) * 0.05, np.tile(np.linspace(0, 0.3, 8)[:, None], (1, stack.action.size))

    @cases
    @given(st.lists(chunks(stack.action.size), min_size=1, max_size=6), st.sampled_from([0.0, 0.0, 0.02, -0.05]))
    def check(answers: list[tuple[Any, Any]], ahead_s: float) -> None:
        stack.begin(ahead_s)
        for times, values in [start, *answers]:  # what comes meets an arm that moves
            stack.feel()
            stack.think(times, values)
            for _ in range(4):
                stack.tick()
                stack.now_s += 1 / stack.action.rate_hz
                stack.feel()
            if stack.controller.status(stack.now_s, stack.now_s).phase is Phase.LATCHED:
                stack.controller.reset(stack.now_s, stack.now_s)

    try:
        check()
    finally:
        stack.worker.close()
    assert stack.sent > CASES // 2, "it moved, or the fuzz would prove nothing"
