"""Which recordings are demonstrations, which are video, and that their labels speak of one motion model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.formats.bag_layout import find_bags, is_bag
from como_core.formats.bag_writer import BagError
from como_core.formats.labels import LabelError, read_labels
from como_core.formats.manifest import MANIFEST, is_labelled_folder, labelled_sources, read_manifest
from como_core.formats.rosbag import note_of
from como_core.formats.source_files import resolved_source
from como_core.formats.sources import open_sources
from como_core.interface import Interface
from como_core.policy.checkpoint import NOBODYS, LatentsOf
from como_core.policy.data import check_demonstrations


@dataclass(frozen=True)
class TrainingData:
    """Demonstrations, with latents where a labelled folder has them; video without actions; what is not used; and whose
    the latents are.
    """

    demonstrations: list[Episode]
    videos: list[Episode]
    skipped: list[tuple[str, str]]
    latents: LatentsOf = NOBODYS

    def summary(self) -> str:
        """Counts, and a line with name and reason for each recording that is not used."""
        lines = [f"{len(self.demonstrations)} demonstrations, {len(self.videos)} labelled videos, "
                 f"{len(self.skipped)} skipped"]
        lines += [f"  {reason if path in reason else f'{path}: {reason}'}" for path, reason in self.skipped]
        lines += [f"  in part: {note}" for episode in (*self.demonstrations, *self.videos) for note in episode.notes]
        return "\n".join(lines)


def open_training_data(demos: Sequence[Path], videos: Sequence[Path], interface: Interface,
                       use_state: bool = False, need_text: bool = False, cameras: Mapping[str, str] | None = None
                       ) -> TrainingData:
    """Read what `como policy train` is given; recordings that do not fit are skipped with the reason.

    demos      what lies at or below is a demonstration
    videos     folders that `como relabel` wrote: what they name is video, unless it is one of the demonstrations, which
               then get their latents from there. They may be of other robots: actions of video are never read, nor
               the state of a bag with another interface
    need_text  whether nothing can be trained on that has no instruction. Without it, none but a demonstration needs
               one, and only where others have
    cameras    for a camera of the interface the one of videos that stands for it, where a video has none of its name

    Raises ComoError where no demonstration is left, or labels were made by different motion models or gaps.
    """
    latents = require_one_model([*demos, *videos])
    strict = open_sources(demos, interface)
    named = {resolved_source(e.source) for e in strict.episodes}
    refused = {resolved_source(path) for path, _ in strict.skipped}
    found = open_sources([*demos, *videos], otherwise=interface)
    skipped = [*strict.skipped, *((path, why) for path, why in found.skipped if resolved_source(path) not in refused)]
    data = TrainingData([], [], [(str(path), reason) for path, reason in skipped], latents)
    for episode in found.episodes:
        if resolved_source(episode.source) in refused:
            continue
        if resolved_source(episode.source) not in named:
            _take_video(data, _renamed(episode, cameras or {}), interface)
            continue
        try:
            check_demonstrations([episode], interface, use_state)
            data.demonstrations.append(episode)
        except ComoError as error:
            data.skipped.append((episode.source, str(error)))
    data = _with_instructions(data, need_text)
    if not data.demonstrations:
        raise ComoError(f"{', '.join(map(str, demos))}: no demonstration that can be used; {data.summary()}")
    return data


def camera_names(given: Iterable[str], interface: Interface) -> dict[str, str]:
    """`OURS=THEIRS ...` as cameras of the interface and those of videos. Raises ComoError, saying what was expected."""
    names: dict[str, str] = {}
    for text in given:
        ours, _, theirs = text.partition("=")
        if ours not in interface.cameras or not theirs:
            raise ComoError(f"--video-cameras {text!r}: expected OURS=THEIRS, OURS being a camera of interface "
                            f"{interface.name!r} ({', '.join(interface.cameras)}) and THEIRS one of the videos")
        if ours in names:
            raise ComoError(f"--video-cameras {text!r}: {ours} is given twice, also as {names[ours]}")
        names[ours] = theirs
    return names


def recorded_interface(demos: Sequence[Path]) -> Interface:
    """The interface inside the first bag of `demos` that has one. Raises ComoError where none has."""
    for bag in find_bags(demos):
        try:
            if (found := note_of(bag).interface) is not None:
                return found
        except BagError:
            continue  # an unreadable bag is named when all are read
    raise ComoError(f"{', '.join(map(str, demos))}: no bag with an interface inside; give the robot's interface YAML "
                    "with --interface")


def require_one_model(folders: Iterable[Path]) -> LatentsOf:
    """The motion model and gap of all labels at or below `folders`.

    Raises ComoError, naming the label file, where they are of two.

    A damaged label file costs its recording alone, which whoever reads that recording says.
    """
    first: tuple[Path, LatentsOf] | None = None
    for file in _label_files(folders):
        try:
            labels = read_labels(file)
        except LabelError:
            continue
        found = LatentsOf(labels.model, labels.gap_s)
        first = first or (file, found)
        if found != first[1]:
            raise ComoError(f"{file}: labels of model {found.model!r} at gap {found.gap_s:g} s, but those of "
                            f"{first[0]} are of {first[1].model!r} at {first[1].gap_s:g} s; run `como relabel` on all "
                            "recordings with one model")
    return first[1] if first else NOBODYS


def _label_files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in (manifest.parent for top in folders for manifest in sorted(top.rglob(MANIFEST))):
        if is_labelled_folder(folder):
            yield from (labels for _, labels in labelled_sources(read_manifest(folder), folder) if labels.is_file())


def _with_instructions(data: TrainingData, need_text: bool) -> TrainingData:
    """What is left where text is required, the others named."""
    told = [e for e in data.demonstrations if _says(e)]
    if need_text:
        why = "an empty instruction, which a text encoder cannot read"
        videos = [e for e in data.videos if _says(e)]
    else:
        why = f"an empty instruction, where {len(told)} other demonstrations have one"
        told, videos = told or data.demonstrations, data.videos
    kept = {id(episode) for episode in (*told, *videos)}
    mute = [e.source for e in (*data.demonstrations, *data.videos) if id(e) not in kept]
    skipped = [*data.skipped, *((source, f"{why}; say what it shows") for source in mute)]
    return dataclasses.replace(data, demonstrations=told, videos=videos, skipped=skipped)


def _says(episode: Episode) -> bool:
    return bool((episode.instruction or "").strip())


def _renamed(video: Episode, cameras: Mapping[str, str]) -> Episode:
    found = {ours: video.images[theirs] for ours, theirs in cameras.items()
             if ours not in video.images and theirs in video.images}
    return dataclasses.replace(video, images={**video.images, **found})


def _take_video(data: TrainingData, episode: Episode, interface: Interface) -> None:
    if episode.latent is None:
        data.skipped.append((episode.source, "video without latent motion; run `como relabel` on it"))
    elif is_bag(Path(episode.source)) and note_of(episode.source).interface not in (None, interface):
        data.videos.append(dataclasses.replace(episode.without_actions(), state=None))  # the state of another robot
    else:
        data.videos.append(episode.without_actions())
