"""The frame cache: right pixels, decoded once, made anew when a source changes, never half there, never too large."""

import gc
import multiprocessing
import os
import pickle
import shutil
import time
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


def test_progress_sees_every_frame_and_how_many_there_are(tmp_path):
    seen = []

    def progress(items, *, total):
        seen.append(total)
        for item in items:
            yield item
            seen.append("frame")

    FrameCache.build([episode(2, source="a"), episode(3, source="b")], None, 8, tmp_path, progress)
    assert seen == [5, *["frame"] * 5]


class Broken:
    """Frames of which the third cannot be decoded, or of which there are fewer than was said."""

    shape = (4, 8, 8, 3)

    def __init__(self, short=False):
        self.short = short

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 2:
            raise IndexError if self.short else ComoError("frame 2 cannot be decoded")
        return np.zeros((8, 8, 3), np.uint8)


def broken_episode(tmp_path, name, short=False):
    (tmp_path / name).write_bytes(b"x")
    return Episode(np.arange(4.0), {"front": Broken(short)}, str(tmp_path / name))


def test_where_nothing_can_be_decoded_no_cache_is_left(tmp_path):
    for _ in range(2):
        with pytest.raises(ComoError, match="1 episodes were given; the first: frame 2 cannot be decoded"):
            FrameCache.build([broken_episode(tmp_path, "a.mp4")], None, 8, tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == []


def test_an_episode_that_breaks_costs_itself_alone_and_is_named(tmp_path):
    said = []
    blind = Episode(np.arange(3.0), {}, "blind")
    given = [episode(5), broken_episode(tmp_path, "a.mp4"), blind, episode(3, seed=1),
             broken_episode(tmp_path, "b.mp4", short=True)]
    for _ in range(2):
        cache = FrameCache.build(given, None, 16, tmp_path / "cache", say=said.append)
        assert cache.held == (0, 3) and cache.offsets.tolist() == [0, 5, 8] and len(cache.timestamps) == 8
        for one, start, end in zip((given[0], given[3]), cache.offsets, cache.offsets[1:], strict=False):
            np.testing.assert_array_equal(cache.frames[start:end], [square(f, 16) for f in one.images["front"]])
    assert said[0] == said[1], "also when they are not decoded again"
    assert said[0].splitlines() == [
        "left out, 3 of 5 episodes, since no pictures come of them:",
        f"  {tmp_path / 'a.mp4'}: frame 2 cannot be decoded", "  blind: has no camera",
        f"  {tmp_path / 'b.mp4'}: gives 2 frames, expected 4"]
    assert (cache.path / "frames.bin").stat().st_size == cache.frames.size, "nothing of them takes room"
    assert cache.left_out[1] == ("blind", "blind: has no camera")


def used_since(cache, seconds):
    os.utime(cache.path, (time.time() - seconds,) * 2)
    return cache.path


def test_older_caches_make_way_the_least_recently_used_first(tmp_path):
    """Each cache of ten frames takes 31 kB and a little."""
    said = []
    paths = [used_since(FrameCache.build([episode(10, seed=i)], None, 32, tmp_path, say=said.append), 100 - i)
             for i in range(4)]
    FrameCache.load(paths[0])  # used again, so that the second is the oldest
    gc.collect()
    assert not said
    new = FrameCache.build([episode(10, seed=9)], None, 32, tmp_path, limit_gb=110e-6, say=said.append)
    assert [path.is_dir() for path in (*paths, new.path)] == [True, False, False, True, True]
    assert said == [f"{tmp_path}: 2 older frame caches (0.00 GB) removed to make room"]
    FrameCache.build([episode(10, seed=9)], None, 32, tmp_path, limit_gb=1e-9)  # what is there needs no room


def test_caches_in_use_and_foreign_folders_stay(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "frames.bin").write_bytes(b"x" * 100_000)
    held = FrameCache.build([episode(10)], None, 32, tmp_path)
    context = multiprocessing.get_context("spawn")
    queue, done = context.Queue(), context.Event()
    path = FrameCache.build([episode(10, seed=1)], None, 32, tmp_path).path
    child = context.Process(target=_hold, args=(path, queue, done))
    child.start()
    assert queue.get(timeout=60) == 10
    gc.collect()
    with pytest.raises(ComoError, match=r"10 frames of 32 px need 0.00 GB beside 0.00 GB of caches in use, and the li"):
        FrameCache.build([episode(10, seed=2)], None, 32, tmp_path, limit_gb=70e-6)
    assert held.path.is_dir() and path.is_dir() and held.frames.shape == (10, 32, 32, 3)
    done.set()
    child.join(timeout=60)
    FrameCache.build([episode(10, seed=2)], None, 32, tmp_path, limit_gb=70e-6)
    assert held.path.is_dir() and not path.exists() and (tmp_path / "notes").is_dir()


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [
    lambda folder: cut(folder / "frames.bin"), lambda folder: (folder / "frames.bin").write_bytes(b""),
    lambda folder: (folder / "frames.bin").open("ab").write(b"more"), lambda folder: (folder / "frames.bin").unlink(),
    lambda folder: cut(folder / "index.json"), lambda folder: (folder / "index.json").write_text("{}"),
    lambda folder: (folder / "index.json").write_text('{"shape": 3, "held": [0], "left_out": []}'),
    lambda folder: (folder / "index.json").unlink(), lambda folder: cut(folder / "offsets.npy"),
    lambda folder: (folder / "offsets.npy").write_bytes(b""),
    lambda folder: np.save(folder / "offsets.npy", np.array([0, 5, 12])), lambda folder: cut(folder / "timestamps.npy"),
    lambda folder: np.save(folder / "timestamps.npy", np.zeros(9))])
