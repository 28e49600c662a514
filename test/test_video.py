"""Video: real files against what decodes, seeks against reading in order, writing that is whole or absent."""

import contextlib
import multiprocessing
import os
import pickle
import shutil
import socket
import threading
from fractions import Fraction

import av
import numpy as np
import pytest

from como_core.errors import ComoError
from como_core.formats import video_frames
from como_core.formats.lazy import HandlePool
from como_core.formats.video import CAMERA, VideoError, find_videos, read_video, write_video
from como_core.formats.video_stream import NotAsListed, stream_video

# Frames that really decode, as `ffprobe -count_frames` 5.1 counts them; the container of the one marked * declares 170.
REAL_FILES = {
    "human/dexretargeting_human_hand_video.mp4": (621, 720, 1280),
    "human/intel_bottle-detection.mp4": (1189, 360, 640),
    "human/opencv_cup.mp4": (217, 480, 640),
    "human/uniskill_prompt_human_pull_out_the_tissue.mp4": (161, 368, 640),  # *
    "robot/crisp_franka_pap_demo.mp4": (387, 464, 832),
    "robot/lapa_bridge_real_1.mp4": (37, 480, 640),
    "robot/moto_oxe_rt1/fractal20220817_eps_00083655.mp4": (29, 256, 320),
    "robot/moto_oxe_rt1/fractal20220817_eps_00084376.mp4": (39, 256, 320),
    "robot/moto_oxe_rt1/fractal20220817_eps_00086889.mp4": (18, 256, 320),
    "robot/robomimic_task_lift_real.gif": (156, 128, 128),
    "robot/uniskill_eval_human_uniskill.mp4": (151, 720, 1280),
    "robot/uniskill_prompt_robot_pull_out_the_tissue.mp4": (161, 368, 640),
    "sim/embodimetry_libero-spatial-success.mp4": (60, 320, 320),
    "sim/moto_calvin/task_ABC_D_validation_eps_267_331.mp4": (65, 200, 200),
    "sim/moto_calvin/task_ABC_D_validation_eps_3351_3398.mp4": (48, 200, 200),
}
# One of each codec and trap, small enough to decode often.
SEEK_FILES = [
    "human/opencv_cup.mp4",
    "human/uniskill_prompt_human_pull_out_the_tissue.mp4",
    "robot/crisp_franka_pap_demo.mp4",
    "robot/robomimic_task_lift_real.gif",
    "sim/moto_calvin/task_ABC_D_validation_eps_267_331.mp4",
]


