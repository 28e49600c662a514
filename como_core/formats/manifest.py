"""The list that `como relabel` leaves beside its label files: which recording has which, and what was skipped."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from como_core import config
from como_core.errors import ComoError
from como_core.formats.result_file import write_result
from como_core.formats.source_files import resolved_source

MANIFEST = "manifest.json"
_FORMAT = "como-labels-manifest-1"


@dataclass(frozen=True, slots=True)
class LabelledSource:
    """One labelled recording. Paths are relative to the manifest's folder, so that both can move together.

    source   the recording
    sha256   what `labels.sha256_of` said of it
    labels   its label file
    sidecar  the bag of labels that belongs to a bag, or None
    frames   how many there are
    """

    source: str
    sha256: str
    labels: str
    frames: int
    sidecar: str | None = None


@dataclass(frozen=True)
class SkippedSource:
    """A recording that could not be labelled, and why; or one that could, and what was left out of it."""

    source: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """Contents of manifest.json: the motion model, its gap in seconds, and every recording that was looked at.

    camera  that was asked for, of recordings with several; None: the first
    """

    model: str
    gap_s: float
    labelled: tuple[LabelledSource, ...] = ()
    skipped: tuple[SkippedSource, ...] = ()
    camera: str | None = None


def write_manifest(folder: str | Path, manifest: Manifest) -> Path:
    """Write `manifest` into `folder`, replacing the one there in one step. Raises OutputError."""
    path = Path(folder) / MANIFEST
    write_result(path, {"format": _FORMAT, **asdict(manifest)})
    return path


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest in `folder`. Raises ComoError, naming file and key, where it is missing, damaged or foreign."""
    path = Path(folder) / MANIFEST
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ComoError(f"{path}: cannot be read as the list of labels: {error}") from error
    if not isinstance(data, dict) or data.pop("format", None) != _FORMAT:
        raise ComoError(f"{path}: is not a list of labels made by `como relabel`")
    return config.build(Manifest, data, str(path))


def is_labelled_folder(folder: Path) -> bool:
    """Whether `folder` holds a manifest of `como relabel`; files of that name from elsewhere do not count."""
    try:
        return (folder / MANIFEST).is_file() and bool(read_manifest(folder))
    except config.ConfigError:
        return True
    except ComoError:
        return False


def relative_to(path: str | Path, folder: str | Path) -> str:
    """`path` as a manifest in `folder` writes it."""
    return Path(os.path.relpath(resolved_source(path), Path(folder).resolve())).as_posix()


def located(entry_path: str, folder: str | Path) -> Path:
    """Where a path of a manifest in `folder` is, without detours."""
    return Path(os.path.normpath(Path(folder) / entry_path))


def labelled_sources(manifest: Manifest, folder: str | Path) -> Sequence[tuple[Path, Path]]:
    """Recording and label file of each entry."""
    return [(located(entry.source, folder), located(entry.labels, folder)) for entry in manifest.labelled]
