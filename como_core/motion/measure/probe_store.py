"""Probes that were run before: baselines depend on the data and the dimension, not on the model that is measured."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from como_core.motion.measure.probe import Probe
from como_core.motion.model import MotionModel

_VERSION = 1  # of the files and of the probes in them; another number makes them anew


class ProbeStore:
    """Probes that were run before, a JSON file each below `folder`, so that many models share their baselines."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def probes(self, key: Iterable[object], run: Callable[[], Sequence[Probe]]) -> list[Probe]:
        """The probes kept under `key`, the names, numbers and arrays that fix the outcome; run where there are none."""
        path = self._folder / f"{_digest((_VERSION, *key))}.json"
        kept = _read(path)
        if kept is not None:
            return kept
        found = list(run())
        self._folder.mkdir(parents=True, exist_ok=True)
        content = [{"name": probe.name, "size": probe.size, "sums": probe.sums.tolist()} for probe in found]
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(content), encoding="utf-8")
        part.replace(path)
        return found


def backbone_identity(model: MotionModel) -> str:
    """Tells backbones apart by weights and normalisation, so that models with the same one share its baselines."""
    known = model.config.backbone
    if known.sha256:
        return f"{known.sha256} {known.layer} {known.mean} {known.std}"
    return _digest([name, tensor.cpu().numpy()] for name, tensor in model.backbone.state_dict().items())


def _read(path: Path) -> list[Probe] | None:
    """What a file holds; None where there is none, or none that can be read: then the probes are run again."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [Probe(kept["name"], kept["size"], np.array(kept["sums"])) for kept in content]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(values: Iterable[object]) -> str:
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            digest.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, list):
            digest.update(_digest(value).encode())
        else:
            digest.update(repr(value).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:24]
