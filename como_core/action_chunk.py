"""What passes between a policy and whoever runs it: an observation in, a timed chunk of actions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from como_core.interface import Interface

# What is due may come this share of a period early at most: header stamps jitter, and a hair before the stamp is at it.
STAMP_TOLERANCE = 0.25


@dataclass(frozen=True)
class Observation:
    """What the robot saw at one instant.

    stamp_s      seconds, the header stamp of the newest image
    images       camera name -> uint8 [H, W, 3], RGB
    state        float32 [S] in the interface's order, or None where the robot has none
    instruction  what the robot is asked to do, or None
    prefix       float32 [P, A]: actions that will be carried out whatever is predicted, the first due at stamp_s and
                 the others one control period apart; for policies that continue a motion (real-time chunking). None
                 where nothing was commanded yet
    past         pictures of earlier moments, as `images`: one for each of the policy's `history_s`, in its order, by
                 `history_rows`
    """

    stamp_s: float
    images: Mapping[str, np.ndarray]
    state: np.ndarray | None = None
    instruction: str | None = None
    prefix: np.ndarray | None = None
    past: tuple[Mapping[str, np.ndarray], ...] = ()


@dataclass(frozen=True)
class ActionChunk:
    """Actions with the times at which they are due.

    times_s  float64 [K], seconds from the observation's stamp, increasing
    values   float32 [K, A], in the units and order of Interface.action, gripper last, in [0, 1]
    source   which policy made it
    """

    times_s: np.ndarray
    values: np.ndarray
    source: str = ""


class Policy(Protocol):
    """Anything that turns observations into chunks; nodes and rollouts know only this."""

    @property
    def interface(self) -> Interface: ...

    def warm_up(self) -> None:
        """Run once on data of the right shape, so that the first real call is not slower than the rest."""

    def predict(self, observation: Observation) -> ActionChunk:
        """The chunk for one observation.

        Raises ComoError where the observation lacks what the policy was trained on.
        """


def history_of(policy: Policy) -> tuple[float, ...]:
    """How long before the newest pictures a policy wants those of `Observation.past`, seconds; () for most."""
    return tuple(getattr(policy, "history_s", ()))


def history_rows(stamps_s: np.ndarray, history_s: Sequence[float], now_s: np.ndarray | None = None) -> np.ndarray:
    """Which of the pictures of `stamps_s` [T] a policy sees at each of `now_s` [N], int64 rows [N, 1 + lags].

    The newest one, then for each lag the newest that is at least so many seconds old, less a quarter of a period (the
    median between pictures); the first one where there is none. In training, in trials, along recordings and on the
    robot alike.

    now_s  at each picture where None
    """
    lags = np.array([0.0, *history_s])
    period = np.median(np.diff(stamps_s)) if len(stamps_s) > 1 else 0.0
    due = (stamps_s if now_s is None else now_s)[:, None] - lags + STAMP_TOLERANCE * period
    return np.maximum(np.searchsorted(stamps_s, due, side="right") - 1, 0)
