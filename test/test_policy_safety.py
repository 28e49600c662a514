"""Faults put into the real node over DDS: what it sends then, and for how long it sends nothing."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from policy_bench import SLACK_S, Bench, PolicyProcess, robot
from scripted_policy import Script, scripted_policies
from std_msgs.msg import Bool

from como_core.interface import Action, Limits, load_interface
from como_core.resources import resource
from como_ros import qos
from como_ros.processes import wait_until

INTERFACE = load_interface(resource("config/interfaces/metaworld.yaml"))
FORWARD = Script(action=(0.0, 0.1, 0.0, 0.5))
PERIOD_S = 1 / INTERFACE.action.rate_hz

Begin = Callable[..., PolicyProcess]


@pytest.fixture
def bench(ros_domain: dict[str, str]) -> Iterator[Bench]:
    with Bench(INTERFACE, ros_domain) as made:
        yield made


@pytest.fixture
def begin(ros_domain: dict[str, str], tmp_path: Path) -> Iterator[Begin]:
    """begin(script, interface, **parameters): policy_node with a scripted policy, output enabled, active."""
    with scripted_policies(tmp_path, ros_domain) as made:
        yield made


def moving(bench: Bench) -> list[float]:
    """Wall times of the commands that are not the final zero."""
    return [wall for wall, m in bench.sent if m.twist.linear.y != 0]


@contextmanager
def held(bench: Bench, topic: str) -> Iterator[threading.Event]:
    """A thumb on a deadman switch: true at 50 Hz; false where the event is set."""
    publisher = bench.node.create_publisher(Bool, topic, qos.stream(1))
    released, ended = threading.Event(), threading.Event()

    def press() -> None:
        while not ended.wait(0.02):
            publisher.publish(Bool(data=not released.is_set()))

    thumb = threading.Thread(target=press, daemon=True)
    thumb.start()
    try:
        yield released
    finally:
        ended.set()
        thumb.join(2.0)


@pytest.mark.parametrize("profile", [qos.latched, qos.command, qos.stream])
def test_the_estop_is_heard_whatever_its_qos_and_needs_a_release_and_a_reset(
        bench: Bench, begin: Begin, profile: Callable[[], object]) -> None:
    with robot(bench):
        process = begin(FORWARD, INTERFACE)
        switch = bench.node.create_publisher(Bool, "e_stop", profile())  # type: ignore[arg-type]
        assert wait_until(lambda: switch.get_subscription_count() > 0, 10.0)
        bench.wait_commands(10)
        switch.publish(Bool(data=True))
        pressed = time.monotonic()
        process.wait_text("output stopped: the e-stop is pressed", 3.0)
        time.sleep(0.1)
        assert moving(bench)[-1] - pressed <= PERIOD_S + SLACK_S
        assert bench.sent[-1][1].twist.linear.y == 0.0, "a velocity ends in zero"
        assert bench.commands_within(0.5) == 0
        assert bench.reset() == (False, "the e-stop is pressed")
        switch.publish(Bool(data=False))
        time.sleep(0.1)
        assert bench.commands_within(0.3) == 0, "a release alone starts nothing"
        assert bench.reset() == (True, "the latch is open; it was closed by: the e-stop is pressed")
        bench.wait_commands(5)


def test_an_estop_that_was_pressed_before_the_node_began_stops_it_too(bench: Bench, begin: Begin) -> None:
    switch = bench.node.create_publisher(Bool, "e_stop", qos.latched())
    switch.publish(Bool(data=True))
    with robot(bench):
        process = begin(FORWARD, INTERFACE, estop_required=True)
        process.wait_text("output stopped: the e-stop is pressed", 20.0)
        assert bench.transition("deactivate") and bench.transition("activate")
        bench.wait_report("latch", "closed: the e-stop is pressed")
        assert bench.commands_within(0.3) == 0 and not moving(bench)


def test_a_pressed_estop_outlives_a_cleanup(bench: Bench, begin: Begin) -> None:
    with robot(bench):
        process = begin(FORWARD, INTERFACE)
        switch = bench.node.create_publisher(Bool, "e_stop", qos.stream())  # it does not latch, and says it once
        assert wait_until(lambda: switch.get_subscription_count() > 0, 10.0)
        bench.wait_commands(10)
        switch.publish(Bool(data=True))
        process.wait_text("output stopped: the e-stop is pressed", 3.0)
        assert all(bench.transition(name) for name in ("deactivate", "cleanup", "configure", "activate"))
        bench.wait_report("latch", "closed: the e-stop is pressed")
        assert bench.commands_within(0.3) == 0
        assert wait_until(lambda: switch.get_subscription_count() > 0, 10.0)
        switch.publish(Bool(data=False))
        time.sleep(0.1)
        assert bench.reset()[0]
        bench.wait_commands(5)


def test_an_estop_that_is_required_is_waited_for(bench: Bench, begin: Begin) -> None:
    with robot(bench):
        begin(FORWARD, INTERFACE, estop_required=True)
        bench.wait_report("latch", "waiting for: the e-stop has not been heard", 20.0)
        assert bench.commands_within(0.3) == 0
        bench.node.create_publisher(Bool, "e_stop", qos.latched()).publish(Bool(data=False))
        bench.wait_commands(5)


def test_a_deadman_switch_must_be_held_and_heard(bench: Bench, begin: Begin) -> None:
    with robot(bench):
        begin(FORWARD, INTERFACE, deadman_topic="deadman", deadman_max_age_s=0.2)
        bench.wait_report("latch", "waiting for: the deadman switch is not held", 20.0)
        assert bench.commands_within(0.3) == 0
        with held(bench, "deadman") as released:
            bench.wait_commands(10)
            released.set()
            let_go = time.monotonic()
            assert wait_until(lambda: time.monotonic() - bench.sent[-1][0] > 0.3, 3.0)
            assert moving(bench)[-1] - let_go <= PERIOD_S + 0.02 + SLACK_S and bench.commands_within(0.3) == 0
            released.clear()
            bench.wait_commands(10)
        silent = time.monotonic()
        bench.wait_report("latch", "the deadman switch was last heard")
        assert moving(bench)[-1] - silent <= 0.2 + PERIOD_S + SLACK_S
        assert bench.commands_within(0.3) == 0


def test_a_pause_ends_the_motion_and_leaves_the_latch_open(bench: Bench, begin: Begin) -> None:
    with robot(bench):
        begin(FORWARD, INTERFACE)
        bench.wait_commands(10)
        bench.pause(True)
        time.sleep(0.05)
        assert bench.commands_within(0.5) == 0 and bench.sent[-1][1].twist.linear.y == 0.0
        assert "paused by the operator" in bench.wait_report("latch", "waiting for: paused").message
        bench.pause(False)
        bench.wait_commands(10)


def test_an_image_before_the_first_state_is_no_observation(bench: Bench, begin: Begin) -> None:
    with robot(bench) as arm:
        arm.silent |= {"ee_pose", "gripper"}
        process = begin(FORWARD, INTERFACE)
        bench.wait_report("latch", "waiting for: stream 'ee_pose': nothing has arrived yet", 20.0)
        assert bench.report("inference").message == "no chunk yet" and not bench.sent
        arm.silent.discard("ee_pose")
        bench.wait_report("latch", "waiting for: stream 'gripper'")
        assert bench.report("inference").message == "no chunk yet" and not bench.sent
        arm.silent.clear()
        bench.wait_commands(5)
        assert process.process.poll() is None


def test_the_first_chunk_begins_at_its_first_step_however_long_warm_up_took(bench: Bench, begin: Begin) -> None:
    with robot(bench):
        begin(Script(action=(0.0, 0.01, 0.0, 0.5), count=0.01, warm_up_s=1.0, steps=60), INTERFACE)
        bench.wait_commands(3)
        # A machine that is busy may be some steps late; those of the warm-up would be 40.
        assert bench.sent[0][1].twist.linear.y < 0.2


def test_a_prefix_is_padded_with_the_last_action(bench: Bench, begin: Begin, tmp_path: Path) -> None:
    """Chunks of 6 steps end before the next one comes, so the prefix is longer than the plan."""
    told = tmp_path / "prefixes.jsonl"
    with robot(bench):
        begin(replace(FORWARD, steps=6, seconds=0.12, prefix_file=told), INTERFACE, blend="real_time_chunking")
        bench.wait_commands(20)
    prefixes = [json.loads(line) for line in told.read_text().splitlines()]
    rows = np.array([row for prefix in prefixes if prefix is not None for row in prefix])
    assert len(rows) > 5 and rows == pytest.approx(np.tile([0.0, 0.1, 0.0, 0.5], (len(rows), 1))), "never zeros"


def test_a_topic_that_nobody_publishes_is_named(bench: Bench, begin: Begin) -> None:
    process = begin(FORWARD, INTERFACE)
    process.wait_text("no publisher on camera/image_raw, ee_pose, joint_states", 20.0)
    assert not bench.sent
    with robot(bench):
        bench.wait_commands(5)


def test_publishers_of_which_nothing_comes_are_told_with_the_remedy(bench: Bench, begin: Begin) -> None:
    """As after a kill -9 that leaves Fast DDS' shared memory locked."""
    with robot(bench) as arm:
        arm.silent.update(INTERFACE.cameras, INTERFACE.state)
        process = begin(FORWARD, INTERFACE)
        process.wait_text("publishers are there, and nothing comes from any of them", 30.0)
        arm.silent.clear()
        bench.wait_commands(5)
        assert process.text().count("fastdds shm clean") <= 2, "and not told again once something came"


