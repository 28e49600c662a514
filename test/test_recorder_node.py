"""recorder_node as a user starts it: bytes stored untouched, and no bag where an episode is not whole."""

from __future__ import annotations

import json
import resource as limits
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bag_messages import joints
from diagnostic_msgs.msg import DiagnosticArray
from mcap.reader import make_reader
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.serialization import serialize_message
from ros_client import LATCHED, TIMEOUT_S, RosClient
from rosbags.rosbag2 import Reader
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

from como_core.formats.episode_index import INDEX
from como_core.interface import load_interface
from como_core.resources import resource
from como_ros.images import image_message
from como_ros.messages import message_class, state_message, twist_message
from como_ros.processes import NodeProcess, wait_until

INTERFACE = load_interface(resource("config/interfaces/metaworld.yaml"))
CAMERA, POSE, GRIPPER = INTERFACE.cameras["front"], INTERFACE.state["ee_pose"], INTERFACE.state["gripper"]
ACTION = INTERFACE.action
QUEUED = 180  # of each topic: as many as the recorder keeps while it is behind, nearly
RELIABLE = QoSProfile(depth=QUEUED, reliability=ReliabilityPolicy.RELIABLE)
Start = Callable[..., NodeProcess]


class Robot:
    """Publishes a robot's streams, message by message, and remembers the bytes of each."""

    def __init__(self, client: RosClient, leave_out: tuple[str, ...] = ()) -> None:
        kinds = {CAMERA.topic: CAMERA.type, POSE.topic: POSE.type, GRIPPER.topic: GRIPPER.type,
                 ACTION.topic: ACTION.type, "gripper_command": "std_msgs/msg/Float64"}
        self._publishers = {topic: client.publisher(message_class(kind), topic, RELIABLE)
                            for topic, kind in kinds.items() if topic not in leave_out}
        self.sent: dict[str, list[bytes]] = {f"/{topic}": [] for topic in kinds}

    def send(self, step: int, but: tuple[str, ...] = (), ahead_ns: int = 0, stamp_ns: int | None = None) -> None:
        """Stamped `stamp_ns`, or `ahead_ns` from now."""
        ns = time.time_ns() + ahead_ns if stamp_ns is None else stamp_ns
        self.publish({topic: cdr for topic, cdr in self.messages(step, ns).items() if topic not in but})

    def messages(self, step: int, stamp_ns: int, side: int = 64) -> dict[str, bytes]:
        """The bytes of every topic's message."""
        rng = np.random.default_rng(step)
        messages: dict[str, Any] = {
            CAMERA.topic: image_message(rng.integers(0, 256, (side, side, 3), np.uint8), stamp_ns),
            POSE.topic: state_message(rng.random(3), POSE, stamp_ns),
            GRIPPER.topic: joints(stamp_ns, {"gripper": rng.random()}),
            ACTION.topic: twist_message(rng.random(4), ACTION, stamp_ns),
            "gripper_command": Float64(data=step / 100)}
        # rclpy's serialize_message leaves bytes of no meaning behind a JointState.
        return {topic: message if topic == GRIPPER.topic else bytes(serialize_message(message))
                for topic, message in messages.items()}

    def publish(self, messages: dict[str, bytes]) -> None:
        """Send bytes on the topics that have a publisher."""
        for topic, cdr in messages.items():
            if topic in self._publishers:
                self._publishers[topic].publish(cdr)
                self.sent[f"/{topic}"].append(cdr)

    def replace(self, topic: str, publisher: Publisher[Any]) -> None:
        """Publish a topic, perhaps one left out before, through another publisher."""
        self._publishers[topic] = publisher


def mcap_messages(bag: Path) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for file in bag.glob("*.mcap"):
        with file.open("rb") as stream:
            for _, channel, message in make_reader(stream).iter_messages():
                found.setdefault(channel.topic, []).append(message.data)
    return found


def bags(output: Path) -> list[str]:
    return sorted(entry.name for entry in output.iterdir() if entry.name != INDEX)


def stop(client: RosClient) -> Trigger.Response:
    """Stop after a question and its answer: what was sent before them has arrived."""
    assert not client.trigger("record/start").success
    return client.trigger("record/stop")


def messages_of(heard: list[tuple[float, DiagnosticArray]]) -> int:
    """Messages of the episode under way, as the recorder's newest report says; 0 before the first is heard."""
    if not heard:
        return 0
    values = {v.key: v.value for s in heard[-1][1].status if s.name.endswith(": episode") for v in s.values}
    return int(values.get("messages", 0))


def kept(client: RosClient) -> dict[str, Any]:
    answer = stop(client)
    assert answer.success, answer.message
    return dict(json.loads(answer.message))


