"""Messages of every state and command type as numbers on a timeline."""

import cv2
import numpy as np
import pytest
from bag_messages import compressed, floats, image, joints, pose, trajectory

from como_core.formats.bag_streams import Samples, hold, interpolate
from como_core.formats.bag_writer import BagError
from como_core.formats.rosbag import BagWriter, read_bag
from como_core.interface import Action, Camera, Interface, StateStream
from como_core.interface.names import POSE_FIELDS

MS = 1_000_000
START = 5_000 * MS
RGB = np.random.default_rng(0).integers(0, 255, (4, 16, 24, 3), dtype=np.uint8)
ARM = StateStream("joint_states", "sensor_msgs/msg/JointState", ("a", "b"), 100.0, 0.2)


def robot(action: Action, **changes) -> Interface:
    return Interface("arm", changes.pop("cameras", {"front": Camera("image", 24, 16, 10.0, 0.5)}), action, changes)


def joint_action(target: str, kind: str = "joint_position") -> Action:
    return Action(kind, target, "command", ("a", "b"), 10.0)


def episode(path, interface, commands=(), states=(), images=None):
    """Pictures at 0, 100, 200, 300 ms; commands are (log time in ms, CDR), states (topic, type, log in ms, CDR)."""
    with BagWriter(path, interface, None) as bag:
        for i, cdr in enumerate(images or [image(START + i * 100 * MS, RGB[i]) for i in range(4)]):
            camera = interface.cameras["front"]
            bag.write(f"/{camera.topic}", camera.type, START + i * 100 * MS, cdr)
        for log_ms, cdr in commands:
            bag.write("/command", interface.action.type, START + log_ms * MS, cdr)
        for topic, type, log_ms, cdr in states:
            bag.write(f"/{topic}", type, START + log_ms * MS, cdr)
    return read_bag(path)


def test_forward_commands_have_no_stamp_and_count_from_their_log_time(tmp_path):
    commands = [(0, floats([1, 2])), (150, floats([3, 4]))]
    read = episode(tmp_path / "a", robot(joint_action("forward_command")), commands)
    np.testing.assert_array_equal(read.action, [[1, 2], [1, 2], [3, 4], [3, 4]])
    with pytest.raises(BagError, match="/command: a command has 3 values, expected 2"):
        episode(tmp_path / "b", robot(joint_action("forward_command")), [(0, floats([1, 2, 3]))])


def test_positions_are_held_for_good_and_velocities_are_not(tmp_path):
    commands = [(0, floats([1, 2]))]
    held = episode(tmp_path / "a", robot(joint_action("forward_command")), commands)
    np.testing.assert_array_equal(held.action, [[1, 2]] * 4)
    stopped = episode(tmp_path / "b", robot(joint_action("forward_command", "joint_velocity")), commands)
    np.testing.assert_array_equal(stopped.action, [[1, 2], [1, 2], [1, 2], [0, 0]])  # hold_s is 0.25 s


def test_a_new_trajectory_replaces_what_is_left_of_the_old(tmp_path):
    commands = [
        (0, trajectory(START, ["b", "a"], [(0.0, [10, 1]), (0.1, [20, 2]), (0.2, [30, 3]), (0.3, [40, 4])])),
        (120, trajectory(START + 120 * MS, ["a", "b"], [(0.05, [7, 70])])),
    ]
    read = episode(tmp_path / "a", robot(joint_action("joint_trajectory")), commands)
    np.testing.assert_array_equal(read.action, [[1, 10], [2, 20], [7, 70], [7, 70]])
    with pytest.raises(BagError, match="/command: a trajectory lacks joint 'b'; it has a"):
        episode(tmp_path / "b", robot(joint_action("joint_trajectory")), [(0, trajectory(START, ["a"], [(0, [1])]))])


