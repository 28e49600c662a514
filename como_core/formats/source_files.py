"""What `Episode.source` names: a file or folder, or one episode among many in it, such as `demos.hdf5#demo_3`.

    path, member = split_source("lift/demos.hdf5#demo_3")  # Path("lift/demos.hdf5"), "demo_3"
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from como_core.formats.lerobot_layout import Layout, episode_index, is_lerobot, metadata_files, read_layout

_MARK = "#"


def join_source(path: str | Path, member: str) -> str:
    """The source of episode `member` of the file or data set at `path`."""
    return f"{path}{_MARK}{member}"


def split_source(source: str | Path) -> tuple[Path, str | None]:
    """The file or folder of a source, and the episode in it; None where the source is the whole file.

    A file whose own name has the mark in it is a file.
    """
    path = Path(source)
    name, mark, member = path.name.rpartition(_MARK)
    if not mark or not name or not member or path.exists():
        return path, None
    return path.parent / name, member


def printable(source: str | Path) -> str:
    """The source in UTF-8; bytes of a file's name that are not stand as \\udcXX, as people see them."""
    return str(source).encode("utf-8", "backslashreplace").decode()


def resolved_source(source: str | Path) -> Path:
    """The source without detours, so that two spellings of one are equal."""
    path, member = split_source(source)
    return path.resolve() if member is None else Path(join_source(path.resolve(), member))


def source_root(source: str | Path) -> Path:
    """The folder that names of a source's files are given relative to."""
    path = split_source(source)[0]
    return path if path.is_dir() else path.parent


def files_of(source: str | Path) -> list[Path]:
    """The files that an episode was read from; none for an episode that was never a file.

    Of a LeRobot data set these are the table and the videos that hold the episode, which other episodes may share.
    """
    path, member = split_source(source)
    if not path.is_dir():
        return [path] if path.is_file() else []
    if member is not None and is_lerobot(path):
        place = _layout(path).episodes.get(episode_index(member))
        return place.files if place else []
    return sorted(p for p in path.rglob("*") if p.is_file())


def _layout(root: Path) -> Layout:
    return _layout_at(root, tuple((file, file.stat().st_mtime_ns) for file in metadata_files(root)))


@lru_cache(maxsize=4)
def _layout_at(root: Path, state: tuple[tuple[Path, int], ...]) -> Layout:
    """The layout as it was at `state`: thousands of episodes ask for it, one by one."""
    del state
    return read_layout(root)
