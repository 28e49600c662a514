"""`replay`: the real policy_node on a recorded bag says what the same checkpoint says offline, or replay tells."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import policy_data
import pytest
from policy_bench import REPOSITORY
from ros_client import LATCHED, TIMEOUT_S, RosClient
from rosbags.highlevel import AnyReader
from std_msgs.msg import String

from como_core.action_chunk import ActionChunk
from como_core.evaluation.parity import compare
from como_core.formats.rosbag import read_bag
from como_core.interface import load_interface
from como_core.policy.train import train
from como_core.resources import resource
from como_ros.processes import NodeProcess, stop_all, wait_until

INTERFACE = load_interface(resource("config/interfaces/metaworld.yaml"))
BROKEN = f"{sys.executable} {Path(__file__).with_name('blue_for_red_policy.py')}"


@pytest.fixture(scope="module")
def recorded(module_ros_domain: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bag of the simulated arm, driven by its expert, as the recorder keeps it."""
    folder = tmp_path_factory.mktemp("replay")
    before = {name: os.environ.get(name) for name in module_ros_domain}
    os.environ.update(module_ros_domain)
    given: dict[str, dict[str, object]] = {
        "sim_node": {"env": "metaworld:drawer-open-v3", "rate_factor": 0.5},
        "recorder_node": {"output": folder / "bags", "use_sim_time": True},
        "expert_node": {"noise_std": 0.3, "use_sim_time": True}}
    nodes = [NodeProcess(name, parameters, folder / f"{name}.log", module_ros_domain)
             for name, parameters in given.items()]
    try:
        with RosClient() as client:
            assert client.trigger("sim/reset").success
            words = client.listen(String, "instruction", LATCHED)
            assert wait_until(lambda: bool(words), TIMEOUT_S)
            started = client.trigger("record/start")
            assert started.success, started.message
            assert client.trigger("expert/start").success
            assert not wait_until(lambda: False, 3.0)
            stopped = client.trigger("record/stop")
            assert stopped.success, stopped.message
    finally:
        stop_all(nodes)
    yield Path(json.loads(stopped.message)["path"])
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@pytest.fixture(scope="module")
def policy(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that was trained on that bag for a moment, with proprioception."""
    settings = dataclasses.replace(policy_data.config(steps=40, state=True), chunk_steps=6)
    return train([read_bag(recorded, INTERFACE)], [], INTERFACE, settings, tmp_path_factory.mktemp("run")).directory


def replay(domain: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "como_ros.replay", *map(str, words), "--domain", domain["ROS_DOMAIN_ID"]]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY, check=False,
                          timeout=200)


def test_the_node_says_what_training_says(recorded: Path, policy: Path, module_ros_domain: dict[str, str],
                                          tmp_path: Path) -> None:
    file = tmp_path / "parity.json"
    done = replay(module_ros_domain, "--bag", recorded, "--policy", policy, "--json", file)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    assert "the node says what training says" in done.stdout and "linear.x" in done.stdout
    figures = json.loads(file.read_text())
    with AnyReader([recorded]) as bag:  # its first and last pictures, without a state beside them, are no frames
        pictures = sum(c.msgcount for c in bag.connections if c.topic.endswith("camera/image_raw"))
    assert pictures and figures["unmatched"] <= pictures - figures["frames"]
    assert figures["compared"] >= 0.8 * figures["frames"] > 20
    assert [d["name"] for d in figures["differences"]] == ["linear.x", "linear.y", "linear.z", "gripper"]
    assert max(d["max"] for d in figures["differences"]) <= 1e-3 < max(d["size"] for d in figures["differences"])


def test_a_broken_preprocessing_is_told(recorded: Path, policy: Path, module_ros_domain: dict[str, str]) -> None:
    done = replay(module_ros_domain, "--bag", recorded, "--policy", policy, "--node", BROKEN)
    print(done.stdout)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the node says something else than training" in done.stdout
    assert "was" in done.stdout and "<-" in done.stdout


def test_input_that_cannot_be_used_is_told_with_another_code(recorded: Path, policy: Path, tmp_path: Path,
                                                             module_ros_domain: dict[str, str]) -> None:
    done = replay(module_ros_domain, "--bag", tmp_path / "none", "--policy", policy)
    assert done.returncode == 2 and "none: no such bag" in done.stderr and "Traceback" not in done.stderr
    done = replay(module_ros_domain, "--bag", recorded, "--policy", tmp_path / "none")
    assert done.returncode == 2 and "none: no such folder" in done.stderr
    elsewhere = train(policy_data.demonstrations(), [], policy_data.INTERFACE, policy_data.config(steps=1),
                      tmp_path / "square").directory
    done = replay(module_ros_domain, "--bag", recorded, "--policy", elsewhere)
    assert done.returncode == 2 and "interface mismatch at 'name'" in done.stderr
    asked = tmp_path / "asked"
    shutil.copytree(recorded, asked)
    metadata = asked / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("drawer open", "sing a song"))
    done = replay(module_ros_domain, "--bag", asked, "--policy", policy)
    assert done.returncode == 2 and "'sing a song'" in done.stderr, "not a table of nothing"
    done = replay(module_ros_domain, "--bag", recorded, "--policy", policy, "--tolerance", "nan")
    assert done.returncode == 2 and "--tolerance nan: expected 0 or more" in done.stderr
    done = replay({"ROS_DOMAIN_ID": "999"}, "--bag", recorded, "--policy", policy)
    assert done.returncode == 2 and "--domain 999: expected a ROS domain from 0 to 232" in done.stderr


def test_a_domain_with_other_nodes_is_left_alone(recorded: Path, policy: Path, ros_domain: dict[str, str],
                                                 start_node: Callable[..., NodeProcess]) -> None:
    start_node("recorder_node", {})
    with RosClient() as client:
        assert wait_until(lambda: "recorder_node" in client.node.get_node_names(), TIMEOUT_S)
        done = replay(ros_domain, "--bag", recorded, "--policy", policy)
    assert done.returncode == 2 and f"ROS domain {ros_domain['ROS_DOMAIN_ID']} is in use by" in done.stderr


def test_too_few_answers_other_shapes_and_nan_are_no_parity() -> None:
    def chunk(value: float, steps: int = 2) -> ActionChunk:
        return ActionChunk(np.arange(steps) / 10, np.full((steps, 1), value, np.float32))

    same = compare(["x"], {0: chunk(1), 1: chunk(2)}, {0: chunk(1), 1: chunk(2)}, 2, 0, 0.0, 0.8)
    assert same.faults == [] and same.differences[0].size == 2.0
    assert "only 1 of 2 frames" in compare(["x"], {0: chunk(1)}, {0: chunk(1)}, 2, 0, 0.1, 0.8).faults[0]
    assert compare(["x"], {}, {}, 0, 3, 0.1, 0.8).faults == ["only 0 of 0 frames were answered by the node"]
    assert "a chunk of [3, 1]" in compare(["x"], {0: chunk(1)}, {0: chunk(1, 3)}, 1, 0, 0.1, 0.8).faults[0]
    assert "nan off" in compare(["x"], {0: chunk(1)}, {0: chunk(np.nan)}, 1, 0, 0.1, 0.8).faults[0]
