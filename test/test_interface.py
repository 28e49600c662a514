"""Interface: the packaged robot loads, misspelt and impossible files are refused, and a mismatch names its key."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from como_core import config
from como_core.config import ConfigError
from como_core.control.controller import Controller
from como_core.interface import (
    Action,
    Camera,
    Gripper,
    Interface,
    Limits,
    StateStream,
    load_interface,
    require_same,
    state_vector,
)
from como_core.resources import resources

FILES = resources("config/interfaces")


@pytest.fixture
def sawyer() -> Interface:
    return load_interface(FILES["metaworld"])


def changed(folder: Path, old: str, new: str) -> Path:
    """The packaged Meta-World file with one piece of text replaced."""
    text = FILES["metaworld"].read_text()
    assert old in text
    path = folder / "robot.yaml"
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize("name", sorted(FILES))
def test_packaged_interfaces_load_and_read_back(name: str, tmp_path: Path) -> None:
    interface = load_interface(FILES[name])
    assert interface.name == name
    config.save(interface, tmp_path / "copy.yaml")
    assert load_interface(tmp_path / "copy.yaml") == interface


def test_what_the_simulated_arm_is(sawyer: Interface) -> None:
    assert sawyer.state_size == 4
    assert sawyer.action.size == 4
    assert sawyer.action.type == "geometry_msgs/msg/TwistStamped"
    assert sawyer.max_age_s == {"front": 0.3, "ee_pose": 0.3, "gripper": 0.3}


def test_the_state_vector_keeps_the_order_of_the_file(sawyer: Interface) -> None:
    values = {"gripper": np.array([9.0]), "ee_pose": np.array([1.0, 2.0, 3.0])}
    vector = state_vector(sawyer, values)
    assert vector.dtype == np.float32
    assert vector.tolist() == [1.0, 2.0, 3.0, 9.0]


@pytest.mark.parametrize(("old", "new", "message"), [
    ("max_age_s: 0.3", "max_age: 0.3",
     r"robot\.yaml:12: unknown key 'cameras\.front\.max_age'; did you mean 'max_age_s'\?"),
    ("max_age_s: 0.3", "max_age_s: 0.0", r"cameras\.front: max_age_s must be above 0, got 0\.0"),
    ("max_age_s: 0.3", "max_age_s: .inf", r"max_age_s must be above 0, got inf"),
    ("width: 64", "width: -64", r"width must be above 0, got -64"),
    ("sensor_msgs/msg/Image", "sensor_msgs/Image", r"did you mean 'sensor_msgs/msg/Image'\?"),
    ("kind: ee_twist", "kind: ee_twits", r"action\.kind: 'ee_twits' is not one of .*did you mean 'ee_twist'\?"),
    ("target: servo_twist", "target: joint_trajectory",
     r"'joint_trajectory' cannot carry kind 'ee_twist'; expected servo_twist"),
    ("names: [gripper]", "names: []", r"names of 'joint_states' must be one or more different names"),
    ("names: [linear.x, linear.y, linear.z]", "names: [linear.x, linear.x, linear.z]", r"different names"),
    ("lower: [-0.8, -0.8, -0.8]", "lower: [-0.8, -0.8]", r"limits\.lower has 2 values, expected 3, one per name"),
    ("lower: [-0.8, -0.8, -0.8]", "lower: [0.9, -0.8, -0.8]", r"lower must be below upper in every value"),
    ("    upper: [0.8, 0.8, 0.8]\n", "", r"lower and upper belong together"),
    ("workspace_lower: [-0.65, 0.1, -0.15]", "workspace_lower: [-0.65, 0.1]", r"expected a list of 3 values"),
    ("encoding: rgb8", "encoding: rgb", r"robot\.yaml:8: cameras\.front: encoding: 'rgb' is not one .*did you mean"),
    ("topic: ee_pose", "topic: ee pose", r"robot\.yaml:15: state\.ee_pose: topic: 'ee pose' is no ROS topic name"),
    ("topic: joint_states", "topic: 1joint", r"'1joint' is no ROS topic name"),
    ("topic: joint_states", "topic: ~joints", r"'~joints' is no ROS topic name"),
    ("lower: [-0.8, -0.8, -0.8]", "lower: [-0.8, -0.8]", r"robot\.yaml:37: action: limits\.lower has 2 values"),
    ("kind: ee_twist", "kind: [ee_twist]", r"robot\.yaml:27: action\.kind: \['ee_twist'\] is not one of"),
    ("max_age_s: 0.3", "max_age_s: " + "9" * 400, r"robot\.yaml:12: a whole number of 400 digits, 999999999999\.\.\."),
    ("name: metaworld", "name: " + "[" * 2000 + "]" * 2000, r"robot\.yaml: lists or mappings within each other"),
    ("topic: gripper_command", "topic: gripper_command\n    resolution: 2",
     r"robot\.yaml:36: action\.gripper: resolution must be below 1"),
    ("names: [position.x, position.y", "names: [position.x, postion.y",
     r"'postion\.y' .*did you mean 'position\.[xyz]'"),
    ("names: [linear.x", "names: [liner.x", r"action: names: 'liner\.x' is not one .*did you mean 'linear\.[xyz]'"),
    ("    upper: [0.8", "    max_velocity_per_s: [1, 1, 1]\n    upper: [0.8",
     r"values of kind 'ee_twist' are velocities"),
    ("    upper: [0.8", "    max_acceleration_per_s2: [1, 0, 1]\n    upper: [0.8",
     r"max_acceleration_per_s2 must be above"),
    ("    upper: [0.8", "    jump: [1, 1]\n    upper: [0.8", r"limits\.jump has 2 values, expected 3"),
    ("topic: gripper_command", "topic: gripper_command\n    joint: jaw\n    open_m: 0.1\n    closed_m: 0",
     r"gripper\.joint needs target 'joint_trajectory', got 'servo_twist'"),
    ("topic: gripper_command", "topic: gripper_command\n    action: hand", r"give open_m and closed_m, or open_rad"),
    ("topic: gripper_command", "topic: gripper_command\n    action: hand\n    open_m: 0.1\n    closed_rad: 0.0",
     r"give open_m and closed_m, or open_rad"),
    ("kind: ee_twist\n  target: servo_twist", "kind: ee_pose\n  target: pose",
     r"'linear\.x' is not one of position\.x"),
    ("topic: joint_states", "topic: ee_pose", r"state\.gripper\.topic is 'ee_pose', and so is state\.ee_pose\.topic"),
    ("topic: gripper_command", "topic: camera/image_raw",
     r"robot\.yaml:35: Interface: action\.gripper\.topic is 'camera/image_raw', and so is cameras\.front\.topic"),
    ("  gripper:\n    topic: joint_states", "  front:\n    topic: joint_states",
     r"'front' names a camera and a state stream"),
])
def test_impossible_interfaces_are_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_interface(changed(tmp_path, old, new))


def test_a_pose_without_its_orientation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'orientation\.x' is missing; a pose without it would move or turn the hand"):
        Action("ee_pose", "pose", "target_pose", ("position.x", "position.y", "position.z"), 40.0)


def test_a_gripper_says_what_its_command_means_in_metres_or_radians() -> None:
    hand = Gripper("grip", action="hand/gripper_action", open_m=0.04, closed_m=0.0)
    assert [hand.position(closing) for closing in (0.0, 0.25, 1.0)] == pytest.approx([0.04, 0.03, 0.0])
    jaw = Gripper("grip", joint="jaw", open_rad=1.7, closed_rad=-0.1)
    assert jaw.position(0.5) == pytest.approx(0.8)


@pytest.mark.parametrize("name", ["panda", "fr3", "ur5e", "xarm6", "so101"])
def test_known_arms_have_limits_on_every_joint_and_fit_a_controller(name: str) -> None:
    interface = load_interface(FILES[name])
    limits, size = interface.action.limits, len(interface.action.names)
    assert interface.action.target == "joint_trajectory" and size in (5, 6, 7)
    assert set(interface.action.names) <= set(interface.state["joints"].names)
    assert limits.lower is not None and limits.upper is not None and limits.max_velocity_per_s is not None
    assert all(0.5 <= speed <= 5 for speed in limits.max_velocity_per_s), "rad/s, not degrees"
    assert all(-6.3 < low < high < 6.3 for low, high in zip(limits.lower, limits.upper, strict=True))
    Controller(interface)


@pytest.mark.parametrize("kind", [Interface, Camera, StateStream, Action, Gripper, Limits])
def test_every_key_is_documented(kind: type) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "interface.md").read_text()
    assert [key.name for key in fields(kind) if f"`{key.name}`" not in page] == []


def test_a_robot_without_a_camera_is_refused(tmp_path: Path) -> None:
    data = yaml.safe_load(FILES["metaworld"].read_text())
    data["cameras"] = {}
    (tmp_path / "blind.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match="at least one camera is needed"):
        load_interface(tmp_path / "blind.yaml")


def test_a_mismatch_names_the_key_and_both_sides(sawyer: Interface) -> None:
    require_same(sawyer, sawyer, "the checkpoint", "the robot")
    slower = replace(sawyer, action=replace(sawyer.action, rate_hz=20.0))
    with pytest.raises(ConfigError, match=r"'action\.rate_hz': 40\.0 in the checkpoint, 20\.0 in the robot; use the"):
        require_same(sawyer, slower, "the checkpoint", "the robot")
    blind = replace(sawyer, cameras={"wrist": sawyer.cameras["front"]})
    with pytest.raises(ConfigError, match=r"'cameras\.front': .* in the checkpoint, 'absent' in the robot"):
        require_same(sawyer, blind, "the checkpoint", "the robot")
