"""What sim_node and expert_node tell each other beyond the robot's interface: episodes and privileged observations."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np
from std_msgs.msg import Float64MultiArray, MultiArrayDimension

from como_ros.messages import NS_PER_S

# The leading values of a privileged observation; what follows is Env.privileged().
_LEADING = ("stamp_s", "episode")


@dataclass(frozen=True)
class EpisodeStart:
    """One episode of the simulation: `episode` counts from 1, `stamp_s` is the /clock time of its first images."""

    env: str
    seed: int
    episode: int
    instruction: str
    stamp_s: float

    def to_json(self) -> str:
        """What `sim/episode` carries and `sim/reset` answers."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> EpisodeStart:
        """Read `to_json` back. Raises ValueError or TypeError for anything else."""
        return EpisodeStart(**json.loads(text))


def observation_message(ns: int, episode: int, privileged: np.ndarray) -> Float64MultiArray:
    """`sim/observation`: [stamp_s, episode, *privileged]."""
    message = Float64MultiArray(data=[ns / NS_PER_S, float(episode), *privileged.tolist()])
    message.layout.dim = [MultiArrayDimension(label=label, size=1, stride=1) for label in _LEADING]
    message.layout.dim.append(MultiArrayDimension(label="privileged", size=len(privileged), stride=1))
    return message


def read_observation(message: Float64MultiArray) -> tuple[int, int, np.ndarray]:
    """Stamp in nanoseconds, episode and float64 [P] privileged observation of an `observation_message`."""
    stamp_s, episode, *privileged = message.data
    return round(stamp_s * NS_PER_S), int(episode), np.array(privileged)
