"""policy_node with a policy that follows a script, as a process: `python test/scripted_policy.py --ros-args ...`.

Its checkpoint folder holds interface.yaml and script.yaml. It is a real Policy in the real node; only the network
behind `predict` is missing.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from policy_bench import PolicyProcess

from como_core import config
from como_core.action_chunk import ActionChunk, Observation
from como_core.errors import ComoError
from como_core.interface import Interface, load_interface
from como_ros.policy_node import PolicyNode, run


@dataclass(frozen=True)
class Script:
    """What each chunk is: `steps` times `action`; NaN from chunk number `nan_from` on; `seconds` of thinking.

    ramp         added per second since the first observation: a motion that chunk after chunk goes on
    count        added per step of a chunk: it says which step a command is
    warm_up_s    of thinking in warm_up
    jump_from    number of the chunk from which on 1.0 is added to everything
    prefix_file  JSON lines of Observation.prefix, one a chunk
    seen_file    JSON lines of Observation.stamp_s and state, one a chunk
    """

    action: tuple[float, ...]
    steps: int = 12
    seconds: float = 0.0
    nan_from: int = 1_000_000
    instruction: str | None = None
    ramp: tuple[float, ...] | None = None
    count: float = 0.0
    warm_up_s: float = 0.0
    jump_from: int = 1_000_000
    prefix_file: Path | None = None
    seen_file: Path | None = None


class ScriptedPolicy:
    """Says what its script says."""

    def __init__(self, interface: Interface, script: Script) -> None:
        self.interface, self._script, self._chunks = interface, script, 0
        self._first_s: float | None = None

    def warm_up(self) -> None:
        time.sleep(self._script.seconds + self._script.warm_up_s)

    def predict(self, observation: Observation) -> ActionChunk:
        script = self._script
        if script.instruction is not None and observation.instruction != script.instruction:
            raise ComoError(f"instruction {observation.instruction!r} is unknown; expected {script.instruction!r}")
        for camera, image in observation.images.items():
            assert image.shape == (self.interface.cameras[camera].height, self.interface.cameras[camera].width, 3)
        time.sleep(script.seconds)
        if script.prefix_file is not None:
            prefix = None if observation.prefix is None else observation.prefix.tolist()
            with script.prefix_file.open("a") as file:
                file.write(json.dumps(prefix) + "\n")
        if script.seen_file is not None:
            with script.seen_file.open("a") as file:
                file.write(json.dumps([observation.stamp_s, np.asarray(observation.state).tolist()]) + "\n")
        times_s = np.arange(script.steps) / self.interface.action.rate_hz
        self._first_s = observation.stamp_s if self._first_s is None else self._first_s
        values = np.tile(np.array(script.action), (script.steps, 1)) + script.count * np.arange(script.steps)[:, None]
        if script.ramp is not None:
            values += (observation.stamp_s - self._first_s + times_s)[:, None] * np.array(script.ramp)
        values = values.astype(np.float32) + np.float32(self._chunks >= script.jump_from)
        if self._chunks >= script.nan_from:
            values[-1, 0] = np.nan
        self._chunks += 1
        return ActionChunk(times_s, values, "script")


def load(folder: Path, device: str) -> ScriptedPolicy:
    """The scripted policy of a folder."""
    return ScriptedPolicy(load_interface(folder / "interface.yaml"), config.load(Script, folder / "script.yaml"))


def write(folder: Path, interface: Interface, script: Script) -> Path:
    """Make such a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save(interface, folder / "interface.yaml")
    config.save(script, folder / "script.yaml")
    return folder


@contextmanager
def scripted_policies(folder: Path, domain: dict[str, str]) -> Iterator[Callable[..., PolicyProcess]]:
    """begin(script, interface, **parameters) starts this file as policy_node, output enabled, configured and active."""
    started: list[PolicyProcess] = []

    def begin(script: Script, interface: Interface, **parameters: object) -> PolicyProcess:
        checkpoint, path = write(folder / f"policy_{len(started)}", interface, script), folder / "robot.yaml"
        config.save(interface, path)
        given = {"policy": checkpoint, "interface": path, "enable_output": True, "autostart": True, **parameters}
        started.append(PolicyProcess([__file__], given, folder / f"policy_{len(started)}.log", domain))
        return started[-1]

    try:
        yield begin
    finally:
        for process in started:
            process.end()


if __name__ == "__main__":
    sys.exit(run(lambda: PolicyNode(load)))