def moving_bar(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 [count, H, W, 3]: frame i has a bright bar at column 2i and a shade of red that tells i."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    for i in range(count):
        frames[i, :, :, 0] = 4 * i
        frames[i, :, 2 * i % width:2 * i % width + 8] = 250
    return frames


def write_raw(path, frames, pts, codec="libx264", rate=25, pix_fmt="yuv420p", container_options=None, **options):
    """A file with presentation times of its own choice, to build the odd ones."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.codec_context.time_base = pix_fmt, Fraction(1, 1000)
        for frame, time in zip(frames, pts, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def test_the_shared_folder_holds_the_files_of_the_table(shared_data):
    found = {p.relative_to(shared_data / "video").as_posix() for p in find_videos([shared_data / "video"])}
    assert found == set(REAL_FILES)


@pytest.mark.parametrize(("name", "expected"), REAL_FILES.items())
def test_real_files_give_the_frames_that_decode(shared_data, name, expected):
    episode = read_video(shared_data / "video" / name)
    assert episode.images[CAMERA].shape == (*expected, 3)
    assert len(episode) == expected[0]
    assert episode.timestamps[0] == 0 and episode.action is None and episode.state is None


@pytest.mark.parametrize("name", SEEK_FILES)
def test_a_jump_gives_the_frame_that_reading_in_order_gives(shared_data, name):
    frames = read_video(shared_data / "video" / name).images[CAMERA]
    in_order = [hash(frame.tobytes()) for frame in frames]
    assert len(in_order) == len(frames)
    places = np.random.default_rng(0).permutation(len(frames))[:12]
    for place in [*places, len(frames) - 1, 0]:
        assert hash(frames[int(place)].tobytes()) == in_order[place], place


def test_frames_can_be_asked_for_in_any_way(tmp_path):
    write_video(tmp_path / "a.mp4", moving_bar(40), fps=40)
    frames = read_video(tmp_path / "a.mp4").images[CAMERA]
    everything = frames[:]
    assert everything.shape == (40, 48, 64, 3) == frames.shape and everything.dtype == np.uint8
    order = np.array([31, 3, 3, -1, 12])
    np.testing.assert_array_equal(frames[order], everything[order])
    np.testing.assert_array_equal(frames[30:5:-7], everything[30:5:-7])
    np.testing.assert_array_equal(frames[np.arange(40) % 3 == 0], everything[::3])
    np.testing.assert_array_equal(frames[-2], everything[38])
    assert frames[5:5].shape == (0, 48, 64, 3)
    for wrong in (40, -41, np.array([0, 40])):
        with pytest.raises(IndexError):
            frames[wrong]


def test_what_is_written_is_what_is_read(tmp_path):
    (tmp_path / "instruction.txt").write_text(" drawer open\n")
    frames = moving_bar(50)
    assert write_video(tmp_path / "a.mp4", iter(frames), fps=40) == 50
    episode = read_video(tmp_path / "a.mp4")
    np.testing.assert_allclose(episode.timestamps, np.arange(50) / 40, atol=1e-9)
    assert episode.instruction == "drawer open"
    error = np.abs(episode.images[CAMERA][:].astype(int) - frames).mean()
    assert error < 6, "a picture must survive the file"
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "instruction.txt"]


def test_key_frames_are_close_so_that_jumps_are_short(tmp_path):
    write_video(tmp_path / "a.mp4", np.repeat(moving_bar(1), 60, axis=0), fps=40, gop=10)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert [i for i, f in enumerate(container.decode(video=0)) if f.key_frame] == [0, 10, 20, 30, 40, 50]


class CountingContainer:
    """An open video that counts the frames that were decoded of it."""

    def __init__(self, container, decoded):
        self._container, self._decoded = container, decoded

    def decode(self, stream):
        for frame in self._container.decode(stream):
            self._decoded.append(frame.pts)
            yield frame

    def __getattr__(self, name):
        return getattr(self._container, name)


def test_a_jump_decodes_from_the_nearest_key_frame_and_reading_on_from_nowhere(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", np.repeat(moving_bar(1), 60, axis=0), fps=40, gop=10)
    frames = read_video(tmp_path / "a.mp4").images[CAMERA]
    decoded = []
    real = video_frames._open
    monkeypatch.setattr(video_frames, "_open", lambda path: CountingContainer(real(path), decoded))
    for place, cost in ((5, 6), (6, 1), (9, 3), (54, 5), (41, 2), (0, 1), (12, 3)):
        decoded.clear()
        frames[place]
        assert len(decoded) == cost, place


def test_odd_sizes_are_written(tmp_path):
    write_video(tmp_path / "a.mp4", moving_bar(3, 33, 47), fps=29.97)
    assert read_video(tmp_path / "a.mp4").images[CAMERA].shape == (3, 33, 47, 3)


@pytest.mark.parametrize(
    ("name", "frames", "words"),
    [
        ("a.mp4", [], "there is no frame to write"),
        ("a.mp4", [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 10, 3), np.uint8)], r"frame 1 is uint8 \[8, 10, 3\]"),
        ("a.mp4", [np.zeros((8, 8, 3), np.float32)], "expected RGB frames"),
        ("a.avi", [np.zeros((8, 8, 3), np.uint8)], "written as .mp4"),
        ("file/a.mp4", [np.zeros((8, 8, 3), np.uint8)], "cannot be written"),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(tmp_path, name, frames, words):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(VideoError, match=words):
        write_video(tmp_path / name, frames, fps=40)
    assert os.listdir(tmp_path) == ["file"]


def test_a_failing_source_of_frames_leaves_the_old_file(tmp_path):
    write_video(tmp_path / "a.mp4", moving_bar(3), fps=40)
    before = (tmp_path / "a.mp4").read_bytes()

    def frames():
        yield from moving_bar(20)
        raise RuntimeError("the renderer died")

    with pytest.raises(RuntimeError, match="the renderer died"):
        write_video(tmp_path / "a.mp4", frames(), fps=40)
    assert (tmp_path / "a.mp4").read_bytes() == before and os.listdir(tmp_path) == ["a.mp4"]


def test_variable_frame_rate_keeps_its_times(tmp_path):
    times = [0, 40, 50, 170, 190, 400]
    write_raw(tmp_path / "a.mkv", moving_bar(6), times)
    np.testing.assert_allclose(read_video(tmp_path / "a.mkv").timestamps * 1000, times, atol=1.01)


def test_b_frames_come_in_the_order_they_are_shown(tmp_path):
    frames = moving_bar(60)
    write_raw(tmp_path / "a.mp4", frames, range(0, 60 * 25, 25), bf="3", g="12", x264opts="open-gop=1")
    read = read_video(tmp_path / "a.mp4").images[CAMERA]
    shades = [np.median(frame[:, :, 0].astype(float) - frame[:, :, 1]) for frame in read]
    assert np.all(np.diff(shades) > 0)
    in_order = list(read)
    for place in np.random.default_rng(1).permutation(60)[:30]:
        np.testing.assert_array_equal(read[int(place)], in_order[place])


def test_a_stream_without_times_is_read_by_its_rate(tmp_path):
    write_raw(tmp_path / "a.h264", moving_bar(30), range(0, 1200, 40), g="5", bf="0")
    os.rename(tmp_path / "a.h264", tmp_path / "a.mpg")
    episode = read_video(tmp_path / "a.mpg")
    assert len(episode) == 30
    np.testing.assert_allclose(np.diff(episode.timestamps), 0.04)
    frames = episode.images[CAMERA]
    in_order = list(frames)
    for place in (20, 3, 29, 4):
        np.testing.assert_array_equal(frames[place], in_order[place])


def test_444_colour_and_mpeg4_are_read(tmp_path):
    write_raw(tmp_path / "a.mp4", moving_bar(4), range(0, 160, 40), pix_fmt="yuv444p")
    write_raw(tmp_path / "b.mp4", moving_bar(4), range(0, 160, 40), codec="mpeg4")
    for name in ("a.mp4", "b.mp4"):
        assert read_video(tmp_path / name).images[CAMERA].shape == (4, 48, 64, 3)


def test_a_phone_held_upright_gives_upright_pictures(tmp_path):
    frames = np.zeros((3, 32, 64, 3), np.uint8)
    frames[:, :, :32, 0] = 200  # red on the left
    write_video(tmp_path / "a.mp4", frames, fps=30)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    one = (1 << 16).to_bytes(4, "big")
    matrix = data.index(b"tkhd") + 4 + 4 + 20 + 16  # version 0: times, ids and duration, then layer and volume
    assert data[matrix:matrix + 4] == one
    turned = [0, 1, 0, -1, 0, 0]  # a, b, u, c, d, v: a quarter turn clockwise
    for i, value in enumerate(turned):
        data[matrix + 4 * i:matrix + 4 * i + 4] = (value << 16).to_bytes(4, "big", signed=True)
    (tmp_path / "b.mp4").write_bytes(data)
    upright = read_video(tmp_path / "b.mp4").images[CAMERA]
    assert upright.shape == (3, 64, 32, 3) == upright[:].shape
    assert upright[0][:28, :, 0].min() > 150 and upright[0][36:, :, 0].max() < 60, "left has become top"


# a, b, c, d of a display matrix -> the picture that it shows, by numpy.
ORIENTATIONS = {
    (1, 0, 0, 1): lambda picture: picture,
    (0, 1, -1, 0): lambda picture: np.rot90(picture, -1),
    (-1, 0, 0, -1): lambda picture: np.rot90(picture, 2),
    (0, -1, 1, 0): lambda picture: np.rot90(picture, 1),
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda picture: picture.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda picture: np.rot90(picture, 2).transpose(1, 0, 2),
}


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_pictures_are_turned_and_mirrored_as_the_matrix_says(tmp_path, matrix):
    picture = np.zeros((32, 64, 3), np.uint8)
    picture[:16, :32], picture[:16, 32:], picture[16:, :32] = (220, 0, 0), (0, 220, 0), (0, 0, 220)
    write_video(tmp_path / "a.mp4", [picture] * 3, fps=30)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    place = data.index(b"tkhd") + 4 + 4 + 20 + 16  # version 0
    a, b, c, d = matrix
    for i, value in enumerate((a, b, 0, c, d)):
        data[place + 4 * i:place + 4 * i + 4] = (value << 16).to_bytes(4, "big", signed=True)
    (tmp_path / "a.mp4").write_bytes(data)
    expected = ORIENTATIONS[matrix](picture)
    for frames in (read_video(tmp_path / "a.mp4").images[CAMERA], stream_video(tmp_path / "a.mp4").images[CAMERA]):
        assert frames.shape == (3, *expected.shape)
        assert all(frame.flags.c_contiguous and frame.shape == expected.shape for frame in frames)
        assert np.abs(next(iter(frames)).astype(int) - expected).mean() < 8


def test_pictures_that_carry_exif_are_read(tmp_path):
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=20)
        stream.height, stream.width, stream.pix_fmt = 32, 64, "yuvj420p"
        for i in range(3):
            picture = av.VideoFrame.from_ndarray(np.full((32, 64, 3), 60 * i, np.uint8), format="rgb24")
            for packet in stream.encode(picture):
                exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0\0\0\0\0"  # upright
                data = bytes(packet)
                tagged = av.Packet(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
                tagged.pts, tagged.dts, tagged.time_base = i, i, Fraction(1, 20)
                tagged.stream, tagged.is_keyframe = stream, True
                container.mux(tagged)
    for frames in (read_video(tmp_path / "a.avi").images[CAMERA], stream_video(tmp_path / "a.avi").images[CAMERA]):
        assert frames.shape == (3, 32, 64, 3) and sum(frame.shape == (32, 64, 3) for frame in frames) == 3


def test_broken_files_are_refused_by_name_and_reason(tmp_path):
    write_video(tmp_path / "good.mp4", moving_bar(30), fps=40)
    good = (tmp_path / "good.mp4").read_bytes()
    cases = {
        "empty.mp4": (b"", "is empty"),
        "text.mp4": (b"this is no video\n" * 50, "cannot be read as a video: Invalid data"),
        "cut.mp4": (good[: len(good) // 2], "cannot be read as a video"),
    }
    for name, (data, words) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(VideoError, match=f"{name}: {words}"):
            read_video(tmp_path / name)
    with pytest.raises(VideoError, match="nowhere.mp4: cannot be read: No such file"):
        read_video(tmp_path / "nowhere.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in ("pipe.mp4", "."):
        with pytest.raises(VideoError, match="is not a file"):
            read_video(tmp_path / name)


def test_a_picture_that_the_decoder_has_made_up_is_refused(tmp_path):
    """FFmpeg conceals what it cannot decode and goes on; every frame up to the next key frame shows what never was."""
    path = tmp_path / "a.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8), fps=20)
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    data[half:half + 300] = bytes(300)
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 20, "no frame is missing"
    with pytest.raises(VideoError, match=r"a.mp4: frame \d+ is damaged, the decoder has made up a part of it; copy"):
        read_video(path)
    with pytest.raises(NotAsListed):
        list(stream_video(path).images[CAMERA])


def test_sound_alone_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match="a.mp4: holds no video stream"):
        read_video(tmp_path / "a.mp4")


def test_a_playlist_opens_no_address(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n"
        (tmp_path / "a.m3u8").write_text(playlist)
        answer = threading.Thread(target=_refuse, args=(server, called := []), daemon=True)
        answer.start()
        with pytest.raises(VideoError, match="a.m3u8"):
            read_video(tmp_path / "a.m3u8")
        assert called == []


def _refuse(server, called):
    with contextlib.suppress(OSError):  # the test is over and the server is closed
        connection, address = server.accept()
        called.append(address)
        connection.close()


def test_a_file_replaced_after_reading_is_noticed(tmp_path):
    write_video(tmp_path / "a.mp4", moving_bar(30), fps=40)
    frames = read_video(tmp_path / "a.mp4").images[CAMERA]
    write_video(tmp_path / "a.mp4", moving_bar(31), fps=40)
    with pytest.raises(VideoError, match="a.mp4: changed since it was read"):
        frames[3]


def test_a_file_left_open_does_not_stand_in_for_the_one_that_replaced_it(tmp_path):
    write_video(tmp_path / "a.mp4", moving_bar(30), fps=40)
    read_video(tmp_path / "a.mp4").images[CAMERA][3]
    write_video(tmp_path / "a.mp4", np.full((30, 48, 64, 3), 77, np.uint8), fps=40)
    assert abs(int(read_video(tmp_path / "a.mp4").images[CAMERA][4].mean()) - 77) < 3


def test_a_codec_that_nobody_knows_is_refused(tmp_path):
    write_video(tmp_path / "a.mp4", moving_bar(3), fps=40)
    (tmp_path / "a.mp4").write_bytes((tmp_path / "a.mp4").read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(VideoError, match="a.mp4: holds video of a codec that this FFmpeg cannot decode"):
        read_video(tmp_path / "a.mp4")


def open_files(folder) -> int:
    """How many files below `folder` this process has open."""
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return sum(os.readlink(link).startswith(str(folder)) for link in links if os.path.islink(link))


def test_few_files_stay_open_and_none_after_the_last_frame(tmp_path):
    write_video(tmp_path / "0.mp4", moving_bar(12), fps=40)
    for i in range(1, 20):
        shutil.copy(tmp_path / "0.mp4", tmp_path / f"{i}.mp4")
    episodes = [read_video(path).images[CAMERA] for path in find_videos([tmp_path])]
    assert open_files(tmp_path) == 0
    for frames in episodes:
        frames[3]
    assert open_files(tmp_path) == 4
    for frames in episodes:
        frames[:]
    assert open_files(tmp_path) == 0


class Handle:
    def __init__(self, name, closed):
        self.name, self.closed = name, closed

    def close(self):
        self.closed.append(self.name)


def test_the_handle_longest_unused_makes_room():
    pool, closed = HandlePool(2), []
    for name in "abacb":
        assert pool.get(name, lambda name=name: Handle(name, closed)).name == name
    assert closed == ["b", "a"]
    pool.drop("c")
    pool.drop("never opened")
    assert closed == ["b", "a", "c"]


def _some(frames, places, queue):
    queue.put([frames[place] for place in places])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_frames_work_in_child_processes_beside_the_parent(tmp_path, method):
    noise = np.random.default_rng(0).integers(0, 255, (40, 160, 160, 3), np.uint8)  # too large for one read
    write_video(tmp_path / "a.mp4", noise, fps=40, gop=40)
    frames = read_video(tmp_path / "a.mp4").images[CAMERA]
    assert len(pickle.dumps(frames)) < 5000
    everything = frames[:]
    frames[7]  # leaves a file open at frame 8 that a forked child must not move
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_some, args=(frames, [33, 8, 9], queue))
    child.start()
    for got, place in zip(queue.get(timeout=60), [33, 8, 9], strict=True):
        np.testing.assert_array_equal(got, everything[place])
    child.join(timeout=60)
    for place in range(8, 40):
        np.testing.assert_array_equal(frames[place], everything[place])


def test_find_videos_takes_folders_by_suffix_and_files_by_name(tmp_path):
    for name in ("b/2.MP4", "b/1.mp4", "a.gif", "b/.hidden.mp4", "b/3.mp4.part", "b/note.txt", "odd.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = find_videos([tmp_path, tmp_path / "odd.bin", tmp_path / "b" / "1.mp4"])
    assert [p.relative_to(tmp_path).as_posix() for p in found] == ["a.gif", "b/1.mp4", "b/2.MP4", "odd.bin"]
    with pytest.raises(ComoError, match="nowhere: no such file or folder"):
        find_videos([tmp_path / "nowhere"])
