"""Label recordings with latent motion: z and a confidence for every step of every recording.

    manifest = relabel(["videos/", "bags/", "demos.hdf5"], "runs/motion", "relabeled")

Originals are only read. Each recording has a label file of its own in the output folder, so that an interrupted run
goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from como_core.errors import ComoError, OutputError
from como_core.formats.labels import LABEL_SUFFIX, LabelError, read_labels, sha256_of
from como_core.formats.manifest import (
    MANIFEST,
    LabelledSource,
    Manifest,
    SkippedSource,
    read_manifest,
    relative_to,
    write_manifest,
)
from como_core.formats.output_folder import writable_folder
from como_core.formats.source_files import split_source
from como_core.formats.sources import KINDS
from como_core.interface import Interface
from como_core.motion.config import MotionConfig
from como_core.motion.engine import EngineName, make_engine
from como_core.motion.labeller import DIGITS, Job, Outcome, list_readers
from como_core.training.checkpoint import TENSORS, load_checkpoint
from como_core.training.progress import Progress

_WRITE_EVERY_S = 10.0
_NAMED = 20  # reasons on the screen; the manifest has all


def relabel(paths: Iterable[str | Path], model: str | Path, out: str | Path, camera: str | None = None,
            device: str = "cpu", engine: EngineName = "local", workers: int | None = None,
            interface: Interface | None = None) -> Manifest:
    """Label every recording at or below `paths` with the motion model in folder `model`; returns what was written.

    Into `out` go a label file per recording, for a bag also a bag of labels, and manifest.json, which is kept up to
    date as the work goes on. A recording that is labelled already is left as it is; one that cannot be read, or is
    shorter than the gap, is named in the manifest with the reason and costs only itself. Those of earlier runs stay in
    the manifest, unless they cannot be labelled any more.

    camera     of recordings with several, or image topic of bags without an interface; None: the first
    workers    processes; None: as the machine suggests
    interface  tells the topics of bags that hold none

    Raises ComoError where nothing at all can be labelled, or `out` holds labels of another model or camera; OutputError
    where `out` cannot be written, holds a manifest.json of something else, or is a part of a recording.
    """
    given, folder, run = tuple(Path(path) for path in paths), Path(out), Path(model)
    labels = make_engine(engine, workers)
    config = load_checkpoint(run, MotionConfig).config
    identity = f"{run.name}@{sha256_of(run / TENSORS)[:DIGITS]}"
    now = Manifest(identity, config.gap_s, camera=camera)
    before = _manifest_before(folder)
    _require_same(folder, before, now)
    readers, unlisted = list_readers(given, interface, camera)
    _refuse_inside(folder, readers)
    writable_folder(folder)
    account = _Account(folder, before or now, unlisted)
    account.write()
    with account.kept(), Progress(len(readers), "relabel", "recordings") as progress:
        rate = _FrameRate()
        for outcome in labels.run(Job(given, run, identity, folder, camera, device, interface), readers,
                                  lambda frames: progress.advance(0, rate.after(frames))):
            account.add(outcome)
            progress.advance(1, rate.now(outcome.labelled))
    # In the order of the recordings, whichever was done first.
    manifest = account.write(readers)
    if not manifest.labelled:
        places = ", ".join(map(str, given)) or "no path"
        raise ComoError(f"{places}: no recording could be labelled{_reasons(manifest)}")
    return manifest


class _Account:
    """The manifest as the work goes on: what was there before, with what has been done since."""

    def __init__(self, folder: Path, before: Manifest, skipped: Iterable[tuple[Path, str]]) -> None:
        self._folder, self._before = folder, before
        self._labelled: dict[Path, LabelledSource] = {}
        self._skipped = dict(skipped)
        done = {entry.source for entry in before.labelled}
        self._left_out = {entry.source: entry.reason for entry in before.skipped if entry.source in done}
        self._written = time.monotonic()

    def add(self, outcome: Outcome) -> None:
        """Take the outcome of a recording; it is in the file at the latest _WRITE_EVERY_S later, or with the next."""
        reason = outcome.reason
        if outcome.entry is not None:
            if not outcome.labelled:  # labelled before, and not read again
                reason = self._left_out.get(outcome.entry.source, "")
            self._labelled[outcome.source] = outcome.entry
        if reason:
            self._skipped[outcome.source] = reason
        if time.monotonic() - self._written > _WRITE_EVERY_S:
            self.write()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Work that may be broken off: what is done by then is written."""
        try:
            yield
        except BaseException:
            with suppress(ComoError):
                self.write()
            raise

    def write(self, order: Iterable[Path] = ()) -> Manifest:
        """Write the manifest of this moment, in the `order` of recordings as far as it says. Raises ComoError."""
        skipped = {relative_to(path, self._folder): reason for path, reason in self._skipped.items()}
        entries = {entry.source: entry for entry in self._before.labelled if entry.source not in skipped}
        entries |= {self._labelled[source].source: self._labelled[source]
                    for source in [*order, *self._labelled] if source in self._labelled}
        manifest = dataclasses.replace(self._before, labelled=tuple(entries.values()),
                                       skipped=tuple(itertools.starmap(SkippedSource, skipped.items())))
        write_manifest(self._folder, manifest)
        self._written = time.monotonic()
        return manifest


