"""Video in every container and bag in every storage that collections come in, made here and read back."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from bag_messages import compressed, image

from como_core.formats.bag_writer import RawBagWriter, Storage
from como_core.formats.lazy import CAMERA
from como_core.formats.rosbag import read_bag
from como_core.formats.sources import open_sources
from como_core.formats.video import read_video

FPS, COUNT = 20, 12
# Greys far apart: a frame in another one's place is seen whatever the codec does to colours.
SHADES = np.broadcast_to((10 + 20 * np.arange(COUNT))[:, None, None, None], (COUNT, 48, 64, 3)).astype(np.uint8)

CONTAINERS = {
    "a.webm": ("libvpx-vp9", "yuv420p"), "b.webm": ("libvpx", "yuv420p"), "c.mkv": ("libx264", "yuv420p"),
    "d.mkv": ("ffv1", "bgr0"), "e.avi": ("mpeg4", "yuv420p"), "f.avi": ("mjpeg", "yuvj420p"), "g.gif": ("gif", "rgb8"),
    "h.mov": ("libx264", "yuv444p"), "i.mpg": ("mpeg2video", "yuv420p"), "j.mp4": ("libsvtav1", "yuv420p"),
}


def write(path: Path, codec: str, pix_fmt: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pix_fmt
        for i, picture in enumerate(SHADES):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_video_of_any_kind_gives_its_frames_in_order_and_time(tmp_path: Path, name: str) -> None:
    codec, pix_fmt = CONTAINERS[name]
    rate = 25 if codec == "mpeg2video" else FPS  # MPEG-2 knows few rates
    if codec == "mpeg2video":
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream(codec, rate=rate)
            stream.height, stream.width, stream.pix_fmt = 48, 64, pix_fmt
            for picture in SHADES:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    else:
        write(tmp_path / name, codec, pix_fmt)
    episode = read_video(tmp_path / name)
    assert len(episode) == COUNT and episode.images[CAMERA].shape == (COUNT, 48, 64, 3)
    tolerance = 40 if codec == "gif" else 10  # a palette of eight bits
    read = episode.images[CAMERA][:].astype(int).mean(axis=(1, 2, 3))
    assert np.abs(read - SHADES[:, 0, 0, 0]).max() < tolerance and np.all(np.diff(read) > 0)
    np.testing.assert_allclose(np.diff(episode.timestamps), 1 / rate, atol=0.006)
    np.testing.assert_array_equal(episode.images[CAMERA][7], episode.images[CAMERA][:][7])


def test_a_folder_of_all_of_them_is_read(tmp_path: Path) -> None:
    wanted = [name for name, (codec, _) in CONTAINERS.items() if codec != "mpeg2video"]
    for i, name in enumerate(wanted):
        folder = tmp_path / "/".join(["deep"] * (i % 3))
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / name, *CONTAINERS[name])
    sources = open_sources([tmp_path])
    assert sorted(Path(e.source).name for e in sources.episodes) == sorted(wanted) and sources.skipped == []


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("kind", ["raw", ".jpg", ".png"])
def test_a_bag_of_pictures_is_read_from_both_storages(tmp_path: Path, storage: Storage, kind: str) -> None:
    with RawBagWriter(tmp_path / "bag", {}, storage) as bag:
        for i, picture in enumerate(SHADES, start=1):
            stamp = i * 1_000_000_000 // FPS
            if kind == "raw":
                bag.write("/camera", "sensor_msgs/msg/Image", stamp, image(stamp, picture))
            else:
                data = cv2.imencode(kind, picture[..., ::-1])[1].tobytes()
                bag.write("/camera", "sensor_msgs/msg/CompressedImage", stamp, compressed(stamp, data))
    assert next(tmp_path.rglob("*.mcap" if storage == "mcap" else "*.db3")).is_file()
    episode = read_bag(tmp_path / "bag")
    np.testing.assert_allclose(episode.images[CAMERA][:].astype(int), SHADES, atol=3 if kind == ".jpg" else 0)
    np.testing.assert_allclose(np.diff(episode.timestamps), 1 / FPS, atol=1e-6)
