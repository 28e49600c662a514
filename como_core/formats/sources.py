"""Recordings of any kind as episodes: videos, bags, LeRobot data sets, robomimic and LIBERO files, labelled folders.

    sources = open_sources(["bags/", "videos/", "datasets/", "relabeled/"])

What is broken is named, not fatal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.formats import libero
from como_core.formats.bag_layout import is_bag
from como_core.formats.hdf5 import HDF5_SUFFIXES, hdf5_action_names, is_libero, list_demos, read_demo
from como_core.formats.label_bag import holds_labels
from como_core.formats.labels import read_labels, with_labels
from como_core.formats.lerobot import LeRobotDataset
from como_core.formats.lerobot_layout import episode_index, is_lerobot, member_of
from como_core.formats.manifest import is_labelled_folder, labelled_sources, located, read_manifest
from como_core.formats.rosbag import note_of, read_bag
from como_core.formats.source_files import join_source, split_source
from como_core.formats.video import VIDEO_SUFFIXES, read_video
from como_core.interface import Interface

KINDS = "videos, bags, LeRobot data sets, robomimic or LIBERO HDF5 files, or the output of `como relabel`"


@dataclass(frozen=True)
class Sources:
    """What could be read, in the order of the paths, and what could not: source and reason."""

    episodes: list[Episode] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)

    def summary(self) -> str:
        """How many were read, and a line with name and reason for each that was not, or not whole."""
        count = f"{len(self.episodes)} episode{'' if len(self.episodes) == 1 else 's'} read"
        lines = [f"  {reason if str(path) in reason else f'{path}: {reason}'}" for path, reason in self.skipped]
        told = [f"{count}, {len(lines)} skipped:", *lines] if lines else [count]
        partly = [episode for episode in self.episodes if episode.notes]
        if partly:
            told += [f"{len(partly)} read in part:", *(f"  {note}" for episode in partly for note in episode.notes)]
        return "\n".join(told)


@dataclass
class _File:
    """A file or data set that was found: the whole of it is wanted, or some members.

    labels  member that was named -> its label file, if any; the member is None where the file itself was named
    """

    path: Path
    labels: dict[str | None, Path | None] = field(default_factory=dict)

    def members(self, every: Callable[[], list[str]]) -> list[str]:
        """Names of the members that are wanted; `every` lists them all."""
        return every() if None in self.labels else [member for member in self.labels if member is not None]


Read = Callable[[], Episode]


class NothingRead(ComoError):
    """There is no recording that can be read: `skipped` has the paths and why."""

    def __init__(self, message: str, skipped: list[tuple[Path, str]]) -> None:
        super().__init__(message)
        self.skipped = skipped


def open_sources(
    paths: Iterable[str | Path],
    interface: Interface | None = None,
    progress: Callable[[Sequence[Path]], Iterable[Path]] | None = None,
    camera: str | None = None,
    otherwise: Interface | None = None,
) -> Sources:
    """Episodes of every recording at or below `paths`, each once; those that cannot be read are listed with the reason.

    A file that holds many gives them all, in their own order, as `path#member`, and such a source may itself be given.
    A folder with the manifest of `como relabel` gives the recordings that it names, with their labels, and those that
    lie in it; one that is also found without labels is given with them. Links are followed, each folder is gone through
    once.

    interface  that bags are read by, their own where None; with one of the hand's twist and a gripper, LIBERO's
               demonstrations come in its units and order
    progress   may wrap the loop over recordings, to show where it is
    camera     image topic of bags that have several and no interface
    otherwise  that bags are read by which hold none; others by their own, whatever it is

    Raises ComoError for a path that does not exist, and where nothing at all can be read.
    """
    given = [Path(path) for path in paths]
    sources = Sources()
    bag = partial(read_bag, interface=interface, otherwise=otherwise, camera=camera)
    readers = _readers(given, sources, read_video, bag)
    recordings = list(readers)
    for source in progress(recordings) if progress else recordings:
        read, label_file = readers.pop(source)
        try:
            episode = read()
            if label_file is not None:
                episode = with_labels(episode, read_labels(label_file), source)
            robot = interface or otherwise
            if robot is not None and episode.action is not None and _is_hdf5(split_source(source)[0]):
                episode = _by_interface(episode, source, robot, required=interface is not None)
            sources.episodes.append(episode)
        except ComoError as error:
            sources.skipped.append((source, str(error)))
    if not sources.episodes:
        places = ", ".join(map(str, given)) or "no path"
        raise NothingRead(f"{places}: no recording that can be read; {sources.summary()}", sources.skipped)
    return sources


def list_sources(
    paths: Iterable[str | Path], video: Callable[[Path], Episode] = read_video, interface: Interface | None = None,
    camera: str | None = None,
) -> tuple[dict[Path, Callable[[], Episode]], list[tuple[Path, str]]]:
    """Every recording at or below `paths`, unopened, with what reads it; and those that cannot be listed, with why.

    They are those of `open_sources`, without labels; reading raises ComoError. Neighbours in one data set share what
    was gone through. `video` reads plain video files; `interface` is that of bags that hold none, `camera` as of
    `open_sources`.

    Raises ComoError for a path that does not exist.
    """
    sources = Sources()
    readers = _readers([Path(path) for path in paths], sources, video,
                       partial(read_bag, otherwise=interface, camera=camera))
    return {source: read for source, (read, _) in readers.items()}, sources.skipped


def action_names_of(source: str | Path) -> list[str] | None:
    """Names of the commanded values of an episode, by its source; None where the recording does not say.

    Of a bag, its interface's without the gripper; of a LeRobot data set, those in info.json; of an HDF5 file, those of
    its controller or a0, a1, ... Raises ComoError where the recording cannot be read.
    """
    path, member = split_source(source)
    if member is not None and is_lerobot(path):
        return LeRobotDataset(path).action_names()
    if member is not None and _is_hdf5(path):
        return hdf5_action_names(path, member)
    if not is_bag(path):
        return None
    interface = note_of(path).interface
    return list(interface.action.names) if interface else None


def _readers(paths: Iterable[Path], sources: Sources, video: Callable[[Path], Episode],
             bag: Callable[[Path], Episode]) -> dict[Path, tuple[Read, Path | None]]:
    """Reader and label file of each recording, in the order of the paths; what is broken goes to `sources.skipped`."""
    files: dict[Path, _File] = {}
    for source, label_file in (found for path in paths for found in _found_or_named(path, sources)):
        path, member = split_source(source)
        file = files.setdefault(path.resolve(), _File(path))
        file.labels[member] = label_file or file.labels.get(member)
    readers: dict[Path, tuple[Read, Path | None]] = {}
    for file in files.values():
        try:
            for member, read in _recordings(file, sources, video, bag):
                source = file.path if member is None else Path(join_source(file.path, member))
                readers[source] = read, file.labels.get(member)
        except ComoError as error:
            sources.skipped.append((file.path, str(error)))
    return readers


def _found_or_named(path: Path, sources: Sources) -> Iterator[tuple[Path, Path | None]]:
    """As `_found`; a path that gives nothing at all goes to `sources.skipped`."""
    before, empty = len(sources.skipped), True
    for found in _found(path, sources, set()):
        empty = False
        yield found
    if empty and len(sources.skipped) == before:
        sources.skipped.append((path, f"{path}: no recording at or below it (expected {KINDS})"))


def _found(path: Path, sources: Sources, seen: set[Path]) -> Iterator[tuple[Path, Path | None]]:
    """Recordings at or below `path`, sorted, with the label file where a manifest names one.

    What cannot be gone through goes to `sources.skipped`. Folders that are `seen` already are not gone through again:
    a link may lead to a folder that it lies in.
    """
    if not path.is_dir():
        if not split_source(path)[0].exists():
            raise ComoError(f"{path}: no such file or folder (expected {KINDS})")
        yield path, None
        return
    if (place := path.resolve()) in seen:
        return
    seen.add(place)
    beside: set[Path] = set()  # bags of labels
    if labelled := is_labelled_folder(path):
        manifest = read_manifest(path)
        yield from labelled_sources(manifest, path)
        beside = {located(entry.sidecar, path) for entry in manifest.labelled if entry.sidecar}
    if is_lerobot(path) or is_bag(path):
        yield path, None
        return
    try:
        entries = sorted(path.iterdir())
    except OSError as error:
        sources.skipped.append((path, f"{path}: cannot be gone through: {error.strerror}"))
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.suffix == ".part" or (labelled and is_bag(entry) and (
                entry in beside or holds_labels(entry))):
            continue
        if entry.is_symlink() and not entry.exists():
            sources.skipped.append((entry, f"{entry}: is a link to {os.readlink(entry)}, which is not there"))
        elif entry.is_dir():
            yield from _found(entry, sources, seen)
        elif entry.is_file() and (entry.suffix.lower() in VIDEO_SUFFIXES or _is_hdf5(entry) or is_bag(entry)):
            yield entry, None


def _by_interface(episode: Episode, source: Path, robot: Interface, required: bool) -> Episode:
    """An HDF5 demonstration in the units of the robot, where it is LIBERO's.

    Raises ComoError where its actions are `required`, and as many as the robot's, but of another kind.
    """
    path, demo = split_source(source)

    def is_theirs() -> bool:  # asked where it matters alone, since it opens the file
        return demo is not None and is_libero(path, demo)

    if libero.fits(robot.action):
        return libero.by_interface(episode) if robot.name == libero.INTERFACE or is_theirs() else episode
    if required and episode.action is not None and episode.action.shape[1] == robot.action.size and is_theirs():
        raise ComoError(f"{source}: LIBERO's commands, the hand's twist and a gripper; interface {robot.name!r} has "
                        f"{robot.action.kind} of {', '.join(robot.action.names)}; give one as "
                        "config/interfaces/libero.yaml")
    return episode


def _recordings(file: _File, sources: Sources, video: Callable[[Path], Episode], bag: Callable[[Path], Episode]
                ) -> Iterator[tuple[str | None, Read]]:
    """Name and reader of each recording in a file; what a data set lacks goes to `sources.skipped`."""
    path = file.path
    if is_lerobot(path):
        yield from _lerobot(file, sources)
    elif _is_hdf5(path):
        yield from ((demo, partial(read_demo, path, demo)) for demo in file.members(partial(list_demos, path)))
    elif is_bag(path):
        yield None, partial(bag, path)
    elif path.is_dir():
        raise ComoError(f"{path}: is a folder, but neither a rosbag2 nor a LeRobot data set")
    else:
        yield None, partial(video, path)


def _lerobot(file: _File, sources: Sources) -> Iterator[tuple[str, Read]]:
    dataset = LeRobotDataset(file.path)
    absence = dataset.absence()
    if absence and None in file.labels:
        sources.skipped.append((file.path, absence))
    for member in file.members(lambda: [member_of(index) for index in dataset.episodes]):
        yield member, partial(dataset.read, episode_index(member))


def _is_hdf5(path: Path) -> bool:
    return path.suffix.lower() in HDF5_SUFFIXES
