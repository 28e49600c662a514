"""Writing rosbag2 episodes without ROS: raw serialised messages in, a bag that is complete or not there at all out.

    with BagWriter("bags/0003", interface, "drawer open") as bag:
        bag.write("/camera/image_raw", "sensor_msgs/msg/Image", stamp_ns, cdr)
"""

from __future__ import annotations

import contextlib
import functools
import json
import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from como_core import config
from como_core.errors import ComoError
from como_core.interface import Interface

EPISODE_TOPIC = "/como/episode"
EPISODE_KEY = "como_episode"
EPISODE_FORMAT = "como-episode-1"

Storage = Literal["mcap", "sqlite3"]


_DISK_ERRORS = (OSError, sqlite3.Error)


class BagError(ComoError, ValueError):
    """A bag that cannot be read or written; the message names it and the reason."""


@functools.cache
def typestore() -> Typestore:
    """Definitions of the standard ROS 2 messages, which have been the same since Jazzy."""
    return get_typestore(Stores.ROS2_JAZZY)


def serialize(message: Any) -> bytes:
    """CDR bytes of a message made from a class of `typestore().types`."""
    return bytes(typestore().serialize_cdr(message, message.__msgtype__))


class RawBagWriter:
    """A rosbag2 folder that is written as `<path>.part` and takes its name when it is closed.

    An error while writing, a `discard` or a crash leaves nothing under `path`. One thread at a time may use it.
    `custom_data` goes into metadata.yaml. Raises BagError where `path` exists already or cannot be written.
    """

    def __init__(self, path: str | Path, custom_data: Mapping[str, str], storage: Storage = "mcap") -> None:
        self.path = Path(path)
        self.counts: dict[str, int] = {}
        self._part = self.path.with_name(f"{self.path.name}.part")
        self._connections: dict[str, Connection] = {}
        self._writer: Writer | None = None
        try:
            if self.path.exists():
                raise BagError(f"{self.path}: exists already; bags are never overwritten, choose another name")
            if self._part.exists():
                shutil.rmtree(self._part)  # What a crash has left; nothing else writes under this name.
            writer = Writer(self._part / self.path.name, version=9, storage_plugin=StoragePlugin[storage.upper()])
            for key, value in custom_data.items():
                writer.set_custom_data(key, value)
            writer.open()
            self._writer = writer
        except (*_DISK_ERRORS, WriterError) as error:
            self.discard()
            raise BagError(f"{self.path}: cannot be written: {error}") from error

    def write(self, topic: str, type: str, stamp_ns: int, cdr: bytes) -> None:
        """Append one serialised message; `stamp_ns` is its log time in nanoseconds, `type` e.g. "std_msgs/msg/String".

        Raises BagError, and discards the bag, where the disk takes no more.
        """
        writer = self._open_writer()
        try:
            if topic not in self._connections:
                self._connections[topic] = self._connect(writer, topic, type)
            writer.write(self._connections[topic], stamp_ns, cdr)
        except _DISK_ERRORS as error:
            self.discard()
            raise BagError(f"{self.path}: cannot be written, the episode is dropped: {error}") from error
        self.counts[topic] = self.counts.get(topic, 0) + 1

    def close(self) -> Path:
        """Finish the bag and give it its name; returns its path.

        Raises BagError where it is empty or the disk takes no more; then nothing is left of it.
        """
        writer = self._open_writer()
        if not self.counts:
            self.discard()
            raise BagError(f"{self.path}: no message was written, there is no bag to keep")
        try:
            writer.close()
            (self._part / self.path.name).rename(self.path)
        except _DISK_ERRORS as error:
            self.discard()
            raise BagError(f"{self.path}: cannot be written, the episode is dropped: {error}") from error
        self._writer = None
        shutil.rmtree(self._part, ignore_errors=True)
        return self.path

    def discard(self) -> None:
        """Drop everything written so far. Does nothing after `close`."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(*_DISK_ERRORS):  # A full disk refuses the last buffer once more.
                writer.abort()
        shutil.rmtree(self._part, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        elif self._writer is not None:
            self.close()

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise BagError(f"{self.path}: is closed, no message can be added")
        return self._writer

    def _connect(self, writer: Writer, topic: str, type: str) -> Connection:
        if type not in typestore().types:
            raise BagError(f"{self.path}: topic {topic!r} has type {type!r}, of which no definition is known")
        return writer.add_connection(topic, type, typestore=typestore())


class BagWriter(RawBagWriter):
    """One episode: the messages of the interface's topics, with the interface and the instruction inside.

    Both lie in metadata.yaml's custom_data and in the first message, std_msgs/String JSON on `/como/episode`, so that a
    lone storage file still has them. `metadata` adds keys of its own (operator, seed, ...).

    Write `stamp_ns` from the clock of the header stamps: messages without a header (a gripper's Float64) are placed in
    time by it. A gripper's command is sent on change only, so the value in force at the start belongs in first.
    """

    def __init__(
        self,
        path: str | Path,
        interface: Interface,
        instruction: str | None,
        storage: Storage = "mcap",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self._episode = json.dumps({**(metadata or {}), "format": EPISODE_FORMAT, "instruction": instruction,
                                    "interface": config.to_dict(interface)})
        super().__init__(path, {EPISODE_KEY: self._episode}, storage)

    def write(self, topic: str, type: str, stamp_ns: int, cdr: bytes) -> None:
        """Append one serialised message, after the episode's own; see RawBagWriter.write."""
        if not self.counts:
            string = typestore().types["std_msgs/msg/String"]
            super().write(EPISODE_TOPIC, "std_msgs/msg/String", stamp_ns, serialize(string(data=self._episode)))
        super().write(topic, type, stamp_ns, cdr)
