"""Which files make up a rosbag2: folders with metadata.yaml or without it, lone storage files, numbered parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

from como_core.errors import ComoError
from como_core.formats.bag_writer import BagError

METADATA = "metadata.yaml"
STORAGE_SUFFIXES = (".mcap", ".db3")
COMPRESSED_SUFFIXES = tuple(f"{suffix}.zstd" for suffix in STORAGE_SUFFIXES)


@dataclass(frozen=True)
class BagLayout:
    """The storage files of a bag in their order, and what its metadata.yaml adds."""

    files: tuple[Path, ...]
    message_compression: bool = False
    custom_data: tuple[tuple[str, str], ...] = ()


def find_bags(paths: Iterable[str | Path]) -> list[Path]:
    """Bags below `paths`, sorted and each once: rosbag2 folders, and storage files that lie alone.

    A folder is one bag where it has a metadata.yaml or its storage files are numbered parts (`x_0`, `x_1`). ROS 1 bags
    are listed too: reading them says how to convert them. Unfinished `.part` folders are left out. Raises ComoError for
    a path that does not exist.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise ComoError(f"{path}: no such file or folder (expected a bag or a folder of bags)")
        found.update(dict.fromkeys(_bags_in(path) if path.is_dir() else [path]))
    return list(found)


def is_bag(path: Path) -> bool:
    """Whether `path` looks like one bag: a folder with metadata.yaml or numbered parts, or a file by its suffix."""
    if path.is_dir():
        files = _storage_files(path)
        return (path / METADATA).is_file() or (len(files) > 1 and _is_split(files))
    return path.is_file() and (_is_storage(path) or path.suffix == ".bag")


def _bags_in(folder: Path) -> Iterator[Path]:
    if is_bag(folder):
        yield folder
        return
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.suffix == ".part":
            continue
        if entry.is_dir():
            yield from _bags_in(entry)
        elif is_bag(entry):
            yield entry


def bag_layout(path: Path) -> BagLayout:
    """The layout of the bag at `path`. Raises BagError, naming it and the reason, where that is no rosbag2."""
    if path.is_dir():
        return _described(path) if (path / METADATA).is_file() else _undescribed(path)
    if not path.is_file():
        raise BagError(f"{path}: no such bag")
    if path.suffix == ".bag":
        raise BagError(f"{path}: is a ROS 1 bag; convert it with `rosbags-convert --src {path.name} --dst {path.stem}`")
    if not _is_storage(path):
        raise BagError(f"{path}: is not a rosbag2 file (expected {', '.join(STORAGE_SUFFIXES + COMPRESSED_SUFFIXES)})")
    return BagLayout((path,))


def _undescribed(folder: Path) -> BagLayout:
    files = _storage_files(folder)
    if not files:
        raise BagError(f"{folder}: holds neither {METADATA} nor a storage file ({', '.join(STORAGE_SUFFIXES)})")
    if len(files) > 1 and not _is_split(files):
        raise BagError(f"{folder}: holds {len(files)} storage files that are no parts of one bag; name one of them")
    return BagLayout(tuple(files))


def _described(folder: Path) -> BagLayout:
    file = folder / METADATA
    try:
        information = yaml.load(file.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        information = information["rosbag2_bagfile_information"]
        names = [PurePosixPath(name).name for name in information["relative_file_paths"]]
        mode = str(information.get("compression_mode") or "none").lower()
        topics = information["topics_with_message_count"]
        formats = {topic["topic_metadata"]["serialization_format"] for topic in topics}
        compression = information.get("compression_format")
        custom_data = tuple((str(k), str(v)) for k, v in (information.get("custom_data") or {}).items())
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__} {error}"
        raise BagError(f"{file}: is not the metadata of a rosbag2: {why}; `ros2 bag reindex` makes it anew") from error
    if formats - {"cdr"}:
        raise BagError(f"{folder}: serialization format {sorted(formats - {'cdr'})[0]!r} is not read, only 'cdr'")
    if mode not in ("none", "file", "message") or (mode != "none" and compression != "zstd"):
        raise BagError(f"{folder}: compression {mode!r} by {compression!r} is not read, only zstd by file or message")
    files = tuple(folder / name for name in names)
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        named = missing[0] if missing else "of any name"
        raise BagError(f"{folder}: storage file {named} is missing, though {METADATA} speaks of it")
    return BagLayout(files, mode == "message", custom_data)


def _is_storage(path: Path) -> bool:
    return path.name.endswith(STORAGE_SUFFIXES + COMPRESSED_SUFFIXES)


def _storage_files(folder: Path) -> list[Path]:
    """Storage files directly in `folder`, numbered parts in the order of their numbers."""
    files = [p for p in folder.iterdir() if p.is_file() and _is_storage(p) and not p.name.startswith(".")]
    return sorted(files, key=lambda p: (_part_of(p) or (p.name, 0)))


def _part_of(path: Path) -> tuple[str, int] | None:
    """Stem and number of a split bag's file such as `drawer_12.mcap`."""
    match = re.fullmatch(r"(.*)_(\d+)", path.name.split(".mcap")[0].split(".db3")[0])
    return (match[1], int(match[2])) if match else None


def _is_split(files: list[Path]) -> bool:
    parts = [_part_of(file) for file in files]
    stems = {part[0] for part in parts if part}
    numbers = {part[1] for part in parts if part}
    return None not in parts and len(stems) == 1 and len(numbers) == len(files)