def test_a_damaged_cache_is_said_and_made_anew(tmp_path, damage):
    given = [episode(4), episode(6, seed=1)]
    whole = FrameCache.build(given, None, 16, tmp_path)
    pixels = np.array(whole.frames)
    other = FrameCache.build([episode(3, seed=2)], None, 16, tmp_path)
    damage(whole.path)
    said = []
    again = FrameCache.build(given, None, 16, tmp_path, say=said.append)
    assert len(said) == 1 and said[0].startswith(f"{whole.path}: damaged: ") and "decoded anew" in said[0], said
    np.testing.assert_array_equal(again.frames, pixels)
    assert again.offsets.tolist() == [0, 4, 10] and len(again.timestamps) == 10
    assert other.path.is_dir() and len(os.listdir(tmp_path)) == 2
    FrameCache.build(given, None, 16, tmp_path, say=said.append)
    assert len(said) == 1


def test_a_damaged_cache_that_cannot_be_removed_is_an_error(tmp_path, monkeypatch):
    path = FrameCache.build([episode(4)], None, 16, tmp_path).path
    cut(path / "frames.bin")

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(ComoError, match="bytes, expected 3072.* cannot be removed: Permission denied; remove it"):
        FrameCache.build([episode(4)], None, 16, tmp_path, say=print)


def _hold(path, queue, done):
    cache = FrameCache.load(path)
    queue.put(len(cache.frames))
    done.wait(60)


def test_what_a_killed_process_left_half_written_makes_way(tmp_path):
    left = tmp_path / f"{'0' * 24}.abc.part"
    left.mkdir()
    (left / "frames.bin").write_bytes(b"x" * 50_000)
    FrameCache.build([episode(10)], None, 32, tmp_path, limit_gb=60e-6)
    assert not left.exists()


def test_a_cache_larger_than_the_limit_says_the_numbers_and_removes_nothing(tmp_path):
    old = FrameCache.build([episode(10)], None, 32, tmp_path).path
    gc.collect()
    with pytest.raises(ComoError, match=r"2000 frames of 32 px need 0.01 GB, and the limit of this frame cache is "
                                        r"0.00 GB; raise the limit, choose a smaller picture size, or give fewer"):
        FrameCache.build([episode(2000, height=2, width=2)], None, 32, tmp_path, limit_gb=0.001)
    assert old.is_dir()


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
    with pytest.raises(ComoError, match=r"20 frames of 32 px need 0.00 GB, 0.00 GB are free or taken by older caches"):
        FrameCache.build([episode(20)], None, 32, tmp_path / "cache")


def _mean(cache, queue):
    queue.put((type(cache.frames).__name__, float(cache.frames.mean())))


def test_another_process_may_be_faster_by_a_hair_with_the_same(tmp_path, monkeypatch):
    real = os.replace

    def beaten(part, path):
        shutil.copytree(part, path)
        real(part, path)

    monkeypatch.setattr(os, "replace", beaten)
    cache = FrameCache.build([episode(3)], None, 8, tmp_path)
    assert len(cache.frames) == 3 and os.listdir(tmp_path) == [cache.path.name]


def test_another_process_maps_the_file_and_gets_no_copy(tmp_path):
    cache = FrameCache.build([episode(50)], None, 32, tmp_path)
    assert len(pickle.dumps(cache)) < 1000
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=_mean, args=(cache, queue))
    child.start()
    assert queue.get(timeout=60) == ("memmap", float(cache.frames.mean()))
    child.join(timeout=60)
