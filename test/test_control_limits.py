"""Limits hold whatever is planned, and never move the robot by themselves."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from como_core.config import ConfigError
from como_core.control.limits import Guard
from como_core.interface import Action, Gripper, Interface, Limits, load_interface
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
    action = Action("ee_pose", "pose", "target_pose", ("position.x", "position.y", "position.z"), 40.0, limits=box)
    guard = Guard(replace(SAWYER, action=action))
    np.testing.assert_allclose(guard.bound(np.array([2, 0.5, -3]), None, {}), [1, 0.5, 0])


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


def test_only_the_gripper_command_is_bounded_where_there_are_no_limits() -> None:
    action = Action("joint_position", "forward_command", "commands", ("gripper",), 40.0, gripper=Gripper("grip"))
    bounded = Guard(replace(SAWYER, action=action)).bound(np.array([9.0, 1.5]), None, {})
    np.testing.assert_array_equal(bounded, [9.0, 1.0])


def test_limits_that_need_an_absent_state_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="workspace_lower needs a state stream of type geometry_msgs/msg/PoseStamped"):
        Guard(replace(SAWYER, state={"gripper": SAWYER.state["gripper"]}))
    with pytest.raises(ConfigError, match="present value of 'elbow'"):
        Guard(joints(Limits(jump=(0.2,)), names=("elbow",)))
