"""Mutated files: interface files, checkpoints, bags. What comes is a result or an error in words that names the file.

COMO_FUZZ=1000 pytest test/test_fuzz_files.py     # so many mutations of each, instead of a few
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import bag_messages
import numpy as np
import pytest
from policy_data import picture, untrained

from como_core.action_chunk import Observation
from como_core.cli.main import main
from como_core.errors import ComoError
from como_core.formats.bag_writer import BagWriter
from como_core.formats.rosbag import read_bag
from como_core.interface import load_interface
from como_core.policy.checkpoint import load_policy
from como_core.resources import resource, resources

ROBOT, PERIOD_NS = load_interface(resource("config/interfaces/metaworld.yaml")), 25_000_000
MUTATIONS = int(os.environ.get("COMO_FUZZ", "40"))
SCALARS = ("", "null", "true", "-1", "0", "1e400", ".nan", "[]", "{}", "[1, 2]", "x" * 300, "\u0000", "'", "&a *a",
           "!!python/x", "2026-01-01", "0x1F", "~", "- 1", "rgb8", "../../etc")


def mutated_text(text: str, rng: np.random.Generator) -> str:
    """Lines lost, repeated, moved, cut or with another value."""
    lines = text.splitlines()
    for _ in range(int(rng.integers(1, 4))):
        i = int(rng.integers(0, len(lines)))
        kind = int(rng.integers(0, 6))
        if kind == 0:
            del lines[i]
        elif kind == 1:
            lines.insert(int(rng.integers(0, len(lines))), lines[i])
        elif kind == 2:
            lines[i] = lines[i][:int(rng.integers(0, len(lines[i]) + 1))]
        elif kind == 3:
            lines[i] = lines[i].partition(":")[0] + ": " + str(rng.choice(SCALARS))
        elif kind == 4:
            lines[i] = lines[i].replace("_", "", 1)
        else:
            lines[i] = " " * int(rng.integers(1, 5)) + lines[i]
        lines = lines or [""]
    return "\n".join(lines) + "\n"


def mutated_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, cut out or cut off."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        kind, i = int(rng.integers(0, 4)), int(rng.integers(0, max(len(found), 1)))
        if kind == 0 and found:
            found[i] = int(rng.integers(0, 256))
        elif kind == 1:
            del found[i:i + int(rng.integers(1, 64))]
        elif kind == 2:
            del found[i:]
        else:
            found[i:i] = rng.bytes(int(rng.integers(1, 16)))
    return bytes(found)


def try_all(original: Path, folder: Path, mutate: Callable[[Path, np.random.Generator], None],
            use: Callable[[Path], object]) -> dict[str, int]:
    """Copy, mutate and use `original` MUTATIONS times; whatever is raised must be a ComoError that names the place."""
    counts = {"used": 0, "refused": 0}
    for seed in range(MUTATIONS):
        copy = folder / f"{seed}" / original.name
        copy.parent.mkdir(parents=True)
        shutil.copytree(original, copy) if original.is_dir() else shutil.copy(original, copy)
        mutate(copy, np.random.default_rng(seed))
        try:
            use(copy)
            counts["used"] += 1
        except ComoError as error:
            assert copy.name in str(error) or str(copy.parent) in str(error), f"mutation {seed} is not named: {error}"
            counts["refused"] += 1
        except Exception as error:
            raise AssertionError(f"mutation {seed} of {original.name}: {type(error).__name__}: {error}") from error
        shutil.rmtree(copy.parent)
    assert counts["refused"], "nothing was broken, so nothing was shown"
    return counts


@pytest.mark.parametrize("name", sorted(resources("config/interfaces")))
def test_a_mutated_interface_file_is_an_interface_or_an_error(name: str, tmp_path: Path) -> None:
    def mutate(path: Path, rng: np.random.Generator) -> None:
        path.write_text(mutated_text(path.read_text(encoding="utf-8"), rng), encoding="utf-8")

    try_all(resources("config/interfaces")[name], tmp_path, mutate, load_interface)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy with fresh weights."""
    return untrained(tmp_path_factory.mktemp("fuzz") / "policy")


@pytest.mark.parametrize("name", ["config.yaml", "interface.yaml", "normaliser.json", "model.safetensors"])
def test_a_mutated_checkpoint_is_refused_or_acts_within_limits(name: str, checkpoint: Path, tmp_path: Path) -> None:
    def mutate(path: Path, rng: np.random.Generator) -> None:
        file = path / name
        file.write_bytes(mutated_bytes(file.read_bytes(), rng) if name == "model.safetensors" or rng.random() < 0.3
                         else mutated_text(file.read_text(encoding="utf-8"), rng).encode())

    def use(path: Path) -> None:
        policy = load_policy(path)
        cameras = {camera: picture(np.array([0.5, 0.5])) for camera in policy.interface.cameras}
        chunk = policy.predict(Observation(0.0, cameras, None, policy.instructions[0]))
        assert chunk.values.ndim == 2 and chunk.values.shape[1] == policy.interface.action.size

    try_all(checkpoint, tmp_path, mutate, use)


def small_bag(path: Path, storage: str) -> Path:
    """Half a second of the simulated arm."""
    robot_rgb = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    with BagWriter(path, ROBOT, "push", storage) as bag:
        bag.write("/gripper_command", "std_msgs/msg/Float64", PERIOD_NS, bag_messages.number(0))
        for at in range(PERIOD_NS, 20 * PERIOD_NS, PERIOD_NS):
            bag.write("/camera/image_raw", "sensor_msgs/msg/Image", at, bag_messages.image(at, robot_rgb))
            bag.write("/ee_pose", "geometry_msgs/msg/PoseStamped", at, bag_messages.pose(at, (0, 0, 0)))
            bag.write("/joint_states", "sensor_msgs/msg/JointState", at, bag_messages.joints(at, {"gripper": 0.0}))
            bag.write("/servo/delta_twist_cmds", "geometry_msgs/msg/TwistStamped", at,
                      bag_messages.twist(at, (0, 0, 1)))
    return path


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_mutated_bag_is_read_or_refused_and_recovered_or_refused(storage: str, tmp_path: Path) -> None:
    bag = small_bag(tmp_path / "original", storage)

    def mutate(path: Path, rng: np.random.Generator) -> None:
        files = sorted(file for file in path.iterdir() if file.is_file())
        file = files[int(rng.integers(0, len(files)))]
        file.write_bytes(mutated_bytes(file.read_bytes(), rng))

    def use(path: Path) -> None:
        assert main(["data", "recover", str(path)]) in (0, 1, 2)
        episode = read_bag(path, ROBOT)
        for frames in episode.images.values():
            frames[:]

    try_all(bag, tmp_path / "copies", mutate, use)
