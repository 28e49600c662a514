"""Label recordings with latent motion: z and a confidence for every step of every recording.

    manifest = relabel(["videos/", "bags/", "demos.hdf5"], "runs/motion", "relabeled")

Originals are only read. Each recording has a label file of its own in the output folder, so that an interrupted run
goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from como_core.errors import ComoError
from como_core.formats.labels import sha256_of
from como_core.formats.manifest import (
    LabelledSource,
    Manifest,
    SkippedSource,
    is_labelled_folder,
    read_manifest,
    relative_to,
    write_manifest,
)
from como_core.formats.output_folder import writable_folder
from como_core.formats.sources import KINDS
from como_core.interface import Interface
from como_core.motion.config import MotionConfig
from como_core.motion.engine import EngineName, make_engine
from como_core.motion.labeller import DIGITS, Job, list_readers
from como_core.training.checkpoint import TENSORS, load_checkpoint
from como_core.training.progress import Progress


def relabel(paths: Iterable[str | Path], model: str | Path, out: str | Path, camera: str | None = None,
            device: str = "cpu", engine: EngineName = "local", workers: int | None = None,
            interface: Interface | None = None) -> Manifest:
    """Label every recording at or below `paths` with the motion model in folder `model`; returns what was written.

    Into `out` go a label file per recording, for a bag also a bag of labels, and manifest.json. A recording that is
    labelled already is left as it is; one that cannot be read, or is shorter than the gap, is named in the manifest
    with the reason and costs only itself. `workers` are processes; None: as the machine suggests. `interface` tells the
    topics of bags that hold none.

    Raises ComoError where nothing at all can be labelled, or `out` holds labels of another model; OutputError where
    `out` cannot be written.
    """
    given, folder, run = tuple(Path(path) for path in paths), Path(out), Path(model)
    labels = make_engine(engine, workers)
    config = load_checkpoint(run, MotionConfig).config
    identity = f"{run.name}@{sha256_of(run / TENSORS)[:DIGITS]}"
    before = _manifest_before(folder, identity)
    writable_folder(folder)
    readers, unlisted = list_readers(given, interface)
    labelled: dict[Path, LabelledSource] = {}
    skipped = dict(unlisted)
    with Progress(len(readers), "relabel", "recordings") as progress:
        rate = _FrameRate()
        for outcome in labels.run(Job(given, run, identity, folder, camera, device, interface), readers,
                                  lambda frames: progress.advance(0, rate.after(frames))):
            if outcome.entry is None:
                skipped[outcome.source] = outcome.reason
            else:
                labelled[outcome.source] = outcome.entry
            progress.advance(1, rate.now(outcome.labelled))
    entries = {entry.source: entry for entry in (before.labelled if before else ())}
    # In the order of the recordings, whichever was done first.
    entries |= {labelled[source].source: labelled[source] for source in readers if source in labelled}
    if not entries:
        why = f"; the first: {next(iter(skipped.values()))}" if skipped else f"; expected {KINDS}"
        raise ComoError(f"{', '.join(map(str, given)) or 'no path'}: none of {len(skipped)} recordings could be "
                        f"labelled{why}")
    manifest = Manifest(identity, config.gap_s, tuple(entries.values()),
                        tuple(SkippedSource(relative_to(path, folder), reason) for path, reason in skipped.items()))
    write_manifest(folder, manifest)
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


def _manifest_before(folder: Path, identity: str) -> Manifest | None:
    if not is_labelled_folder(folder):
        return None
    before = read_manifest(folder)
    if before.model != identity:
        raise ComoError(f"{folder}: holds labels of the model {before.model}, these would be of {identity}; "
                        "choose another output folder")
    return before
