"""Writing bags: read back by readers that are not ours, whole or absent, never overwritten."""

import json
import multiprocessing
import os
import signal
import sqlite3
from resource import RLIMIT_FSIZE, getrlimit, setrlimit

import numpy as np
import pytest
import yaml
from bag_messages import image, number, pose
from mcap.reader import NonSeekingReader, make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.rosbag2 import Reader

from como_core import config
from como_core.formats.bag_writer import EPISODE_TOPIC, BagError, BagWriter
from como_core.interface import Interface, load_interface
from como_core.resources import resource

IMAGE, FLOAT, POSE = "sensor_msgs/msg/Image", "std_msgs/msg/Float64", "geometry_msgs/msg/PoseStamped"
RGB = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


@pytest.fixture
def robot() -> Interface:
    return load_interface(resource("config/interfaces/metaworld.yaml"))


def write(path, robot, count=200, **options):
    with BagWriter(path, robot, "drawer open", **options) as bag:
        for i in range(count):
            bag.write("/camera/image_raw", IMAGE, i * 25_000_000, image(i * 25_000_000, RGB))
        bag.write("/gripper_command", FLOAT, 1_000_000, number(0.5))
    return bag


def test_mcaps_own_reader_sees_every_message_and_value(tmp_path, robot):
    bag = write(tmp_path / "a", robot)
    assert bag.counts == {EPISODE_TOPIC: 1, "/camera/image_raw": 200, "/gripper_command": 1}
    assert sorted(os.listdir(tmp_path / "a")) == ["a.mcap", "metadata.yaml"] and os.listdir(tmp_path) == ["a"]
    with (tmp_path / "a" / "a.mcap").open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        assert reader.get_summary().statistics.message_count == 202
        decoded = {channel.topic: message for _, channel, _, message in reader.iter_decoded_messages()}
    assert decoded["/gripper_command"].data == 0.5
    assert bytes(decoded["/camera/image_raw"].data) == RGB.tobytes()
    note = json.loads(decoded[EPISODE_TOPIC].data)
    assert note["instruction"] == "drawer open"
    assert config.build(Interface, note["interface"]) == robot
    with (tmp_path / "a" / "a.mcap").open("rb") as file:
        topics = [channel.topic for _, channel, _ in NonSeekingReader(file).iter_messages(log_time_order=False)]
    assert topics[0] == EPISODE_TOPIC and len(topics) == 202


def test_sqlite3_sees_every_message(tmp_path, robot):
    write(tmp_path / "a", robot, storage="sqlite3")
    with sqlite3.connect(tmp_path / "a" / "a.db3") as database:
        count = "SELECT name, count(*) FROM topics JOIN messages ON topic_id = topics.id GROUP BY name"
        counts = dict(database.execute(count))
    assert counts == {EPISODE_TOPIC: 1, "/camera/image_raw": 200, "/gripper_command": 1}


def test_metadata_holds_interface_instruction_and_what_was_given(tmp_path, robot):
    write(tmp_path / "a", robot, metadata={"seed": 7})
    information = yaml.safe_load((tmp_path / "a" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    note = json.loads(information["custom_data"]["como_episode"])
    assert (note["seed"], note["instruction"], note["interface"]["name"]) == (7, "drawer open", "metaworld")
    with Reader(tmp_path / "a") as reader:
        assert reader.message_count == 202


def test_a_discarded_or_failed_episode_leaves_nothing(tmp_path, robot):
    bag = BagWriter(tmp_path / "a", robot, None)
    bag.write("/x", FLOAT, 0, number(1))
    assert not (tmp_path / "a").exists(), "an unfinished bag must not look like a bag"
    bag.discard()
    assert os.listdir(tmp_path) == []
    bag.discard()
    with pytest.raises(BagError, match="is closed"):
        bag.write("/x", FLOAT, 0, number(1))
    with pytest.raises(ZeroDivisionError), BagWriter(tmp_path / "b", robot, None) as bag:
        bag.write("/x", FLOAT, 0, number(1))
        raise ZeroDivisionError
    with pytest.raises(BagError, match="b: no message was written"):
        BagWriter(tmp_path / "b", robot, None).close()
    assert os.listdir(tmp_path) == []


def test_discard_after_close_keeps_the_bag(tmp_path, robot):
    bag = write(tmp_path / "a", robot, count=1)
    bag.discard()
    assert sorted(os.listdir(tmp_path / "a")) == ["a.mcap", "metadata.yaml"]


def test_a_bag_is_never_overwritten(tmp_path, robot):
    write(tmp_path / "a", robot, count=1)
    before = (tmp_path / "a" / "a.mcap").read_bytes()
    with pytest.raises(BagError, match="a: exists already; bags are never overwritten"):
        BagWriter(tmp_path / "a", robot, None)
    assert (tmp_path / "a" / "a.mcap").read_bytes() == before


def _die_while_recording(path, robot):
    bag = BagWriter(path, robot, None)
    bag.write("/x", FLOAT, 0, number(1))
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_recorder_leaves_is_no_bag_and_is_not_replaced(tmp_path, robot):
    recorder = multiprocessing.get_context("spawn").Process(target=_die_while_recording, args=(tmp_path / "a", robot))
    recorder.start()
    recorder.join(timeout=60)
    assert recorder.exitcode == -signal.SIGKILL
    assert os.listdir(tmp_path) == ["a.part"]
    with pytest.raises(BagError, match="a.part: holds an episode that a crash has cut off.*como data recover"):
        write(tmp_path / "a", robot, count=1)
    assert os.listdir(tmp_path) == ["a.part"]


def test_one_name_is_written_by_one_writer(tmp_path, robot):
    bag = BagWriter(tmp_path / "a", robot, None)
    with pytest.raises(BagError, match="a: is being written by another process"):
        BagWriter(tmp_path / "a", robot, None)
    bag.write("/x", FLOAT, 0, number(1))
    assert bag.close().is_dir(), "the first is not disturbed"


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_full_disk_is_a_plain_error_and_leaves_nothing(tmp_path, robot, storage):
    old = getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, (600_000, old[1]))  # the kernel refuses to let any file grow further
    try:
        with pytest.raises(BagError, match="a: cannot be written, the episode is dropped"):
            write(tmp_path / "a", robot, storage=storage)
    finally:
        setrlimit(RLIMIT_FSIZE, old)
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made_and_an_unknown_type_are_named(tmp_path, robot):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BagError, match="file/a: cannot be written"):
        BagWriter(tmp_path / "file" / "a", robot, None)
    bag = BagWriter(tmp_path / "b", robot, None)
    with pytest.raises(BagError, match="'/x' has type 'my_msgs/msg/Own', of which no definition is known"):
        bag.write("/x", "my_msgs/msg/Own", 0, b"")
    bag.discard()
    assert os.listdir(tmp_path) == ["file"]


def test_messages_may_come_out_of_order(tmp_path, robot):
    with BagWriter(tmp_path / "a", robot, None) as bag:
        for stamp in (50, 10, 30):
            bag.write("/ee_pose", POSE, stamp, pose(stamp, (stamp, 0, 0)))
    with Reader(tmp_path / "a") as reader:
        stamps = [stamp for connection, stamp, _ in reader.messages() if connection.topic == "/ee_pose"]
    assert stamps == [10, 30, 50]
