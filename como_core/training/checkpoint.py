"""Checkpoint: a directory of plain files. Loading it runs no code from it.

    config.yaml        the dataclass that builds the model
    model.safetensors  the tensors
    interface.yaml     the robot it was trained for, where there is one
    normaliser.json    scales of states and actions, where there are any
    card.md            data, command, versions, metrics with their intervals
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from como_core import config as configuration
from como_core.errors import ComoError
from como_core.file_rights import usual_rights
from como_core.interface import Interface, load_interface

C = TypeVar("C")

CONFIG, TENSORS, INTERFACE = "config.yaml", "model.safetensors", "interface.yaml"
NORMALISER, CARD = "normaliser.json", "card.md"
FILES = (TENSORS, INTERFACE, NORMALISER, CARD, CONFIG)


class CheckpointError(ComoError):
    """A checkpoint that cannot be read or written; the message names the directory, the reason and the remedy."""


@dataclass(frozen=True)
class Checkpoint(Generic[C]):
    """What `save_checkpoint` was given."""

    config: C
    tensors: dict[str, torch.Tensor]
    interface: Interface | None
    normaliser: dict[str, Any] | None
    card: str


def save_checkpoint(directory: str | Path, config: Any, tensors: Mapping[str, torch.Tensor],
                    interface: Interface | None = None, normaliser: Mapping[str, Any] | None = None,
                    card: str = "") -> Path:
    """Write a checkpoint into `directory`; other files there stay.

    Everything is written aside first. config.yaml is removed first and put back last, so that a directory holding it
    is never a mixture of two checkpoints. Raises CheckpointError where the disk refuses.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _aside(directory / ".saving") as aside:
            save_tensors(aside / TENSORS, tensors)
            (aside / CARD).write_text(card, encoding="utf-8")
            if interface is not None:
                configuration.save(interface, aside / INTERFACE)
            if normaliser is not None:
                (aside / NORMALISER).write_text(json.dumps(normaliser, indent=1), encoding="utf-8")
            configuration.save(config, aside / CONFIG)
            (directory / CONFIG).unlink(missing_ok=True)
            for name in FILES:
                if (aside / name).exists():
                    os.replace(aside / name, directory / name)
                else:
                    (directory / name).unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot write the checkpoint: {error.strerror or error}; "
                              "choose a folder that is writable and has space") from error
    return directory


def load_checkpoint(directory: str | Path, config_class: type[C]) -> Checkpoint[C]:
    """Read a checkpoint whose config.yaml is a `config_class`; tensors come on the CPU.

    Raises CheckpointError where the directory holds no complete checkpoint, ConfigError where config.yaml does not fit.
    """
    directory = Path(directory)
    missing = [name for name in (CONFIG, TENSORS) if not (directory / name).is_file()]
    if missing:
        raise CheckpointError(f"{directory}: no complete checkpoint here ({', '.join(missing)} missing); "
                              "give the folder that training wrote, or let the training finish")
    interface, normaliser, card = directory / INTERFACE, directory / NORMALISER, directory / CARD
    try:
        scales = json.loads(normaliser.read_text(encoding="utf-8")) if normaliser.is_file() else None
    except ValueError as error:
        raise CheckpointError(f"{normaliser}: not valid JSON: {error}") from error
    return Checkpoint(config=_load_config(directory, config_class),
                      tensors=load_tensors(directory / TENSORS),
                      interface=load_interface(interface) if interface.is_file() else None,
                      normaliser=scales,
                      card=card.read_text(encoding="utf-8", errors="replace") if card.is_file() else "")


def _load_config(directory: Path, config_class: type[C]) -> C:
    """config.yaml; where it does not fit, the title of the card says what the folder holds instead."""
    try:
        return configuration.load(config_class, directory / CONFIG)
    except configuration.ConfigError as error:
        if not (directory / CARD).is_file():
            raise
        title = (directory / CARD).read_text(encoding="utf-8", errors="replace").partition("\n")[0].lstrip("# ")
        raise configuration.ConfigError(f"{error}; {CARD} says what this folder holds: {title!r}") from error


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors as safetensors. Raises CheckpointError where the disk refuses."""
    try:
        # save_file refuses tensors that share memory, so each gets its own.
        with usual_rights(path):
            save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: cannot write: {error}") from error


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read safetensors. Raises CheckpointError for a file that is damaged or cut short."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}); "
                              "train again or copy it again") from error


def weights_digest(network: torch.nn.Module) -> str:
    """sha256 of a network's weights by name: for those that a checkpoint names and does not hold."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield a directory beside `path` to fill; it takes the name `path` in one step when all went well."""
    with _aside(path.with_name(f".{path.name}.part")) as aside:
        yield aside
        if path.exists():
            shutil.rmtree(path)
        aside.rename(path)


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """An empty directory that is gone afterwards, whatever happens."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
