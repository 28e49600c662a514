"""The sidecar of labels beside a bag: what mcap reads is what was labelled, at the pictures' own stamps."""

import dataclasses
import json

import numpy as np
import pytest
import yaml
from bag_messages import number
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory

from como_core.formats.bag_reader import BagReader
from como_core.formats.bag_writer import BagError, RawBagWriter
from como_core.formats.label_bag import ACTION_TOPIC, CONFIDENCE_TOPIC, LATENT_TOPIC, PseudoActions, write_label_bag
from como_core.formats.labels import LabelError, LabelFile

STAMPS_NS = 1_700_000_000_123_456_789 + 25_000_000 * np.arange(6)


@pytest.fixture
def labels() -> LabelFile:
    rng = np.random.default_rng(0)
    return LabelFile(STAMPS_NS / 1e9, rng.normal(size=(6, 3)).astype(np.float32), rng.random(6).astype(np.float32),
                     "bags/0003", "ab" * 32, "runs/motion", 0.125)


def test_mcap_reads_the_labels_at_the_stamps_of_the_pictures(tmp_path, labels):
    path = write_label_bag(tmp_path / "0003", labels, STAMPS_NS)
    rows = {LATENT_TOPIC: [], CONFIDENCE_TOPIC: []}
    with (path / "0003.mcap").open("rb") as file:
        for _, channel, raw, message in make_reader(file, decoder_factories=[DecoderFactory()]).iter_decoded_messages():
            stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            assert raw.log_time == stamp_ns
            rows[channel.topic].append((stamp_ns, list(message.name), list(message.position)))
    for i, stamp_ns in enumerate(STAMPS_NS.tolist()):
        assert rows[LATENT_TOPIC][i] == (stamp_ns, ["z0", "z1", "z2"], labels.latent[i].astype(float).tolist())
        assert rows[CONFIDENCE_TOPIC][i] == (stamp_ns, ["confidence"], [float(labels.confidence[i])])
    assert len(rows[LATENT_TOPIC]) == len(rows[CONFIDENCE_TOPIC]) == 6
    information = yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    note = json.loads(information["custom_data"]["como_labels"])
    assert note == {"source": "bags/0003", "source_sha256": "ab" * 32, "model": "runs/motion", "gap_s": 0.125}


def test_labels_are_logged_when_the_pictures_were_so_that_both_bags_play_in_step(tmp_path, labels):
    logged_ns = STAMPS_NS + 7_000_000 + np.array([0, 3, 1, 4, 1, 5])
    actions = PseudoActions(["x", "gripper"], np.arange(12, dtype=np.float32).reshape(6, 2), np.full(6, 0.5))
    path = write_label_bag(tmp_path / "0003", labels, STAMPS_NS, logged_ns, actions)
    with (path / "0003.mcap").open("rb") as file:
        rows = [(channel.topic, raw.log_time, message) for _, channel, raw, message in
                make_reader(file, decoder_factories=[DecoderFactory()]).iter_decoded_messages()]
    for topic in (LATENT_TOPIC, ACTION_TOPIC, CONFIDENCE_TOPIC):
        assert sorted(log for name, log, _ in rows if name == topic) == sorted(logged_ns.tolist())
    stamped = {m.header.stamp.nanosec: m for name, _, m in rows if name == ACTION_TOPIC}
    for step, stamp_ns in enumerate(STAMPS_NS.tolist()):
        message = stamped[stamp_ns % 10**9]
        assert list(message.name) == ["x", "gripper"] and list(message.position) == [2 * step, 2 * step + 1]
    with pytest.raises(LabelError, match=r"actions \[5, 2\] for 6 labels"):
        write_label_bag(tmp_path / "0003", labels, STAMPS_NS, logged_ns,
                        dataclasses.replace(actions, values=actions.values[:5]))


def test_older_labels_are_replaced_and_recordings_are_not(tmp_path, labels):
    write_label_bag(tmp_path / "0003", labels, STAMPS_NS)
    newer = dataclasses.replace(labels, latent=labels.latent[:4], timestamps=labels.timestamps[:4],
                                confidence=labels.confidence[:4])
    write_label_bag(tmp_path / "0003", newer, STAMPS_NS[:4])
    with BagReader(tmp_path / "0003") as bag:
        assert bag.topics[LATENT_TOPIC].count == 4
    with RawBagWriter(tmp_path / "recording", {}) as bag:
        bag.write("/x", "std_msgs/msg/Float64", 0, number(1))
    with pytest.raises(BagError, match="recording: exists already"):
        write_label_bag(tmp_path / "recording", labels, STAMPS_NS)


def test_a_stamp_is_needed_for_each_label(tmp_path, labels):
    with pytest.raises(LabelError, match="bags/0003: 5 stamps for 6 labels"):
        write_label_bag(tmp_path / "0003", labels, STAMPS_NS[:5])
    assert not (tmp_path / "0003").exists()
