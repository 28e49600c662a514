"""Frames of one video file: a scan that counts what decodes, and lazy frames that seek by presentation time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from como_core.errors import ComoError
from como_core.formats.lazy import HandlePool, LazyFrames
from como_core.formats.video_orientation import Orientation
from como_core.formats.video_whole import missing


class VideoError(ComoError, ValueError):
    """A video that cannot be read or written; the message names the file and the reason."""


@dataclass(frozen=True, slots=True)
class FrameTable:
    """What a scan found: one entry per decoded frame, in the order shown.

    pts            presentation time of each frame in units of `time_base`, None where the file gives none
    keys           indices of the key frames, from which decoding can begin
    height, width  of the picture as shown, by `orientation`
    rate_hz        the rate the file declares, or None
    signature      size and modification time of the file, to notice that it was replaced
    """

    pts: tuple[int | None, ...]
    keys: tuple[int, ...]
    time_base: Fraction
    rate_hz: float | None
    height: int
    width: int
    orientation: Orientation
    signature: tuple[int, int]

    @property
    def seekable(self) -> bool:
        """Whether presentation times tell the frames apart; otherwise frames are found by counting from the start."""
        return None not in self.pts and all(a < b for a, b in pairwise(self.pts))  # type: ignore[operator]

    def key_before(self, index: int) -> int:
        """Index of the last key frame at or before `index`, 0 where there is none."""
        place = bisect_right(self.keys, index)
        return self.keys[place - 1] if place else 0


def scan(path: Path) -> FrameTable:
    """Decode a video once, without converting colours, and list its frames.

    Raises VideoError, also where FFmpeg says that it has made up what it could not decode, and where the file is cut.
    """
    signature = _signature(path)
    pts: list[int | None] = []
    keys: list[int] = []
    first: av.VideoFrame | None = None
    try:
        with _open(path) as container:
            stream = _video_stream(container, path)
            _require_whole(path)
            for frame in container.decode(stream):
                first = first or frame
                if (frame.width, frame.height) != (first.width, first.height):
                    raise VideoError(f"{path}: frame {len(pts)} is {frame.width}x{frame.height}, the first is "
                                     f"{first.width}x{first.height}; cut the video where the size changes")
                if frame.is_corrupt:
                    raise VideoError(f"{path}: frame {len(pts)} is damaged, the decoder has made up a part of it; "
                                     "copy the video again, or cut it there")
                if frame.key_frame:
                    keys.append(len(pts))
                pts.append(frame.pts)
            if first is None or stream.time_base is None:
                raise VideoError(f"{path}: no frame of it can be decoded ({stream.frames} declared)")
            rate = float(stream.average_rate) if stream.average_rate else None
            time_base = stream.time_base
    except av.FFmpegError as error:
        where = f"damaged after {len(pts)} frames" if pts else "cannot be read as a video"
        raise VideoError(f"{path}: {where}: {error.strerror}") from error
    orientation = Orientation.of(first)
    height, width = orientation.size(first.height, first.width)
    return FrameTable(tuple(pts), tuple(keys), time_base, rate, height, width, orientation, signature)


class VideoFrames(LazyFrames):
    """Frames of a video file, decoded when asked for: uint8 [T, H, W, 3], RGB.

    Reading on from the last frame costs one frame; a jump costs the frames from the key frame before it.
    Raises VideoError where the file has gone or changed since it was scanned.
    """

    def __init__(self, path: Path, table: FrameTable) -> None:
        super().__init__((len(table.pts), table.height, table.width, 3))
        self._path, self._table = path, table

    def _read(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        key = self._path, self._table.signature
        for index in indices.tolist():
            decoder = _DECODERS.get(key, lambda: _Decoder(self._path, self._table))
            try:
                frame = decoder.frame(index)
            except BaseException:
                _DECODERS.drop(key)
                raise
            if index == len(self) - 1:
                _DECODERS.drop(key)
            yield frame


class _Decoder:
    """An open video file and the place in it: `_next` is the index of the frame that comes next."""

    def __init__(self, path: Path, table: FrameTable) -> None:
        if _signature(path) != table.signature:
            raise VideoError(f"{path}: changed since it was read; read it again")
        self._path, self._table = path, table
        self._convert = VideoReformatter()
        self._index_of = {pts: i for i, pts in enumerate(table.pts)} if table.seekable else None
        self._rewind()

    def close(self) -> None:
        self._container.close()

    def frame(self, index: int) -> np.ndarray:
        """Frame `index` as RGB, uint8 [H, W, 3]. Raises VideoError."""
        try:
            self._approach(index)
            found = self._decode_to(index)
            if found is None:
                # Some containers seek past the key frame that was asked for; from the start everything is found.
                self.close()
                self._rewind()
                found = self._decode_to(index)
        except av.FFmpegError as error:
            raise VideoError(f"{self._path}: frame {index} cannot be decoded: {error.strerror}") from error
        if found is None:
            raise VideoError(f"{self._path}: frame {index} of {len(self._table.pts)} is not to be found any more")
        return self._rgb(found)

    def _rewind(self) -> None:
        self._container = _open(self._path)
        self._stream = _video_stream(self._container, self._path)
        self._frames = self._container.decode(self._stream)
        self._next = 0

    def _approach(self, index: int) -> None:
        """Move to the key frame before `index`, unless decoding on from here is no longer a way."""
        key = self._table.key_before(index)
        if self._next <= index and key <= self._next:
            return
        pts = self._table.pts[key]
        if self._index_of is None or pts is None or key == 0:
            if self._next > index:
                self.close()
                self._rewind()
            return
        self._container.seek(pts, stream=self._stream, backward=True)
        self._frames = self._container.decode(self._stream)

    def _decode_to(self, index: int) -> av.VideoFrame | None:
        for frame in self._frames:
            place = self._next if self._index_of is None else self._index_of.get(frame.pts, -1)
            self._next = place + 1 if place >= 0 else self._next
            if place >= index:
                return frame if place == index else None
        return None

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        # One thread: starting more costs ten times the conversion of a small picture.
        rgb = self._convert.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return self._table.orientation.upright(rgb)


_DECODERS: HandlePool[_Decoder] = HandlePool()


def _open(path: Path) -> InputContainer:
    # A playlist under a video's name could otherwise make FFmpeg open network addresses.
    # Titles and comments are in whatever encoding a camera or an editor uses; nothing here reads them.
    return av.open(str(path), options={"protocol_whitelist": "file"}, metadata_errors="replace")


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise VideoError(f"{path}: holds no video stream")
    if stream.codec_context is None:
        raise VideoError(f"{path}: holds video of a codec that this FFmpeg cannot decode")
    # No threads inside: they would not survive a fork, and many small files decode faster without.
    stream.thread_type, stream.codec_context.thread_count = "NONE", 1
    return stream


def _require_whole(path: Path) -> None:
    try:
        lacks = missing(path)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror}") from error
    if lacks:
        raise VideoError(f"{path}: cut short: it {lacks}; copy it again, or save what can be decoded with "
                         f"`ffmpeg -i {path.name} OUT.mp4`")


def _signature(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror}") from error
    if not path.is_file():
        raise VideoError(f"{path}: is not a file (expected a video)")
    if status.st_size == 0:
        raise VideoError(f"{path}: is empty (0 bytes)")
    return status.st_size, status.st_mtime_ns
