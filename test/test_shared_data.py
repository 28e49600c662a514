"""Every file of the shared recordings is read or refused by name with the reason; other tools count the same frames."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from pathlib import Path

import cv2
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from test_bag_reader import REAL_BAGS

from como_core.formats.bag_reader import BagReader
from como_core.formats.source_files import files_of, split_source
from como_core.formats.sources import Sources, open_sources

NO_PICTURES = "holds no pictures (sensor_msgs/msg/Image or sensor_msgs/msg/CompressedImage)"
# Beside the bags of `REAL_BAGS`: what is no episode, and why. The bags of that table that can be read have no pictures.
REFUSED = {
    "lerobot/v1_pusht_sim": "is a LeRobot data set of version 1 (meta_data/, Arrow), not read; LeRobot converts it",
    "bags/rosbags-rs/test_bag_mcap": "has 2 image topics (/test/sensor_msgs/compressed_image, /test/sensor_msgs/image)",
    "bags/rosbags-rs/test_bag_sqlite3": "has 2 image topics",
}
# What lies beside recordings and is none: texts, licences, captions.
COMPANIONS = ("*.md", "*.csv", "licences/*", "LICENSE", "lang_annotations.json")


@pytest.fixture(scope="module")
def sources(shared_data: Path) -> Sources:
    return open_sources([shared_data])


def frames_counted_by_others(path: Path) -> int:
    """What ffprobe decodes of the video stream; OpenCV where ffprobe is not installed."""
    if shutil.which("ffprobe"):
        command = ["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0", "-show_entries",
                   "stream=nb_read_frames", "-of", "csv=p=0", str(path)]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        return int(found.stdout.strip(" ,\n"))
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    return count


def test_every_file_belongs_to_an_episode_or_is_refused_with_a_reason(shared_data: Path, sources: Sources) -> None:
    read = {path for episode in sources.episodes for path in files_of(episode.source)}
    wholly = [path for path, _ in sources.skipped
              if not any(split_source(episode.source)[0] == path for episode in sources.episodes)]
    left = [path for path in shared_data.rglob("*") if path.is_file()
            and path not in read
            and not any(path == refused or refused in path.parents for refused in wholly)
            and not any(path.relative_to(shared_data).match(pattern) for pattern in COMPANIONS)
            and "meta" not in path.parts]
    assert left == []


def test_what_is_refused_is_named_and_says_why(shared_data: Path, sources: Sources) -> None:
    expected = {f"bags/{name}": found if isinstance(found, str) else NO_PICTURES for name, found in REAL_BAGS.items()}
    expected |= REFUSED | {"lerobot/g1_humanoid_v21": "80 of 100 episodes that the metadata speaks of are not there"}
    assert {path.relative_to(shared_data).as_posix() for path, _ in sources.skipped} == set(expected)
    for path, reason in sources.skipped:
        assert expected[path.relative_to(shared_data).as_posix()] in reason
        assert str(path) in reason and "\n" not in reason


def test_frames_are_as_many_as_another_tool_decodes(shared_data: Path, sources: Sources) -> None:
    seen = counted = 0  # OpenCV's wheel decodes no AV1, which twenty of them are
    for episode in sources.episodes:
        videos = [path for path in files_of(episode.source) if path.suffix in (".mp4", ".gif")]
        for frames, path in zip(episode.images.values(), videos, strict=True):
            others = frames_counted_by_others(path)
            assert len(frames) == len(episode) == (others or len(frames)), episode.source
            counted += others > 0
            seen += 1
    there = [path for path in shared_data.rglob("*") if path.suffix in (".mp4", ".gif")]
    assert counted >= 15
    assert seen == len([path for path in there if "v1_pusht_sim" not in path.parts]) == 35


def test_each_frame_that_was_counted_can_be_had(sources: Sources) -> None:
    """Of the long LeRobot videos the last alone; `test_frames_are_as_many_as_another_tool_decodes` counts them."""
    for episode in sources.episodes:
        for frames in episode.images.values():
            wanted = frames if "#" not in episode.source else [frames[len(frames) - 1]]
            assert sum(frame.shape == frames.shape[1:] for frame in wanted) == len(wanted), episode.source


def test_tables_and_demonstrations_have_the_steps_that_their_own_libraries_count(shared_data: Path, sources: Sources
                                                                                 ) -> None:
    for episode in sources.episodes:
        path, member = split_source(episode.source)
        if path.suffix == ".hdf5":
            with h5py.File(path) as file:
                assert len(episode) == len(file[f"data/{member}/actions"])
        elif member:
            table = next(file for file in files_of(episode.source) if file.suffix == ".parquet")
            assert len(episode) == pq.read_metadata(table).num_rows
        assert np.all(np.diff(episode.timestamps) > 0)


def test_the_talker_is_read_whole(shared_data: Path) -> None:
    """rosbags 0.11.9 by itself reads none of its messages, and says nothing."""
    folder = shared_data / "bags" / "ros2_rosbag2" / "sqlite3_talker"
    with sqlite3.connect(f"file:{folder / 'talker.db3'}?immutable=1", uri=True) as database:
        count, = database.execute("SELECT count(*) FROM messages").fetchone()
    with BagReader(folder) as bag:
        assert len(list(bag.messages(bag.topics))) == count == 20
