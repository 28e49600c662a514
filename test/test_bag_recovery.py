"""Bags that were cut off anywhere: what had reached the disk is saved, by readers that are not ours too."""

import json
import os
import random
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from bag_messages import image, number, pose, twist
from mcap.reader import make_reader
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from como_core.cli.main import main
from como_core.errors import ComoError
from como_core.formats.bag_audit import AUDIT_FILE
from como_core.formats.bag_reader import BagReader
from como_core.formats.bag_recovery import cut_bags, recover
from como_core.formats.bag_writer import BagWriter, RawBagWriter
from como_core.formats.episode_index import read_index
from como_core.formats.rosbag import find_bags, read_bag
from como_core.interface import load_interface
from como_core.resources import resource

ROBOT = load_interface(resource("config/interfaces/metaworld.yaml"))
FLOAT = "std_msgs/msg/Float64"
PERIOD_NS = 25_000_000
RGB = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


def record(path, steps=80, flush_every=20, storage="mcap"):
    """An episode that nobody closes, and how many steps of it were flushed."""
    bag = BagWriter(path, ROBOT, "drawer open", storage)
    start = 1_700_000_000_000_000_000
    bag.write("/gripper_command", FLOAT, start, number(0.5))
    for step in range(steps):
        ns = start + step * PERIOD_NS
        bag.write("/camera/image_raw", "sensor_msgs/msg/Image", ns, image(ns, RGB))
        bag.write("/ee_pose", "geometry_msgs/msg/PoseStamped", ns, pose(ns, (step, 0, 0)))
        bag.write("/joint_states", "sensor_msgs/msg/JointState", ns, joint_state(ns, step / steps))
        bag.write("/servo/delta_twist_cmds", "geometry_msgs/msg/TwistStamped", ns, twist(ns, (step, 0, 0)))
        if step % flush_every == flush_every - 1:
            bag.flush()
    return bag


def joint_state(ns, value):
    from bag_messages import joints
    return joints(ns, {"gripper": value})


def crash(path, **options):
    """What a crash leaves of such an episode, the writer still being alive somewhere else."""
    bag = record(path / "alive" / "episode_0003", **options)
    shutil.copytree(path / "alive" / "episode_0003.part", path / "bags" / "episode_0003.part")
    bag.discard()
    return path / "bags" / "episode_0003.part"


def storage_file(part: Path) -> Path:
    return next(part.rglob("*.mcap"))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def poses(bag: Path) -> list[int]:
    """Steps whose pose mcap's own reader finds."""
    store = get_typestore(Stores.ROS2_JAZZY)
    with next(bag.glob("*.mcap")).open("rb") as file:
        return [int(store.deserialize_cdr(message.data, "geometry_msgs/msg/PoseStamped").pose.position.x)
                for _, channel, message in make_reader(file).iter_messages() if channel.topic == "/ee_pose"]


def test_what_was_flushed_is_saved_beside_the_untouched_original(tmp_path):
    part = crash(tmp_path)
    before = snapshot(part)
    assert find_bags([tmp_path / "bags"]) == [], "what is cut is no bag"
    found, = recover(cut_bags(tmp_path / "bags"))
    assert found.bag == tmp_path / "bags" / "episode_0003" and found.messages == 1 + 4 * 80
    assert snapshot(part) == before
    assert poses(found.bag) == list(range(80))
    with Reader(found.bag) as reader:
        assert sum(connection.msgcount for connection in reader.connections) == 2 + 4 * 80
    episode = read_bag(found.bag)
    assert episode.instruction == "drawer open" and len(episode) == 80
    entry = read_index(tmp_path / "bags")["episode_0003"]
    assert entry.recovered and entry.success is None and entry.messages == 321 and entry.faults == ()
    assert json.loads((found.bag / AUDIT_FILE).read_text())["topics"]["/ee_pose"]["messages"] == 80
    assert cut_bags(tmp_path / "bags") == [], "once is enough"


@pytest.mark.parametrize("seed", range(12))
def test_cut_at_any_byte_every_message_before_the_cut_is_saved(tmp_path, seed):
    part = crash(tmp_path)
    file = storage_file(part)
    whole = file.read_bytes()
    cut = random.Random(seed).randrange(20_000, len(whole))
    tail = b"" if seed % 2 else bytes(4096)  # a power loss leaves a length without its content
    file.write_bytes(whole[:cut] + tail)
    found, = recover(cut_bags(tmp_path / "bags"))
    saved = poses(found.bag)
    # Pictures fill the file: a step is as many bytes as the file holds steps.
    assert saved == list(range(len(saved))) and abs(len(saved) - cut / len(whole) * 80) < 4


