"""Zero mean and unit scale for actions and states, fitted on measured steps only and kept in the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from como_core.episode import Episode, Provenance
from como_core.errors import ComoError
from como_core.policy.action_space import ActionSpace

CONSTANT_STD = 1e-4  # a value that moves less than this (in its own unit) is taken as constant and not blown up


@dataclass(frozen=True)
class Affine:
    """Per-value mean and scale, float32 [N]: normalised = (value - mean) / scale."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray) -> Affine:
        """Mean and standard deviation of values [M, N]; constant values keep scale 1."""
        values = np.asarray(values, np.float64)  # of float32, a large constant has a deviation from its own mean
        std = values.std(0)
        return cls(values.mean(0).astype(np.float32), np.where(std > CONSTANT_STD, std, 1.0).astype(np.float32))

    @classmethod
    def identity(cls, size: int) -> Affine:
        """Leaves values as they are."""
        return cls(np.zeros(size, np.float32), np.ones(size, np.float32))

    @property
    def size(self) -> int:
        """How many values it is for."""
        return len(self.mean)

    def normalise(self, values: np.ndarray) -> np.ndarray:
        """Physical units to unit scale, float32 [..., N]."""
        return ((values - self.mean) / self.scale).astype(np.float32)

    def denormalise(self, values: np.ndarray) -> np.ndarray:
        """Unit scale to physical units, float32 [..., N]."""
        return (values * self.scale + self.mean).astype(np.float32)


@dataclass(frozen=True)
class Normaliser:
    """Affine maps of the action and, where they are used, of the state (proprioception) and of latents."""

    action: Affine
    state: Affine | None = None
    latent: Affine | None = None

    @classmethod
    def fit(cls, episodes: Sequence[Episode], space: ActionSpace, latents: Sequence[Episode] = ()) -> Normaliser:
        """From the measured steps of the episodes; the state's map is None unless every episode has a state.

        latents  whose latents the third map is of

        Raises ComoError where no step has a measured action.
        """
        measured = [space.encode(e.action[e.provenance == Provenance.MEASURED]) for e in episodes
                    if e.action is not None]
        actions = np.concatenate(measured) if measured else np.zeros((0, 0))
        if not len(actions):
            raise ComoError("no measured action in the demonstrations: expected an episode or more with commands")
        states = [e.state for e in episodes if e.state is not None]
        with_state = len(states) == len(episodes)
        return cls(Affine.fit(actions), Affine.fit(np.concatenate(states)) if with_state else None,
                   _of_latents(latents))

    @classmethod
    def without_actions(cls, space: ActionSpace, latents: Sequence[Episode], state_size: int = 0) -> Normaliser:
        """Of latents and, where there are any of `state_size`, of their states; actions pass as they are."""
        states = [e.state for e in latents if e.state is not None]
        state = Affine.fit(np.concatenate(states)) if state_size and states else Affine.identity(state_size)
        return cls(Affine.identity(space.size), state if state_size else None, _of_latents(latents))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for normaliser.json."""
        maps = {"action": self.action, "state": self.state, "latent": self.latent}
        return {k: {"mean": m.mean.tolist(), "scale": m.scale.tolist()} for k, m in maps.items() if m is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Normaliser:
        """The inverse of `to_dict`. Raises ComoError where a key or a length does not fit."""
        return cls(_affine(data, "action"), *(_affine(data, name) if name in data else None
                                              for name in ("state", "latent")))


def _of_latents(episodes: Sequence[Episode]) -> Affine | None:
    found = [e.latent[e.trust > 0] for e in episodes if e.latent is not None]
    if found and not sum(map(len, found)):
        raise ComoError(f"no label of confidence above 0 in any of {len(found)} recordings with latents, so there is "
                        "no motion to learn; look at the confidence's parts in the label files (docs/relabel.md)")
    return Affine.fit(np.concatenate(found)) if found else None


def _affine(data: Mapping[str, Any], key: str) -> Affine:
    try:
        mean, scale = (np.asarray(data[key][name], np.float32) for name in ("mean", "scale"))
    except (KeyError, TypeError, ValueError) as error:
        raise ComoError(f"normaliser.json: {key!r} needs number lists 'mean' and 'scale' ({error})") from error
    if mean.ndim != 1 or mean.shape != scale.shape or not np.all(np.isfinite(mean)) or not np.all(scale > 0):
        raise ComoError(f"normaliser.json: {key!r} must hold finite means and positive scales of one length")
    return Affine(mean, scale)
