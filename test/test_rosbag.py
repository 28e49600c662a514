"""Bags as episodes: alignment by header stamps, namespaces, absent streams, and what is refused."""

import copy
import dataclasses
import pickle
import shutil

import numpy as np
import pytest
from bag_messages import image, joints, number, pose, twist

from como_core import config
from como_core.episode import Provenance
from como_core.formats.bag_audit import Audit, recorded_topics
from como_core.formats.bag_writer import RawBagWriter
from como_core.formats.lazy import CAMERA
from como_core.formats.rosbag import BagError, BagWriter, frame_stamps_ns, note_of, read_bag
from como_core.formats.sources import open_sources
from como_core.interface import Camera, Interface, load_interface
from como_core.resources import resource

MS = 1_000_000
PERIOD = 25 * MS
IMAGE, POSE, JOINTS = "sensor_msgs/msg/Image", "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/JointState"
TWIST, FLOAT = "geometry_msgs/msg/TwistStamped", "std_msgs/msg/Float64"
START = 1_700_000_000_000_000_000  # an epoch stamp: float64 seconds round it to 0.2 us

ROBOT: Interface = load_interface(resource("config/interfaces/metaworld.yaml"))
PICTURES = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), dtype=np.uint8)


class Recorder:
    """Writes messages whose log time is later than their stamp by `delay_ns`, under a namespace."""

    def __init__(self, path, robot=ROBOT, namespace="", delay_ns=7 * MS, storage="mcap"):
        self.bag = BagWriter(path, robot, "drawer open", storage)
        self.namespace, self.delay_ns = namespace, delay_ns

    def picture(self, stamp, rgb, topic="camera/image_raw", delay_ns=None):
        self._write(topic, IMAGE, stamp + (self.delay_ns if delay_ns is None else delay_ns), image(stamp, rgb))

    def pose(self, stamp, position, **options):
        self._write("ee_pose", POSE, stamp + self.delay_ns, pose(stamp, position, **options))

    def joints(self, stamp, positions):
        self._write("joint_states", JOINTS, stamp + self.delay_ns, joints(stamp, positions))

    def twist(self, stamp, linear):
        self._write("servo/delta_twist_cmds", TWIST, stamp + self.delay_ns, twist(stamp, linear))

    def gripper(self, log_ns, value):
        self._write("gripper_command", FLOAT, log_ns, number(value))

    def _write(self, topic, type, stamp, cdr):
        self.bag.write(f"{self.namespace}/{topic}", type, stamp, cdr)


def record(path, count=20, start=START, **options):
    """A whole episode: picture, state and command at each period; x of state and command is the step."""
    recorder = Recorder(path, **options)
    recorder.gripper(start, 0.25)
    for i in range(count):
        stamp = start + i * PERIOD
        recorder.picture(stamp, PICTURES[i % 20])
        recorder.pose(stamp, (i, 10 * i, 0.5))
        recorder.joints(stamp, {"other": -1.0, "gripper": i / 100})
        recorder.twist(stamp, (i / 1000, 0, -0.25))
    return recorder


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_an_episode_comes_back_as_it_was_recorded(tmp_path, storage):
    record(tmp_path / "a", storage=storage).bag.close()
    episode = read_bag(tmp_path / "a")
    steps = np.arange(20)
    np.testing.assert_array_equal(frame_stamps_ns(episode), START + steps * PERIOD)
    np.testing.assert_allclose(episode.timestamps - START / 1e9, steps * 0.025, atol=1e-6)
    np.testing.assert_allclose(episode.state, np.stack([steps, 10 * steps, 0.5 + 0 * steps, steps / 100], 1), rtol=1e-6)
    np.testing.assert_allclose(
        episode.action, np.stack([steps / 1000, 0 * steps, -0.25 + 0 * steps, 0.25 + 0 * steps], 1), rtol=1e-6)
    np.testing.assert_array_equal(episode.images["front"][:], PICTURES)
    assert (episode.state.dtype, episode.action.dtype) == (np.float32, np.float32)
    assert set(episode.provenance) == {Provenance.MEASURED} and episode.instruction == "drawer open"
    assert episode.source == str(tmp_path / "a")


