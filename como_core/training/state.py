"""State of an unfinished training run on disk: safetensors and JSON, one directory per saved step, the newest kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from como_core import config as configuration
from como_core.training.checkpoint import FILES, CheckpointError, load_tensors, new_directory, save_tensors
from como_core.training.ema import Ema
from como_core.training.history import History

STATES = "training"  # folder of the states in that of a run
_PREFIX = "step_"


@dataclass(frozen=True)
class RunState:
    """Where a run stands: steps done, tensors by part, and the history so far."""

    step: int
    tensors: dict[str, torch.Tensor]
    history: History


def require_own(run: Path, more: Collection[str] = ()) -> None:
    """Raises CheckpointError where the folder of a run holds a checkpoint, or `more`, of no training that lies there.

    Such a training could not be gone on with, and would replace them in the end.
    """
    there = [name for name in (*FILES, *more) if (run / name).exists()]
    if there and not any((run / STATES).glob(f"{_PREFIX}*")):
        raise CheckpointError(f"{run}: holds {', '.join(there)}, and no state of a training that wrote them, which "
                              "would be lost; choose another output folder, or move them away")


def save_state(directory: Path, step: int, identity: Mapping[str, Any], history: History, model: nn.Module,
               optimiser: torch.optim.Optimizer, ema: Ema | None) -> None:
    """Write the state after `step` steps; older states go only when the new one is complete.

    Raises CheckpointError where the disk refuses.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"ema.{name}": tensor for name, tensor in (ema.state_dict() if ema else {}).items()}
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in values.items()}
    target = directory / f"{_PREFIX}{step:08d}"
    try:
        with new_directory(target) as aside:
            save_tensors(aside / "state.safetensors", tensors)
            text = json.dumps({"step": step, "identity": configuration.to_dict(identity), "history": vars(history)})
            (aside / "state.json").write_text(text, encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{target}: cannot save the training state: {error.strerror or error}; "
                              "make space or choose another folder, then run the same command again") from error
    for older in directory.glob(f"{_PREFIX}*"):
        if older != target:
            shutil.rmtree(older, ignore_errors=True)


def load_state(directory: Path, identity: Mapping[str, Any]) -> RunState | None:
    """The newest state below `directory`, or None where there is none.

    A setting that is not in the state is younger than it, and counts as its default. Raises CheckpointError, naming the
    key that differs, where the state belongs to a run of other settings, and the file, where it is damaged.
    """
    saved = sorted(directory.glob(f"{_PREFIX}*"))
    if not saved:
        return None
    path = saved[-1] / "state.json"
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        missing = [name for name in ("step", "identity", "history") if name not in header]
        if missing:
            raise ValueError(f"{' and '.join(missing)} missing")
        step, history = header["step"], History.of(header["history"])
        if path.parent.name != f"{_PREFIX}{step:08d}":
            raise ValueError(f"it is of step {step}, its folder {path.parent.name}")
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); delete {directory} to train from the start") from error
    found = configuration.first_difference(configuration.with_defaults(header["identity"], identity), identity)
    if found:
        key, there, here = found
        raise CheckpointError(f"{directory}: an unfinished or finished run with other settings or data lies here "
                              f"({key}: {there!r} there, {here!r} now); "
                              "choose another output folder, or delete this one")
    return RunState(step, load_tensors(saved[-1] / "state.safetensors"), history)


def restore(state: RunState, model: nn.Module, optimiser: torch.optim.Optimizer, ema: Ema | None) -> None:
    """Give model, optimiser and average the tensors of a saved state. Raises CheckpointError where they do not fit."""
    try:
        model.load_state_dict(_part(state.tensors, "model."))
        if ema:
            ema.load_state_dict(_part(state.tensors, "ema."))
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        by_index: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in _part(state.tensors, "optimiser.").items():
            index, key = name.split(".", 1)
            by_index.setdefault(int(index), {})[key] = _laid_out_as(parameters[int(index)], tensor)
        optimiser.load_state_dict({**optimiser.state_dict(), "state": by_index})
    except (RuntimeError, LookupError, ValueError) as error:
        raise CheckpointError(f"the saved training state does not fit this model ({error}); "
                              "choose another output folder") from error


def _laid_out_as(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in the parameter's memory layout: the fused optimiser walks both as they lie, channels last or not."""
    return torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
