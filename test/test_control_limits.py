"""Limits hold whatever is planned, and never move the robot by themselves."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from como_core.config import ConfigError
from como_core.control.limits import Guard
from como_core.interface import Action, Gripper, Interface, Limits, StateStream, load_interface
from como_core.interface.names import POSE_FIELDS
from como_core.resources import resource

SAWYER = load_interface(resource("config/interfaces/metaworld.yaml"))
BOX_LOWER, BOX_UPPER = np.array(SAWYER.action.limits.workspace_lower), np.array(SAWYER.action.limits.workspace_upper)
speeds = st.floats(-5, 5, width=32)


def joints(limits: Limits, names: tuple[str, ...] = ("gripper",)) -> Interface:
    return replace(SAWYER, action=Action("joint_position", "forward_command", "commands", names, 40.0, limits=limits))


@given(st.tuples(*[st.floats(lo, hi) for lo, hi in zip(BOX_LOWER, BOX_UPPER, strict=True)]),
       st.tuples(speeds, speeds, speeds, speeds), st.floats(0, 0.3))
def test_a_twist_stays_in_bounds_and_in_the_box_even_if_no_further_command_comes(
        position: tuple[float, ...], planned: tuple[float, ...], age_s: float) -> None:
    states = {"ee_pose": np.array(position, np.float32), "gripper": np.zeros(1, np.float32)}
    bounded = Guard(SAWYER).bound(np.array(planned), None, states, age_s)
    assert np.all(np.abs(bounded[:3]) <= 0.8 + 1e-6) and 0 <= bounded[3] <= 1
    reached = np.array(position) + bounded[:3] * (SAWYER.action.hold_s + age_s)
    assert np.all(reached >= BOX_LOWER - 1e-5) and np.all(reached <= BOX_UPPER + 1e-5)
    assert np.all(bounded[:3] * np.array(planned)[:3] >= 0), "no axis is turned round"


def test_outside_of_the_box_the_way_back_is_free_and_the_way_out_is_closed() -> None:
    box = Limits(workspace_lower=(-1, -1, 0.05), workspace_upper=(1, 1, 1))
    states = {"ee_pose": np.array([0.0, 0.6, 0.01], np.float32)}
    guard = Guard(replace(SAWYER, action=replace(SAWYER.action, limits=box)))
    assert guard.bound(np.array([0, 0, -0.5, 0]), None, states)[2] == 0
    assert guard.bound(np.array([0, 0, 0.5, 0]), None, states)[2] == 0.5
    assert guard.bound(np.array([0, 0, 0, 0]), None, states)[2] == 0, "it is not pushed"


def test_a_position_command_stays_in_the_box() -> None:
    box = Limits(workspace_lower=(-1, -1, 0), workspace_upper=(1, 1, 1))
    guard = Guard(replace(SAWYER, action=Action("ee_pose", "pose", "target_pose", POSE_FIELDS, 40.0, limits=box)))
    np.testing.assert_allclose(guard.bound(np.array([2, 0.5, -3, 0, 0, 0, 1]), None, {}), [1, 0.5, 0, 0, 0, 0, 1])


rotations = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)


@given(rotations, rotations)
def test_an_orientation_turns_by_its_step_at_most_and_stays_a_rotation(here: tuple[float, ...],
                                                                       there: tuple[float, ...]) -> None:
    limits = Limits(step=(0.01,) * 3 + (0.02,) * 4)
    state = StateStream("ee_pose", "geometry_msgs/msg/PoseStamped", POSE_FIELDS, 40.0, 0.3)
    guard = Guard(replace(SAWYER, state={"ee_pose": state},
                          action=Action("ee_pose", "pose", "target_pose", POSE_FIELDS, 40.0, limits=limits)))
    start = np.array([0, 0, 0, *np.array(here) / np.linalg.norm(here)])
    bounded = guard.bound(np.array([1, 0, 0, *there]), start, {})
    assert np.linalg.norm(bounded[3:]) == pytest.approx(1, abs=1e-5)
    turned = Rotation.from_quat(bounded[3:]) * Rotation.from_quat(start[3:]).inv()
    wanted = Rotation.from_quat(there) * Rotation.from_quat(start[3:]).inv()
    assert turned.magnitude() <= 0.04 + 1e-4 and np.abs(bounded[3:] - start[3:]).max() <= 0.02 + 1e-5
    assert turned.magnitude() == pytest.approx(min(0.04, wanted.magnitude()), abs=1e-3), "and on the shortest way"


def test_an_orientation_of_no_length_is_a_fault() -> None:
    guard = Guard(replace(SAWYER, action=Action("ee_pose", "pose", "target_pose", POSE_FIELDS, 40.0)))
    assert "no rotation" in (guard.rotation_fault(np.array([1, 2, 3, 0, 0, 0, 0])) or "")
    assert guard.rotation_fault(np.array([1, 2, 3, 0, 0, 0, -2])) is None


@given(st.lists(st.floats(-3, 3), min_size=5, max_size=40), st.floats(-1, 1))
def test_positions_keep_velocity_acceleration_and_bounds_whatever_is_planned(plan: list[float], start: float) -> None:
    limits = Limits(lower=(-1.0,), upper=(1.0,), max_velocity_per_s=(2.0,), max_acceleration_per_s2=(8.0,))
    guard, period_s = Guard(joints(limits)), 1 / 40
    sent, velocity = [np.float32(start)], np.zeros(1)
    for value in plan:
        bounded = guard.bound(np.array([value]), np.array(sent[-1:]), {}, velocity=velocity)
        velocity = (bounded.astype(np.float64) - sent[-1]) / period_s
        sent.append(bounded[0])
    velocities = np.diff(np.array(sent, np.float64)) / period_s
    assert np.abs(sent).max() <= 1 + 1e-5 and np.abs(velocities).max(initial=0) <= 2 + 1e-3
    assert np.abs(np.diff(np.append(0.0, velocities))).max(initial=0) <= 8 * period_s + 1e-3


def test_an_acceleration_limit_reaches_its_goal_without_swinging_past_it() -> None:
    guard = Guard(joints(Limits(max_velocity_per_s=(2.0,), max_acceleration_per_s2=(8.0,))))
    sent, velocity = [0.0], np.zeros(1)
    for _ in range(80):
        bounded = guard.bound(np.array([1.0]), np.array(sent[-1:]), {}, velocity=velocity)
        velocity = (bounded - sent[-1]) * 40
        sent.append(float(bounded[0]))
    assert sent[-1] == pytest.approx(1.0, abs=1e-4) and max(sent) <= 1 + 1e-5
    assert np.argmax(np.array(sent) > 0.99) <= 40, "0.75 s would be the shortest"


def test_a_twist_may_speed_up_no_faster_than_its_acceleration() -> None:
    limits = Limits(max_acceleration_per_s2=(4.0, 4.0, 4.0))
    guard = Guard(replace(SAWYER, action=replace(SAWYER.action, limits=limits)))
    assert guard.bound(np.array([0.8, 0, 0, 0]), np.zeros(4), {})[0] == pytest.approx(0.1)


def test_joints_whose_hand_has_left_the_box_are_a_fault() -> None:
    box = Limits(workspace_lower=(-1, -1, 0.05), workspace_upper=(1, 1, 1))
    guard = Guard(joints(box))
    inside, outside = ({"ee_pose": np.array([0, 0.6, z], np.float32)} for z in (0.2, 0.01))
    assert guard.workspace_fault(inside) is None
    assert "workspace: the end effector is at [0.0, 0.6, 0.01" in (guard.workspace_fault(outside) or "")


def test_a_step_is_counted_from_the_last_command_and_at_first_from_where_the_robot_is() -> None:
    guard = Guard(joints(Limits(step=(0.1,))))
    states = {"gripper": np.array([0.5], np.float32)}
    assert guard.bound(np.array([2.0]), None, states) == pytest.approx(0.6)
    assert guard.bound(np.array([2.0]), np.array([0.9]), states) == pytest.approx(1.0)


def test_a_velocity_starts_from_rest() -> None:
    limits = Limits(step=(0.1, 0.1, 0.1), jump=(0.3, 0.3, 0.3))
    guard = Guard(replace(SAWYER, action=replace(SAWYER.action, limits=limits)))
    assert guard.bound(np.array([0.8, 0, 0, 0]), None, {})[0] == pytest.approx(0.1)
    assert guard.first_fault(np.array([0.2, 0, 0, 1.0]), {}) is None
    assert "'linear.x' is 0.800 away" in (guard.first_fault(np.array([0.8, 0, 0, 0]), {}) or "")


def test_a_first_command_far_from_the_robot_is_a_fault() -> None:
    guard = Guard(joints(Limits(jump=(0.2,))))
    states = {"gripper": np.array([0.1], np.float32)}
    assert guard.first_fault(np.array([0.25]), states) is None
    assert "jump: the first command for 'gripper' is 0.300 away" in (guard.first_fault(np.array([0.4]), states) or "")


def test_a_joint_that_stands_outside_of_its_limits_begins_no_motion() -> None:
    guard = Guard(joints(Limits(lower=(0.0,), upper=(1.0,), jump=(5.0,))))
    for place, faulty in ((0.5, False), (1.005, False), (1.1, True), (-0.1, True)):
        fault = guard.first_fault(np.array([0.5]), {"gripper": np.array([place], np.float32)})
        assert (fault is not None) == faulty, fault
        assert fault is None or f"'gripper' stands at {place:.3f}, outside of 0 to 1; move it back" in fault
    unseen = Guard(joints(Limits(lower=(1.0,), upper=(2.0,))))
    assert unseen.first_fault(np.array([1.5]), {}) is None, "no state is read where no limit needs one"


def test_a_joint_that_cannot_brake_in_time_still_stays_within_its_limits() -> None:
    guard = Guard(joints(Limits(lower=(0.0,), upper=(1.0,), max_acceleration_per_s2=(1.0,))))
    bounded = guard.bound(np.array([1.0]), np.array([0.99]), {}, velocity=np.array([2.0]))
    assert bounded[0] <= 1.0


def test_only_the_gripper_command_is_bounded_where_there_are_no_limits() -> None:
    action = Action("joint_position", "forward_command", "commands", ("gripper",), 40.0, gripper=Gripper("grip"))
    bounded = Guard(replace(SAWYER, action=action)).bound(np.array([9.0, 1.5]), None, {})
    np.testing.assert_array_equal(bounded, [9.0, 1.0])


def test_limits_that_need_an_absent_state_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="workspace_lower needs a state stream of type geometry_msgs/msg/PoseStamped"):
        Guard(replace(SAWYER, state={"gripper": SAWYER.state["gripper"]}))
    with pytest.raises(ConfigError, match="present value of 'elbow'"):
        Guard(joints(Limits(jump=(0.2,)), names=("elbow",)))