def test_a_lone_storage_file_still_knows_its_interface(tmp_path):
    record(tmp_path / "a").bag.close()
    shutil.copy(tmp_path / "a" / "a.mcap", tmp_path / "lone.mcap")
    note = note_of(tmp_path / "lone.mcap")
    assert note.interface == ROBOT and note.instruction == "drawer open"
    assert read_bag(tmp_path / "lone.mcap").action.shape == (20, 4)


def test_late_delivery_changes_nothing(tmp_path):
    record(tmp_path / "quick", delay_ns=0).bag.close()
    late = Recorder(tmp_path / "late", delay_ns=0)
    late.gripper(START, 0.25)
    for i in range(20):  # pictures arrive two periods late, and the last two change places
        stamp = START + i * PERIOD
        late.picture(stamp, PICTURES[i], delay_ns=2 * PERIOD + (100 * MS if i == 18 else 0))
        late.pose(stamp, (i, 10 * i, 0.5))
        late.joints(stamp, {"gripper": i / 100})
        late.twist(stamp, (i / 1000, 0, -0.25))
    late.bag.close()
    one, other = read_bag(tmp_path / "quick"), read_bag(tmp_path / "late")
    for field in ("timestamps", "state", "action"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    np.testing.assert_array_equal(one.images["front"][:], other.images["front"][:])


def test_pictures_that_share_a_stamp_are_counted_and_named(tmp_path):
    recorder = Recorder(tmp_path / "a")
    recorder.gripper(START, 0.25)
    for i in range(20):
        stamp, log_delay = START + (6 if i in (7, 8) else i) * PERIOD, (i - 6) * PERIOD if i in (7, 8) else 0
        recorder.picture(stamp, PICTURES[i], delay_ns=log_delay + 7 * MS)
        recorder.pose(START + i * PERIOD, (i, 0, 0.5))
        recorder.joints(START + i * PERIOD, {"gripper": 0.0})
        recorder.twist(START + i * PERIOD, (0, 0, 0))
    recorder.bag.close()
    record(tmp_path / "b").bag.close()
    episode = read_bag(tmp_path / "a")
    assert len(episode) == 18
    np.testing.assert_array_equal(episode.images["front"][6], PICTURES[8])
    said = (f"{tmp_path / 'a'}: 2 of 20 pictures on '/camera/image_raw' are left out: they have the header stamp of a "
            "later one; look at how the camera's driver sets it")
    assert episode.notes == (said,) == episode.as_video().notes and read_bag(tmp_path / "b").notes == ()
    found = open_sources([tmp_path])
    assert found.skipped == [] and found.summary() == f"2 episodes read\n1 read in part:\n  {said}"


def test_the_audit_counts_stamps_that_repeat():
    audit = Audit(recorded_topics(ROBOT, lambda topic: f"/{topic}"))
    for i in range(20):
        audit.add("/camera/image_raw", START + i * PERIOD, START + (6 if i in (7, 8) else i) * PERIOD)
        audit.add("/gripper_command", START, None)
    report = audit.report()
    assert report.topics["/camera/image_raw"].stamps_again == 2
    assert report.topics["/gripper_command"].stamps_again == 0
    assert [words for words in report.warnings if "header stamp of another" in words] == [
        "topic '/camera/image_raw': 2 messages have the header stamp of another one; of those with one stamp the last "
        "is read"]


def test_state_is_interpolated_and_commands_are_held(tmp_path):
    recorder = Recorder(tmp_path / "a")
    recorder.gripper(START - 1, 0.0)
    for i in range(10):
        stamp = START + i * 20 * MS
        recorder.pose(stamp, (i, 0, 0))
        recorder.joints(stamp, {"gripper": 0.0})
        recorder.twist(stamp + 5 * MS, (i / 10, 0, 0))
    recorder.gripper(START + 30 * MS, 1.0)
    for offset_ms in (5, 15, 24, 25, 30):
        recorder.picture(START + offset_ms * MS, PICTURES[0])
    recorder.bag.close()
    episode = read_bag(tmp_path / "a")
    np.testing.assert_allclose(episode.state[:, 0], [0.25, 0.75, 1.2, 1.25, 1.5], rtol=1e-6)
    np.testing.assert_allclose(episode.action[:, 0], [0, 0, 0, 0.1, 0.1], rtol=1e-6)  # one stamped at t counts at t
    np.testing.assert_array_equal(episode.action[:, 3], [0, 0, 0, 0, 1])


def test_steps_before_the_first_command_and_state_are_cut(tmp_path):
    recorder = Recorder(tmp_path / "a")
    recorder.gripper(START, 0.0)
    for i in range(20):
        stamp = START + i * PERIOD
        recorder.picture(stamp, PICTURES[i])
        if i >= 2:
            recorder.pose(stamp, (i, 0, 0))
            recorder.joints(stamp, {"gripper": 0.0})
        if i >= 5:
            recorder.twist(stamp, (i / 100, 0, 0))
    recorder.bag.close()
    episode = read_bag(tmp_path / "a")
    np.testing.assert_array_equal(frame_stamps_ns(episode), START + np.arange(5, 20) * PERIOD)
    np.testing.assert_array_equal(episode.images["front"][:], PICTURES[5:])
    np.testing.assert_allclose(episode.action[:, 0], np.arange(5, 20) / 100, rtol=1e-6)


def test_a_velocity_older_than_the_robots_hold_time_is_zero(tmp_path):
    recorder = record(tmp_path / "a", count=4)
    for i in range(4, 16):
        stamp = START + i * PERIOD
        recorder.picture(stamp, PICTURES[i])
        recorder.pose(stamp, (i, 0, 0))
        recorder.joints(stamp, {"gripper": 0.0})
    recorder.bag.close()
    action = read_bag(tmp_path / "a").action  # hold_s is 0.15 s: six periods after the last command, at step 3
    np.testing.assert_allclose(action[:, 0], [0, 0.001, 0.002, *[0.003] * 7, *[0] * 6], rtol=1e-6)
    np.testing.assert_array_equal(action[:, 3], np.full(16, 0.25))


def test_a_stream_that_falls_silent_is_cut_at_the_end_and_refused_in_the_middle(tmp_path):
    def bag(name, silent):
        recorder = Recorder(tmp_path / name)
        recorder.gripper(START, 0.0)
        for i in range(40):
            stamp = START + i * PERIOD
            recorder.picture(stamp, PICTURES[i % 20])
            recorder.joints(stamp, {"gripper": 0.0})
            recorder.twist(stamp, (0, 0, 0))
            if i not in silent:
                recorder.pose(stamp, (i, 0, 0))
        return recorder.bag.close()

    assert len(read_bag(bag("end", range(20, 40)))) == 32, "the last state stands for max_age_s, 0.3 s or 12 periods"
    assert len(read_bag(bag("short", range(20, 31)))) == 40, "a gap of 0.3 s is bridged"
    with pytest.raises(BagError, match=r"'/ee_pose' is silent for longer than its max_age_s, 0.50 s after the first"):
        read_bag(bag("middle", range(20, 35)))


def test_topics_are_found_under_the_namespace_they_were_recorded_in(tmp_path):
    recorder = record(tmp_path / "a", namespace="/left")
    recorder.namespace = "/right/wrist"
    recorder.picture(START, PICTURES[0])  # another camera of that name, without the rest
    recorder.bag.close()
    assert read_bag(tmp_path / "a").action.shape == (20, 4)


def test_two_robots_that_fit_are_refused(tmp_path):
    left = record(tmp_path / "a", namespace="/left")
    left.namespace = "/right"
    for topic in ("picture", "pose", "joints", "twist"):
        value = {"picture": PICTURES[0], "joints": {"gripper": 0.0}}.get(topic, (0, 0, 0))
        getattr(left, topic)(START, value)
    left.gripper(START, 0)
    left.bag.close()
    with pytest.raises(BagError, match=r"topics are there under '/left' and '/right'; give an interface with absolute"):
        read_bag(tmp_path / "a")


def test_what_was_not_recorded_is_absent_and_never_zeros(tmp_path):
    recorder = Recorder(tmp_path / "a")
    for i in range(5):
        recorder.picture(START + i * PERIOD, PICTURES[i])
    recorder.bag.close()
    episode = read_bag(tmp_path / "a")
    assert episode.state is None and episode.action is None and set(episode.provenance) == {Provenance.NONE}


@pytest.mark.parametrize(
    ("silent", "words"),
    [
        ("picture", r"no message on '/camera/image_raw', a topic of the interface's camera"),
        ("pose", r"no message on '/ee_pose', a topic of the interface's state; recorded are /camera/image_raw"),
        ("gripper", r"no message on '/gripper_command', a topic of the interface's action"),
    ],
)
def test_a_part_of_the_streams_is_refused_by_topic(tmp_path, silent, words):
    recorder = Recorder(tmp_path / "a")
    setattr(recorder, silent, lambda *_: None)
    recorder.gripper(START, 0.0)
    for i in range(3):
        recorder.picture(START + i * PERIOD, PICTURES[i])
        recorder.pose(START + i * PERIOD, (0, 0, 0))
        recorder.joints(START + i * PERIOD, {"gripper": 0.0})
        recorder.twist(START + i * PERIOD, (0, 0, 0))
    recorder.bag.close()
    with pytest.raises(BagError, match=words):
        read_bag(tmp_path / "a")


def change(recorder, what):
    """One message that does not fit, after a good episode."""
    stamp = START + 20 * PERIOD
    if what == "size":
        recorder.picture(stamp, PICTURES[0][:32])
    elif what == "nan":
        recorder.pose(stamp, (np.nan, 0, 0))
    elif what == "bytes":
        recorder.bag.write("/camera/image_raw", IMAGE, stamp, b"\0\1\0\0half a header")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("size", r"pictures on '/camera/image_raw' change their size \(height, width\) from \(64, 64\) to \(32, 64\)"),
        ("nan", "a: /ee_pose: a message holds NaN or infinity; such an episode is refused whole"),
        ("bytes", "a message on '/camera/image_raw' is not a valid sensor_msgs/msg/Image"),
    ],
)
def test_messages_that_do_not_fit_are_refused(tmp_path, what, words):
    recorder = record(tmp_path / "a")
    change(recorder, what)
    recorder.bag.close()
    with pytest.raises(BagError, match=words):
        read_bag(tmp_path / "a")


