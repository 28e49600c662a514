"""What the soak and the fuzz of messages, files and decoders have found, once each."""

from __future__ import annotations

import queue
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import Pose, PoseStamped, Quaternion
from mcap.reader import make_reader
from mcap.writer import Writer
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import JointState
from std_msgs.msg import Header
from test_fuzz_files import ROBOT, small_bag

from como_core.action_chunk import ActionChunk, Observation
from como_core.control.controller import Controller
from como_core.control.observations import Snapshot
from como_core.control.plan import chunk_fault
from como_core.control.status import Settings
from como_core.control.worker import Inference, InferenceWorker
from como_core.errors import ComoError
from como_core.formats.rosbag import read_bag
from como_core.formats.video import read_video
from como_core.interface import Action, Interface, StateStream, load_interface
from como_core.interface.names import POSE_FIELDS
from como_core.resources import resource
from como_ros.messages import state_values
from como_ros.policy_inputs import Inputs

PUSHT = load_interface(resource("config/interfaces/pusht.yaml"))
TIMES_S = np.array([0.0, 0.1])


@pytest.mark.parametrize(("times", "values", "words"), [
    (TIMES_S, np.array([[0.0, 1e39], [0.0, -1e39]]), r"an action of 1e\+39"),  # infinite as float32, NaN in between
    (TIMES_S, np.array([[0.0, 3e38], [0.0, 3e38]], np.float32), "an action of 3e"),
    (np.array([0.0, 1e12]), np.zeros((2, 2)), r"due 1e\+12 s"),  # no message can say so
    (TIMES_S, [[0.0], [0.0, 1.0]], "does not hold numbers"),
    (TIMES_S, np.array([["x", "y"]] * 2), "does not hold numbers"),
    (TIMES_S, None, "does not hold numbers"),
    (TIMES_S, np.zeros((2, 2), complex), "does not hold numbers")])
def test_what_is_no_chunk_of_a_robot_is_refused_in_words(times: object, values: object, words: str) -> None:
    fault = chunk_fault(ActionChunk(times, values), 2)  # type: ignore[arg-type]
    assert fault is not None and re.search(words, fault), fault


def test_a_value_beyond_float32_sends_nothing() -> None:
    """It was sent as NaN: infinity as float32, and between two infinities there is no number."""
    controller = Controller(PUSHT, Settings(100.0))
    controller.start()
    controller.put_image("top", 10.0, 10.0, lambda: np.zeros((96, 96, 3), np.uint8))
    controller.put_state("pusher", 10.0, 10.0, np.full(2, 0.2, np.float32))
    question = controller.question(10.0, 10.0)
    assert question is not None
    chunk = ActionChunk(TIMES_S, np.array([[0.2, 1e39], [0.2, -1e39]]))
    controller.answer(Inference(*question, chunk, None, 0.01), 10.0)
    assert controller.command(10.05, 10.05) is None
    assert controller.cause is not None and "1e+39" in controller.cause


class _NoChunk:
    """A policy that answers with something else."""

    interface = PUSHT

    def warm_up(self) -> None:
        """There is nothing to warm up."""

    def predict(self, observation: Observation) -> ActionChunk:
        return "forward"  # type: ignore[return-value]


def test_an_answer_that_is_no_chunk_is_an_error_of_the_policy_and_the_next_question_is_asked() -> None:
    answers: queue.Queue[Inference] = queue.Queue()
    worker = InferenceWorker(_NoChunk(), answers.put)
    try:
        for epoch in range(2):
            worker.submit(Snapshot(0.0, 0.0, {}, None, None), epoch)
            answer = answers.get(timeout=10.0)
            assert answer.chunk is None and "predict gave a str, expected an ActionChunk" in str(answer.error)
    finally:
        worker.close()


