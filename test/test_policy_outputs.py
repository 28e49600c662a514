"""What policy_node sends to each target, as another process hears it over DDS."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from policy_bench import Bench, PolicyProcess, robot
from scripted_policy import Script, scripted_policies

from como_core.interface import Action, Gripper, Limits, StateStream, load_interface
from como_core.interface.names import POSE_FIELDS
from como_core.resources import resource
from como_ros.messages import NS_PER_S, stamp_ns
from como_ros.processes import wait_until

INTERFACE = load_interface(resource("config/interfaces/metaworld.yaml"))
JOINTS = StateStream("joint_states", "sensor_msgs/msg/JointState", ("shoulder", "elbow"), 40.0, 0.3)
LIMITS = Limits(lower=(-2.0, -2.0), upper=(2.0, 2.0), max_velocity_per_s=(1.0, 1.0),
                max_acceleration_per_s2=(5.0, 5.0), jump=(0.2, 0.2))
ARM = replace(INTERFACE, state={"joints": JOINTS}, action=Action(
    "joint_position", "joint_trajectory", "arm/joint_trajectory", ("shoulder", "elbow"), 20.0, limits=LIMITS))
JAW = replace(ARM, action=replace(ARM.action, gripper=Gripper("grip", joint="jaw", open_m=0.04, closed_m=0.0)))
POSE = replace(INTERFACE, state={"ee_pose": replace(INTERFACE.state["ee_pose"], names=POSE_FIELDS)}, action=Action(
    "ee_pose", "pose", "target_pose", POSE_FIELDS, 40.0, frame="world",
    limits=Limits(step=(0.01,) * 3 + (0.02,) * 4, workspace_lower=(-1, -1, 0), workspace_upper=(1, 1, 1))))
UPRIGHT = np.array([0.0, 0.6, 0.3, 0.0, 0.0, 0.0, 1.0], np.float32)

Begin = Callable[..., PolicyProcess]


@pytest.fixture
def begin(ros_domain: dict[str, str], tmp_path: Path) -> Iterator[Begin]:
    """begin(script, interface, **parameters): policy_node with a scripted policy, output enabled, active."""
    with scripted_policies(tmp_path, ros_domain) as made:
        yield made


def arrays(message: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times from the stamp [K] s, positions and velocities [K, J] of a trajectory message."""
    points = message.points  # type: ignore[attr-defined]
    times = [p.time_from_start.sec + p.time_from_start.nanosec / NS_PER_S for p in points]
    return np.array(times), np.array([p.positions for p in points]), np.array([p.velocities for p in points])


def desired(sent: list[tuple[float, object]], at_s: np.ndarray) -> np.ndarray:
    """Positions [T, J] that a trajectory controller wants at `at_s`: each message counts until the next one came."""
    rows = []
    for now_s in at_s:
        arrived = [m for _, m in sent if stamp_ns(m.header.stamp) / NS_PER_S <= now_s]  # type: ignore[attr-defined]
        message = arrived[-1]
        times, positions, _ = arrays(message)
        when = now_s - stamp_ns(message.header.stamp) / NS_PER_S  # type: ignore[attr-defined]
        rows.append([np.interp(when, times, column) for column in positions.T])
    return np.array(rows)


def test_a_chunk_is_one_trajectory_with_the_stamp_of_its_observation(ros_domain: dict[str, str], begin: Begin) -> None:
    script = Script(action=(0.5, 0.5), ramp=(0.1, -0.05), steps=16, seconds=0.1)
    with Bench(ARM, ros_domain) as bench, robot(bench):
        begin(script, ARM, replan_hz=4.0)
        bench.wait_commands(5)
        sent = [m for _, m in bench.sent]
    for message in sent:
        times, positions, velocities = arrays(message)
        assert message.joint_names == ["shoulder", "elbow"]
        assert np.all(np.diff(times) > 0) and times[0] >= 0 and times[-1] == pytest.approx(15 / 20, abs=0.002)
        assert not np.any(velocities[-1]) and np.any(velocities[:-1]), "at rest at the end, and only there"
        assert np.abs(velocities).max() <= 1.0 and np.all(np.abs(positions - 0.5) < 0.4)
    stamps = np.array([stamp_ns(m.header.stamp) for m in sent]) / NS_PER_S
    arrived = np.array([wall for wall, _ in bench.sent])
    assert np.all(np.diff(stamps) > 0.2), "the stamps of the images, at replan_hz"
    lag_s = (arrived + time.time() - time.monotonic()) - stamps
    assert np.all(lag_s > 0.1), "stamped with the observation, which is older than the answer of a policy of 0.1 s"
    speeds = np.gradient(desired(bench.sent, np.arange(stamps[1] + 0.3, stamps[-1], 0.02)), 0.02, axis=0)
    assert np.median(speeds, axis=0) == pytest.approx([0.1, -0.05], abs=0.02), "one motion over all chunks"


