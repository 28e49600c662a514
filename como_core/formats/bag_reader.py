"""Reading rosbag2 recordings without ROS: sqlite3 and MCAP, split, compressed, with or without metadata.yaml.

The storage files are the truth; metadata.yaml is asked only for what they do not say (their order, the compression,
what a recorder noted). So a bag whose two descriptions disagree still gives every message.
"""

from __future__ import annotations

import heapq
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, cast

import apsw
from rosbags.interfaces import Connection, ConnectionExtRosbag2
from rosbags.rosbag2 import Reader, ReaderError
from rosbags.serde import SerdeError

from como_core.formats.bag_layout import COMPRESSED_SUFFIXES, bag_layout
from como_core.formats.bag_writer import BagError, typestore

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# What damaged storage makes rosbags raise, beside its own error: it trusts the lengths and offsets that it reads.
_DAMAGE = (ReaderError, apsw.Error, OSError, zstd.ZstdError, struct.error, ValueError, KeyError, IndexError, TypeError,
           AssertionError, OverflowError, EOFError, MemoryError, StopIteration)


Signature = tuple[tuple[int, int], ...]
"""Size and modification time of each storage file, to notice that a bag was replaced."""


class RawMessage(NamedTuple):
    """A message as it was stored: topic, ROS type, log time in nanoseconds and CDR bytes."""

    topic: str
    type: str
    log_ns: int
    cdr: bytes


@dataclass(frozen=True)
class Topic:
    """What a bag holds of one topic."""

    type: str
    count: int


class BagReader:
    """An open bag: a folder with or without metadata.yaml, or one storage file. Close it, or use it in `with`.

    Raises BagError, naming the bag and the reason, where it is damaged or of a kind that is not read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._stack = ExitStack()
        layout = bag_layout(self.path)
        self.signature: Signature = tuple((s.st_size, s.st_mtime_ns) for s in (file.stat() for file in layout.files))
        self.custom_data = dict(layout.custom_data)
        self._message_compression = layout.message_compression
        try:
            self._readers = [self._open(file) for file in layout.files]
        except BaseException:
            self.close()
            raise
        self.topics = self._list_topics()

    def messages(
        self, topics: Iterable[str], start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[RawMessage]:
        """Messages of `topics` in the order of log time, from `start_ns` on and before `stop_ns` where given."""
        wanted = set(topics)
        parts = (self._messages_of(reader, wanted, start_ns, stop_ns) for reader in self._readers)
        return heapq.merge(*parts, key=attrgetter("log_ns"))

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> BagReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _messages_of(
        self, reader: Reader, topics: set[str], start_ns: int | None, stop_ns: int | None
    ) -> Iterator[RawMessage]:
        connections = [c for c in reader.connections if c.topic in topics]
        try:
            for connection, log_ns, data in reader.messages(connections, start_ns, stop_ns) if connections else ():
                cdr = zstd.decompress(data) if self._message_compression else data
                yield RawMessage(connection.topic, connection.msgtype, log_ns, bytes(cdr))
        except _DAMAGE as error:
            raise BagError(f"{self.path}: damaged: {_reason(error)}") from error

    def _open(self, file: Path) -> Reader:
        try:
            if file.name.endswith(COMPRESSED_SUFFIXES):
                file = self._decompress(file)
            reader = Reader(file)
            reader.open()
        except _DAMAGE as error:
            raise BagError(f"{self.path}: {file.name} cannot be read: {_reason(error)}") from error
        self._stack.callback(reader.close)
        for connection in reader.connections:
            _require_cdr(self.path, connection)
        return reader

    def _decompress(self, file: Path) -> Path:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="como_bag_"))
        plain = Path(folder) / file.stem
        with zstd.open(file, "rb") as source, plain.open("wb") as target:
            shutil.copyfileobj(source, target)
        return plain

    def _list_topics(self) -> dict[str, Topic]:
        topics: dict[str, Topic] = {}
        for reader in self._readers:
            for connection in reader.connections:
                known = topics.get(connection.topic, Topic(connection.msgtype, 0))
                if known.type != connection.msgtype:
                    raise BagError(f"{self.path}: topic {connection.topic!r} has two types, {known.type} and "
                                   f"{connection.msgtype}; it is not clear which is meant")
                topics[connection.topic] = Topic(known.type, known.count + connection.msgcount)
        return topics


def deserialize(message: RawMessage, bag: Path) -> Any:
    """The message object of a standard type. Raises BagError, naming bag and topic, where the bytes are not of it."""
    try:
        return typestore().deserialize_cdr(message.cdr, message.type)
    except (SerdeError, KeyError, ValueError, IndexError, AssertionError, struct.error) as error:
        why = f"is not a valid {message.type}: {_reason(error)}"
        raise BagError(f"{bag}: a message on {message.topic!r} {why}") from error


def _require_cdr(bag: Path, connection: Connection) -> None:
    found = cast("ConnectionExtRosbag2", connection.ext).serialization_format
    if found != "cdr":
        raise BagError(f"{bag}: serialization format {found!r} of {connection.topic!r} is not read, only 'cdr'")


def _reason(error: BaseException) -> str:
    return str(error).rstrip(".") or type(error).__name__