def test_pose_commands_are_read_by_field_and_a_wrong_field_is_named(tmp_path):
    names = POSE_FIELDS
    commands = [(0, pose(START, (1, 2, 3), (0, 0, 0.6, 0.8)))]
    read = episode(tmp_path / "a", robot(Action("ee_pose", "pose", "command", names, 10.0)), commands)
    np.testing.assert_allclose(read.action, [[1, 2, 3, 0, 0, 0.6, 0.8]] * 4, rtol=1e-6)
    with pytest.raises(ValueError, match=r"'positon\.x'"):
        Action("ee_pose", "pose", "command", ("positon.x", *POSE_FIELDS[1:]), 10.0)


def test_joint_states_are_found_by_name_in_any_order_and_message(tmp_path):
    kind = "sensor_msgs/msg/JointState"
    said = [(i * 100, {"b": i, "z": 9, "a": -i}) for i in range(4)] + [(i * 100 + 50, {"finger": 1}) for i in range(4)]
    states = [("joint_states", kind, ms, joints(START + ms * MS, positions)) for ms, positions in said]
    read = episode(tmp_path / "a", robot(joint_action("forward_command"), arm=ARM), (), states)
    np.testing.assert_array_equal(read.state, [[0, 0], [-1, 1], [-2, 2], [-3, 3]])


def test_compressed_pictures_are_decoded_and_rubbish_is_named(tmp_path):
    camera = Camera("image/compressed", 24, 16, 10.0, 0.5, "sensor_msgs/msg/CompressedImage")
    interface = robot(joint_action("forward_command"), cameras={"front": camera})
    pngs = [cv2.imencode(".png", frame[..., ::-1])[1].tobytes() for frame in RGB]
    good = [compressed(START + i * 100 * MS, png) for i, png in enumerate(pngs)]
    np.testing.assert_array_equal(episode(tmp_path / "a", interface, images=good).images["front"][:], RGB)
    with pytest.raises(BagError, match=r"picture on '/image/compressed' at 5.300 s: compressed image of 7 bytes"):
        episode(tmp_path / "b", interface, images=[*good[:3], compressed(START + 300 * MS, b"rubbish")])
    mosaic = compressed(START + 300 * MS, pngs[3], "bayer_rggb8; png compressed ")
    with pytest.raises(BagError, match=r"at 5.300 s: image format 'bayer_rggb8; png compressed ' is a compressed mos"):
        episode(tmp_path / "c", interface, images=[*good[:3], mosaic])


def test_quaternions_go_the_shorter_way_and_stay_normalised():
    names = ("orientation.x", "orientation.y", "orientation.z", "orientation.w")
    half = np.sqrt(0.5)
    samples = Samples(np.array([0, 100 * MS]), np.array([[0, 0, 0, 1.0], [0, 0, -half, -half]]))  # -q of a quarter turn
    middle = interpolate(samples, np.array([50 * MS]), 1.0, names)[0]
    np.testing.assert_allclose(middle, [0, 0, np.sin(np.pi / 8), np.cos(np.pi / 8)], atol=1e-12)


def test_nothing_is_said_before_after_and_in_gaps():
    samples = Samples(np.array([100, 200, 900]) * MS, np.array([[1.0], [2.0], [9.0]]))
    at = np.array([99, 100, 150, 200, 500, 900, 1200, 1201]) * MS
    values = interpolate(samples, at, 0.3, ("x",))[:, 0]
    np.testing.assert_allclose(values, [np.nan, 1, 1.5, 2, np.nan, 9, 9, np.nan])
    np.testing.assert_allclose(hold(samples, at)[:, 0], [np.nan, 1, 1, 2, 2, 9, 9, 9])
    np.testing.assert_allclose(hold(samples, at, 0.3)[:, 0], [np.nan, 1, 1, 2, 2, 9, 9, 0])


def test_of_samples_with_one_stamp_the_last_stands():
    samples = Samples.sorted([30, 10, 30, 20], [[1.0], [2.0], [3.0], [4.0]])
    assert samples.stamps_ns.tolist() == [10, 20, 30] and samples.values[:, 0].tolist() == [2, 4, 3]
