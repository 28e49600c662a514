"""A trained policy on disk, and the Policy that runs it: one observation in, one chunk of actions out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
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
from como_core.policy.action_space import ActionSpace
from como_core.policy.config import PolicyConfig
from como_core.policy.model import PolicyModel, Sizes
from como_core.policy.normaliser import Normaliser
from como_core.policy.text import Text, TextConfig, TextError, make_text
from como_core.training.checkpoint import load_checkpoint, save_checkpoint, weights_digest
from como_core.training.ranks import named_device


class PolicyError(ComoError, ValueError):
    """A policy or an observation that does not fit; the message names what was given and what was expected."""


@dataclass(frozen=True)
class LatentsOf:
    """Whose latents were trained on: the motion model as name@hash, "" where none was or it is not known, and its gap.
    """

    model: str = ""
    gap_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.model} at gap {self.gap_s:g} s"


NOBODYS = LatentsOf()


@dataclass(frozen=True)
class TrainedConfig:
    """config.yaml of a policy's checkpoint: how it was trained, the instructions that it knows, on how many
    demonstrations (with none it knows motion and no action) and on whose latents.
    """

    policy: PolicyConfig
    instructions: tuple[str, ...]
    demonstrations: int = 1
    latents: LatentsOf = NOBODYS


class TrainedPolicy:
    """A trained policy of any family behind the Policy protocol: the same observation gives the same chunk."""

    def __init__(self, model: PolicyModel, config: TrainedConfig, text: Text, interface: Interface,
                 normaliser: Normaliser, source: str, device: str | torch.device = "cpu") -> None:
        self._model = model.to(device).eval()
        self._config, self._text, self._interface, self._normaliser = config, text, interface, normaliser
        self._space = ActionSpace.of(interface)
        self._source, self._device = source, torch.device(device)
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

    @property
    def history_s(self) -> tuple[float, ...]:
        """How long before the newest pictures those of `Observation.past` should be, in seconds."""
        return self._config.policy.observation.history_s

    @property
    def uses_state(self) -> bool:
        """Whether it looks at the state."""
        return self._config.policy.observation.state

    def warm_up(self) -> None:
        """Run once on black pictures of the interface's size."""
        images = {name: np.zeros((c.height, c.width, 3), np.uint8) for name, c in self._interface.cameras.items()}
        state = np.zeros(self._interface.state_size, np.float32) if self._config.policy.observation.state else None
        self.predict(Observation(0.0, images, state, self.instructions[0], past=(images,) * len(self.history_s)))

    def require_instruction(self, instruction: str) -> None:
        """Raise PolicyError, as `predict` does, where it knows no action or cannot take `instruction`."""
        self._require_actions()
        self._told(instruction)

    def predict(self, observation: Observation) -> ActionChunk:
        """The chunk for one observation, in the interface's units, within its limits.

        Raises PolicyError where a camera is missing or gives no RGB picture, the state has another length or is not
        finite, or the instruction cannot be taken.
        """
        return self.predict_batch([observation])[0]

    def predict_batch(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        """The chunks for several observations, all with a prefix of one length or none. Raises as `predict` does."""
        self._require_actions()
        given = [self._inputs(observation) for observation in observations]
        inputs = {name: torch.cat([one[name] for one in given]).to(self._device) for name in given[0]}
        found = self._model.sample(inputs, self._prefix(observations)).float().cpu().numpy()
        values = self._space.decode(self._normaliser.action.denormalise(found))
        return [ActionChunk(self._times_s.copy(), np.clip(chunk, self._lower, self._upper), self._source)
                for chunk in values]

    def _require_actions(self) -> None:
        if not self._config.demonstrations:
            raise PolicyError(f"{self._source} was trained without any action: it knows motion, not how to act; go on "
                              f"from it with demonstrations: como policy train --start-from {self._source} ...")

    def _told(self, instruction: str) -> Tensor:
        try:
            return self._text.features([instruction])
        except TextError as error:
            raise PolicyError(f"{self._source}: {error}") from error

    def _inputs(self, observation: Observation) -> dict[str, Tensor]:
        size = self._config.policy.observation.image_size
        moments = (observation.images, *observation.past)
        if len(moments) != 1 + len(self.history_s):
            raise PolicyError(f"observation has pictures of {len(moments)} moments; {self._source} was trained on "
                              f"{1 + len(self.history_s)}, at {[0.0, *self.history_s]} s before the newest")
        for images in moments:
            missing = [name for name in self._interface.cameras if name not in images]
            if missing:
                raise PolicyError(f"observation lacks camera {missing[0]!r} (has: {', '.join(images)}); "
                                  f"{self._source} was trained on {', '.join(self._interface.cameras)}")
            for name in self._interface.cameras:
                shape, kind = np.shape(images[name]), np.asarray(images[name]).dtype
                if kind != np.uint8 or len(shape) != 3 or shape[2] != 3 or not min(shape):
                    raise PolicyError(f"camera {name!r}: expected an RGB picture, uint8 [H, W, 3], got {kind} "
                                      f"{list(shape)}")
        pictures = np.stack([square(images[name], size) for images in moments for name in self._interface.cameras])
        inputs = {"images": torch.from_numpy(pictures)[None], "instruction": self._told(observation.instruction or "")}
        if self._config.policy.observation.state:
            inputs |= self._state(observation.state)
        return inputs

    def _prefix(self, observations: Sequence[Observation]) -> Tensor | None:
        """Actions that are carried out whatever is predicted, of unit scale: [B, P, A]."""
        prefixes = [observation.prefix for observation in observations if observation.prefix is not None]
        if len(prefixes) < len(observations):
            return None
        given = np.stack(prefixes)
        return torch.from_numpy(self._normaliser.action.normalise(self._space.encode(given))).to(self._device)

    def _state(self, state: np.ndarray | None) -> dict[str, Tensor]:
        affine = self._normaliser.state
        assert affine is not None, "a policy with proprioception has a normaliser of the state"
        if state is None:
            raise PolicyError(f"observation has no state, but {self._source} was trained with proprioception")
        if np.shape(state) != (affine.size,) or not np.all(np.isfinite(state)):
            raise PolicyError(f"state must be {affine.size} finite values, got {np.asarray(state).tolist()}")
        return {"state": torch.from_numpy(affine.normalise(np.asarray(state, np.float32)))[None],
                "state_known": torch.tensor([True])}


def save_policy(directory: str | Path, model: PolicyModel, config: TrainedConfig, interface: Interface,
                normaliser: Normaliser, card: str) -> Path:
    """Write the checkpoint directory of a policy."""
    return save_checkpoint(directory, config, model.state_dict(), interface, normaliser.to_dict(), card)


def load_policy(directory: str | Path, device: str | torch.device = "cpu") -> TrainedPolicy:
    """Load a policy that `train` wrote.

    Raises CheckpointError or ConfigError for a damaged checkpoint, PolicyError where its parts do not fit one another,
    ComoError where there is no such device.
    """
    place = named_device(device)
    found = load_checkpoint(directory, TrainedConfig)
    if found.interface is None or found.normaliser is None:
        raise PolicyError(f"{directory}: no interface.yaml or normaliser.json; this is not the checkpoint of a policy")
    try:
        normaliser = Normaliser.from_dict(found.normaliser)
    except ComoError as error:
        raise PolicyError(f"{directory}/{error}") from error
    size = ActionSpace.of(found.interface).size
    if normaliser.action.size != size:
        raise PolicyError(f"{directory}: normaliser.json has {normaliser.action.size} action values, "
                          f"interface.yaml has {size}")
    text = make_text(found.config.policy.observation.text, found.config.instructions)
    model = build_model(found.config.policy, text, found.interface, normaliser)
    _load_tensors(model, found.tensors, directory)
    return TrainedPolicy(model, found.config, text, found.interface, normaliser, str(directory), place)


def load_weights(model: PolicyModel, directory: str | Path, trained: TrainedConfig | None = None) -> str:
    """Put the weights of another checkpoint into `model`, and give their sha256.

    trained  how `model` is trained; then what the weights learned of instructions and latents must mean the same to it

    Raises CheckpointError where there is none, PolicyError, by what differs, where its network is another one or it
    reads instructions another way, or it predicts latents of another motion model.
    """
    found = load_checkpoint(directory, TrainedConfig)
    if trained is not None:
        _require_same_instructions(found.config, trained, directory)
        _require_same_latents(found.config, trained, directory)
    misfit = _misfit(model, found.tensors)
    if misfit:
        raise PolicyError(f"{directory}: training cannot begin with its weights: "
                          f"{_network_difference(found.config, trained, misfit)}")
    model.load_state_dict(found.tensors)
    return weights_digest(model)


def build_model(config: PolicyConfig, text: Text, interface: Interface, normaliser: Normaliser) -> PolicyModel:
    """The network for a configuration, a way to read instructions, a robot and its data, with fresh weights."""
    observation, latent = config.observation, normaliser.latent
    sizes = Sizes(len(interface.cameras) * (1 + len(observation.history_s)), text.size, interface.state_size,
                  ActionSpace.of(interface).size, latent.size if latent else 0)
    return PolicyModel(config, sizes)


def _load_tensors(model: PolicyModel, tensors: Mapping[str, Any], directory: str | Path) -> None:
    misfit = _misfit(model, tensors)
    if misfit:
        name, given, wanted = misfit
        raise PolicyError(f"{directory}/model.safetensors: tensor {name!r} is {given}, its config.yaml makes it "
                          f"{wanted}; the files are of different runs")
    model.load_state_dict(tensors)


def _misfit(model: PolicyModel, tensors: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first tensor whose shape is not that of the model, and both shapes."""
    expected = model.state_dict()
    for name in (*expected, *tensors):
        given = tuple(tensors[name].shape) if name in tensors else "absent"
        wanted = tuple(expected[name].shape) if name in expected else "absent"
        if given != wanted:
            return name, given, wanted
    return None


def _require_same_instructions(before: TrainedConfig, now: TrainedConfig, directory: str | Path) -> None:
    """Raise PolicyError where the input for instructions has other meanings: other places, or another text encoder.

    A single instruction says nothing, whichever it is: its one place is always set.
    """
    texts = before.policy.observation.text, now.policy.observation.text
    there, here = (text.sha256 or text.model for text in texts)
    refused = f"{directory}: training cannot begin with its weights: "
    if there != here:
        names = [f"text encoder {text.model} ({text.sha256[:12]})" if text.model else "list of instructions"
                 for text in texts]
        raise PolicyError(f"{refused}it reads instructions with the {names[0]}, this training with the {names[1]}; "
                          "give observation.text.model the one of the checkpoint, or leave --start-from out")
    if there or before.instructions == now.instructions or len(before.instructions) == len(now.instructions) == 1:
        return
    raise PolicyError(f"{refused}each instruction is an input of its network, and they are "
                      f"{_listed(before.instructions)} there and {_listed(now.instructions)} here; train on recordings "
                      "of the same instructions, train both with --set observation.text.model=NAME, which takes any "
                      "sentence, or leave --start-from out")


def _require_same_latents(before: TrainedConfig, now: TrainedConfig, directory: str | Path) -> None:
    """Raise PolicyError where one of them predicts latents, and both are known and of two motion models or gaps."""
    predicted = any(trained.policy.cotraining.predicts_latents for trained in (before, now))
    if predicted and before.latents.model and now.latents.model and before.latents != now.latents:
        raise PolicyError(f"{directory}: training cannot begin with its weights: they predict latents of "
                          f"{before.latents}, and those of this training are of {now.latents}; run `como relabel` on "
                          "the videos with that model and gap, or leave --start-from out")


def _network_difference(before: TrainedConfig, now: TrainedConfig | None, misfit: tuple[str, Any, Any]) -> str:
    """Which setting makes two networks different, or which tensor where no setting does, and what to do."""
    name, given, wanted = misfit
    leave = "or leave --start-from out"
    said = [f"{key} is {there!r} there and {here!r} here"
            for key, there, here in (_settings_that_differ(before.policy, now.policy) if now is not None else ())]
    if said:
        return f"{', '.join(said)}, which makes another network; give both the same, {leave}"
    return (f"its network is another one, tensor {name!r} is {given} there and {wanted} here; both need the same "
            f"preset, size and mode, and cameras, state, actions and latents of the same kind, {leave}")


def _settings_that_differ(before: PolicyConfig, now: PolicyConfig) -> Iterator[tuple[str, Any, Any]]:
    """Key and both values of the settings that shape a network, the first difference of each group."""
    latents = before.cotraining.predicts_latents or now.cotraining.predicts_latents

    def groups(policy: PolicyConfig) -> dict[str, Any]:
        co = {"mode": policy.cotraining.mode, "split": policy.cotraining.split} if latents else {}
        seen = dataclasses.replace(policy.observation, text=TextConfig())  # which has been compared by its weights
        return {"family": policy.family, "cotraining": co, "chunk_steps": policy.chunk_steps, "observation": seen,
                "network": policy.network}

    there, here = groups(before), groups(now)
    for name in there:
        found = configuration.first_difference({name: there[name]}, {name: here[name]})
        if found:
            yield found


def _listed(instructions: Sequence[str], most: int = 8) -> str:
    """Instructions in quotes; of many the first, and how many more."""
    more = f" and {len(instructions) - most} more" if len(instructions) > most else ""
    return ", ".join(map(repr, instructions[:most])) + more


def _bounds(interface: Interface) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest action, float32 [A] each: the interface's limits, and [0, 1] for the gripper."""
    limits, names = interface.action.limits, interface.action.names
    lower, upper = limits.lower or (-np.inf,) * len(names), limits.upper or (np.inf,) * len(names)
    if interface.action.gripper is not None:
        lower, upper = (*lower, 0.0), (*upper, 1.0)
    return np.array(lower, np.float32), np.array(upper, np.float32)