def test_a_joint_that_stands_twice_is_refused() -> None:
    stream = StateStream("joint_states", "sensor_msgs/msg/JointState", ("a", "b"), 40.0, 0.3)
    with pytest.raises(ComoError, match=r"joint_states.*'a' stands more than once"):
        state_values(JointState(name=["a", "b", "a"], position=[1.0, 2.0, 3.0]), stream)
    unread = JointState(name=["x", "a", "x", "b"], position=[0.0, 1.0, 0.0, 2.0])
    np.testing.assert_array_equal(state_values(unread, stream), [1.0, 2.0])


@pytest.fixture
def node(ros_domain: dict[str, str]) -> Iterator[LifecycleNode]:
    context = Context()
    rclpy.init(context=context, domain_id=int(ros_domain["ROS_DOMAIN_ID"]))
    made = LifecycleNode("found", context=context)
    yield made
    made.destroy_node()
    context.try_shutdown()


def test_a_quaternion_of_length_0_is_no_state(node: LifecycleNode) -> None:
    """A hand with no orientation has no nearest one, so the first pose command would turn it as fast as it likes."""
    hand = StateStream("hand", "geometry_msgs/msg/PoseStamped", POSE_FIELDS, 40.0, 0.3)
    robot: Interface = replace(PUSHT, state={"hand": hand},
                               action=Action("ee_pose", "pose", "target_pose", POSE_FIELDS, 40.0))
    controller = Controller(robot)
    inputs = Inputs(node, robot, controller, lambda: None)
    heard = next(s.callback for s in inputs._subscriptions if s.topic_name.endswith("hand"))
    heard(PoseStamped(header=Header(frame_id="base"), pose=Pose(orientation=Quaternion(w=0.0))))
    assert "length 0 is no orientation" in inputs.faults["hand"]
    assert controller.status(0.0, 0.0).ages["hand"] is None, "it counts as none"
    heard(PoseStamped(header=Header(frame_id="base"), pose=Pose(orientation=Quaternion(w=1.0))))
    assert "hand" not in inputs.faults and controller.status(0.0, 0.0).ages["hand"] is not None


def without_messages(path: Path, topic: str) -> None:
    """Write an MCAP file anew without the messages of a topic; its statistics still count them."""
    with path.open("rb") as file:
        reader = make_reader(file)
        summary, messages = reader.get_summary(), list(reader.iter_messages(log_time_order=False))
        metadata = list(reader.iter_metadata())
    assert summary is not None and summary.statistics is not None
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start("ros2")
        for schema in summary.schemas.values():
            writer.register_schema(schema.name, schema.encoding, schema.data)
        channels = {channel.topic: writer.register_channel(channel.topic, "cdr", channel.schema_id, channel.metadata)
                    for channel in summary.channels.values()}
        for _, channel, message in messages:
            if channel.topic != topic:
                writer.add_message(channels[channel.topic], message.log_time, message.data, message.publish_time)
        for entry in metadata:
            writer.add_metadata(entry.name, entry.metadata)
        writer._Writer__statistics.channel_message_counts[channels[topic]] = 19  # type: ignore[attr-defined]
        writer.finish()


@pytest.mark.parametrize("topic", ["/camera/image_raw", "/ee_pose", "/joint_states", "/servo/delta_twist_cmds",
                                   "/gripper_command"])
def test_a_bag_whose_index_counts_messages_that_are_not_there_is_refused_by_topic(topic: str, tmp_path: Path) -> None:
    bag = small_bag(tmp_path / "bag", "mcap")
    without_messages(next(bag.glob("*.mcap")), topic)
    with pytest.raises(ComoError, match=f"bag.*counts messages on '{topic}' and it holds none"):
        read_bag(bag, ROBOT)


def small_video(path: Path, title: str = "") -> Path:
    """One frame of 16 x 12 pixels."""
    with av.open(str(path), "w") as output:
        output.metadata["title"] = title
        stream = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 12, "yuv420p"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((12, 16, 3), np.uint8), format="rgb24")))
        output.mux(stream.encode())
    return path


