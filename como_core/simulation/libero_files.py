"""What the package hf-libero holds on disk: tasks, start states, instructions.

Nothing here imports libero, which asks on the terminal for a folder, and downloads, when it is imported.
"""

from __future__ import annotations

import importlib.util
import os
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from como_core.simulation.environment import SimulationError

ASSETS = ("articulated_objects", "scenes", "stable_hope_objects", "stable_scanned_objects", "turbosquid_objects")
_LANGUAGE = re.compile(r"\(:language\s+([^)]*)\)")


@cache
def package() -> Path:
    """The folder of the installed package's files. Raises SimulationError where it is not installed."""
    spec = importlib.util.find_spec("libero")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(location) / "libero" / "bddl_files").is_dir():
            return Path(location) / "libero"
    raise SimulationError("suite 'libero' needs hf-libero: pip install -e '.[libero]'")


def tasks() -> list[str]:
    """Every suite/task, such as libero_goal/turn_on_the_stove."""
    return sorted(f"{path.parent.name}/{path.stem}" for path in (package() / "bddl_files").glob("*/*.bddl"))


def task_file(task: str) -> Path:
    """The description of a task, for its simulation."""
    return package() / "bddl_files" / f"{task}.bddl"


def instruction(task: str) -> str:
    """What the robot is asked to do, as the task's description has it."""
    found = _LANGUAGE.search(task_file(task).read_text(encoding="utf-8"))
    if not found:
        raise SimulationError(f"{task_file(task)}: no (:language ...), where LIBERO has its instruction")
    return " ".join(found[1].split()).lower()


def start_states(task: str) -> np.ndarray:
    """The simulator's states that trials of a task begin with, float64 [50, N].

    They lie in pickles; only what makes an array of numbers is let in. Raises SimulationError for any other file.
    """
    import pickle

    import torch
    from numpy._core.multiarray import _reconstruct  # type: ignore[attr-defined]

    path = package() / "init_files" / f"{task}.pruned_init"
    harmless: list[Any] = [(_reconstruct, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype,
                           type(np.dtype(np.float64))]
    try:
        with torch.serialization.safe_globals(harmless):
            states = torch.load(path, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise SimulationError(f"{path}: start states cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(states, np.ndarray) or states.ndim != 2 or states.dtype != np.float64:
        raise SimulationError(f"{path}: expected start states as float64 [N, S], got {type(states).__name__}")
    return states


def assets() -> Path:
    """The folder of meshes and scenes, which come apart from the package.

    Raises SimulationError, with the way to get them, where they are not there; nothing is downloaded by itself.
    """
    places = [package() / "assets", Path.home() / ".cache" / "libero" / "assets"]
    for place in places:
        if all((place / name).is_dir() for name in ASSETS):
            return place
    raise SimulationError(
        f"LIBERO's meshes and scenes are not here (looked in {' and '.join(map(str, places))}); get them, a download "
        "from Hugging Face, with: hf download --repo-type dataset lerobot/libero-assets --local-dir "
        f"{places[1]}")


def configure() -> None:
    """Tell libero where its files are, so that importing it asks nothing. A configuration that is there is kept."""
    chosen = Path(os.environ.get("LIBERO_CONFIG_PATH", Path.home() / ".libero"))
    if (chosen / "config.yaml").is_file():
        return
    folder, root = Path(tempfile.mkdtemp(prefix="como_libero_")), package()
    paths = {"benchmark_root": root, "bddl_files": root / "bddl_files", "init_states": root / "init_files",
             "datasets": root.parent / "datasets", "assets": assets()}
    (folder / "config.yaml").write_text(yaml.safe_dump({key: str(path) for key, path in paths.items()}))
    os.environ["LIBERO_CONFIG_PATH"] = str(folder)
