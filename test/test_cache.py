"""The frame cache: right pixels, decoded once, made anew when a source changes, never half there."""

import multiprocessing
import os
import pickle
import shutil
from resource import RLIMIT_FSIZE, getrlimit, setrlimit

import numpy as np
import pytest

from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.formats.cache import FrameCache, camera_frames, square
from como_core.formats.video import read_video, write_video


def episode(count, seed=0, source="simulated", height=40, width=64, camera="front"):
    frames = np.random.default_rng(seed).integers(0, 255, (count, height, width, 3), dtype=np.uint8)
    return Episode(np.arange(count) / 40, {camera: frames}, source)


def test_the_middle_square_is_kept_and_areas_are_averaged():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 2:6] = np.arange(16, dtype=np.uint8).reshape(4, 4, 1) * 10
    np.testing.assert_array_equal(square(image, 4), image[:, 2:6])
    np.testing.assert_array_equal(square(image, 2)[..., 0], [[25, 45], [105, 125]])
    np.testing.assert_array_equal(square(image.transpose(1, 0, 2), 2)[..., 0], [[25, 105], [45, 125]])
    assert square(image, 16).shape == (16, 16, 3)


def test_frames_of_all_episodes_lie_end_to_end(tmp_path):
    episodes = [episode(5), episode(3, seed=1), episode(7, seed=2)]
    cache = FrameCache.build(episodes, "front", 16, tmp_path)
    assert cache.frames.shape == (15, 16, 16, 3) and cache.offsets.tolist() == [0, 5, 8, 15]
    for one, start, end in zip(episodes, cache.offsets, cache.offsets[1:], strict=False):
        np.testing.assert_array_equal(cache.frames[start:end], [square(f, 16) for f in one.images["front"]])
        np.testing.assert_array_equal(cache.timestamps[start:end], one.timestamps)
    assert not cache.frames.flags.writeable and isinstance(cache.frames, np.memmap)


def count_reads(monkeypatch):
    from como_core.formats import cache

    calls = []
    monkeypatch.setattr(cache, "square", lambda image, size: calls.append(0) or square(image, size))
    return calls


def test_a_second_call_decodes_nothing_and_a_changed_file_all(tmp_path, monkeypatch):
    pictures = np.random.default_rng(0).integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", pictures, fps=40)
    calls = count_reads(monkeypatch)
    first = FrameCache.build([read_video(tmp_path / "a.mp4")], None, 16, tmp_path / "cache")
    again = FrameCache.build([read_video(tmp_path / "a.mp4")], None, 16, tmp_path / "cache")
    assert len(calls) == 6 and again.path == first.path
    FrameCache.build([read_video(tmp_path / "a.mp4")], None, 8, tmp_path / "cache")
    assert len(calls) == 12, "another size is another cache"
    write_video(tmp_path / "a.mp4", 255 - pictures, fps=40)
    changed = FrameCache.build([read_video(tmp_path / "a.mp4")], None, 16, tmp_path / "cache")
    assert len(calls) == 18 and np.abs(changed.frames.astype(int) - (255 - first.frames.astype(int))).mean() < 20


def test_episodes_in_memory_are_known_by_their_pixels(tmp_path, monkeypatch):
    calls = count_reads(monkeypatch)
    FrameCache.build([episode(5)], None, 16, tmp_path)
    FrameCache.build([episode(5)], None, 16, tmp_path)
    assert len(calls) == 5
    other = FrameCache.build([episode(5, seed=1)], None, 16, tmp_path)
    np.testing.assert_array_equal(other.frames[0], square(episode(5, seed=1).images["front"][0], 16))


def test_a_recording_without_camera_names_stands_for_any():
    video, robot = episode(2, camera="video"), episode(2)
    assert camera_frames(video, "front") is video.images["video"]
    assert camera_frames(robot, None) is robot.images["front"]
    with pytest.raises(ComoError, match="simulated: has no camera 'wrist'; it has front"):
        camera_frames(robot, "wrist")


def test_progress_sees_every_episode(tmp_path):
    seen = []

    def progress(items):
        for item in items:
            yield item
            seen.append(item.source)

    FrameCache.build([episode(2, source="a"), episode(2, source="b")], None, 8, tmp_path, progress)
    assert seen == ["a", "b"]


class Broken:
    shape = (4, 8, 8, 3)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            raise ComoError("a.mp4: frame 2 cannot be decoded")
        return np.zeros((8, 8, 3), np.uint8)


def test_a_frame_that_cannot_be_decoded_leaves_no_cache(tmp_path):
    broken = Episode(np.arange(4.0), {"front": Broken()}, str(tmp_path / "a.mp4"))
    (tmp_path / "a.mp4").write_bytes(b"x")
    for _ in range(2):
        with pytest.raises(ComoError, match="frame 2 cannot be decoded"):
            FrameCache.build([broken], None, 8, tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == []


def test_no_frames_no_room_and_no_folder_are_plain_errors(tmp_path, monkeypatch):
    with pytest.raises(ComoError, match="no frames to put into"):
        FrameCache.build([], None, 8, tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ComoError, match="file/cache: frames cannot be cached there"):
        FrameCache.build([episode(2)], None, 8, tmp_path / "file" / "cache")
    old = getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, (10_000, old[1]))  # the kernel refuses to let any file grow further
    try:
        with pytest.raises(ComoError, match="frames cannot be cached there: File too large"):
            FrameCache.build([episode(20)], None, 32, tmp_path / "cache")
    finally:
        setrlimit(RLIMIT_FSIZE, old)
    assert os.listdir(tmp_path / "cache") == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 1000))
    with pytest.raises(ComoError, match=r"20 frames need 0.00 GB, 0.00 GB are free; make room"):
        FrameCache.build([episode(20)], None, 32, tmp_path / "cache")


def _mean(cache, queue):
    queue.put((type(cache.frames).__name__, float(cache.frames.mean())))


def test_another_process_maps_the_file_and_gets_no_copy(tmp_path):
    cache = FrameCache.build([episode(50)], None, 32, tmp_path)
    assert len(pickle.dumps(cache)) < 1000
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=_mean, args=(cache, queue))
    child.start()
    assert queue.get(timeout=60) == ("memmap", float(cache.frames.mean()))
    child.join(timeout=60)
