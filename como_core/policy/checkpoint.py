"""A trained policy on disk, and the Policy that runs it: one observation in, one chunk of actions out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from como_core import config as configuration
from como_core.action_chunk import ActionChunk, Observation
from como_core.errors import ComoError
from como_core.formats.cache import square
from como_core.interface import Interface
from como_core.policy.diffusion import make_sampler
from como_core.policy.model import DiffusionModel, PolicyConfig
from como_core.policy.normaliser import Normaliser
from como_core.training.checkpoint import load_checkpoint, save_checkpoint


class PolicyError(ComoError, ValueError):
    """A policy or an observation that does not fit; the message names what was given and what was expected."""


@dataclass(frozen=True)
class TrainedConfig:
    """config.yaml of a policy's checkpoint: how it was trained, and the instructions that it knows."""

    policy: PolicyConfig
    instructions: tuple[str, ...]


class DiffusionPolicy:
    """A trained diffusion policy behind the Policy protocol.

    Sampling starts from zero, the middle of the noise: the same observation gives the same chunk, in any process. A
    fixed draw would be as repeatable, but it picks the same corner of the demonstrators' noise at every replan, and
    that bias adds up (drawer-open: 0 of 8 against 8 of 8 with the same weights).
    """

    def __init__(self, model: DiffusionModel, config: TrainedConfig, interface: Interface, normaliser: Normaliser,
                 source: str, device: str | torch.device = "cpu") -> None:
        self._model = model.to(device).eval()
        self._config, self._interface, self._normaliser = config, interface, normaliser
        self._source, self._device = source, torch.device(device)
        self._sampler = make_sampler(config.policy.sampler, config.policy.sampler_steps)
        self._noise = torch.zeros((1, *model.chunk_shape), device=device)
        self._times_s = np.arange(config.policy.chunk_steps) / interface.action.rate_hz
        self._lower, self._upper = _bounds(interface)

    @property
    def interface(self) -> Interface:
        """The interface that the policy was trained with."""
        return self._interface

    @property
    def instructions(self) -> tuple[str, ...]:
        """The instructions that the policy was trained on."""
        return self._config.instructions

    def warm_up(self) -> None:
        """Run once on black pictures of the interface's size."""
        images = {name: np.zeros((c.height, c.width, 3), np.uint8) for name, c in self._interface.cameras.items()}
        state = np.zeros(self._interface.state_size, np.float32) if self._config.policy.observation.state else None
        self.predict(Observation(0.0, images, state, self.instructions[0]))

    def predict(self, observation: Observation) -> ActionChunk:
        """The chunk for one observation, in the interface's units, within its limits.

        Raises PolicyError where a camera is missing, the state has another length or is not finite, or the instruction
        is not one that the policy was trained on.
        """
        chunk = self._model.sample(self._inputs(observation), self._noise, self._sampler)[0].float().cpu().numpy()
        values = np.clip(self._normaliser.action.denormalise(chunk), self._lower, self._upper)
        return ActionChunk(self._times_s.copy(), values, self._source)

    def _inputs(self, observation: Observation) -> dict[str, Tensor]:
        size = self._config.policy.observation.image_size
        missing = [name for name in self._interface.cameras if name not in observation.images]
        if missing:
            raise PolicyError(f"observation lacks camera {missing[0]!r} (has: {', '.join(observation.images)}); "
                              f"{self._source} was trained on {', '.join(self._interface.cameras)}")
        pictures = np.stack([square(observation.images[name], size) for name in self._interface.cameras])
        inputs = {"images": torch.from_numpy(pictures)[None],
                  "instruction": torch.tensor([self._instruction(observation.instruction)])}
        if self._config.policy.observation.state:
            inputs |= self._state(observation.state)
        return {name: tensor.to(self._device) for name, tensor in inputs.items()}

    def _instruction(self, given: str | None) -> int:
        known = self.instructions
        if (given or "") in known:
            return known.index(given or "")
        if known == ("",):
            return 0  # trained without instructions: whatever is said changes nothing
        raise PolicyError(f"instruction {given!r} is not one that {self._source} was trained on; "
                          f"{configuration.nearest(given or '', known)}")

    def _state(self, state: np.ndarray | None) -> dict[str, Tensor]:
        affine = self._normaliser.state
        assert affine is not None, "a policy with proprioception has a normaliser of the state"
        if state is None:
            raise PolicyError(f"observation has no state, but {self._source} was trained with proprioception")
        if np.shape(state) != (affine.size,) or not np.all(np.isfinite(state)):
            raise PolicyError(f"state must be {affine.size} finite values, got {np.asarray(state).tolist()}")
        return {"state": torch.from_numpy(affine.normalise(np.asarray(state, np.float32)))[None],
                "state_known": torch.tensor([True])}


def save_policy(directory: str | Path, model: DiffusionModel, config: TrainedConfig, interface: Interface,
                normaliser: Normaliser, card: str) -> Path:
    """Write the checkpoint directory of a policy."""
    return save_checkpoint(directory, config, model.state_dict(), interface, normaliser.to_dict(), card)


def load_policy(directory: str | Path, device: str | torch.device = "cpu") -> DiffusionPolicy:
    """Load a policy that `train` wrote.

    Raises CheckpointError or ConfigError for a damaged checkpoint, PolicyError where its parts do not fit one another.
    """
    found = load_checkpoint(directory, TrainedConfig)
    if found.interface is None or found.normaliser is None:
        raise PolicyError(f"{directory}: no interface.yaml or normaliser.json; this is not the checkpoint of a policy")
    normaliser = Normaliser.from_dict(found.normaliser)
    if normaliser.action.size != found.interface.action.size:
        raise PolicyError(f"{directory}: normaliser.json has {normaliser.action.size} action values, "
                          f"interface.yaml has {found.interface.action.size}")
    model = build_model(found.config, found.interface)
    _load_tensors(model, found.tensors, directory)
    return DiffusionPolicy(model, found.config, found.interface, normaliser, str(directory), device)


def build_model(config: TrainedConfig, interface: Interface) -> DiffusionModel:
    """The network for a configuration and a robot, with fresh weights."""
    return DiffusionModel(config.policy, len(interface.cameras), len(config.instructions), interface.state_size,
                          interface.action.size)


def _load_tensors(model: DiffusionModel, tensors: Mapping[str, Any], directory: str | Path) -> None:
    expected = model.state_dict()
    for name in (*expected, *tensors):
        given = tuple(tensors[name].shape) if name in tensors else "absent"
        wanted = tuple(expected[name].shape) if name in expected else "absent"
        if given != wanted:
            raise PolicyError(f"{directory}/model.safetensors: tensor {name!r} is {given}, its config.yaml makes it "
                              f"{wanted}; the files are of different runs")
    model.load_state_dict(tensors)


def _bounds(interface: Interface) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest action, float32 [A] each: the interface's limits, and [0, 1] for the gripper."""
    limits, names = interface.action.limits, interface.action.names
    lower, upper = limits.lower or (-np.inf,) * len(names), limits.upper or (np.inf,) * len(names)
    if interface.action.gripper is not None:
        lower, upper = (*lower, 0.0), (*upper, 1.0)
    return np.array(lower, np.float32), np.array(upper, np.float32)
