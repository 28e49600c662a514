"""Every whole message of an MCAP file that was cut off, or damaged at its end, without its index.

Reads records one after the other (mcap.dev/spec) and stops at the first that is not whole. Of a chunk that is cut, the
messages before the cut are read too where it is not compressed.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lz4.frame import decompress as lz4_decompress

from como_core.formats.bag_writer import BagError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END, _FOOTER = 0x03, 0x04, 0x05, 0x06, 0x0F, 0x02
_LAST_OPCODE = 0x0F
_HEAD = struct.Struct("<BQ")
_CHUNK_HEAD = struct.Struct("<QQQI")
_MESSAGE_HEAD = struct.Struct("<HIQQ")
_UNPACK = {"": bytes, "lz4": lz4_decompress, "zstd": zstd.decompress}


class SalvagedMessage(NamedTuple):
    """A message: topic, ROS type, its definition, log time in nanoseconds and CDR bytes."""

    topic: str
    type: str
    definition: str
    log_ns: int
    cdr: bytes


@dataclass
class _Channels:
    schemas: dict[int, tuple[str, str]]
    channels: dict[int, tuple[str, str, str]]


def is_whole(path: Path) -> bool:
    """Whether an MCAP file ends as one that was closed does."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < 2 * len(MAGIC):
            return False
        file.seek(-len(MAGIC), 2)
        return file.read() == MAGIC


def salvage(path: Path) -> Iterator[SalvagedMessage]:
    """Messages in the order of the file. Raises BagError where it is no MCAP file from its start, or not of CDR."""
    known = _Channels({}, {})
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
        if not start.strip(b"\0"):
            return
        if start != MAGIC:
            raise BagError(f"{path}: does not begin as an MCAP file does, so nothing can be saved of it")
        for opcode, body, whole in _records(file):
            if opcode in (_DATA_END, _FOOTER):
                return
            if opcode == _CHUNK:
                yield from _of_chunk(body, whole, known, path)
            elif whole:
                yield from _of_record(opcode, body, known, path)


def _records(file: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """Opcode, content and whether it is whole; the last one may be cut."""
    start = file.tell()
    size = file.seek(0, 2)
    file.seek(start)
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        opcode, length = _HEAD.unpack(head)
        if not 0 < opcode <= _LAST_OPCODE:
            return  # a disk that lost power leaves zeros, or what was there before
        body = file.read(min(length, size - file.tell()))
        yield opcode, body, len(body) == length
        if len(body) < length:
            return


def _of_chunk(body: bytes, whole: bool, known: _Channels, path: Path) -> Iterator[SalvagedMessage]:
    try:
        _, _, size, crc = _CHUNK_HEAD.unpack_from(body)
        compression, at = _string(body, _CHUNK_HEAD.size)
        data = body[at + 8:]
        if compression or whole:
            data = _UNPACK[compression](data)
            if len(data) != size or (crc and zlib.crc32(data) != crc):
                return
    except (struct.error, KeyError, ValueError, RuntimeError, zstd.ZstdError, EOFError):
        return
    at = 0
    while at + _HEAD.size <= len(data):
        opcode, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if not 0 < opcode <= _LAST_OPCODE or at + length > len(data):
            return
        yield from _of_record(opcode, data[at:at + length], known, path)
        at += length


def _of_record(opcode: int, body: bytes, known: _Channels, path: Path) -> Iterator[SalvagedMessage]:
    try:
        if opcode == _SCHEMA:
            name, at = _string(body, 2)
            _, at = _string(body, at)
            definition, _ = _string(body, at)
            known.schemas[struct.unpack_from("<H", body)[0]] = name, definition
        elif opcode == _CHANNEL:
            number, schema = struct.unpack_from("<HH", body)
            topic, at = _string(body, 4)
            encoding, _ = _string(body, at)
            known.channels[number] = topic, encoding, known.schemas[schema][0]
            if encoding != "cdr":
                raise BagError(f"{path}: {topic!r} is encoded as {encoding!r}; only 'cdr' can be saved")
        elif opcode == _MESSAGE:
            number, _, log_ns, _ = _MESSAGE_HEAD.unpack_from(body)
            topic, _, type = known.channels[number]
            definition = next(text for name, text in known.schemas.values() if name == type)
            yield SalvagedMessage(topic, type, definition, log_ns, body[_MESSAGE_HEAD.size:])
    except (struct.error, KeyError, UnicodeDecodeError):
        return  # a record that does not fit its own lengths


def _string(data: bytes, at: int) -> tuple[str, int]:
    """A string with its length before it, and where it ends."""
    length, = struct.unpack_from("<I", data, at)
    if at + 4 + length > len(data):
        raise struct.error("a string longer than its record")
    return data[at + 4:at + 4 + length].decode(), at + 4 + length