def test_pictures_and_types_that_are_not_the_interfaces_are_refused(tmp_path):
    small = Recorder(tmp_path / "small")
    small.picture(START, PICTURES[0][:32])
    small.bag.close()
    with pytest.raises(BagError, match=r"'/camera/image_raw' are 64x32, cameras.front of the interface says 64x64"):
        read_bag(tmp_path / "small")
    other = Recorder(tmp_path / "other")
    other.picture(START, PICTURES[0])
    other.bag.write("/ee_pose", TWIST, START, twist(START, (0, 0, 0)))
    other.joints(START, {"gripper": 0.0})
    other.bag.close()
    with pytest.raises(BagError, match=r"'/ee_pose' is geometry_msgs/msg/TwistStamped, the interface says .*/Pose"):
        read_bag(tmp_path / "other")


def test_joints_that_are_not_there_are_named(tmp_path):
    recorder = Recorder(tmp_path / "a")
    recorder.picture(START, PICTURES[0])
    recorder.pose(START, (0, 0, 0))
    recorder.joints(START, {"elbow": 0.0, "wrist": 1.0})
    recorder.bag.close()
    with pytest.raises(BagError, match=r"no message has a position for each of gripper; .* elbow, wrist"):
        read_bag(tmp_path / "a")


def test_a_driver_that_sets_no_stamps_is_named(tmp_path):
    recorder = Recorder(tmp_path / "a")
    for i in range(3):
        recorder.picture(0, PICTURES[i], delay_ns=i)
    recorder.bag.close()
    with pytest.raises(BagError, match=r"all 3 pictures have the header stamp 0.0 s"):
        read_bag(tmp_path / "a")


