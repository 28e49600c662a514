"""Label recordings with latent motion: z and a confidence for every step of every recording.

    manifest = relabel(["videos/", "bags/", "demos.hdf5"], "runs/motion", "relabeled")

Originals are only read. Each recording has a label file of its own in the output folder, named after it and its hash,
so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from como_core.episode import Episode
from como_core.errors import ComoError, OutputError
from como_core.formats.bag_layout import is_bag
from como_core.formats.label_bag import write_label_bag
from como_core.formats.labels import LABEL_SUFFIX, LabelFile, read_labels, sha256_of, write_labels
from como_core.formats.manifest import (
    LabelledSource,
    Manifest,
    SkippedSource,
    is_labelled_folder,
    read_manifest,
    relative_to,
    write_manifest,
)
from como_core.formats.rosbag import frame_stamps_ns
from como_core.formats.source_files import split_source
from como_core.formats.sources import open_sources
from como_core.motion.clip import label_clip
from como_core.motion.model import MotionModel, load_motion
from como_core.training.checkpoint import TENSORS
from como_core.training.progress import track

_DIGITS = 12  # of a hash, in names that people read


def relabel(paths: Iterable[str | Path], model: str | Path, out: str | Path, camera: str | None = None,
            device: str = "cpu") -> Manifest:
    """Label every recording at or below `paths` with the motion model in folder `model`; returns what was written.

    Into `out` go a label file per recording, for a bag also a bag of labels, and manifest.json. A recording that is
    labelled already is left as it is; one that cannot be read, or is shorter than the gap, is named in the manifest
    with the reason and costs only itself.

    Raises ComoError where nothing at all can be labelled, or `out` holds labels of another model; OutputError where
    `out` cannot be written.
    """
    folder, loaded = Path(out), load_motion(model, device)
    identity = f"{Path(model).name}@{sha256_of(Path(model) / TENSORS)[:_DIGITS]}"
    before = _manifest_before(folder, identity)
    _need_room(folder)
    sources = open_sources(paths, progress=lambda found: track(found, "reading", "recordings"))
    labelled = {entry.source: entry for entry in (before.labelled if before else ())}
    skipped = [(str(path), reason) for path, reason in sources.skipped]
    for episode in track(sources.episodes, "relabel", unit="recordings"):
        try:
            entry = _label(episode, loaded, identity, folder, camera)
            labelled[entry.source] = entry
        except OutputError:
            raise
        except ComoError as error:
            skipped.append((episode.source, str(error)))
    if not labelled:
        raise ComoError(f"none of {len(skipped)} recordings could be labelled; the first: {skipped[0][1]}")
    manifest = Manifest(identity, loaded.config.gap_s, tuple(labelled.values()),
                        tuple(SkippedSource(relative_to(path, folder), reason) for path, reason in skipped))
    write_manifest(folder, manifest)
    return manifest


def _label(episode: Episode, model: MotionModel, identity: str, folder: Path, camera: str | None) -> LabelledSource:
    source, digest = Path(episode.source), sha256_of(episode.source)
    recording, member = split_source(source)
    words = [recording.parent.name, recording.stem, *([member] if member else [])]
    name = "_".join(word for word in words if word) + f"-{digest[:_DIGITS]}"
    path, bag = folder / f"{name}{LABEL_SUFFIX}", is_bag(source)
    if not path.is_file() or read_labels(path).model != identity:
        latent, confidence = label_clip(model, episode, camera)
        labels = LabelFile(episode.timestamps, latent, confidence, episode.source, digest, identity, model.config.gap_s)
        if bag:
            write_label_bag(folder / name, labels, frame_stamps_ns(episode))
        write_labels(path, labels)  # last, since its presence says that the recording is done
    return LabelledSource(relative_to(source, folder), digest, path.name, len(episode), name if bag else None)


def _need_room(folder: Path) -> None:
    """Find out before the work, not after it, that nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror}; choose another folder") from error


def _manifest_before(folder: Path, identity: str) -> Manifest | None:
    if not is_labelled_folder(folder):
        return None
    before = read_manifest(folder)
    if before.model != identity:
        raise ComoError(f"{folder}: holds labels of the model {before.model}, these would be of {identity}; "
                        "choose another output folder")
    return before
