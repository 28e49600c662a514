"""Bags that nobody here made: each is read, with the counts that mcap and sqlite3 see, or refused with the reason."""

import shutil
import sqlite3

import pytest
import yaml
from mcap.reader import NonSeekingReader

from como_core.errors import ComoError
from como_core.formats.bag_layout import bag_layout, find_bags
from como_core.formats.bag_reader import BagReader, zstd
from como_core.formats.bag_writer import BagError

NOT_ROS = "Profile is not ros2"
# Bag -> the number of messages, or the reason why it is refused.
REAL_BAGS: dict[str, int | str] = {
    "crab_ws_adya_gait": 5637,
    "mcap_conformance/NoData.mcap": NOT_ROS,
    "mcap_conformance/OneMessage-ch-chx-mx.mcap": NOT_ROS,
    "mcap_conformance/OneMetadata.mcap": NOT_ROS,
    "mcap_conformance/TenMessages-ch-chx-mx-pad-rch-rsh-st-sum.mcap": NOT_ROS,
    "nav2_cm_moving_obstacle_zstd": 693,
    "ros1_rosbag_v2/test_bag.bag": "is a ROS 1 bag; convert it with `rosbags-convert",
    "ros2_rosbag2/mcap_cdr_test": 7,
    "ros2_rosbag2/mcap_reindex_no_metadata/multiple_files": 3177,
    "ros2_rosbag2/mcap_service_events": 10,
    "ros2_rosbag2/sqlite3_cdr_test": 7,
    "ros2_rosbag2/sqlite3_empty_bag": 0,
    "ros2_rosbag2/sqlite3_talker": 20,
    "ros2_rosbag2/sqlite3_wbag_split5": 6074,
    "ros2_rosbag2/sqlite3_wrong_rmw_test": "serialization format 'wrong_format' is not read, only 'cdr'",
    "rosbag2parquet/array_msgs": 2,
    "rosbags-rs/test_bag_mcap": 188,
    "rosbags-rs/test_bag_sqlite3": 188,
}


def counted_by_others(bag, folder):
    """Messages by topic as mcap's own stream reader, or sqlite3, counts them in all storage files of a bag."""
    counts: dict[str, int] = {}
    for file in sorted(bag.iterdir()):
        if file.suffix == ".zstd":
            plain = folder / file.stem
            plain.write_bytes(zstd.decompress(file.read_bytes()))
            file = plain
        if file.suffix == ".mcap":
            with file.open("rb") as stream:
                for _, channel, _ in NonSeekingReader(stream).iter_messages(log_time_order=False):
                    counts[channel.topic] = counts.get(channel.topic, 0) + 1
        elif file.suffix == ".db3":
            with sqlite3.connect(f"file:{file}?immutable=1", uri=True) as database:
                query = "SELECT name, count(*) FROM messages JOIN topics ON topic_id = topics.id GROUP BY name"
                for topic, count in database.execute(query):
                    counts[topic] = counts.get(topic, 0) + count
    return counts


def read_counts(path):
    with BagReader(path) as bag:
        counts: dict[str, int] = {}
        stamps = []
        for message in bag.messages(bag.topics):
            counts[message.topic] = counts.get(message.topic, 0) + 1
            stamps.append(message.log_ns)
        assert stamps == sorted(stamps)
        assert counts == {name: topic.count for name, topic in bag.topics.items() if topic.count}
        return counts


def test_the_shared_folder_holds_the_bags_of_the_table(shared_data):
    root = shared_data / "bags"
    assert {path.relative_to(root).as_posix() for path in find_bags([root])} == set(REAL_BAGS)


@pytest.mark.parametrize(("name", "expected"), REAL_BAGS.items())
def test_real_bags_are_read_whole_or_refused_by_name(shared_data, tmp_path, name, expected):
    path = shared_data / "bags" / name
    if isinstance(expected, str):
        with pytest.raises(BagError, match=expected) as refusal:
            read_counts(path)
        assert str(path) in str(refusal.value)
    else:
        counts = read_counts(path)
        assert sum(counts.values()) == expected
        assert counts == counted_by_others(path, tmp_path)