def test_nothing_on_the_disk_is_said_and_leaves_nothing(tmp_path, capsys):
    part = crash(tmp_path, steps=1, flush_every=100)
    assert main(["data", "recover", str(tmp_path / "bags")]) == 1
    assert "not recovered: no whole message had reached the disk" in capsys.readouterr().out
    assert os.listdir(tmp_path / "bags") == [part.name]
    storage_file(part).write_bytes(b"not an MCAP file")
    assert main(["data", "recover", str(tmp_path / "bags")]) == 1
    assert "does not begin as an MCAP file" in capsys.readouterr().out


def test_an_episode_that_is_being_written_is_left_alone(tmp_path):
    bag = record(tmp_path / "episode_0003")
    assert cut_bags(tmp_path) == []
    bag.close()
    assert poses(tmp_path / "episode_0003") == list(range(80))


def test_a_database_is_saved_up_to_its_last_commit(tmp_path):
    # More than sqlite's cache after the last commit: it lies in the file already, and its journal takes it back.
    part = crash(tmp_path, storage="sqlite3", steps=390, flush_every=200)
    before = snapshot(part)
    assert any(name.endswith("-journal") for name in before)
    found, = recover(cut_bags(tmp_path / "bags"))
    with BagReader(found.bag) as reader:
        assert {topic.count for topic in reader.topics.values()} == {1, 200}, "what came after the flush is not there"
    with sqlite3.connect(next(found.bag.glob("*.db3"))) as database:
        count, = database.execute("SELECT count(*) FROM messages JOIN topics ON topic_id = topics.id "
                                  "WHERE name = '/ee_pose'").fetchone()
    assert count == 200
    assert snapshot(part) == before


def test_a_bag_of_another_recorder_with_a_type_of_its_own_is_saved(tmp_path):
    """`ros2 bag record` that was killed: a folder without metadata.yaml, its file without an end."""
    definition = "float64 value\n" + "=" * 80 + "\nMSG: my_msgs/Unused\nint32 x\n"
    with RawBagWriter(tmp_path / "drive", {}) as bag:
        for step in range(10):
            bag.write("/own", "my_msgs/msg/Own", step, number(step), definition)
    (tmp_path / "drive" / "metadata.yaml").unlink()
    file = tmp_path / "drive" / "drive.mcap"
    file.write_bytes(file.read_bytes()[:-200])
    found, = recover(cut_bags(tmp_path))
    assert found.bag == tmp_path / "drive_recovered" and found.messages == 10 and found.audit is None
    with Reader(found.bag) as reader:
        assert [connection.msgtype for connection in reader.connections] == ["my_msgs/msg/Own"]
        assert len(list(reader.messages())) == 10
    assert recover(cut_bags(tmp_path)) == []


def test_compressed_chunks_are_saved_where_they_are_whole(tmp_path):
    file = tmp_path / "drive.mcap"
    with file.open("wb") as stream:
        writer = McapWriter(stream, chunk_size=2000, compression=CompressionType.LZ4)
        writer.start("ros2", "another recorder")
        schema = writer.register_schema(FLOAT, "ros2msg", b"float64 data\n")
        channel = writer.register_channel("/x", "cdr", schema)
        for step in range(2000):
            writer.add_message(channel, step, number(random.Random(step).random()), step)
        writer.flush()
    whole = file.read_bytes()
    with RawBagWriter(tmp_path / "other", {}) as other:
        other.write("/y", FLOAT, 0, number(0))
    (tmp_path / "other" / "other.mcap").rename(tmp_path / "other.mcap")  # alone beside it, and whole
    file.write_bytes(whole[:-3000])
    found, = recover(cut_bags(tmp_path))
    assert found.bag == tmp_path / "drive_recovered" and 1500 < found.messages < 2000
    with Reader(found.bag) as reader:
        assert [stamp for _, stamp, _ in reader.messages()] == list(range(found.messages))
    shutil.rmtree(found.bag)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    file.write_bytes(damaged)
    found, = recover(cut_bags(tmp_path))
    with Reader(found.bag) as reader:
        stamps = [stamp for _, stamp, _ in reader.messages()]
    assert 1800 < len(stamps) < 2000 and stamps == sorted(stamps), "a damaged chunk costs itself"


def test_como_data_recover_says_what_it_did(tmp_path, capsys):
    crash(tmp_path)
    assert main(["data", "recover", str(tmp_path / "bags")]) == 0
    assert "episode_0003.part: 321 messages saved as" in capsys.readouterr().out
    assert main(["data", "recover", str(tmp_path / "bags")]) == 0
    assert "nothing to recover" in capsys.readouterr().out
    with pytest.raises(ComoError, match="none: no such folder"):
        cut_bags(tmp_path / "none")
