"""Video files as episodes without actions, and frames as video files. Decoding is FFmpeg's, through PyAV.

    episode = read_video("videos/drawer/0003.mp4")
    write_video("out.mp4", frames, fps=40)
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.formats.lazy import CAMERA
from como_core.formats.video_frames import VideoError, VideoFrames, scan
from como_core.formats.video_time import timestamps

__all__ = ["CAMERA", "VIDEO_SUFFIXES", "VideoError", "VideoFrames", "find_videos", "read_video", "write_video"]

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".gif")

_CRF = "12"  # Visually lossless: what a policy sees in a video should be what a camera would have shown.


def read_video(path: str | Path) -> Episode:
    """The episode of one video file: frames under the camera name `CAMERA`, no state and no action.

    The file is decoded once to count what is really there; containers often declare another number. Timestamps are
    the presentation times in seconds from the first frame, mended by `video_time.timestamps` where they run backwards,
    repeat or are missing. The instruction is the text of `instruction.txt` in the same folder, or None.

    Raises VideoError, naming the file and the reason, where it cannot be decoded from start to end.
    """
    path = path if isinstance(path, Path) else Path(path)
    table = scan(path)
    times = timestamps(table.pts, table.time_base, table.rate_hz, str(path))
    return Episode(times, {CAMERA: VideoFrames(path, table)}, str(path), instruction=_instruction(path.parent))


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float, gop: int = 10) -> int:
    """Write uint8 [H, W, 3] RGB frames as H.264 in MP4, `gop` frames from key frame to key frame; returns how many.

    The file appears under its name only when it is complete; an error leaves nothing behind. Odd sizes are possible.
    Raises VideoError where there is no frame, a frame has another shape or type, or the folder cannot be written.
    """
    path = Path(path)
    if path.suffix != ".mp4":
        raise VideoError(f"{path}: videos are written as .mp4, got the suffix {path.suffix!r}")
    if fps <= 0 or gop < 1:
        raise VideoError(f"{path}: expected fps above 0 and gop of at least 1, got fps {fps} and gop {gop}")
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        count = _encode(part, path, frames, Fraction(fps).limit_denominator(65535), gop)
        os.replace(part, path)
    except (OSError, av.FFmpegError) as error:
        raise VideoError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if part.exists():
            part.unlink()
    return count


def find_videos(paths: Iterable[str | Path]) -> list[Path]:
    """Video files below `paths`, sorted and each once.

    Folders are searched by suffix; a file named by itself is taken whatever its suffix.
    Raises ComoError for a path that does not exist.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = (p for p in path.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith("."))
            found.update(dict.fromkeys(sorted(p for p in files if p.is_file())))
        elif path.exists():
            found[path] = None
        else:
            raise ComoError(f"{path}: no such file or folder (expected a video or a folder of videos)")
    return list(found)


def _encode(part: Path, path: Path, frames: Iterable[np.ndarray], rate: Fraction, gop: int) -> int:
    count, shape = 0, None
    with av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": _CRF, "preset": "veryfast"})
        for frame in frames:
            if shape is None:
                shape = _checked_shape(path, frame)
                stream.height, stream.width = shape[:2]
                # 4:2:0 colour, which every player reads, has no odd sizes.
                stream.pix_fmt = "yuv444p" if stream.width % 2 or stream.height % 2 else "yuv420p"
                # Without B-frames presentation order is file order, and no edit list is needed.
                stream.gop_size, stream.max_b_frames, stream.thread_count = gop, 0, 1
            if frame.shape != shape or frame.dtype != np.uint8:
                raise VideoError(f"{path}: frame {count} is {frame.dtype} {list(frame.shape)}, not {list(shape)}")
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts = count
            container.mux(stream.encode(picture))
            count += 1
        if count == 0:
            raise VideoError(f"{path}: there is no frame to write")
        container.mux(stream.encode())
    return count


def _checked_shape(path: Path, frame: np.ndarray) -> tuple[int, ...]:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or min(frame.shape) < 1:
        raise VideoError(f"{path}: expected RGB frames, uint8 [H, W, 3], got {frame.dtype} {list(frame.shape)}")
    return frame.shape


def _instruction(folder: Path) -> str | None:
    file = folder / "instruction.txt"
    try:
        return file.read_text(encoding="utf-8").strip() or None if file.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise VideoError(f"{file}: cannot be read as text: {error}") from error