def test_each_storage_file_of_a_bag_can_be_read_alone(shared_data):
    split = shared_data / "bags" / "ros2_rosbag2" / "sqlite3_wbag_split5"
    assert [sum(read_counts(split / f"wbag_{i}.db3").values()) for i in range(5)] == [1246, 1240, 1240, 1240, 1108]
    packed = shared_data / "bags" / "nav2_cm_moving_obstacle_zstd" / "_tmp_cm_bag_0.mcap.zstd"
    assert read_counts(packed)["/clock"] == 231


@pytest.fixture
def bag(shared_data, tmp_path):
    """A copy of a good MCAP bag, to be broken."""
    path = tmp_path / "bag"
    shutil.copytree(shared_data / "bags" / "rosbags-rs" / "test_bag_mcap", path)
    path.chmod(0o755)
    for file in path.iterdir():
        file.chmod(0o644)
    return path


def edit_metadata(bag, **changes):
    data = yaml.safe_load((bag / "metadata.yaml").read_text())
    data["rosbag2_bagfile_information"].update(changes)
    (bag / "metadata.yaml").write_text(yaml.safe_dump(data))


def test_a_bag_without_metadata_is_read(bag):
    (bag / "metadata.yaml").unlink()
    assert sum(read_counts(bag).values()) == 188


def test_a_part_that_is_missing_is_named(bag):
    edit_metadata(bag, relative_file_paths=["test_bag_mcap.mcap", "test_bag_mcap_1.mcap"])
    with pytest.raises(BagError, match="storage file test_bag_mcap_1.mcap is missing"):
        BagReader(bag)


@pytest.mark.parametrize(
    ("text", "words"),
    [("rosbag2_bagfile_information: [", "is not the metadata of a rosbag2"), ("a: 1\n", "KeyError"), ("", "TypeError")],
)
def test_metadata_that_is_none_is_refused(bag, text, words):
    (bag / "metadata.yaml").write_text(text)
    with pytest.raises(BagError, match=f"bag/metadata.yaml: .*{words}"):
        BagReader(bag)


def test_unknown_compression_is_named(bag):
    edit_metadata(bag, compression_mode="FILE", compression_format="lzma")
    with pytest.raises(BagError, match="compression 'file' by 'lzma' is not read"):
        BagReader(bag)


@pytest.mark.parametrize("kept", [0, 4, 100, 5_000, 75_000, 150_000])
def test_a_bag_cut_short_is_refused_by_name(bag, kept):
    file = bag / "test_bag_mcap.mcap"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(BagError, match=r"bag: .*(cannot be read|damaged)"):
        read_counts(bag)


def test_what_is_no_bag_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "a.db3").write_text("this is no database, though its name says so" * 100)
    for name, words in {"empty": "holds neither metadata.yaml nor a storage file", "a.txt": "is not a rosbag2 file",
                        "a.db3": "cannot be read", "nowhere": "no such bag"}.items():
        with pytest.raises(BagError, match=f"{name}: .*{words}"):
            BagReader(tmp_path / name)


def test_find_bags_tells_parts_from_bags_of_their_own(tmp_path):
    for name in ("split/x_0.mcap", "split/x_10.mcap", "split/x_2.mcap", "two/a.mcap", "two/b.mcap", "runs/a_0.mcap",
                 "runs/b_1.mcap", "gone.part/x.mcap", "described/metadata.yaml", "described/y.db3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [path.relative_to(tmp_path).as_posix() for path in find_bags([tmp_path])]
    assert found == ["described", "runs/a_0.mcap", "runs/b_1.mcap", "split", "two/a.mcap", "two/b.mcap"]
    parts = bag_layout(tmp_path / "split").files
    assert [part.name for part in parts] == ["x_0.mcap", "x_2.mcap", "x_10.mcap"]
    with pytest.raises(BagError, match="holds 2 storage files that are no parts of one bag; name one of them"):
        BagReader(tmp_path / "two")
    with pytest.raises(ComoError, match="nowhere: no such file or folder"):
        find_bags([tmp_path / "nowhere"])