@pytest.mark.parametrize(("degrees", "size"), [(0, (12, 16)), (40, (12, 16)), (50, (16, 12)), (90, (16, 12))])
def test_a_video_turned_by_any_angle_is_turned_by_quarters(degrees: float, size: tuple[int, int],
                                                           tmp_path: Path) -> None:
    path = small_video(tmp_path / "turned.mp4")
    data = bytearray(path.read_bytes())
    cos, sin = (round(part(np.radians(degrees)) * 65536) for part in (np.cos, np.sin))
    matrix = data.index(b"tkhd") + 44  # of a box of version 0 (ISO 14496-12, 8.3.2)
    struct.pack_into(">iiiii", data, matrix, cos, sin, 0, -sin, cos)
    path.write_bytes(data)
    frames = next(iter(read_video(path).images.values()))
    assert frames.shape == (1, *size, 3) and frames[0].shape == (*size, 3)


def test_a_trajectory_of_a_picture_that_is_stamped_ahead_of_our_clock_begins_at_its_stamp() -> None:
    """Its first point had a negative time_from_start, with which controllers refuse the whole."""
    robot = load_interface(resource("config/interfaces/panda.yaml"))
    controller = Controller(robot, Settings(100.0))
    controller.start()
    here = np.array([0.0, 0.0, 0.0, -1.5, 0.0, 1.5, 0.0, 0.04], np.float32)
    controller.put_image("front", 10.02, 10.0, lambda: np.zeros((480, 640, 3), np.uint8))
    controller.put_state("joints", 10.02, 10.0, here)
    question = controller.question(10.0, 10.0)
    assert question is not None
    values = np.tile(here, (5, 1))
    controller.answer(Inference(*question, ActionChunk(np.arange(5) * 0.05, values), None, 0.01), 10.0)
    for now_s in (10.0, 10.01):
        command = controller.command(now_s, now_s)
        if command is not None and command.trajectory is not None:
            break
    assert command is not None and command.trajectory is not None
    times_s = command.trajectory.times_s
    assert times_s[0] == 0.0 and np.all(np.diff(times_s) > 0)


def test_a_trajectory_whose_way_begins_out_of_the_arms_reach_is_refused() -> None:
    """The arm did not follow its plan. What the policy wants is where the arm is; the way there begins at the plan."""
    robot = load_interface(resource("config/interfaces/panda.yaml"))
    controller = Controller(robot, Settings(100.0))
    controller.start()
    here = np.array([0.0, 0.0, 0.0, -1.5, 0.0, 1.5, 0.0], np.float32)

    def answered(now_s: float, times_s: np.ndarray, ways: np.ndarray) -> None:
        controller.put_image("front", now_s, now_s, lambda: np.zeros((480, 640, 3), np.uint8))
        controller.put_state("joints", now_s, now_s, np.append(here, 0.04))
        question = controller.question(now_s, now_s)
        assert question is not None
        values = np.tile(np.append(here, 0.5), (len(times_s), 1))
        values[:, 0] += ways
        controller.answer(Inference(*question, ActionChunk(times_s, values), None, 0.01), now_s)

    times_s = np.arange(20) * 0.05
    answered(10.0, times_s, times_s)
    assert controller.command(10.0, 10.0) is not None
    answered(10.6, np.array([0.0, 0.06]), np.zeros(2))
    assert controller.command(10.6, 10.6) is None
    assert controller.cause is not None and "jump: the waypoint due in 0.060 s for 'panda_joint1'" in controller.cause


def test_a_video_with_a_title_in_another_encoding_is_read(tmp_path: Path) -> None:
    path = small_video(tmp_path / "coffee.mkv", "CafeXX")
    path.write_bytes(path.read_bytes().replace(b"CafeXX", b"Caf\xe9XX"))
    assert len(next(iter(read_video(path).images.values()))) == 1
