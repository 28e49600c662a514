"""Recordings of any kind as episodes: videos, bags and what `como relabel` wrote; broken ones are named, not fatal.

    sources = open_sources(["bags/", "videos/", "relabeled/"])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.formats.bag_layout import is_bag
from como_core.formats.labels import read_labels, with_labels
from como_core.formats.manifest import is_labelled_folder, labelled_sources, read_manifest
from como_core.formats.rosbag import read_bag
from como_core.formats.video import VIDEO_SUFFIXES, read_video
from como_core.interface import Interface


@dataclass(frozen=True)
class Sources:
    """What could be read, in the order of the paths, and what could not: path and reason."""

    episodes: list[Episode] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)

    def summary(self) -> str:
        """How many were read, and a line with name and reason for each that was not."""
        count = f"{len(self.episodes)} episode{'' if len(self.episodes) == 1 else 's'} read"
        lines = [f"  {reason if str(path) in reason else f'{path}: {reason}'}" for path, reason in self.skipped]
        return "\n".join([f"{count}, {len(lines)} skipped:", *lines]) if lines else count


def open_sources(
    paths: Iterable[str | Path],
    interface: Interface | None = None,
    progress: Callable[[Sequence[Path]], Iterable[Path]] | None = None,
) -> Sources:
    """Episodes of every recording at or below `paths`, each once; those that cannot be read are listed with the reason.

    A folder with the manifest of `como relabel` gives the recordings that it names, with their labels; one that is also
    found without labels is given with them. `interface` is the one that bags are read by, their own where None.
    `progress` may wrap the loop over recordings, to show where it is.

    Raises ComoError for a path that does not exist, and where nothing at all can be read.
    """
    labels: dict[Path, Path | None] = {}
    names: dict[Path, Path] = {}
    given = [Path(path) for path in paths]
    for path, label_file in (found for place in given for found in _found(place)):
        key = path.resolve()
        names.setdefault(key, path)
        labels[key] = label_file or labels.get(key)
    sources = Sources()
    recordings = list(names.values())
    for path in progress(recordings) if progress else recordings:
        try:
            sources.episodes.append(_read(path, labels[path.resolve()], interface))
        except ComoError as error:
            sources.skipped.append((path, str(error)))
    if not sources.episodes:
        places = ", ".join(map(str, given)) or "no path"
        raise ComoError(f"{places}: no video or bag that can be read; {sources.summary()}")
    return sources


def _found(path: Path) -> Iterator[tuple[Path, Path | None]]:
    """Recordings at or below `path`, sorted, with the label file where a manifest names one."""
    if not path.is_dir():
        if not path.exists():
            raise ComoError(f"{path}: no such file or folder (expected videos, bags or the output of `como relabel`)")
        yield path, None
    elif is_labelled_folder(path):
        yield from labelled_sources(read_manifest(path), path)
    elif is_bag(path):
        yield path, None
    else:
        for entry in sorted(path.iterdir()):
            if entry.name.startswith(".") or entry.suffix == ".part":
                continue
            if entry.is_dir():
                yield from _found(entry)
            elif entry.is_file() and (entry.suffix.lower() in VIDEO_SUFFIXES or is_bag(entry)):
                yield entry, None


def _read(path: Path, label_file: Path | None, interface: Interface | None) -> Episode:
    if is_bag(path):
        episode = read_bag(path, interface)
    elif path.is_dir():
        raise ComoError(f"{path}: is a folder, but no rosbag2")
    else:
        episode = read_video(path)
    return episode if label_file is None else with_labels(episode, read_labels(label_file), path)
