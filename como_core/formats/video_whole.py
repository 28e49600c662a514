"""Whether a video file is as long as its container says: a copy that broke off still decodes, up to the break.

Bytes are compared and not times or counts of frames: those are often declared wrong, or count sound, and bytes are not.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
# Boxes at the top of ISO base media files (MP4, MOV); others are not walked over, they may be anything.
_BOXES = {b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"mfra", b"sidx", b"ssix", b"emsg", b"prft", b"pdin", b"free",
          b"skip", b"wide", b"pnot", b"udta", b"uuid", b"meta"}
_BOXES_OF_FRAMES = {b"moov", b"moof", b"mdat"}
_CHUNKS = {b"RIFF", b"LIST", b"JUNK", b"idx1"}  # at the top of an AVI
_UNKNOWN = 0xFFFFFFFF  # size of a chunk whose writer could not go back


def missing(path: Path) -> str | None:
    """What a file lacks by its own word: "declares N bytes and has M"; None where it is whole or declares nothing.

    Nothing is declared by MPEG program and transport streams and by what was recorded live (Matroska, WebM).
    """
    with path.open("rb") as file:
        size, head = os.fstat(file.fileno()).st_size, file.read(12)
        file.seek(0)
        if head.startswith(b"GIF8"):
            return None if _gif_ends(file) else "has no end (the byte 0x3B behind the last picture)"
        end = 0
        if head.startswith(_EBML):
            end = _matroska_end(file, size)
        elif head.startswith(b"RIFF") and head[8:] == b"AVI ":
            end = _avi_end(file, size)
        elif head[4:8] in _BOXES:
            end = _mp4_end(file, size)
    return f"declares {end} bytes and has {size}" if end > size else None


def _mp4_end(file: BinaryIO, size: int) -> int:
    """Where the box of frames ends that reaches beyond the end of the file; 0 where none does."""
    place = 0
    while place + 16 <= size:
        file.seek(place)
        length, kind, long = struct.unpack(">I4sQ", file.read(16))
        length = long if length == 1 else length  # 0: up to the end of the file
        if kind not in _BOXES or length < 8:
            break
        place += length
        if place > size and kind in _BOXES_OF_FRAMES:
            return place
    return 0


def _avi_end(file: BinaryIO, size: int) -> int:
    """Where the list of frames ends that reaches beyond the end of the file; 0 where none does."""
    place = 0
    while place + 12 <= size:
        file.seek(place)
        kind, length, form = struct.unpack("<4sI4s", file.read(12))
        if kind not in _CHUNKS or length == _UNKNOWN:
            break
        if kind == b"RIFF":  # of long files there are several
            place += 12
            continue
        place += 8 + length
        if place > size and form == b"movi":
            return place
        place += length % 2
    return 0


def _matroska_end(file: BinaryIO, size: int) -> int:
    """Where the segment ends, which holds everything; 0 where its length is not declared."""
    while (kind := file.read(1)) > b"\0":
        kind += file.read(_vint_bytes(kind) - 1)
        first = file.read(1)
        if first <= b"\0":
            break
        bits = 7 * _vint_bytes(first)
        value = int.from_bytes(first + file.read(bits // 7 - 1), "big") & (1 << bits) - 1
        if value == (1 << bits) - 1:  # not known when it was written
            break
        if kind == _SEGMENT:
            return file.tell() + value
        if value > size:  # such a place cannot be gone to
            break
        file.seek(value, os.SEEK_CUR)
    return 0


def _vint_bytes(first: bytes) -> int:
    """How many bytes a number of EBML has, by its first."""
    return 9 - int.from_bytes(first, "big").bit_length()


def _gif_ends(file: BinaryIO) -> bool:
    """Whether the pictures are followed by the end mark, or by what is no GIF."""
    file.seek(10)
    _skip_colours(file, 3)
    while kind := file.read(1):
        if kind == b"!":
            file.read(1)
        elif kind == b",":
            file.seek(8, os.SEEK_CUR)
            _skip_colours(file, 1)
            file.read(1)
        elif kind == b"\0":
            continue
        else:
            return True
        while (length := file.read(1)) > b"\0":
            file.seek(length[0], os.SEEK_CUR)
    return False


def _skip_colours(file: BinaryIO, header: int) -> None:
    """Go over the end of a header of `header` bytes, whose first says whether a colour table follows."""
    flags = file.read(1)
    colours = 2 << (flags[0] & 7) if flags and flags[0] & 0x80 else 0
    file.seek(header - 1 + 3 * colours, os.SEEK_CUR)
