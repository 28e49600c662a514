"""robomimic and LIBERO HDF5: many demonstrations in one file, each an episode with measured actions.

    episodes = [read_demo("lift.hdf5", demo) for demo in list_demos("lift.hdf5")]

Layout: robomimic docs/datasets/overview.md and LIBERO scripts/create_dataset.py. A demonstration without pictures is
an episode without a camera.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.formats.lazy import HandlePool, LazyFrames
from como_core.formats.source_files import join_source

HDF5_SUFFIXES = (".hdf5", ".h5", ".hdf")

# What robosuite, and so robomimic and LIBERO, run at where the file does not say.
_DEFAULT_RATE_HZ = 20.0

# Picture keys end so: robomimic's in _image, LIBERO's in _rgb.
_PICTURE = re.compile(r"(.+)_(?:image|rgb)")

# What LIBERO's files alone say of themselves.
_LIBERO_ATTRIBUTES = ("problem_info", "bddl_file_name")

# LIBERO's keys. Its pictures are stored as OpenGL renders them, the last row first.
_LIBERO_PICTURES = ("agentview_rgb", "eye_in_hand_rgb")

# Proprioception by layout; the first layout that has any of its keys gives the state, in this order.
_STATE_KEYS = (
    tuple(f"robot{i}_{name}" for i in range(2) for name in ("eef_pos", "eef_quat", "gripper_qpos")),  # robomimic
    ("ee_states", "gripper_states", "joint_states"),  # LIBERO
)
# Beside `obs`: LIBERO's robot, and the simulator's whole state, which is all that a raw robosuite file has.
_WHOLE_STATES = ("robot_states", "states")

_OSC_POSE_NAMES = ("x", "y", "z", "roll", "pitch", "yaw")

_BATCH_BYTES = 16_000_000  # of frames in memory at once

# What h5py raises on files that are damaged, cut short or replaced.
_DAMAGE = (OSError, KeyError, ValueError, RuntimeError, TypeError)


class Hdf5Error(ComoError, ValueError):
    """An HDF5 file that cannot be read; the message names the file, the demonstration and the reason."""


def list_demos(path: str | Path) -> list[str]:
    """Names of the demonstrations, demo_2 before demo_10. Raises Hdf5Error where `path` holds none."""
    path = Path(path)
    with _open(path) as file:
        data = _data(file, path)
        try:
            demos = [name for name, group in data.items()
                     if isinstance(group, h5py.Group) and ("actions" in group or "obs" in group)]
        except _DAMAGE as error:
            raise _damaged(str(path), error) from error
    if not demos:
        raise Hdf5Error(f"{path}: has no demonstration (data/demo_N with `actions`, as robomimic and LIBERO write it)")
    return sorted(demos, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


def read_demo(path: str | Path, demo: str) -> Episode:
    """The episode of one demonstration; its source is `path#demo`.

    Steps are 1 / control_freq apart, 1/20 s where the file names no rate. The state is the robot's proprioception or,
    in a file without observations, the simulator's state. Cameras are the uint8 [T, H, W, 3] observations, named
    without `_image` or `_rgb`. Row t of everything is step t, as stored; of LIBERO's files the picture of a row was
    taken after the action of that row.

    Raises Hdf5Error where the demonstration is missing, damaged, or its parts differ in length.
    """
    path, source = Path(path), join_source(path, demo)
    signature = _signature(path)
    with _open(path) as file:
        data = _data(file, path)
        if demo not in data:
            raise Hdf5Error(f"{source}: there is no such demonstration in the file any more")
        try:
            group = data[demo]
            action = _matrix(group["actions"]) if "actions" in group else None
            images = _cameras(group, data, path, signature, source)
            state, rate_hz = _state(group), _rate_hz(data)
            instruction = _instruction(data, group)
        except _DAMAGE as error:
            raise _damaged(source, error) from error
    steps = next((len(part) for part in (action, *images.values(), state) if part is not None), 0)
    try:
        return Episode(np.arange(steps) / rate_hz, images, source, state, action, instruction=instruction)
    except ValueError as error:
        raise Hdf5Error(str(error)) from error


def hdf5_action_names(path: str | Path, demo: str) -> list[str]:
    """Names of the commanded values: those of robosuite's OSC_POSE without the gripper, else a0, a1, ..."""
    path = Path(path)
    with _open(path) as file:
        data = _data(file, path)
        try:
            size = int(data[demo]["actions"].shape[1])
            controller = _environment(data).get("controller_configs")
        except _DAMAGE as error:
            raise _damaged(join_source(path, demo), error) from error
    # A list of controllers belongs to several arms.
    kind = controller.get("type") if isinstance(controller, dict) else None
    return list(_OSC_POSE_NAMES) if kind == "OSC_POSE" and size == 7 else [f"a{i}" for i in range(size)]


def is_libero(path: str | Path, demo: str) -> bool:
    """Whether the file says that it is LIBERO's, by its attributes or the names of its pictures."""
    path = Path(path)
    with _open(path) as file:
        data = _data(file, path)
        try:
            return (any(name in data.attrs for name in _LIBERO_ATTRIBUTES)
                    or any(name in data[demo].get("obs", {}) for name in _LIBERO_PICTURES))
        except _DAMAGE as error:
            raise _damaged(join_source(path, demo), error) from error


