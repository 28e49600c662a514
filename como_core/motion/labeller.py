"""From a recording to its label file: a function of the recording and of the job alone, in whatever process it runs.

    labeller = Labeller(job)
    outcomes = labeller([Path("videos/0003.mp4"), Path("demos.hdf5#demo_1")])

Originals are only read. A label file is named after its recording and the hash of it, and appears when it is complete:
where it is there, the work is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from como_core.ahead import Ahead
from como_core.episode import Episode
from como_core.errors import ComoError, OutputError
from como_core.formats.bag_layout import is_bag
from como_core.formats.bag_writer import BagError
from como_core.formats.label_bag import write_label_bag
from como_core.formats.labels import LABEL_SUFFIX, LabelError, LabelFile, read_labels, sha256_of, write_labels
from como_core.formats.manifest import LabelledSource, relative_to
from como_core.formats.rosbag import frame_log_ns, frame_stamps_ns
from como_core.formats.source_files import printable, split_source
from como_core.formats.sources import list_sources
from como_core.formats.video import read_video
from como_core.formats.video_stream import NotAsListed, stream_video
from como_core.interface import Interface
from como_core.motion.clip import ClipEncoder, squares
from como_core.motion.confidence import PARTS
from como_core.motion.model import MotionModel, load_motion

Readers = Mapping[Path, Callable[[], Episode]]

DIGITS = 12  # of a hash, in names that people read
_NAME_BYTES = 180  # a file system takes 255, and a suffix comes behind


@dataclass(frozen=True)
class Job:
    """What all recordings of a run have in common; small, and sent to every process.

    paths     what was given to label: files, folders, data sets
    model     folder of the motion model;  identity  its name and hash, as label files have it
    folder    where label files go
    camera    of recordings with several, or image topic of bags without an interface; None: the first
    device    a torch device
    interface  of bags that hold none
    """

    paths: tuple[Path, ...]
    model: Path
    identity: str
    folder: Path
    camera: str | None = None
    device: str = "cpu"
    interface: Interface | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a recording: its entry in the manifest, or None and the reason.

    reason    beside an entry, what was left out of the recording
    labelled  frames that were labelled now; 0 where the label file was there already
    """

    source: Path
    entry: LabelledSource | None
    reason: str = ""
    labelled: int = 0


@dataclass(frozen=True)
class _Opened:
    source: Path
    digest: str
    name: str
    episode: Episode
    encoder: ClipEncoder


class _Closed:
    """The last frame of a recording has come."""


class Labeller:
    """Labels recordings, one after the other; the next frames are decoded in a thread while these are encoded.

    Raises ComoError where the model cannot be loaded. One that cannot be read is an Outcome; OutputError is raised.
    """

    def __init__(self, job: Job, readers: Readers | None = None, model: MotionModel | None = None) -> None:
        """`readers` and `model` are those of the job, where the caller has them already."""
        self._job = job
        self._model = load_motion(job.model, job.device) if model is None else model
        self._readers = list_readers(job.paths, job.interface, job.camera)[0] if readers is None else readers

    def __call__(self, sources: Sequence[Path]) -> list[Outcome]:
        return list(self.label(sources))

    def label(self, sources: Iterable[Path], tick: Callable[[int], None] = lambda frames: None) -> Iterator[Outcome]:
        """The outcome of each of `sources`, in their order; `tick` is told of frames as they are encoded."""
        opened: _Opened | None = None
        with Ahead(self._decoded(sources)) as items:
            for item in items:
                if isinstance(item, Outcome):
                    yield item
                elif isinstance(item, _Opened):
                    opened = item
                elif isinstance(item, np.ndarray):
                    assert opened is not None
                    opened.encoder.add(item)
                    tick(len(item))
                else:
                    assert opened is not None
                    yield self._close(opened)

    def _decoded(self, sources: Iterable[Path]) -> Iterator[_Opened | np.ndarray | _Closed | Outcome]:
        """For each recording its opening, its frames and its end; or the outcome, where there is nothing to encode."""
        for source in sources:
            try:
                digest = sha256_of(source)
                name = _name(source, digest)
                frames = self._frames_there(source, name)
                if frames is not None:
                    yield Outcome(source, self._entry(source, digest, name, frames))
                    continue
                try:
                    yield from self._frames(source, digest, name, self._readers[source]())
                except NotAsListed:
                    yield from self._frames(source, digest, name, read_video(source))
            except OutputError:
                raise
            except ComoError as error:
                yield Outcome(source, None, str(error))

    def _frames(self, source: Path, digest: str, name: str, episode: Episode
                ) -> Iterator[_Opened | np.ndarray | _Closed]:
        yield _Opened(source, digest, name, episode, ClipEncoder(self._model, episode))
        yield from squares(episode, self._model.config.image_size, self._job.camera)
        yield _Closed()

    def _camera(self, source: Path) -> str | None:
        """What says which camera of `source` is labelled; None: the first of those that it has."""
        if self._job.camera is None and self._job.interface is not None and is_bag(source):
            return next(camera.topic for camera in self._job.interface.cameras.values())
        return self._job.camera

    def _frames_there(self, source: Path, name: str) -> int | None:
        """How many frames the label file of that name labels; None where it is not there, or not of this job."""
        path = self._job.folder / f"{name}{LABEL_SUFFIX}"
        try:
            labels = read_labels(path) if path.is_file() else None
        except LabelError:
            return None
        if labels is None or (labels.model, labels.camera) != (printable(self._job.identity), self._camera(source)):
            return None
        return len(labels.timestamps) if set(labels.parts) == set(PARTS) else None

    def _close(self, opened: _Opened) -> Outcome:
        """Write the labels of a recording whose frames are all encoded. Raises OutputError."""
        source, episode, folder = opened.source, opened.episode, self._job.folder
        try:
            clip = opened.encoder.finish()
            labels = LabelFile(episode.timestamps, clip.latent, clip.confidence, str(source), opened.digest,
                               self._job.identity, self._model.config.gap_s, clip.parts, self._camera(source))
            if is_bag(source):
                try:
                    write_label_bag(folder / opened.name, labels, frame_stamps_ns(episode), frame_log_ns(episode))
                except BagError as error:
                    raise OutputError(str(error)) from error
            # Last, since its presence says that the recording is done.
            write_labels(folder / f"{opened.name}{LABEL_SUFFIX}", labels)
        except OutputError:
            raise
        except ComoError as error:
            return Outcome(source, None, str(error))
        return Outcome(source, self._entry(source, opened.digest, opened.name, len(episode)), "; ".join(episode.notes),
                       len(episode))

    def _entry(self, source: Path, digest: str, name: str, frames: int) -> LabelledSource:
        return LabelledSource(relative_to(source, self._job.folder), digest, f"{name}{LABEL_SUFFIX}", frames,
                              name if is_bag(source) else None)


def list_readers(paths: Iterable[Path], interface: Interface | None = None, camera: str | None = None
                 ) -> tuple[Readers, list[tuple[Path, str]]]:
    """`list_sources`, with video files that are decoded once."""
    return list_sources(paths, stream_video, interface, camera)


def _name(source: Path, digest: str) -> str:
    """For people to read; the hash makes it unique. What is not UTF-8 is escaped, what is too long cut off."""
    recording, member = split_source(source)
    words = [recording.parent.name, recording.stem, *([member] if member else [])]
    name = printable("_".join(word for word in words if word)).encode()[:_NAME_BYTES].decode(errors="ignore")
    return f"{name}-{digest[:DIGITS]}"
