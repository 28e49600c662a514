"""policy_node with a preprocessing that is broken on purpose: its policy sees every picture with blue for red."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from como_core.action_chunk import ActionChunk, Observation, Policy
from como_core.interface import Interface
from como_ros.policy_node import PolicyNode, load_checkpoint, run


class BlueForRed:
    """A policy behind a wrong order of channels."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    @property
    def interface(self) -> Interface:
        return self._policy.interface

    def warm_up(self) -> None:
        self._policy.warm_up()

    def predict(self, observation: Observation) -> ActionChunk:
        images = {name: image[..., ::-1].copy() for name, image in observation.images.items()}
        return self._policy.predict(dataclasses.replace(observation, images=images))


def load(folder: Path, device: str) -> BlueForRed:
    return BlueForRed(load_checkpoint(folder, device))


if __name__ == "__main__":
    sys.exit(run(lambda: PolicyNode(load)))
