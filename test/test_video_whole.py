"""Videos of which a copy broke off: refused by what the container declares; whole ones of every kind are read."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from como_core.formats import video_frames
from como_core.formats.lazy import CAMERA
from como_core.formats.sources import list_sources, open_sources
from como_core.formats.video import VideoError, read_video
from como_core.formats.video_stream import stream_video
from como_core.formats.video_whole import missing

COUNT, RATE = 40, 20
# Container options, codec and pixel format of a file.
KINDS: dict[str, tuple[dict[str, str], str, str]] = {
    "a.mkv": ({}, "libx264", "yuv420p"), "b.webm": ({}, "libvpx-vp9", "yuv420p"), "c.webm": ({}, "libvpx", "yuv420p"),
    "d.avi": ({}, "libx264", "yuv420p"), "e.avi": ({}, "mjpeg", "yuvj420p"), "f.gif": ({}, "gif", "rgb8"),
    "g.mp4": ({"movflags": "faststart"}, "libx264", "yuv420p"),
    "h.mov": ({"movflags": "faststart"}, "mpeg4", "yuv420p"),
    "i.mp4": ({"movflags": "frag_keyframe+empty_moov"}, "libx264", "yuv420p"),
}
# What declares nothing, so that a part of it is a file like any other.
UNDECLARED: dict[str, tuple[dict[str, str], str, str]] = {
    "a.webm": ({"live": "1"}, "libvpx", "yuv420p"), "b.mkv": ({"live": "1"}, "libx264", "yuv420p"),
    "c.mpg": ({}, "mpeg2video", "yuv420p"), "d.avi": ({}, "mjpeg", "yuvj420p"),
}


def write(path: Path, kind: tuple[dict[str, str], str, str], pts: list[int] | None = None, sound_s: float = 0) -> bytes:
    """A clip of noise; `pts` are in periods of RATE, or 25 Hz for MPEG-2, which knows few rates."""
    options, codec, pix_fmt = kind
    rate = 25 if codec == "mpeg2video" else RATE
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pix_fmt
        stream.codec_context.gop_size = 10
        sound = container.add_stream("libopus" if path.suffix == ".webm" else "aac", rate=48000) if sound_s else None
        for time in range(COUNT) if pts is None else pts:
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if isinstance(sound, av.AudioStream):
            for place in range(0, int(sound_s * 48000), 960):
                heard = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="fltp", layout="mono")
                heard.sample_rate, heard.pts = 48000, place
                container.mux(sound.encode(heard))
            container.mux(sound.encode())
    return path.read_bytes()


def read_both_ways(path: Path) -> tuple[int, int]:
    return len(read_video(path)), sum(1 for _ in stream_video(path).images[CAMERA])


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_was_cut_is_refused_and_says_what_to_do(tmp_path: Path, name: str, share: float) -> None:
    data = write(tmp_path / name, KINDS[name])
    assert read_both_ways(tmp_path / name) == (COUNT, COUNT)
    (tmp_path / name).write_bytes(data[:int(len(data) * share)])
    for read in (read_video, stream_video):
        with pytest.raises(VideoError, match=f"{name}: cut short: it .*; copy it again"):
            read(tmp_path / name)


def test_a_cut_between_two_packets_is_found(tmp_path: Path) -> None:
    """Nothing of what is left is damaged: only the declared length tells."""
    for name in ("a.mkv", "d.avi", "g.mp4"):
        data = write(tmp_path / name, KINDS[name])
        with av.open(str(tmp_path / name)) as container:
            ends = sorted(packet.pos for packet in container.demux(video=0) if packet.size and packet.pos)
        (tmp_path / name).write_bytes(data[:ends[25]])
        with pytest.raises(VideoError, match=rf"declares \d+ bytes and has {ends[25]}; copy it again"):
            read_video(tmp_path / name)


@pytest.mark.parametrize("name", UNDECLARED)
def test_a_file_that_declares_nothing_is_read_as_far_as_it_goes(tmp_path: Path, name: str) -> None:
    data = bytearray(write(tmp_path / name, UNDECLARED[name]))
    assert read_both_ways(tmp_path / name) == (COUNT, COUNT)
    if name == "d.avi":  # as one that could not go back to its header writes it
        data[4:8] = data[data.index(b"movi") - 4:data.index(b"movi")] = b"\xff" * 4
    (tmp_path / name).write_bytes(data[:int(len(data) * 0.8)])
    assert missing(tmp_path / name) is None


@pytest.mark.parametrize("name", [name for name in KINDS if name != "f.gif"])
def test_odd_files_that_are_whole_are_read(tmp_path: Path, name: str) -> None:
    """Sound that goes on when the picture has ended; gaps between frames, and a last one long after the others."""
    pts = [0, 1, 2, 7, 8, 9, 30, 31, 200]
    write(tmp_path / name, KINDS[name], pts)
    found = read_both_ways(tmp_path / name)
    assert found[0] == found[1] >= len(pts)  # an AVI has a frame in every period
    write(tmp_path / name, KINDS[name], sound_s=6)
    assert read_both_ways(tmp_path / name) == (COUNT, COUNT)


def test_bytes_behind_the_end_do_not_matter(tmp_path: Path) -> None:
    for name, kind in KINDS.items():
        data = write(tmp_path / name, kind)
        for more in (b"\0" * 999, b"\xff" * 999, b"as some tool signed it" * 9):
            (tmp_path / name).write_bytes(data + more)
            assert missing(tmp_path / name) is None, (name, more[:3])


def test_a_file_cut_where_only_its_head_is_left_gives_words_or_nothing(tmp_path: Path) -> None:
    for name, kind in KINDS.items():
        data = write(tmp_path / name, kind)
        for length in range(1, 400, 9):
            (tmp_path / name).write_bytes(data[:length])
            assert missing(tmp_path / name) is None or str(length) in str(missing(tmp_path / name)) or name == "f.gif"


def test_a_head_of_other_bytes_gives_words_or_nothing(tmp_path: Path) -> None:
    """What a damaged header says may be absurd, and is no error of its own."""
    rng = np.random.default_rng(0)
    for name in ("b.webm", "e.avi", "f.gif", "g.mp4"):
        data = write(tmp_path / name, KINDS[name])
        for _ in range(100):
            changed = bytearray(data)
            for place in rng.integers(0, 60, 3):
                changed[place] = rng.integers(0, 256)
            (tmp_path / name).write_bytes(changed)
            assert (missing(tmp_path / name) or "declares").startswith(("declares", "has no end"))
    huge = b"\x1a\x45\xdf\xa3\x01" + b"\xfe" * 7
    (tmp_path / "b.webm").write_bytes(huge + b"\x01" + bytes(99))
    assert missing(tmp_path / "b.webm") is None


def test_a_drive_that_fails_is_an_error_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path) -> str | None:
        raise OSError(5, "Input/output error")

    write(tmp_path / "a.mkv", KINDS["a.mkv"])
    monkeypatch.setattr(video_frames, "missing", fails)
    for read in (read_video, stream_video):
        with pytest.raises(VideoError, match=r"a.mkv: cannot be read: Input/output error"):
            read(tmp_path / "a.mkv")


def test_a_cut_file_costs_itself_alone(tmp_path: Path) -> None:
    for name in ("a.mkv", "g.mp4"):
        data = write(tmp_path / name, KINDS[name])
        (tmp_path / f"cut_{name}").write_bytes(data[:len(data) // 2])
    sources = open_sources([tmp_path])
    assert [Path(episode.source).name for episode in sources.episodes] == ["a.mkv", "g.mp4"]
    assert [path.name for path, _ in sources.skipped] == ["cut_a.mkv", "cut_g.mp4"]
    assert all("cut short" in reason for _, reason in sources.skipped)
    readers, _ = list_sources([tmp_path], stream_video)
    with pytest.raises(VideoError, match="cut short"):
        readers[tmp_path / "cut_a.mkv"]()
