"""Interface: what a robot's streams and commands are. One YAML per robot, in config/interfaces/.

The recorder records it, the converter aligns by it, the policy is trained with it and the node runs by it. A copy
lies in every bag, checkpoint and evaluation log; `require_same` refuses a mismatch and names the key that differs.
Units stand in the key names: metres, radians, seconds, hertz.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from como_core import config
from como_core.interface.action import TARGET_TYPES, Action, ActionKind, ActionTarget, Gripper, Limits
from como_core.interface.streams import IMAGE_TYPES, STATE_TYPES, Camera, StateStream

__all__ = ["IMAGE_TYPES", "STATE_TYPES", "TARGET_TYPES", "Action", "ActionKind", "ActionTarget", "Camera", "Gripper",
           "Interface", "Limits", "StateStream", "load_interface", "require_same", "state_vector"]


@dataclass(frozen=True)
class Interface:
    """A robot's streams and commands."""

    name: str
    cameras: dict[str, Camera]
    action: Action
    state: dict[str, StateStream] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.cameras:
            raise ValueError("cameras: at least one camera is needed")
        both = self.cameras.keys() & self.state.keys()
        if both:
            raise ValueError(f"{sorted(both)[0]!r} names a camera and a state stream; give them different names")
        first: dict[str, str] = {}
        for key, topic in self._topics:
            if topic in first:
                raise ValueError(f"{key} is {topic!r}, and so is {first[topic]}; each needs a topic of its own")
            first[topic] = key

    @property
    def _streams(self) -> dict[str, Camera | StateStream]:
        return {**self.cameras, **self.state}

    @property
    def _topics(self) -> list[tuple[str, str]]:
        """Key and value of every topic, in the order of the file."""
        topics = [(f"cameras.{name}.topic", camera.topic) for name, camera in self.cameras.items()]
        topics += [(f"state.{name}.topic", stream.topic) for name, stream in self.state.items()]
        topics.append(("action.topic", self.action.topic))
        return topics + ([("action.gripper.topic", self.action.gripper.topic)] if self.action.gripper else [])

    @property
    def state_size(self) -> int:
        """Length S of the state vector: all streams' values in the order of the file."""
        return sum(len(stream.names) for stream in self.state.values())

    @property
    def max_age_s(self) -> dict[str, float]:
        """Stream name -> age beyond which it is stale."""
        return {name: stream.max_age_s for name, stream in self._streams.items()}


def load_interface(path: str | Path) -> Interface:
    """Read an interface YAML. Raises config.ConfigError with file, line and key."""
    return config.load(Interface, path)


def require_same(ours: Interface, theirs: Interface, ours_from: str, theirs_from: str) -> None:
    """Raise ConfigError, naming the first differing key and both values, unless the two interfaces are equal."""
    found = config.first_difference(ours, theirs)
    if found:
        key, a, b = found
        raise config.ConfigError(f"interface mismatch at {key!r}: {a!r} in {ours_from}, {b!r} in {theirs_from}; "
                                 "use the interface that the policy was trained with, or train again with this one")


def state_vector(interface: Interface, values: dict[str, np.ndarray]) -> np.ndarray:
    """Concatenate per-stream values into the state vector, float32 [..., S], in the file's order."""
    return np.concatenate([values[name] for name in interface.state], axis=-1).astype(np.float32)