def test_a_gripper_may_be_a_joint_of_the_trajectory(ros_domain: dict[str, str], begin: Begin) -> None:
    with Bench(JAW, ros_domain) as bench, robot(bench):
        begin(Script(action=(0.5, 0.5, 0.25), ramp=(0.05, 0.05, 0.0)), JAW)
        bench.wait_commands(3)
        message = bench.sent[-1][1]
        assert message.joint_names == ["shoulder", "elbow", "jaw"]
        assert arrays(message)[1][:, 2] == pytest.approx(0.03), "a quarter of the way from 0.04 m to 0"
        assert bench.grips == [0.25], "and its command on its topic, once"


def test_a_slow_policy_is_compensated_and_its_trajectory_says_when(ros_domain: dict[str, str], begin: Begin) -> None:
    with Bench(ARM, ros_domain) as bench, robot(bench):
        begin(Script(action=(0.5, 0.5), ramp=(0.05, 0.05), steps=30, seconds=0.4), ARM)
        bench.wait_commands(3, timeout_s=20.0)
        for wall_s, message in bench.sent:
            times, _, _ = arrays(message)
            now_s = wall_s + time.time() - time.monotonic() - stamp_ns(message.header.stamp) / NS_PER_S
            assert now_s > 0.4 and np.any(times < 0.35), "the whole chunk, its past points too"
            assert np.any((times > 0.39) & (times <= now_s + 0.01)), "a point where the arm should be at present"


def test_a_trajectory_out_of_the_arms_reach_is_refused_and_latches(ros_domain: dict[str, str], begin: Begin) -> None:
    """A late trajectory that begins far from the arm: a controller would move it there at any speed."""
    with Bench(ARM, ros_domain) as bench, robot(bench):
        process = begin(Script(action=(0.5, 0.5), ramp=(0.05, 0.05), jump_from=4), ARM)
        process.wait_text("output stopped: jump: the waypoint due in", 20.0)
        time.sleep(0.1)
        assert len(bench.sent) >= 4, "the four before it, and the end of the motion"
        assert all(arrays(m)[1].max() < 1.0 for _, m in bench.sent), "not one point of the far one"
        assert bench.commands_within(0.5) == 0
        done, _ = bench.reset()
        assert done and wait_until(lambda: process.text().count("output stopped: jump") == 2, 5.0), "refused again"


def test_deactivate_ends_a_trajectory_on_its_way_at_rest(ros_domain: dict[str, str], begin: Begin) -> None:
    with Bench(ARM, ros_domain) as bench, robot(bench):
        begin(Script(action=(0.5, 0.5), ramp=(0.15, 0.0), steps=30), ARM)
        bench.wait_commands(3)
        assert bench.transition("deactivate")
        time.sleep(0.1)
        before, end = bench.sent[-2][1], bench.sent[-1][1]
        times, positions, velocities = arrays(end)
        assert len(times) == 1 and times[0] < 0.3 and not velocities.any()
        planned = desired([(0.0, before)], np.array([stamp_ns(end.header.stamp) / NS_PER_S + times[0]]))
        assert positions[0] == pytest.approx(planned[0], abs=0.02), "on its way, and never zero"
        assert abs(positions[0][1] - 0.5) < 0.01
        assert bench.commands_within(1.0) == 0


def test_a_pose_is_bounded_in_its_steps_and_names_its_frame(ros_domain: dict[str, str], begin: Begin) -> None:
    turned = (0.2, 0.6, 0.5, 0.0, 0.0, 1.4, 1.4)
    with Bench(POSE, ros_domain) as bench, robot(bench) as arm:
        arm.values["ee_pose"] = UPRIGHT
        begin(Script(action=turned), POSE)
        bench.wait_commands(60)
        assert bench.transition("deactivate")
        sent = [m for _, m in bench.sent]
    poses = np.array([[m.pose.position.x, m.pose.position.y, m.pose.position.z, m.pose.orientation.x,
                       m.pose.orientation.y, m.pose.orientation.z, m.pose.orientation.w] for m in sent])
    assert {m.header.frame_id for m in sent} == {"world"}
    steps = np.abs(np.diff(np.concatenate([UPRIGHT[None], poses]), axis=0))
    assert steps[:, :3].max() <= 0.01 + 1e-5 and steps[:, 3:].max() <= 0.02 + 1e-5
    assert np.linalg.norm(poses[:, 3:], axis=1) == pytest.approx(1.0, abs=1e-5)
    assert poses[-1] == pytest.approx([0.2, 0.6, 0.5, 0, 0, np.sqrt(0.5), np.sqrt(0.5)], abs=1e-3)


def test_joint_velocities_end_in_zero(ros_domain: dict[str, str], begin: Begin) -> None:
    speed = replace(ARM, action=Action("joint_velocity", "forward_command", "speeds", ("shoulder", "elbow"), 40.0,
                                       limits=Limits(lower=(-1, -1), upper=(1, 1), max_acceleration_per_s2=(4, 4))))
    with Bench(speed, ros_domain) as bench, robot(bench):
        begin(Script(action=(5.0, 0.0)), speed)
        bench.wait_commands(30)
        assert bench.transition("deactivate")
        time.sleep(0.1)
        speeds = np.array([m.data for _, m in bench.sent])
    assert np.diff(np.append(0.0, speeds[:-1, 0])).max() <= 0.1 + 1e-5 and speeds.max() == pytest.approx(1.0)
    assert speeds[-1].tolist() == [0.0, 0.0]


