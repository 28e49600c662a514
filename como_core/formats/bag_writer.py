"""Writing rosbag2 episodes without ROS: raw serialised messages in, a bag that is complete or not there at all out.

    with BagWriter("bags/0003", interface, "drawer open") as bag:
        bag.write("/camera/image_raw", "sensor_msgs/msg/Image", stamp_ns, cdr)
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from como_core import config
from como_core.errors import ComoError
from como_core.formats.file_lock import hold, is_held
from como_core.interface import Interface

EPISODE_TOPIC = "/como/episode"
EPISODE_KEY = "como_episode"
EPISODE_FORMAT = "como-episode-1"

# Held by whoever writes a bag, and free again when that process ends, however it ends.
LOCK = "lock"

Storage = Literal["mcap", "sqlite3"]

_DISK_ERRORS = (OSError, sqlite3.Error)


class BagError(ComoError, ValueError):
    """A bag that cannot be read or written; the message names it and the reason."""


@functools.cache
def typestore() -> Typestore:
    """Definitions of the standard ROS 2 messages, which have been the same since Jazzy."""
    return get_typestore(Stores.ROS2_JAZZY)


def _typestore_with(type: str, definition: str) -> Typestore:
    """The standard messages and one type that a bag brings with it."""
    store = get_typestore(Stores.ROS2_JAZZY)
    found = get_types_from_msg(definition, type)
    store.register({name: fields for name, fields in found.items() if name not in store.types})
    return store


def serialize(message: Any) -> bytes:
    """CDR bytes of a message made from a class of `typestore().types`."""
    return bytes(typestore().serialize_cdr(message, message.__msgtype__))


class RawBagWriter:
    """A rosbag2 folder that is written as `<path>.part` and takes its name when it is closed.

    An error while writing or a `discard` leaves nothing; a crash leaves `<path>.part`, in which everything up to the
    last `flush` can be recovered (bag_recovery). One thread at a time may use it. `custom_data` goes into
    metadata.yaml. Raises BagError where `path` exists already, is being written, or cannot be written.
    """

    suffix = ".part"

    def __init__(self, path: str | Path, custom_data: Mapping[str, str], storage: Storage = "mcap") -> None:
        self.path = Path(path)
        self.counts: dict[str, int] = {}
        self._part = self.path.with_name(f"{self.path.name}{self.suffix}")
        self._connections: dict[str, Connection] = {}
        self._writer: Writer | None = None
        self._lock: IO[str] | None = None
        self._folders_synced = False
        if self.path.exists():
            raise BagError(f"{self.path}: exists already; bags are never overwritten, choose another name")
        if is_held(self._part / LOCK):
            raise BagError(f"{self.path}: is being written by another process; choose another name")
        try:
            self._clear_part()
            self._part.mkdir(parents=True)
            self._lock = hold(self._part / LOCK)
            writer = Writer(self._part / self.path.name, version=9, storage_plugin=StoragePlugin[storage.upper()])
            for key, value in custom_data.items():
                writer.set_custom_data(key, value)
            writer.open()
            self._writer = writer
            if isinstance(writer.storage, Sqlite3Writer):
                _allow_threads(writer.storage)
        except (*_DISK_ERRORS, WriterError) as error:
            self.discard()
            raise BagError(f"{self.path}: cannot be written: {error}") from error

    def _clear_part(self) -> None:
        """What a crash has left of something that can be made again gives way."""
        if self._part.exists():
            shutil.rmtree(self._part)

    def write(self, topic: str, type: str, stamp_ns: int, cdr: bytes, definition: str = "") -> None:
        """Append one serialised message; `stamp_ns` is its log time in nanoseconds, `type` e.g. "std_msgs/msg/String".

        `definition` is the text of a type that is not among the standard ones. Raises BagError, and discards the bag,
        where the disk takes no more.
        """
        writer = self._open_writer()
        try:
            if topic not in self._connections:
                self._connections[topic] = self._connect(writer, topic, type, definition)
            writer.write(self._connections[topic], stamp_ns, cdr)
        except _DISK_ERRORS as error:
            self.discard()
            raise BagError(f"{self.path}: cannot be written, the episode is dropped: {error}") from error
        self.counts[topic] = self.counts.get(topic, 0) + 1

    def flush(self) -> None:
        """Bring what was written to the disk, where neither a crash nor a power loss takes it.

        Raises BagError, and discards the bag, where the disk takes no more.
        """
        storage = self._open_writer().storage
        try:
            if isinstance(storage, McapWriter):
                if storage.chunk.msgs:
                    storage.close_chunk()
                storage.bio.flush()
                os.fsync(storage.bio.fileno())
            elif isinstance(storage, Sqlite3Writer):
                storage.conn.commit()
            if not self._folders_synced:
                for folder in (self._part / self.path.name, self._part, self._part.parent):
                    _sync(folder)
                self._folders_synced = True
        except _DISK_ERRORS as error:
            self.discard()
            raise BagError(f"{self.path}: cannot be written, the episode is dropped: {error}") from error

    def close(self, notes: Mapping[str, str] | None = None) -> Path:
        """Finish the bag and give it its name; returns its path. `notes` are texts to lie in it, by file name.

        Raises BagError where it is empty or the disk takes no more; then nothing is left of it.
        """
        writer = self._open_writer()
        if not self.counts:
            self.discard()
            raise BagError(f"{self.path}: no message was written, there is no bag to keep")
        try:
            writer.close()
            folder = self._part / self.path.name
            for name, text in (notes or {}).items():
                (folder / name).write_text(text, encoding="utf-8")
            for file in folder.iterdir():
                _sync(file)
            folder.rename(self.path)
            _sync(self.path.parent)
        except _DISK_ERRORS as error:
            self.discard()
            raise BagError(f"{self.path}: cannot be written, the episode is dropped: {error}") from error
        self._writer = None
        self._remove_part()
        return self.path

    def discard(self) -> None:
        """Drop everything written so far. Does nothing after `close`."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(*_DISK_ERRORS):  # A full disk refuses the last buffer once more.
                writer.abort()
        self._remove_part()

    def _remove_part(self) -> None:
        if self._lock is not None:
            shutil.rmtree(self._part, ignore_errors=True)
            self._lock.close()
            self._lock = None

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

    def _connect(self, writer: Writer, topic: str, type: str, definition: str) -> Connection:
        store = typestore()
        if type not in store.types:
            if not definition:
                raise BagError(f"{self.path}: topic {topic!r} has type {type!r}, of which no definition is known")
            store = _typestore_with(type, definition)
        return writer.add_connection(topic, type, typestore=store)


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

    def _clear_part(self) -> None:
        if self._part.exists():
            raise BagError(f"{self._part}: holds an episode that a crash has cut off, which this one would replace; "
                           f"`como data recover {self._part.parent}` saves it, or choose another name")

    def write(self, topic: str, type: str, stamp_ns: int, cdr: bytes, definition: str = "") -> None:
        """Append one serialised message, after the episode's own; see RawBagWriter.write."""
        if not self.counts:
            string = typestore().types["std_msgs/msg/String"]
            super().write(EPISODE_TOPIC, "std_msgs/msg/String", stamp_ns, serialize(string(data=self._episode)))
        super().write(topic, type, stamp_ns, cdr, definition)


def _allow_threads(storage: Sqlite3Writer) -> None:
    """Python's sqlite3 ties a connection to the thread that made it; a recorder writes in another."""
    storage.conn.close()
    storage.conn = sqlite3.connect(storage.path, check_same_thread=False)
    storage.cursor = storage.conn.cursor()


def _sync(path: Path) -> None:
    """Bring a file's content, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