class _FrameRate:
    """Frames labelled per second, as people read it; frames come as they are encoded, or with their recording."""

    def __init__(self) -> None:
        self._start, self._encoded, self._labelled = time.monotonic(), 0, 0

    def after(self, frames: int) -> str:
        self._encoded += frames
        return self._text()

    def now(self, frames: int) -> str:
        self._labelled += frames
        return self._text()

    def _text(self) -> str:
        frames = max(self._encoded, self._labelled)
        return f"{frames / max(time.monotonic() - self._start, 1e-9):,.0f} frames/s"


def _manifest_before(folder: Path) -> Manifest | None:
    """What an earlier run left in `folder`. Raises OutputError for a manifest.json that would be lost."""
    if not (folder / MANIFEST).exists():
        return None
    try:
        return read_manifest(folder)
    except ComoError as error:
        raise OutputError(f"{error}; choose another output folder or, where this one holds nothing but labels, delete "
                          f"{MANIFEST}: complete label files are not made anew") from error


def _require_same(folder: Path, before: Manifest | None, now: Manifest) -> None:
    """Raises ComoError where `folder` holds labels of another model or camera than `now`.

    Its manifest, `before`, says so or, where it has none, its label files do.
    """
    models = _models_of_labels(folder) if before is None else [before.model]
    other = [f"the model {model}, these would be of {now.model}" for model in models if model != now.model]
    if before is not None and before.camera != now.camera:
        other.append(f"{_named(before.camera)}, these would be of {_named(now.camera)}")
    if other:
        raise ComoError(f"{folder}: holds labels of {other[0]}; choose another output folder")


def _models_of_labels(folder: Path) -> list[str]:
    """The model of each label file that can be read."""
    models = []
    for path in sorted(folder.glob(f"*{LABEL_SUFFIX}")):
        with suppress(LabelError):
            models.append(read_labels(path).model)
    return models


def _named(camera: str | None) -> str:
    return "each recording's first camera" if camera is None else f"camera {camera!r}"


def _refuse_inside(folder: Path, recordings: Iterable[Path]) -> None:
    """Raises OutputError where `folder` is, or lies in, a bag or data set that is to be labelled."""
    around = {folder.resolve(), *folder.resolve().parents}
    for recording in {split_source(path)[0] for path in recordings}:
        if recording.is_dir() and recording.resolve() in around:
            raise OutputError(f"{folder}: is a part of the recording {recording}, which is never written; "
                              "choose another output folder")


def _reasons(manifest: Manifest) -> str:
    if not manifest.skipped:
        return f"; expected {KINDS}"
    lines = [f"  {entry.reason}" for entry in manifest.skipped[:_NAMED]]
    more = len(manifest.skipped) - _NAMED
    return "\n".join([":", *lines, *([f"  and {more} more, which {MANIFEST} names"] if more > 0 else [])])