def test_another_interface_than_the_one_inside_is_refused_by_key(tmp_path):
    record(tmp_path / "a").bag.close()
    other = dataclasses.replace(ROBOT, action=dataclasses.replace(ROBOT.action, rate_hz=20.0))
    with pytest.raises(config.ConfigError, match=r"interface mismatch at 'action.rate_hz': 20.0 .* 40.0"):
        read_bag(tmp_path / "a", other)
    assert len(read_bag(tmp_path / "a", ROBOT)) == 20


def test_a_second_camera_gives_its_last_picture(tmp_path):
    wrist = Camera("wrist/image_raw", 64, 64, 20.0, 0.3)
    robot = dataclasses.replace(ROBOT, cameras={**ROBOT.cameras, "wrist": wrist})
    recorder = Recorder(tmp_path / "a", robot)
    for i in range(8):
        recorder.picture(START + i * PERIOD, PICTURES[i])
    for i in range(4):
        recorder.picture(START + (2 * i + 1) * PERIOD, PICTURES[10 + i], "wrist/image_raw")
    recorder.bag.close()
    episode = read_bag(tmp_path / "a")
    np.testing.assert_array_equal(episode.images["front"][:], PICTURES[1:8])
    np.testing.assert_array_equal(episode.images["wrist"][:], PICTURES[[10, 10, 11, 11, 12, 12, 13]])


