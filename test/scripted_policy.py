"""policy_node with a policy that follows a script, as a process: `python test/scripted_policy.py --ros-args ...`.

Its checkpoint folder holds interface.yaml and script.yaml. It is a real Policy in the real node; only the network
behind `predict` is missing.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from como_core import config
from como_core.action_chunk import ActionChunk, Observation
from como_core.errors import ComoError
from como_core.interface import Interface, load_interface
from como_ros.policy_node import PolicyNode, run


@dataclass(frozen=True)
class Script:
    """What each chunk is: `steps` times `action`; NaN from chunk number `nan_from` on; `seconds` of thinking."""

    action: tuple[float, ...]
    steps: int = 12
    seconds: float = 0.0
    nan_from: int = 1_000_000
    instruction: str | None = None


class ScriptedPolicy:
    """Says what its script says."""

    def __init__(self, interface: Interface, script: Script) -> None:
        self.interface, self._script, self._chunks = interface, script, 0

    def warm_up(self) -> None:
        time.sleep(self._script.seconds)

    def predict(self, observation: Observation) -> ActionChunk:
        script = self._script
        if script.instruction is not None and observation.instruction != script.instruction:
            raise ComoError(f"instruction {observation.instruction!r} is unknown; expected {script.instruction!r}")
        for camera, image in observation.images.items():
            assert image.shape == (self.interface.cameras[camera].height, self.interface.cameras[camera].width, 3)
        time.sleep(script.seconds)
        values = np.tile(np.array(script.action, np.float32), (script.steps, 1))
        if self._chunks >= script.nan_from:
            values[-1, 0] = np.nan
        self._chunks += 1
        return ActionChunk(np.arange(script.steps) / self.interface.action.rate_hz, values, "script")


def load(folder: Path, device: str) -> ScriptedPolicy:
    """The scripted policy of a folder."""
    return ScriptedPolicy(load_interface(folder / "interface.yaml"), config.load(Script, folder / "script.yaml"))


def write(folder: Path, interface: Interface, script: Script) -> Path:
    """Make such a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save(interface, folder / "interface.yaml")
    config.save(script, folder / "script.yaml")
    return folder


if __name__ == "__main__":
    sys.exit(run(lambda: PolicyNode(load)))
