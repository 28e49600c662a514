"""Coverage-guided fuzzing (atheris) of what decodes bytes from outside: images, raw images, cut MCAP files, video.

    pip install -c constraints.txt -e .[fuzz]
    python benchmarks/fuzz_decoders.py images --seconds 120
    python benchmarks/fuzz_decoders.py raw | mcap | video ...    # all: one after the other

Seeds are made here, in code. What a decoder may do is give a result or raise an error in words (ComoError); anything
else ends the run with the input in --keep, and `--replay FILE` runs that one alone.
"""

from __future__ import annotations

import argparse
import io
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["como_core.formats"]):
    from como_core.errors import ComoError
    from como_core.formats.images import decode_compressed, decode_image
    from como_core.formats.mcap_salvage import is_whole, salvage
    from como_core.formats.video import read_video

import av
import cv2
import numpy as np
from mcap.writer import CompressionType, Writer

from como_core.interface.names import IMAGE_ENCODINGS

MEMORY_MIB = 4096
HANG_S = 20
_RAW = struct.Struct("<BBBHB")


def picture() -> np.ndarray:
    """A small picture, the same each time."""
    return np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)


def images(data: bytes) -> None:
    """Compressed images."""
    with suppress(ComoError):
        rgb = decode_compressed(data)
        assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3


def raw(data: bytes) -> None:
    """Raw images: encoding, width, height, step and byte order, then the pixels."""
    if len(data) < _RAW.size:
        return
    encoding, width, height, step, big = _RAW.unpack_from(data)
    with suppress(ComoError):
        rgb = decode_image(IMAGE_ENCODINGS[encoding % len(IMAGE_ENCODINGS)], width, height, step, big, data[_RAW.size:])
        assert rgb.shape == (height, width, 3) and rgb.dtype == np.uint8


def mcap(data: bytes) -> None:
    """Files that were cut off."""
    path = _file("fuzzed.mcap", data)
    is_whole(path)
    with suppress(ComoError):
        for message in salvage(path):
            assert isinstance(message.cdr, bytes) and isinstance(message.topic, str)


def video(data: bytes) -> None:
    """Video files, as they are opened and their frames are read."""
    with suppress(ComoError):
        episode = read_video(_file("fuzzed.mp4", data))
        for frames in episode.images.values():
            frames[:2]


def _file(name: str, data: bytes) -> Path:
    folder = Path(os.environ["COMO_FUZZ_FOLDER"])
    path = folder / name
    path.write_bytes(data)
    return path


def _image_seeds() -> list[bytes]:
    return [cv2.imencode(kind, picture())[1].tobytes() for kind in (".jpg", ".png", ".bmp", ".webp", ".tiff")]


def _raw_seeds() -> list[bytes]:
    return [_RAW.pack(number, 4, 2, 16, 0) + bytes(32) for number in range(len(IMAGE_ENCODINGS))]


def _mcap_seeds() -> list[bytes]:
    seeds = []
    for compression in (CompressionType.NONE, CompressionType.LZ4, CompressionType.ZSTD):
        file = io.BytesIO()
        writer = Writer(file, chunk_size=256, compression=compression)
        writer.start("ros2")
        schema = writer.register_schema("std_msgs/msg/String", "ros2msg", b"string data")
        channel = writer.register_channel("/said", "cdr", schema)
        for number in range(8):
            writer.add_message(channel, number, b"\0\1\0\0\4\0\0\0abc\0", number)
        writer.finish()
        seeds += [file.getvalue(), file.getvalue()[:-40], file.getvalue()[:200]]
    return seeds


def _video_seeds() -> list[bytes]:
    seeds = []
    for container, codec in (("mp4", "mpeg4"), ("matroska", "mjpeg")):
        file = io.BytesIO()
        with av.open(file, "w", format=container) as output:
            stream = output.add_stream(codec, rate=10)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height = 16, 12
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for _ in range(3):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture(), format="rgb24")))
            output.mux(stream.encode())
        seeds.append(file.getvalue())
    return seeds


DECODERS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "images": (images, _image_seeds), "raw": (raw, _raw_seeds), "mcap": (mcap, _mcap_seeds),
    "video": (video, _video_seeds)}


def _fuzz(name: str, seconds: int, seed: int, keep: Path) -> int:
    """Fuzz one decoder in a process of its own: libFuzzer ends the process that it runs in."""
    keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="como_fuzz_") as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for number, data in enumerate(DECODERS[name][1]()):
            (corpus / f"seed_{number}").write_bytes(data)
        options = [str(corpus), f"-max_total_time={seconds}", f"-seed={seed}", f"-timeout={HANG_S}",
                   f"-rss_limit_mb={MEMORY_MIB}", f"-artifact_prefix={keep}/{name}_", "-max_len=4096",
                   "-print_final_stats=1"]
        return subprocess.run([sys.executable, __file__, "--inside", name, *options], check=False,
                              env={**os.environ, "COMO_FUZZ_FOLDER": folder, "OPENCV_LOG_LEVEL": "SILENT"}).returncode


def _inside(name: str, options: list[str]) -> None:
    cv2.setNumThreads(1)
    atheris.Setup([sys.argv[0], *options], DECODERS[name][0])
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("decoder", choices=[*DECODERS, "all"])
    parser.add_argument("--seconds", type=int, default=120, help="for each decoder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "como_fuzz",
                        help="where inputs go that break a decoder")
    parser.add_argument("--replay", type=Path, help="run the decoder on this file alone")
    given = parser.parse_args()
    if given.replay:
        with tempfile.TemporaryDirectory(prefix="como_fuzz_") as folder:
            os.environ["COMO_FUZZ_FOLDER"] = folder
            DECODERS[given.decoder][0](given.replay.read_bytes())
        return 0
    names = list(DECODERS) if given.decoder == "all" else [given.decoder]
    return max(_fuzz(name, given.seconds, given.seed, given.keep.absolute()) for name in names)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        _inside(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main())
