"""How an operator works with recorder_node: labels, buttons, keys, audit, compressed pictures, and what goes wrong."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rclpy.serialization import serialize_message
from ros_client import LATCHED, TIMEOUT_S, RosClient
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState, Joy
from std_msgs.msg import String
from test_recorder_node import ACTION, CAMERA, GRIPPER, POSE, RELIABLE, Robot, bags, kept, messages_of, stop

from como_core.formats.bag_audit import AUDIT_FILE
from como_core.formats.bag_compress import ImageCompression
from como_core.formats.bag_writer import BagError
from como_core.formats.episode_index import INDEX, read_index
from como_core.formats.rosbag import read_bag
from como_ros.messages import message_class, to_stamp
from como_ros.processes import NodeProcess, wait_until

Start = Callable[..., NodeProcess]
PERIOD_S = 0.025


def play(robot: Robot, steps: int, but: tuple[str, ...] = (), start: int = 0) -> None:
    """Steps at the interface's 40 Hz, stamped with the time that each was due: a busy machine only sends them late."""
    begin_ns = time.time_ns()
    for step in range(steps):
        due_ns = begin_ns + round(step * PERIOD_S * 1e9)
        time.sleep(max(due_ns - time.time_ns(), 0) / 1e9)
        robot.send(start + step, but, stamp_ns=due_ns)
    time.sleep(PERIOD_S)


def test_an_episode_has_an_audit_a_line_in_the_index_and_a_label_only_where_one_was_given(
        start_node: Start, tmp_path: Path) -> None:
    start_node("recorder_node", {"output": tmp_path / "bags", "instruction": "open it"})
    with RosClient() as client:
        reports: dict[str, DiagnosticStatus] = {}
        client.node.create_subscription(
            DiagnosticArray, "/diagnostics", lambda m: reports.update({s.name: s for s in m.status}), 10)
        robot = Robot(client)
        nothing = client.trigger("record/success")
        assert not nothing.success and "no episode to label" in nothing.message

        assert client.trigger("record/start").success
        play(robot, 40)
        answer = kept(client)
        assert answer["faults"] == [] and answer["success"] is None and answer["instruction"] == "open it"
        audit = json.loads((Path(answer["path"]) / AUDIT_FILE).read_text())
        front = audit["topics"]["/camera/image_raw"]
        assert front["messages"] == 40 and front["missing"] == front["stamps_back"] == 0
        assert 0 < front["longest_gap_s"] < 0.3 and audit["seconds"] >= 39 * PERIOD_S
        assert read_index(tmp_path / "bags")["episode_0000"].success is None

        # The camera goes for half a second in the midst, and then a pose comes late.
        assert client.trigger("record/start").success
        assert client.trigger("record/failure").success
        play(robot, 10)
        play(robot, 20, but=(CAMERA.topic,))
        play(robot, 10)
        robot.send(0, but=(CAMERA.topic, GRIPPER.topic, ACTION.topic), ahead_ns=-500_000_000)
        answer = kept(client)
        assert len(answer["faults"]) == 1 and "'/camera/image_raw' was silent for 0." in answer["faults"][0]
        assert any("'/camera/image_raw': " in text and "missing by their header stamps" in text
                   for text in answer["warnings"])
        assert any("'/ee_pose': 1 header stamps go back" in text for text in answer["warnings"])
        assert answer["success"] is False
        assert client.trigger("record/success").message == "episode_0001 is a success"
        entry = read_index(tmp_path / "bags")["episode_0001"]
        assert entry.success is True and entry.faults == tuple(answer["faults"])
        assert len((tmp_path / "bags" / INDEX).read_text().splitlines()) == 3, "only ever appended to"

        # What is said of an episode that was not kept must not label the one before it.
        assert client.trigger("record/start").success and client.trigger("record/discard").success
        refused = client.trigger("record/failure")
        assert not refused.success and "episode_0002 was not kept, so there is nothing to label" in refused.message
        assert read_index(tmp_path / "bags")["episode_0001"].success is True
        assert wait_until(lambda: "was silent" in reports["recorder_node: last episode"].message, TIMEOUT_S)
        assert reports["recorder_node: last episode"].level == DiagnosticStatus.ERROR


def test_buttons_and_keys_do_what_the_services_do(start_node: Start, tmp_path: Path) -> None:
    output = tmp_path / "bags"
    node = start_node("recorder_node", {"output": output, "joy_buttons": "start:7 stop:6 success:0"})
    with RosClient() as client:
        robot = Robot(client)
        button, joy = client.publisher(String, "record/button", 10), client.publisher(Joy, "joy", 10)
        button.publish(String(data="strat"))
        assert wait_until(lambda: "did you mean 'start'" in node.log.read_text(), TIMEOUT_S)
        button.publish(String(data="start"))
        assert wait_until(lambda: "start: recording" in node.log.read_text(), TIMEOUT_S)
        play(robot, 5)
        for _ in range(3):  # a button that is held is pressed once
            joy.publish(Joy(buttons=[0] * 6 + [1]))
        assert wait_until(lambda: "episode_0000" in read_index(output), TIMEOUT_S), node.log.read_text()
        joy.publish(Joy(buttons=[1] + [0] * 6))
        assert wait_until(lambda: read_index(output)["episode_0000"].success is True, TIMEOUT_S)
        assert "stop refused" not in node.log.read_text()

        terminal, inside = pty.openpty()
        keys = subprocess.Popen([sys.executable, "-m", "como_ros.record_keys"], stdin=inside, stdout=subprocess.PIPE,
                                text=True)
        try:
            assert keys.stdout is not None and "r record" in keys.stdout.readline()
            os.write(terminal, b"r")
            assert "start: recording" in keys.stdout.readline()
            play(robot, 5)
            os.write(terminal, b"xx")  # both are heard, though typed at once
            assert "r record" in keys.stdout.readline()
            assert "r record" in keys.stdout.readline()
            os.write(terminal, b"n")
            assert "episode_0001 will be a failure" in keys.stdout.readline()
            os.write(terminal, b"s")
            assert json.loads(keys.stdout.readline().removeprefix("stop: "))["success"] is False
            os.write(terminal, b"s")
            assert "stop refused: nothing is being recorded" in keys.stdout.readline()
            os.write(terminal, b"q")
            assert keys.wait(10.0) == 0
        finally:
            keys.kill()
            os.close(terminal)
            os.close(inside)
    assert "Traceback" not in node.log.read_text()