def test_a_bag_without_an_interface_is_read_like_a_video(tmp_path):
    with RawBagWriter(tmp_path / "a", {}) as bag:
        for i in range(5):
            bag.write("/usb_cam/image", IMAGE, i, image(START + i * PERIOD, PICTURES[i][:, :32]))
            bag.write("/battery", FLOAT, i, number(12.1))
    episode = read_bag(tmp_path / "a")
    np.testing.assert_array_equal(episode.images[CAMERA][:], PICTURES[:5, :, :32])
    assert episode.state is None and episode.action is None and episode.instruction is None


def test_real_bags_say_why_they_are_no_episode(shared_data):
    with pytest.raises(BagError, match=r"has 2 image topics .* and no interface inside; say which is meant, as in "
                                       r"--camera /test/sensor_msgs/compressed_image, or give an interface file"):
        read_bag(shared_data / "bags" / "rosbags-rs" / "test_bag_mcap")
    with pytest.raises(BagError, match=r"holds no pictures .* it has /one_shot/imu, /one_shot/joint_state"):
        read_bag(shared_data / "bags" / "rosbag2parquet" / "array_msgs")


def test_frames_are_lazy_small_and_in_any_order(tmp_path):
    record(tmp_path / "a", count=120).bag.close()
    frames = read_bag(tmp_path / "a").images["front"]
    assert len(pickle.dumps(frames)) < 10_000
    order = np.random.default_rng(1).integers(0, 120, 60)
    np.testing.assert_array_equal(copy.deepcopy(frames)[order], PICTURES[order % 20])
    for i in order:
        np.testing.assert_array_equal(frames[int(i)], PICTURES[i % 20])
    for i, frame in enumerate(frames):
        np.testing.assert_array_equal(frame, PICTURES[i % 20])


def test_a_bag_replaced_after_reading_is_noticed(tmp_path):
    record(tmp_path / "a").bag.close()
    frames = read_bag(tmp_path / "a").images["front"]
    shutil.rmtree(tmp_path / "a")
    record(tmp_path / "a", count=30).bag.close()
    with pytest.raises(BagError, match="a: changed since it was read"):
        frames[3]


def test_a_damaged_note_is_refused(tmp_path):
    recorder = record(tmp_path / "a")
    recorder.bag.close()
    metadata = tmp_path / "a" / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("como-episode-1", "como-episode-9"))
    with pytest.raises(BagError, match="its note on the episode is not of the format 'como-episode-1'"):
        read_bag(tmp_path / "a")