class Hdf5Frames(LazyFrames):
    """Frames of one camera of one demonstration, read when asked for: uint8 [T, H, W, 3], RGB."""

    def __init__(self, path: Path, signature: tuple[int, int], dataset: str, shape: tuple[int, int, int, int],
                 upside_down: bool) -> None:
        super().__init__(shape)
        self._path, self._signature, self._dataset, self._upside_down = path, signature, dataset, upside_down

    def _read(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        batch = max(1, _BATCH_BYTES // int(np.prod(self.shape[1:])))
        done = 0
        while done < len(indices):
            first = int(indices[done])
            end = int(np.searchsorted(indices, first + batch))
            frames = self._load(first, int(indices[end - 1]) + 1)
            for index in indices[done:end].tolist():
                yield frames[index - first].copy()
            done = end

    def _load(self, first: int, stop: int) -> np.ndarray:
        key = self._path, self._signature
        try:
            frames = _FILES.get(key, self._open)[self._dataset][first:stop]
        except _DAMAGE as error:
            _FILES.drop(key)
            if isinstance(error, Hdf5Error):
                raise
            raise _damaged(f"{self._path}: {self._dataset}", error) from error
        return frames[:, ::-1] if self._upside_down else frames

    def _open(self) -> h5py.File:
        if _signature(self._path) != self._signature:
            raise Hdf5Error(f"{self._path}: changed since it was read; read it again")
        return _open(self._path)


_FILES: HandlePool[h5py.File] = HandlePool()


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except _DAMAGE as error:
        why = "no such file" if not path.exists() else _reason(error)
        raise Hdf5Error(f"{path}: cannot be read as HDF5: {why}") from error


def _data(file: h5py.File, path: Path) -> h5py.Group:
    data = file.get("data")
    if not isinstance(data, h5py.Group):
        found = ", ".join(list(file)[:5]) or "nothing"
        raise Hdf5Error(f"{path}: has no group `data`, as robomimic and LIBERO write it; it holds {found}")
    return data


def _cameras(group: h5py.Group, data: h5py.Group, path: Path, signature: tuple[int, int], source: str
             ) -> dict[str, Hdf5Frames]:
    convention = _text(data.attrs.get("macros_image_convention"))
    cameras = {}
    for key, dataset in group.get("obs", {}).items():
        match = _PICTURE.fullmatch(key)
        shape: tuple[int, ...] = getattr(dataset, "shape", ())
        if len(shape) != 4 or shape[3] != 3 or dataset.dtype != np.uint8:
            if match:
                raise Hdf5Error(f"{source}: obs/{key} is {getattr(dataset, 'dtype', 'a group')} {list(shape)}, "
                                "expected pictures as uint8 [T, H, W, 3]")
            continue
        upside_down = convention == "opengl" or (convention is None and key in _LIBERO_PICTURES)
        name = match[1] if match else key
        cameras[name] = Hdf5Frames(path, signature, dataset.name, (*shape[:3], 3), upside_down)
    return cameras


def _state(group: h5py.Group) -> np.ndarray | None:
    observations = group.get("obs", {})
    for keys in _STATE_KEYS:
        parts = [_matrix(observations[key]) for key in keys if key in observations]
        if parts:
            return np.concatenate(parts, axis=1)
    return next((_matrix(group[key]) for key in _WHOLE_STATES if key in group), None)


def _matrix(dataset: h5py.Dataset) -> np.ndarray:
    """float32 [T, N] of a dataset of [T, N] or [T]."""
    values = np.asarray(dataset[()], np.float32)
    if values.ndim not in (1, 2):
        raise ValueError(f"{dataset.name} has shape {list(values.shape)}, expected a row of numbers for each step")
    return values.reshape(len(values), -1)


def _environment(data: h5py.Group) -> dict[str, Any]:
    """Arguments of the simulation: robomimic's and LIBERO's env_args, or the env_info of a raw robosuite file."""
    arguments = _json(data.attrs.get("env_args"))
    keywords = arguments.get("env_kwargs")
    return keywords if isinstance(keywords, dict) else arguments or _json(data.attrs.get("env_info"))


def _rate_hz(data: h5py.Group) -> float:
    rate = _environment(data).get("control_freq")
    return float(rate) if isinstance(rate, (int, float)) and rate > 0 else _DEFAULT_RATE_HZ


def _instruction(data: h5py.Group, group: h5py.Group) -> str | None:
    """What was asked: robocasa's `lang` of the demonstration, else LIBERO's sentence for the whole file."""
    said = _json(group.attrs.get("ep_meta")).get("lang")
    said = said or _json(data.attrs.get("problem_info")).get("language_instruction")
    words = " ".join(map(str, said)) if isinstance(said, list) else said
    return (words.strip().strip('"').strip() or None) if isinstance(words, str) else None


def _json(value: Any) -> dict[str, Any]:
    try:
        found = json.loads(_text(value) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def _signature(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise Hdf5Error(f"{path}: cannot be read: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns


def _damaged(source: str, error: BaseException) -> Hdf5Error:
    return error if isinstance(error, Hdf5Error) else Hdf5Error(f"{source}: cannot be read: {_reason(error)}")


def _reason(error: BaseException) -> str:
    return " ".join(str(error.args[0] if error.args else error).split()) or type(error).__name__
