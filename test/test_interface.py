"""Interface: the packaged robot loads, misspelt and impossible files are refused, and a mismatch names its key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from como_core import config
from como_core.config import ConfigError
from como_core.interface import Interface, load_interface, require_same, state_vector
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
    ("topic: joint_states", "topic: ee_pose", r"topic 'ee_pose' is used by more than one stream"),
    ("  gripper:\n    topic: joint_states", "  front:\n    topic: joint_states",
     r"'front' names a camera and a state stream"),
])
def test_impossible_interfaces_are_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_interface(changed(tmp_path, old, new))


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
