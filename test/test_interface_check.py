"""`como interface check`: a file alone, and beside a graph of another process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from geometry_msgs.msg import TwistStamped
from policy_bench import REPOSITORY, Bench, robot

from como_core import config
from como_core.cli import main as cli
from como_core.interface import Interface, load_interface
from como_core.resources import resource, resources
from como_ros import qos

INTERFACE = load_interface(resource("config/interfaces/metaworld.yaml"))
JOINTS = INTERFACE.state["gripper"]


@pytest.fixture
def bench(ros_domain: dict[str, str]) -> Iterator[Bench]:
    with Bench(INTERFACE, ros_domain) as made:
        yield made


def check(interface: Interface, folder: Path, domain: dict[str, str], *words: str) -> tuple[int, str]:
    """Exit code and table of `como interface check --live` in a process of its own."""
    path = folder / "robot.yaml"
    config.save(interface, path)
    done = subprocess.run([sys.executable, "-m", "como_core.cli.main", "interface", "check", str(path), "--live",
                           "--seconds", "2", *words], capture_output=True, text=True, cwd=REPOSITORY, timeout=60,
                          env={**os.environ, **domain, "PYTHONPATH": str(REPOSITORY)})
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def line(table: str, topic: str, what: str) -> str:
    """The line on `what` of a topic."""
    return next(row for row in table.splitlines() if row.split()[1:3] == [topic, what])


@pytest.mark.parametrize("name", sorted(resources("config/interfaces")))
def test_every_packaged_interface_fits_together(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = resources("config/interfaces")[name]
    assert cli.main(["interface", "check", str(path)]) == 0
    assert f"{path}: fits together" in capsys.readouterr().out


def test_a_limit_without_its_state_is_refused_without_ros(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ur5e = load_interface(resources("config/interfaces")["ur5e"])
    config.save(replace(ur5e, state={}), tmp_path / "blind.yaml")
    assert cli.main(["interface", "check", str(tmp_path / "blind.yaml")]) == 2
    assert "need the present value of 'shoulder_pan_joint'" in capsys.readouterr().err


def test_a_robot_as_the_file_says_fits(bench: Bench, ros_domain: dict[str, str], tmp_path: Path) -> None:
    with robot(bench):
        code, table = check(INTERFACE, tmp_path, ros_domain)
    assert code == 0, table
    assert "Hz, rate_hz is 40" in line(table, "/camera/image_raw", "rate") and "64 x 64" in table


def test_every_difference_is_found_in_one_run(bench: Bench, ros_domain: dict[str, str], tmp_path: Path) -> None:
    camera = replace(INTERFACE.cameras["front"], rate_hz=15.0, width=128, height=96, encoding="bgr8")
    state = {**INTERFACE.state, "gripper": replace(JOINTS, names=("elbow",)),
             "wrench": replace(JOINTS, topic="nothing_here")}
    other = replace(INTERFACE, cameras={"front": camera}, state=state,
                    action=replace(INTERFACE.action, topic="somewhere_else"))
    with robot(bench):
        code, table = check(other, tmp_path, ros_domain)
    assert code == 1
    assert line(table, "/camera/image_raw", "rate").startswith("fail") and "rate_hz is 15" in table
    assert "64 x 64 rgb8, the interface says 128 x 96 bgr8" in line(table, "/camera/image_raw", "image")
    assert "no position of joint 'elbow'; the message has gripper" in line(table, "/joint_states", "names")
    assert "nobody publishes it" in line(table, "/nothing_here", "publisher")
    assert "nobody listens to commands" in line(table, "/somewhere_else", "subscriber")
    assert line(table, "/ee_pose", "names").startswith("ok")


def test_types_qos_and_a_second_sender_are_found(bench: Bench, ros_domain: dict[str, str], tmp_path: Path) -> None:
    topic = INTERFACE.action.topic
    bench.node.create_subscription(TwistStamped, topic, lambda m: None, qos.latched())
    for _ in range(2):
        bench.node.create_publisher(TwistStamped, topic, 1)
    compressed = replace(INTERFACE.cameras["front"], type="sensor_msgs/msg/CompressedImage")
    with robot(bench):
        code, table = check(replace(INTERFACE, cameras={"front": compressed}), tmp_path, ros_domain)
    assert code == 1
    assert "sensor_msgs/msg/Image, the interface says sensor_msgs/msg/CompressedImage" in line(
        table, "/camera/image_raw", "type")
    assert "durability: the publisher is volatile" in line(table, f"/{topic}", "QoS")
    assert "2 send commands: bench, bench" in line(table, f"/{topic}", "publisher")


def test_a_compressed_camera_is_looked_at_too(bench: Bench, ros_domain: dict[str, str], tmp_path: Path) -> None:
    """Its size stands in no field of the message, so that it says nothing of itself."""
    camera = replace(INTERFACE.cameras["front"], type="sensor_msgs/msg/CompressedImage")
    bench.interface = replace(INTERFACE, cameras={"front": camera})
    with robot(bench):
        code, table = check(bench.interface, tmp_path, ros_domain)
        assert code == 0, table
        code, table = check(replace(INTERFACE, cameras={"front": replace(camera, width=96)}), tmp_path, ros_domain)
    assert code == 1
    assert "an image of 64 x 64 pixels, expected 96 x 64" in line(table, "/camera/image_raw", "image")


def test_a_robot_in_a_namespace_is_found_there(bench: Bench, ros_domain: dict[str, str], tmp_path: Path) -> None:
    with robot(bench):
        code, table = check(INTERFACE, tmp_path, ros_domain, "--namespace", "/left")
    assert code == 1 and "nobody publishes it" in line(table, "/left/ee_pose", "publisher")


@pytest.mark.parametrize(("words", "told"), [(("--seconds", "0"), "--seconds must be above 0, got 0.0"),
                                             (("--namespace", "left arm"), "--namespace 'left arm' cannot be used")])
def test_words_that_cannot_be_used_are_told(words: tuple[str, str], told: str, ros_domain: dict[str, str],
                                            capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["interface", "check", str(resource("config/interfaces/metaworld.yaml")), "--live", *words]) == 2
    assert told in capsys.readouterr().err