def test_joints_stop_where_the_hand_leaves_the_box(ros_domain: dict[str, str], begin: Begin) -> None:
    box = Limits(workspace_lower=(-0.5, 0.0, 0.1), workspace_upper=(0.5, 1.0, 0.5))
    joints = replace(INTERFACE, action=Action("joint_position", "forward_command", "commands", ("gripper",), 40.0,
                                              limits=box))
    with Bench(joints, ros_domain) as bench, robot(bench) as arm:
        process = begin(Script(action=(0.5,)), joints)
        bench.wait_commands(10)
        arm.values["ee_pose"] = np.array([0.0, 0.6, 0.05], np.float32)
        process.wait_text("output stopped: workspace: the end effector is at [0.0, 0.6, 0.05]", 3.0)
        time.sleep(0.1)  # what was sent before it arrives
        assert bench.commands_within(0.3) == 0
        assert all(m.data[0] == pytest.approx(0.5) for _, m in bench.sent), "and no zero is sent to a position"


def test_lost_frames_are_told_with_the_remedy(bench: Bench, begin: Begin) -> None:
    """A camera of 40 Hz of which every second frame comes."""
    fast = replace(INTERFACE, cameras={"front": replace(INTERFACE.cameras["front"], rate_hz=80.0)})
    with robot(bench):
        process = begin(FORWARD, fast)
        process.wait_text("frames (5", 20.0)
        assert "FASTDDS_DEFAULT_PROFILES_FILE=" in process.text() and "large_images.xml" in process.text()
        assert wait_until(lambda: any(v.key == "lost_share" and 0.4 < float(v.value) < 0.6
                                      for v in bench.report("stream front").values), 5.0)


def test_a_camera_that_keeps_its_rate_is_not_complained_of(bench: Bench, begin: Begin) -> None:
    with robot(bench, clock_s=1000.0):  # stamped by a clock of its own, it keeps its rate however busy the machine is
        process = begin(FORWARD, INTERFACE, use_sim_time=True)
        bench.wait_commands(80)
        assert "never came" not in process.text()
