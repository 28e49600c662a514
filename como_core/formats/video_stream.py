"""A video gone through once: its packets say when each frame is shown, and each frame is decoded a single time.

    episode = stream_video("videos/drawer/0003.mp4")
    for frame in episode.images[CAMERA]: ...

`read_video` decodes twice, once to count what is really there. Where one pass over the frames is all that is wanted,
the count can be checked at the end of that pass instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from como_core.episode import Episode
from como_core.formats.lazy import CAMERA
from como_core.formats.video import _instruction, read_video
from como_core.formats.video_frames import VideoError, _open, _require_whole, _signature, _video_stream
from como_core.formats.video_orientation import Orientation
from como_core.formats.video_time import timestamps


class NotAsListed(VideoError):
    """A video decodes to other frames than its packets announce; `read_video` reads what is really there."""


def stream_video(path: str | Path) -> Episode:
    """The episode that `read_video` gives, without decoding the file beforehand.

    Its frames are to be iterated over, in order: that raises NotAsListed where what is decoded differs from what the
    file lists, in number, time or size, or is damaged. A file whose packets do not tell frames apart is read by
    `read_video`.

    Raises VideoError where the file cannot be opened or is cut short.
    """
    path = Path(path)
    try:
        with _open(path) as container:
            stream = _video_stream(container, path)
            _require_whole(path)
            listed = [packet.pts for packet in container.demux(stream) if packet.size]
            rate = float(stream.average_rate) if stream.average_rate else None
            time_base = stream.time_base
    except av.FFmpegError:
        return read_video(path)  # says what is wrong with it, in its own words
    pts = sorted(p for p in listed if p is not None)
    if time_base is None or not pts or len(pts) != len(listed) or not all(a < b for a, b in pairwise(pts)):
        return read_video(path)
    times = timestamps(pts, time_base, rate, str(path))
    return Episode(times, {CAMERA: StreamedFrames(path, pts)}, str(path), instruction=_instruction(path.parent))


class StreamedFrames:
    """Frames of a video file in the order shown, RGB uint8 [H, W, 3] each, with the presentation times `pts`."""

    def __init__(self, path: Path, pts: list[int]) -> None:
        self._path, self._pts, self._signature = path, pts, _signature(path)
        self._shape: tuple[int, int, int, int] | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, H, W, 3)."""
        if self._shape is None:
            self._shape = (len(self), *next(iter(self)).shape)
        return self._shape

    def __len__(self) -> int:
        return len(self._pts)

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        """Frames by index, through `read_video`: right, and as slow as reading the file anew."""
        return read_video(self._path).images[CAMERA][index]

    def __iter__(self) -> Iterator[np.ndarray]:
        if _signature(self._path) != self._signature:
            raise VideoError(f"{self._path}: changed since it was read; read it again")
        convert, count, first = VideoReformatter(), 0, None
        try:
            with _open(self._path) as container:
                for frame in container.decode(_video_stream(container, self._path)):
                    # of the first frame, as in `scan`
                    first = first or (frame.width, frame.height, Orientation.of(frame))
                    if (count == len(self) or frame.is_corrupt
                            or (frame.pts, frame.width, frame.height) != (self._pts[count], *first[:2])):
                        raise self._differs(count)
                    count += 1
                    # One thread: starting more costs ten times the conversion of a small picture.
                    rgb = convert.reformat(frame, format="rgb24", threads=1).to_ndarray()
                    yield first[2].upright(rgb)
        except av.FFmpegError as error:
            raise self._differs(count) from error
        if count != len(self):
            raise self._differs(count)

    def _differs(self, count: int) -> NotAsListed:
        return NotAsListed(f"{self._path}: lists {len(self)} frames, and decodes to others from frame {count} on")
