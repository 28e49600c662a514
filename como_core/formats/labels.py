"""Latent-motion labels of one recording, in a file of their own; the original is never written.

A label file is safetensors: timestamps, latent, confidence and the parts that it is the product of, and in its metadata
what they were made from. Reading it runs no code. The hash ties it to its source, so that labels never land on another
recording.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from como_core.episode import Episode
from como_core.errors import ComoError, OutputError
from como_core.file_rights import usual_rights
from como_core.formats.source_files import files_of, printable, source_root, split_source

LABEL_SUFFIX = ".labels.safetensors"

_FORMAT = "como-labels-1"
_TENSORS = ("timestamps", "latent", "confidence")
_PART = "confidence."
_SAME_TIME_S = 1e-3  # Above the rounding of epoch seconds in float64, below the period of any camera.


class LabelError(ComoError, ValueError):
    """Labels that cannot be written, read or attached; the message names the file and the reason."""


@dataclass(frozen=True)
class LabelFile:
    """Labels of one source, a row per frame of it.

    timestamps     float64 [T], seconds, those of the episode
    latent         float32 [T, D], latent motion z of the frames (t, t + gap)
    confidence     float32 [T] in [0, 1]
    source         the recording, as `Episode.source` named it; the file holds what of it is not UTF-8 escaped
    source_sha256  what `sha256_of` says of it
    model          path or name of the motion model
    gap_s          seconds between the two frames of a label
    camera         name or topic of the camera that was asked for, of recordings with several; None: the first
    parts          float32 [T] in [0, 1] each: what the confidence is the product of, by name; may be empty

    Raises LabelError, naming the source, where lengths or values do not fit.
    """

    timestamps: np.ndarray
    latent: np.ndarray
    confidence: np.ndarray
    source: str
    source_sha256: str
    model: str
    gap_s: float
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)
    camera: str | None = None

    def __post_init__(self) -> None:
        steps = len(self.timestamps)
        confidences = {"confidence": self.confidence} | {f"{_PART}{name}": part for name, part in self.parts.items()}
        if self.timestamps.shape != (steps,) or self.latent.ndim != 2 or self.confidence.ndim != 1:
            raise LabelError(f"{self.source}: expected timestamps [T], latent [T, D] and confidence [T], got "
                             f"{list(self.timestamps.shape)}, {list(self.latent.shape)}, {list(self.confidence.shape)}")
        if len(self.latent) != steps or len(self.confidence) != steps:
            raise LabelError(f"{self.source}: {steps} timestamps, {len(self.latent)} latents and "
                             f"{len(self.confidence)} confidences; expected one of each per frame")
        if not all(np.all(np.isfinite(values)) for values in (self.timestamps, self.latent, *confidences.values())):
            raise LabelError(f"{self.source}: labels hold NaN or infinity")
        for name, values in confidences.items():
            if values.shape != (steps,) or np.any(values < 0) or np.any(values > 1):
                raise LabelError(f"{self.source}: {name} must be [{steps}] and lie in [0, 1]")
        if not self.gap_s > 0:
            raise LabelError(f"{self.source}: gap_s must be above 0, got {self.gap_s}")


def write_labels(path: str | Path, labels: LabelFile) -> None:
    """Write a label file; it appears under its name only when it is complete. Raises OutputError."""
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    tensors: dict[str, np.ndarray] = {
        "timestamps": np.ascontiguousarray(labels.timestamps, np.float64),
        "latent": np.ascontiguousarray(labels.latent, np.float32),
        "confidence": np.ascontiguousarray(labels.confidence, np.float32),
        **{f"{_PART}{name}": np.ascontiguousarray(part, np.float32) for name, part in labels.parts.items()},
    }
    metadata = {"format": _FORMAT, "source": printable(labels.source), "source_sha256": labels.source_sha256,
                "model": printable(labels.model), "gap_s": repr(float(labels.gap_s))}
    if labels.camera is not None:
        metadata["camera"] = labels.camera
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with usual_rights(part):
            save_file(tensors, part, metadata)
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path}: cannot be written: {error}; make room or choose another folder") from error
    finally:
        if part.exists():
            part.unlink()


def read_labels(path: str | Path) -> LabelFile:
    """Read a label file. Raises LabelError where it is missing, damaged or of another kind."""
    path = Path(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise LabelError(f"{path}: is not a label file (format {metadata.get('format')!r}, not {_FORMAT!r})")
            timestamps, latent, confidence = (file.get_tensor(name) for name in _TENSORS)
            parts = {name.removeprefix(_PART): file.get_tensor(name) for name in file.keys()  # noqa: SIM118
                     if name.startswith(_PART)}
            return LabelFile(timestamps, latent, confidence, metadata["source"], metadata["source_sha256"],
                             metadata["model"], float(metadata["gap_s"]), parts, metadata.get("camera"))
    except (OSError, SafetensorError, KeyError) as error:
        raise LabelError(f"{path}: cannot be read as a label file: {error}") from error


def with_labels(episode: Episode, labels: LabelFile, source: str | Path | None = None) -> Episode:
    """The episode with latent and confidence of `labels`.

    `source` is what is hashed, the episode's own where None. Raises LabelError where the source is not the
    one that was labelled, or the frames are not the same in number or time.
    """
    source = source or episode.source
    found = sha256_of(source)
    if found != labels.source_sha256:
        raise LabelError(f"{source}: labels belong to another recording ({labels.source}, sha256 "
                         f"{labels.source_sha256[:12]}, this one {found[:12]}); run `como relabel` again")
    if len(labels.timestamps) != len(episode):
        raise LabelError(f"{source}: {len(labels.timestamps)} labels for {len(episode)} frames; "
                         "run `como relabel` again")
    if np.any(np.abs(labels.timestamps - episode.timestamps) > _SAME_TIME_S):
        raise LabelError(f"{source}: labels and frames differ in time; run `como relabel` again")
    return dataclasses.replace(episode, latent=labels.latent, confidence=labels.confidence)


def sha256_of(source: str | Path) -> str:
    """SHA-256, in hexadecimal, of a file, or of the names and contents of the files that make up a source.

    For one episode among many, its name counts too, since others may lie in the same files. Raises LabelError.
    """
    path, member = split_source(source)
    try:
        if member is None and not path.is_dir():
            return _digest(path)
        root, files = source_root(source), files_of(source)
        if not files:
            raise LabelError(f"{source}: there is no file to read")
        listing = "".join(f"{_digest(file)} {file.relative_to(root).as_posix()}\n" for file in files)
        return hashlib.sha256((listing + (member or "")).encode()).hexdigest()
    except OSError as error:
        raise LabelError(f"{source}: cannot be read: {error.strerror}") from error


def _digest(path: Path) -> str:
    status = path.stat()
    return _digest_at(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest_at(path: Path, size: int, modified_ns: int) -> str:
    """The digest of a file as it was then: each of the episodes in a large file asks for it."""
    del size, modified_ns
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
