"""kill -9 of the recorder at moments drawn by chance: every message older than the flush interval is there afterwards.

    COMO_KILLS=30 python -m pytest test/test_recorder_killed.py -s
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ros_client import TIMEOUT_S, RosClient
from rosbags.rosbag2 import Reader
from test_recorder_node import Robot, mcap_messages

from como_core.formats.bag_reader import BagReader
from como_core.formats.bag_recovery import cut_bags, recover
from como_core.formats.episode_index import read_index
from como_ros.processes import NodeProcess, wait_until

KILLS = int(os.environ.get("COMO_KILLS", "3"))
FLUSH_INTERVAL_S = 1.0
PERIOD_S = 0.02
# From a publish of the test to the recorder's callback, on a machine that is busy with other things.
DELIVERY_S = 0.25
RUN_S = (1.5, 4.0)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_what_is_older_than_the_flush_interval_survives_a_kill(start_node: Callable[..., NodeProcess], tmp_path: Path,
                                                               storage: str) -> None:
    chance = random.Random(storage)
    ages: list[float] = []
    kills = KILLS if storage == "mcap" else max(1, KILLS // 5)
    for kill in range(kills):
        folder = tmp_path / f"{kill}"
        recorder = start_node("recorder_node", {"output": folder, "storage": storage,
                                                "flush_interval_s": FLUSH_INTERVAL_S})
        # A participant of its own for each: one that is killed stays in the others' lists for many seconds.
        with RosClient() as client:
            robot = Robot(client)
            started = client.trigger("record/start")
            assert started.success, started.message
            sent_s: list[float] = []
            end_s = time.monotonic() + chance.uniform(*RUN_S)
            while time.monotonic() < end_s:
                robot.send(len(sent_s))
                sent_s.append(time.monotonic())
                time.sleep(PERIOD_S)
            os.kill(recorder.pid, signal.SIGKILL)
            killed_s = time.monotonic()
        recorder.stop()

        found, = recover(cut_bags(folder))
        assert found.bag is not None, found.summary()
        with BagReader(found.bag) as reader:  # ours
            ours = {topic: [m.cdr for m in reader.messages([topic])] for topic in robot.sent}
        theirs = mcap_messages(found.bag) if storage == "mcap" else by_rosbags(found.bag)
        due = sum(s < killed_s - FLUSH_INTERVAL_S - DELIVERY_S for s in sent_s)
        for topic, sent in robot.sent.items():
            assert ours[topic] == theirs[topic] == sent[:len(ours[topic])], "what is saved has no hole"
            assert len(ours[topic]) >= due, f"{due - len(ours[topic])} messages of {topic} older than the interval"
        kept = min(map(len, ours.values()))
        ages.append(killed_s - (sent_s[kept] if kept < len(sent_s) else killed_s))
        assert read_index(folder)["episode_0000"].recovered
    print(f"\n{kills} kills of a recorder with {storage}: oldest message lost was {max(ages):.3f} s old, "
          f"median {sorted(ages)[len(ages) // 2]:.3f} s")


def by_rosbags(bag: Path) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    with Reader(bag) as reader:
        for connection, _, data in reader.messages():
            found.setdefault(connection.topic, []).append(bytes(data))
    return found


def test_the_next_start_of_the_recorder_saves_what_the_last_one_left(start_node: Callable[..., NodeProcess],
                                                                     tmp_path: Path) -> None:
    first = start_node("recorder_node", {"output": tmp_path / "bags", "flush_interval_s": 0.1})
    with RosClient() as client:
        robot = Robot(client)
        assert client.trigger("record/start").success
        for step in range(20):
            robot.send(step)
            time.sleep(PERIOD_S)
        time.sleep(0.5)
        os.kill(first.pid, signal.SIGKILL)
    second = start_node("recorder_node", {"output": tmp_path / "bags"})
    assert wait_until(lambda: (tmp_path / "bags" / "episode_0000").is_dir(), TIMEOUT_S), second.log.read_text()
    assert mcap_messages(tmp_path / "bags" / "episode_0000")["/ee_pose"] == robot.sent["/ee_pose"]
    assert wait_until(lambda: "was cut off by a crash" in second.log.read_text(), TIMEOUT_S)
    with RosClient() as client:
        Robot(client)
        started = client.trigger("record/start")
        assert started.message.endswith("episode_0001"), started.message