def test_a_gripper_action_without_control_msgs_is_refused_by_its_key(ros_domain: dict[str, str], begin: Begin) -> None:
    pytest.importorskip("rclpy.action")
    try:
        import control_msgs.action  # noqa: F401
        pytest.skip("control_msgs is installed here")
    except ModuleNotFoundError:
        pass
    hand = Gripper("grip", action="hand/gripper_action", open_m=0.04, closed_m=0.0)
    with_hand = replace(ARM, action=replace(ARM.action, gripper=hand))
    with Bench(with_hand, ros_domain) as bench:
        process = begin(Script(action=(0.5, 0.5, 0.0)), with_hand, autostart=False)
        assert not bench.transition("configure")
        process.wait_text("action.gripper.action: 'hand/gripper_action' speaks control_msgs/action/GripperCommand", 5.0)
        assert "Traceback" not in process.text()


@pytest.mark.parametrize("blend", ["temporal_ensemble", "real_time_chunking"])
def test_other_ways_to_blend_run_in_the_node(blend: str, ros_domain: dict[str, str], begin: Begin,
                                             tmp_path: Path) -> None:
    told = tmp_path / "prefixes.jsonl"
    script = Script(action=(0.0, 0.1, 0.0, 0.5), steps=24, seconds=0.1, prefix_file=told)
    with Bench(INTERFACE, ros_domain) as bench, robot(bench):
        begin(script, INTERFACE, blend=blend)
        bench.wait_commands(40)
    assert bench.sent[-1][1].twist.linear.y == pytest.approx(0.1, abs=1e-5)
    prefixes = [json.loads(line) for line in told.read_text().splitlines()]
    assert prefixes[0] is None
    if blend == "real_time_chunking":
        told_last = np.array(prefixes[-1])
        assert told_last.shape[1] == 4 and len(told_last) >= 5
        assert told_last == pytest.approx(np.tile([0.0, 0.1, 0.0, 0.5], (len(told_last), 1))), "no zeros"


def test_an_unknown_blend_and_a_topic_that_is_none_are_named(ros_domain: dict[str, str], begin: Begin) -> None:
    with Bench(INTERFACE, ros_domain) as bench:
        process = begin(Script(action=(0.0,) * 4), INTERFACE, autostart=False, blend="crossfade")
        assert not bench.transition("configure")
        process.wait_text("'crossfade' is not one of cross_fade, temporal_ensemble, real_time_chunking; did you mean "
                          "'cross_fade'?", 2.0)
        bench.set_parameter("blend", "cross_fade")
        bench.set_parameter("deadman_topic", "thumb switch")
        assert not bench.transition("configure") and bench.state() == "unconfigured"
        process.wait_text("parameter 'deadman_topic' of policy_node: 'thumb switch' is no ROS topic name", 2.0)
        assert "Traceback" not in process.text()


def test_compressed_cameras_are_seen(ros_domain: dict[str, str], begin: Begin) -> None:
    camera = replace(INTERFACE.cameras["front"], type="sensor_msgs/msg/CompressedImage")
    squeezed = replace(INTERFACE, cameras={"front": camera})
    with Bench(squeezed, ros_domain) as bench, robot(bench) as arm:
        process = begin(Script(action=(0.0, 0.1, 0.0, 0.5)), squeezed)
        bench.wait_commands(10)
        arm.image = np.full((32, 32, 3), 90, np.uint8)
        process.wait_text("output stopped: the policy gave no chunk: ComoError: topic 'camera/image_raw': an image of "
                          "32 x 32 pixels, expected 64 x 64")


@pytest.mark.parametrize("fault", ["frozen camera", "clock back"])
def test_a_fault_ends_a_trajectory_that_is_under_way(fault: str, ros_domain: dict[str, str], begin: Begin) -> None:
    """A chunk of 3 s would carry the arm on for as long; its end must come at once, and nothing after it."""
    slow = replace(ARM, action=replace(ARM.action, limits=replace(LIMITS, jump=None)))
    with Bench(slow, ros_domain) as bench, robot(bench, clock_s=1000.0) as arm:
        process = begin(Script(action=(0.5, 0.5), ramp=(0.04, 0.0), steps=60), slow, use_sim_time=True)
        bench.wait_commands(4)
        if fault == "clock back":
            arm.silent.add("joints")
            arm.clock_s = 500.0
            process.wait_text("the clock went back", 3.0)
        else:
            arm.freeze("front")
            process.wait_text("output stopped: stream 'front' is stale", 5.0)
        time.sleep(0.1)
        times, positions, velocities = arrays(bench.sent[-1][1])
        assert len(times) == 1 and times[0] < 0.3 and not velocities.any()
        assert np.all(np.abs(positions[0] - 0.5) < 0.2), "near where it is, never zero"
        assert bench.commands_within(0.5) == 0