def test_an_episode_is_stored_byte_by_byte(start_node: Start, tmp_path: Path) -> None:
    output = tmp_path / "bags"
    node = start_node("recorder_node", {"output": output, "publisher_timeout_s": 0.3})
    with RosClient() as client:
        client.publisher(String, "instruction", LATCHED).publish(String(data="press the button"))
        robot = Robot(client, leave_out=(POSE.topic, ACTION.topic))
        client.publisher(message_class(ACTION.type), ACTION.topic, qos_profile_sensor_data, peers=0)
        refused = client.trigger("record/start")
        assert not refused.success and "'/ee_pose' has no publisher of geometry_msgs/msg/PoseStamped" in refused.message
        robot.replace(POSE.topic, client.publisher(message_class(POSE.type), POSE.topic, RELIABLE))
        refused = client.trigger("record/start")
        hint = "qos_overrides./servo/delta_twist_cmds.subscription.reliability"
        assert not refused.success and hint in refused.message and "[ERROR]" in node.log.read_text()
        robot.replace(ACTION.topic, client.publisher(message_class(ACTION.type), ACTION.topic, RELIABLE))
        started = client.trigger("record/start")
        assert started.success, started.message
        heard = client.listen(DiagnosticArray, "/diagnostics")
        again = client.trigger("record/start")
        assert not again.success and "is being recorded" in again.message
        for step in range(40):
            robot.send(step)
        answer = kept(client)
        bag = Path(answer["path"])
        assert bag == output / "episode_0000" and answer["instruction"] == "press the button"
        assert answer["messages"] == dict.fromkeys(robot.sent, 40)

        stored = mcap_messages(bag)
        note = stored.pop("/como/episode")
        assert len(note) == 1 and b"press the button" in note[0] and b"servo/delta_twist_cmds" in note[0]
        assert stored == robot.sent
        with Reader(bag) as reader:
            assert sum(connection.msgcount for connection in reader.connections) == 1 + 5 * 40

        assert client.trigger("record/start").success
        for step in range(40, 45):
            robot.send(step)
        assert wait_until(lambda: messages_of(heard) == 5 * 5 + 1, TIMEOUT_S)  # and the gripper's last from before
    assert node.stop() == 0
    assert bags(output) == ["episode_0000", "episode_0001"], "Ctrl-C keeps what is whole"
    assert mcap_messages(output / "episode_0001")["/ee_pose"] == robot.sent["/ee_pose"][40:]
    assert "Traceback" not in node.log.read_text()


def test_stop_takes_what_waits_in_the_queues_of_a_busy_machine(start_node: Start, tmp_path: Path) -> None:
    start_node("recorder_node", {"output": tmp_path / "bags"})
    with RosClient() as client:
        robot = Robot(client)
        assert client.trigger("record/start").success
        now_ns = time.time_ns()
        for messages in [robot.messages(step, now_ns, side=8) for step in range(QUEUED)]:
            robot.publish(messages)
            time.sleep(2e-4)  # the transport keeps up, the recorder's thread does not
        answer = client.trigger("record/stop")
        assert answer.success, answer.message
    assert json.loads(answer.message)["messages"] == dict.fromkeys(robot.sent, QUEUED)


def test_only_whole_episodes_are_kept(start_node: Start, tmp_path: Path) -> None:
    output = tmp_path / "bags"
    start_node("recorder_node", {"output": output})
    with RosClient() as client:
        instruction = client.publisher(String, "instruction", LATCHED)
        instruction.publish(String(data="open"))
        robot = Robot(client)
        for silent in (CAMERA.topic, ACTION.topic):
            assert client.trigger("record/start").success
            for step in range(5):
                robot.send(step, but=(silent,))
            refused = stop(client)
            assert not refused.success and f"'/{silent}' was silent" in refused.message

        assert client.trigger("record/start").success
        robot.send(0)
        instruction.publish(String(data="close"))
        refused = stop(client)
        assert not refused.success and "changed from 'open' to 'close'" in refused.message

        assert client.trigger("record/start").success
        robot.send(0, ahead_ns=60_000_000_000)
        refused = stop(client)
        assert not refused.success and "60.0 s ahead of the recorder's clock" in refused.message

        instruction.publish(String(data=""))  # as to policy_node: there is none

        assert client.trigger("record/start").success
        robot.send(0)
        assert client.trigger("record/discard").success
        idle = client.trigger("record/stop")
        assert not idle.success and "nothing is being recorded" in idle.message
        assert not list(output.iterdir())

        # The gripper's command is sent on change only: the last one from before belongs to the episode.
        robot.send(70, but=(CAMERA.topic, POSE.topic, GRIPPER.topic, ACTION.topic))
        assert client.trigger("record/start").success
        robot.send(1, but=("gripper_command",))
        answer = kept(client)
        assert answer["instruction"] is None
        assert mcap_messages(Path(answer["path"]))["/gripper_command"] == robot.sent["/gripper_command"][-1:]


def test_a_disk_that_refuses_costs_one_episode_and_no_more(start_node: Start, tmp_path: Path) -> None:
    file, output = tmp_path / "a_file", tmp_path / "bags"
    file.write_text("in the way")
    node = start_node("recorder_node", {"output": file / "bags"})
    with RosClient() as client:
        robot = Robot(client)
        refused = client.trigger("record/start")
        assert not refused.success and str(file / "bags") in refused.message
        assert "set parameter 'output'" in refused.message
        client.set("recorder_node", output=str(output))

        # The kernel refuses any file of this process beyond this size, as a full disk would.
        before = limits.prlimit(node.pid, limits.RLIMIT_FSIZE, (100_000, -1))
        assert client.trigger("record/start").success
        for step in range(40):
            robot.send(step)
        refused = stop(client)
        assert not refused.success and "cannot be written" in refused.message
        assert not list(output.iterdir())

        limits.prlimit(node.pid, limits.RLIMIT_FSIZE, before)
        assert client.trigger("record/start").success
        robot.send(0)
        assert kept(client)["messages"]["/ee_pose"] == 1
    assert "Traceback" not in node.log.read_text()
