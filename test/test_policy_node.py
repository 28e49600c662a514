"""policy_node as a process over real DDS: what it sends, and above all when it does not."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from policy_bench import SLACK_S, Bench, PolicyProcess, robot
from scripted_policy import Script, scripted_policies

from como_core import config
from como_core.interface import Action, Limits, load_interface
from como_core.resources import resource
from como_ros.processes import NodeProcess, wait_until

INTERFACE_PATH = resource("config/interfaces/metaworld.yaml")
INTERFACE = load_interface(INTERFACE_PATH)
MAX_AGE_S = 0.3
FORWARD = Script(action=(0.0, 0.1, 0.0, 0.5))

Start = Callable[..., PolicyProcess]


@pytest.fixture
def bench(ros_domain: dict[str, str]) -> Iterator[Bench]:
    with Bench(INTERFACE, ros_domain) as made:
        yield made


@pytest.fixture
def start(ros_domain: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """start(script, interface, **parameters): policy_node with a scripted policy, output enabled, active."""
    with scripted_policies(tmp_path, ros_domain) as begin:
        yield lambda script=FORWARD, interface=INTERFACE, **given: begin(script, interface, **given)


def moving(bench: Bench) -> list[float]:
    """Wall times of the commands that are not the final zero."""
    return [wall for wall, m in bench.sent if (m.twist.linear.x, m.twist.linear.y, m.twist.linear.z) != (0, 0, 0)]


def settle() -> None:
    """Let what was sent before an answer arrive."""
    time.sleep(0.05)


def test_commands_cross_at_the_interface_rate_and_the_gripper_only_on_change(bench: Bench, start: Start,
                                                                             tmp_path: Path) -> None:
    with robot(bench):
        process = start(timing_file=tmp_path / "timing.json")
        bench.wait_commands(40)
        message = bench.sent[-1][1]
        assert (message.twist.linear.y, message.header.frame_id) == (pytest.approx(0.1), "base")
        assert abs(message.header.stamp.sec - time.time()) < 2
        assert bench.grips == [0.5]
        bench.wait_report("latch", "running")
        assert bench.report("stream front").message == "fresh"
        assert process.interrupt() == 0
    assert "Traceback" not in process.text()
    assert wait_until(lambda: bench.sent[-1][1].twist.linear.y == 0.0, 2.0), "the last command is the zero"
    timing = json.loads((tmp_path / "timing.json").read_text())
    assert timing["arrival_to_command_ms"]["n"] >= 5 and timing["command_interval_ms"]["n"] >= 30


def test_a_simulation_that_is_killed_stops_the_output_and_a_new_one_goes_on_when_reactivated(
        bench: Bench, start: Start, start_node: Callable[..., NodeProcess]) -> None:
    sim = start_node("sim_node")
    process = start(use_sim_time=True)
    bench.wait_commands(10)
    os.kill(sim.pid, signal.SIGKILL)
    killed = time.monotonic()
    process.wait_text("is stale", 3.0)
    assert bench.sent[-1][0] - killed <= MAX_AGE_S + SLACK_S
    assert "is stale" in bench.wait_report("latch", "closed").message
    assert bench.report("stream front").level == b"\x02"
    start_node("sim_node")
    bench.wait_report("stream front", "fresh", 60.0)
    assert bench.commands_within(0.5) == 0, "the latch stays closed"

    def reactivate() -> None:
        assert bench.transition("deactivate") and bench.transition("activate")

    reactivate()
    bench.wait_commands(10, reopen=reactivate)
    assert process.process.poll() is None


@pytest.mark.parametrize("fault", ["silent", "frozen"])
def test_one_camera_that_freezes_stops_the_output_while_the_states_stay_fresh(bench: Bench, start: Start,
                                                                              fault: str) -> None:
    with robot(bench) as arm:
        process = start()
        bench.wait_commands(20)
        arm.silent.add("front") if fault == "silent" else arm.freeze("front")
        froze = time.monotonic()
        process.wait_text("output stopped: stream 'front' is stale", 3.0)
        assert bench.sent[-1][0] - froze <= MAX_AGE_S + SLACK_S
        assert "ee_pose" not in bench.wait_report("latch", "closed").message
        done, reason = bench.reset()
        assert not done and "stream 'front' is stale" in reason
        assert bench.commands_within(0.3) == 0
        arm.silent.clear()
        arm.frozen.clear()
        assert wait_until(lambda: bench.reset()[0], 3.0)
        bench.wait_commands(10)


def test_a_late_picture_goes_with_the_state_of_its_stamp(bench: Bench, start: Start, tmp_path: Path) -> None:
    """Receive times play no part: the hand has moved on while the picture was under way."""
    seen_file = tmp_path / "seen.jsonl"
    with robot(bench) as arm:
        arm.late_s, arm.drifts = 0.15, True
        start(replace(FORWARD, seen_file=seen_file))
        bench.wait_commands(40)
    seen = [json.loads(line) for line in seen_file.read_text().splitlines()]
    since_start = np.array([stamp_s for stamp_s, _ in seen]) - arm.start_ns / 1e9
    assert len(seen) >= 3
    np.testing.assert_allclose([state[0] for _, state in seen[2:]], since_start[2:], atol=0.01)


def test_an_interface_that_differs_is_refused_by_its_key(bench: Bench, start: Start, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    config.save(replace(INTERFACE, action=replace(INTERFACE.action, hold_s=0.2)), other)
    process = start(autostart=False)
    bench.set_parameter("interface", str(other))
    assert not bench.transition("configure")
    assert bench.state() == "unconfigured"
    assert "interface mismatch at 'action.hold_s'" in process.text()
    bench.set_parameter("interface", str(tmp_path / "robot.yaml"))
    assert bench.transition("configure"), "the node lives and takes the right one"
    assert bench.transition("cleanup") and bench.state() == "unconfigured"
    assert bench.transition("configure") and bench.transition("activate"), "all of it was freed"


def test_nan_drops_the_chunk_whole_and_latches(bench: Bench, start: Start) -> None:
    with robot(bench):
        process = start(replace(FORWARD, nan_from=5))
        bench.wait_commands(5)
        process.wait_text("output stopped: NaN or infinity in an action", 5.0)
        bench.wait_report("latch", "closed: NaN")
        assert bench.commands_within(0.5) == 0
        assert all(np.isfinite(m.twist.linear.x) for _, m in bench.sent)


def test_nothing_is_sent_in_the_second_after_deactivate_even_with_a_prediction_under_way(bench: Bench,
                                                                                         start: Start) -> None:
    with robot(bench):
        start(replace(FORWARD, seconds=0.2, steps=24))
        bench.wait_commands(20)
        assert bench.transition("deactivate")
        settle()
        assert bench.commands_within(1.0) == 0
        assert bench.sent[-1][1].twist.linear.y == 0.0


def test_without_enable_output_everything_runs_and_nothing_is_sent(bench: Bench, start: Start) -> None:
    with robot(bench):
        start(enable_output=False)
        bench.wait_report("latch", "running", 15.0)
        assert not bench.sent and not bench.grips
        bench.set_parameter("enable_output", True)
        assert bench.commands_within(0.3) == 0, "true is taken by activate"
        assert bench.transition("deactivate") and bench.transition("activate")
        bench.wait_commands(10)
        bench.set_parameter("enable_output", False)
        settle()
        assert bench.commands_within(0.5) == 0, "false stops at once"


def test_a_slow_policy_leaves_the_commands_even(bench: Bench, start: Start,
                                                record_property: Callable[..., None]) -> None:
    with robot(bench):
        start(replace(FORWARD, seconds=0.3, steps=40))
        bench.wait_commands(120)
    gaps_ms = np.diff(moving(bench)[-100:]) * 1e3
    p50, p99 = np.percentile(gaps_ms, [50, 99])
    record_property("command_interval_ms", f"p50 {p50:.1f}, p99 {p99:.1f}")
    print(f"policy of 300 ms: commands every {p50:.1f} ms (p50), {p99:.1f} ms (p99)")
    assert 20.0 < p50 < 30.0 and p99 < 200.0


def test_a_default_image_and_a_foreign_frame_are_no_observation(bench: Bench, start: Start) -> None:
    with robot(bench) as arm:
        arm.image = np.zeros((32, 32, 3), np.uint8)
        process = start()
        process.wait_text("an image of 32 x 32 pixels, expected 64 x 64")
        bench.wait_report("stream front", "32 x 32")
        bench.wait_report("latch", "waiting for: stream 'front': nothing has arrived yet")
        assert not bench.sent and bench.report("inference").message == "no chunk yet"
        arm.values["ee_pose"][0] = np.nan
        process.wait_text("topic 'ee_pose': NaN or infinity in the state")


def test_a_qos_that_does_not_fit_is_an_error_in_log_and_diagnostics(bench: Bench, start: Start) -> None:
    with robot(bench):
        process = start(**{"qos_overrides./camera/image_raw.subscription.reliability": "reliable"})
        process.wait_text("camera/image_raw': a publisher offers an incompatible QoS (RELIABILITY")
        assert bench.wait_report("stream front", "incompatible QoS").level == b"\x02"
        assert not bench.sent


def test_a_clock_that_jumps_back_clears_everything_and_waits_for_fresh_streams(bench: Bench, start: Start) -> None:
    with robot(bench, clock_s=1000.0) as arm:
        process = start(use_sim_time=True)
        bench.wait_commands(10)
        arm.silent.add("ee_pose")
        arm.clock_s = 500.0
        process.wait_text("the clock went back")
        settle()
        assert bench.commands_within(0.4) == 0
        bench.wait_report("latch", "waiting for: stream 'ee_pose'")
        arm.silent.clear()
        bench.wait_commands(10)


def test_the_instruction_comes_by_topic_and_an_unknown_one_latches_a_moving_arm(bench: Bench, start: Start) -> None:
    with robot(bench):
        process = start(replace(FORWARD, instruction="open the drawer"))
        bench.wait_report("latch", "waiting for: the policy gave no chunk: ComoError: instruction None is", 15.0)
        bench.instruct("open the drawer")
        bench.wait_commands(5)
        bench.instruct("sing")
        process.wait_text("output stopped: the policy gave no chunk: ComoError: instruction 'sing' is unknown")
        settle()
        assert bench.commands_within(0.3) == 0


def test_a_position_command_is_never_zeroed(ros_domain: dict[str, str], start: Start) -> None:
    action = Action("joint_position", "forward_command", "commands", ("gripper",), 40.0, limits=Limits(jump=(0.5,)))
    interface = replace(INTERFACE, action=action)
    with Bench(interface, ros_domain) as bench, robot(bench) as arm:
        process = start(Script(action=(0.8,)), interface)
        bench.wait_commands(10)
        assert bench.transition("deactivate")
        assert {round(m.data[0], 3) for _, m in bench.sent} == {0.8}
        arm.values["gripper"][:] = 0.1
        assert bench.transition("activate")
        process.wait_text("output stopped: jump: the first command for 'gripper' is 0.700 away")
        settle()
        assert bench.commands_within(0.3) == 0


def test_configure_says_in_one_sentence_what_is_missing(bench: Bench, start: Start, tmp_path: Path,
                                                        ros_domain: dict[str, str]) -> None:
    process = start(autostart=False, policy=tmp_path / "nowhere")
    assert not bench.transition("configure")
    process.wait_text("no such folder (expected a checkpoint", 2.0)
    bench.set_parameter("interface", "")
    assert not bench.transition("configure")
    process.wait_text("parameter 'interface' of policy_node is empty", 2.0)
    assert "Traceback" not in process.text()


def test_a_machine_without_torch_gets_one_sentence(bench: Bench, tmp_path: Path, ros_domain: dict[str, str]) -> None:
    without = "import sys; sys.modules['torch'] = None; from como_ros.policy_node import main; sys.exit(main())"
    parameters: dict[str, object] = {"policy": tmp_path, "interface": INTERFACE_PATH}
    process = PolicyProcess(["-c", without], parameters, tmp_path / "log", ros_domain)
    try:
        assert not bench.transition("configure")
        process.wait_text("configure refused: torch is not installed", 2.0)
        assert "Traceback" not in process.text()
    finally:
        process.end()