def record_pictures(client: RosClient, robot: Robot, steps: int = 8) -> Path:
    assert client.trigger("record/start").success
    robot.sent = {topic: [] for topic in robot.sent}
    play(robot, 1)
    heard = client.listen(DiagnosticArray, "/diagnostics")
    assert wait_until(lambda: messages_of(heard) >= len(robot.sent), TIMEOUT_S), "the first step did not arrive whole"
    play(robot, steps - 1, start=1)
    return Path(kept(client)["path"])


def test_pictures_are_compressed_on_the_way_and_read_as_the_raw_ones_would_be(start_node: Start,
                                                                               tmp_path: Path) -> None:
    start_node("recorder_node", {"output": tmp_path, "compress": "png"})
    with RosClient() as client:
        client.publisher(String, "instruction", LATCHED).publish(String(data="open"))
        robot = Robot(client)
        exact = record_pictures(client, robot)
        pixels = [np.frombuffer(cdr, np.uint8)[-64 * 64 * 3:].reshape(64, 64, 3)
                  for cdr in robot.sent["/camera/image_raw"]]
        client.set("recorder_node", compress="jpeg", jpeg_quality=100)
        close = record_pictures(client, robot)
        client.set("recorder_node", compress="none", storage="sqlite3")
        database = record_pictures(client, robot)
        client.set("recorder_node", compress="gif")
        refused = client.trigger("record/start")
        assert not refused.success and "expected none or jpeg or png, got 'gif'" in refused.message
    # A step is whole once the gripper's command has come, which is after the first picture.
    np.testing.assert_array_equal(np.stack(list(read_bag(exact).images["front"])), np.stack(pixels[1:]))
    error = np.abs(np.stack(list(read_bag(close).images["front"])).astype(int) - np.stack(pixels))
    assert 0 < error.mean() < 60, "noise is what JPEG is worst at"
    assert next(database.glob("*.db3")) and len(read_bag(database)) >= 7
    with next(exact.glob("*.mcap")).open("rb") as file:
        found = [message for _, channel, _, message in
                 make_reader(file, decoder_factories=[DecoderFactory()]).iter_decoded_messages()
                 if channel.topic == "/camera/image_raw/compressed"]
    assert found[0].format == "rgb8; png compressed bgr8"
    bgr = cv2.imdecode(np.frombuffer(found[0].data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(bgr[..., ::-1], pixels[0])


def test_pictures_of_sixteen_bits_are_not_compressed() -> None:
    depth = Image(height=2, width=2, encoding="16UC1", step=4, data=bytes(8))
    for codec in ("png", "jpeg"):
        with pytest.raises(BagError, match="topic '/depth': a picture of 16UC1 has more than eight .* compress none"):
            ImageCompression(codec).compress("/depth", bytes(serialize_message(depth)))


def test_two_recorders_report_under_names_of_their_own(start_node: Start, tmp_path: Path) -> None:
    for side in ("left", "right"):
        start_node("recorder_node", {"output": tmp_path / side}, {"__ns": f"/{side}"})
    with RosClient() as client:
        names: set[str] = set()
        client.node.create_subscription(
            DiagnosticArray, "/diagnostics", lambda m: names.update(s.name for s in m.status), 10)
        expected = {f"{side}/recorder_node: episode" for side in ("left", "right")}
        assert wait_until(lambda: expected <= names, TIMEOUT_S), names


def test_a_type_or_a_clock_that_is_wrong_refuses_the_episode_by_name(start_node: Start, tmp_path: Path) -> None:
    node = start_node("recorder_node", {"output": tmp_path, "publisher_timeout_s": 0.3, "use_sim_time": True})
    with RosClient() as client:
        clock = client.publisher(Clock, "/clock", 10)
        robot = Robot(client, leave_out=(POSE.topic,))
        with RosClient() as stranger:
            stranger.publisher(JointState, POSE.topic, RELIABLE, peers=0)
            words = "'/ee_pose' is published as sensor_msgs/msg/JointState, the interface says geometry_msgs/msg/Pose"
            # Each try waits for publishers itself, and a busy machine may need several to see the stranger.
            assert any(words in client.trigger("record/start").message for _ in range(20))
        robot.replace(POSE.topic, client.publisher(message_class(POSE.type), POSE.topic, RELIABLE))

        now_ns = time.time_ns()
        clock.publish(Clock(clock=to_stamp(now_ns)))
        assert wait_until(lambda: client.trigger("record/start").success, TIMEOUT_S)

        def set_back() -> bool:
            """Messages before and behind; on a busy machine the clock may be heard before what was sent before it."""
            for stamp_ns in (now_ns, now_ns - 1_000_000_000):
                clock.publish(Clock(clock=to_stamp(stamp_ns)))
                robot.send(0, stamp_ns=stamp_ns)
                assert not client.trigger("record/start").success
            return "clock went back by" in node.log.read_text()

        assert wait_until(set_back, TIMEOUT_S)
        refused = stop(client)
        assert not refused.success and "clock went back by 1.0 s in the midst" in refused.message
    assert bags(tmp_path) == ["logs"]
