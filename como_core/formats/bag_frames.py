"""Pictures of one bag topic: an index made in one pass, and lazy frames that read messages by log time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from como_core.formats.bag_reader import BagReader, RawMessage, Signature, deserialize
from como_core.formats.bag_streams import stamp_ns
from como_core.formats.bag_writer import BagError
from como_core.formats.images import ImageError, compressed_fault, decode_compressed, decode_image
from como_core.formats.lazy import HandlePool, LazyFrames

_IMAGE = "sensor_msgs/msg/Image"
_BATCH = 32  # messages held in memory at once
_READ_ON = 16  # reading over this many unwanted pictures is cheaper than a new start


@dataclass(frozen=True)
class Picture:
    """What an index keeps of one image message: when it was logged and taken, nanoseconds."""

    log_ns: int
    stamp_ns: int


def decode_picture(message: Any, topic: str, bag: Path) -> np.ndarray:
    """RGB of an Image or CompressedImage message, uint8 [H, W, 3]. Raises BagError, naming bag, topic and stamp."""
    try:
        if message.__msgtype__ != _IMAGE:
            fault = compressed_fault(message.format)
            if fault:
                raise ImageError(fault)
            return decode_compressed(message.data)
        return decode_image(message.encoding, message.width, message.height, message.step, message.is_bigendian,
                            message.data)
    except ImageError as error:
        raise BagError(f"{bag}: picture on {topic!r} at {stamp_ns(message) / 1e9:.3f} s: {error}") from error


class BagFrames(LazyFrames):
    """Frames of one topic of a bag, decoded when asked for: uint8 [T, H, W, 3], RGB.

    stamps_ns  int64 [T], header stamp of each frame in nanoseconds
    logged_ns  int64 [T], log time of each frame's message
    """

    def __init__(
        self, bag: Path, signature: Signature, topic: str, size: tuple[int, int], log_ns: np.ndarray, picks: np.ndarray,
        stamps_ns: np.ndarray,
    ) -> None:
        """`log_ns` int64 [M] are the log times of all pictures of the topic, `picks` int64 [T] which are frames."""
        super().__init__((len(picks), *size, 3))
        self._bag, self._key, self._topic = bag, (bag, signature), topic
        self._log_ns, self._picks, self.stamps_ns = log_ns, picks, stamps_ns
        self.logged_ns = log_ns[picks]

    def _read(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        last: tuple[int, np.ndarray] | None = None
        for picks in _runs(self._picks[indices].tolist()):
            messages = self._messages(picks)
            for pick in picks:
                if last is None or last[0] != pick:
                    message = deserialize(messages[pick], self._bag)
                    last = pick, decode_picture(message, self._topic, self._bag)
                yield last[1]
        if len(indices) and indices[-1] == len(self) - 1:
            _READERS.drop(self._key)

    def _messages(self, picks: list[int]) -> dict[int, RawMessage]:
        """Raw messages of increasing `picks`, by pick."""
        start, stop = int(self._log_ns[picks[0]]), int(self._log_ns[picks[-1]]) + 1
        first = int(np.searchsorted(self._log_ns, start))
        wanted = set(picks)
        reader = _READERS.get(self._key, self._open)
        try:
            run = enumerate(reader.messages([self._topic], start, stop), first)
            found = {place: message for place, message in run if place in wanted}
        except BaseException:
            _READERS.drop(self._key)
            raise
        if len(found) != len(wanted):
            raise BagError(f"{self._bag}: has {len(found)} of {len(wanted)} pictures that were there when it was read")
        return found

    def _open(self) -> BagReader:
        reader = BagReader(self._bag)
        if reader.signature != self._key[1]:
            reader.close()
            raise BagError(f"{self._bag}: changed since it was read; read it again")
        return reader


def _runs(picks: list[int]) -> Iterator[list[int]]:
    """Cut `picks` into runs that never go back, have no wide gap and fit in memory."""
    run: list[int] = []
    for pick in picks:
        if run and (pick < run[-1] or pick > run[-1] + _READ_ON or len(run) == _BATCH):
            yield run
            run = []
        run.append(pick)
    if run:
        yield run


_READERS: HandlePool[BagReader] = HandlePool()
