"""How much of the real actions a linear probe reads from z, with an interval and beside baselines (paper, section 4).

The target is the action summed over the pair's window, z-scored on the probe's training episodes. The probe is a ridge
regression whose strength is chosen on episodes set aside from the training ones. Every episode is held out once, in one
of FOLDS folds; the interval is a bootstrap over episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from como_core.errors import ComoError

FOLDS = 5
RESAMPLES = 2000
_STRENGTHS = 10.0 ** np.arange(-2, 6)

Features = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From the indices of training pairs and of all pairs [P] to features of all pairs [P, D]."""


@dataclass(frozen=True)
class Score:
    """A metric with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Probe:
    """Held-out predictions of z-scored targets, [P, A] each, with the episode of each pair [P]."""

    name: str
    size: int
    predicted: np.ndarray
    target: np.ndarray
    episode: np.ndarray

    def r2(self, columns: Sequence[int]) -> Score:
        """Coefficient of determination, mean over target `columns`."""
        return self._score(lambda counts: self._r2(counts, columns))

    def mse(self, columns: Sequence[int]) -> Score:
        """Mean squared error in units of the targets' variance, mean over `columns` (LP-MSE)."""
        return self._score(lambda counts: self._mse(counts, columns))

    def r2_gain(self, other: Probe, columns: Sequence[int]) -> Score:
        """R2 of this probe minus that of `other`, on the same resampled episodes."""
        return self._score(lambda counts: self._r2(counts, columns) - other._r2(counts, columns))

    def _score(self, statistic: Callable[[np.ndarray], np.ndarray]) -> Score:
        episodes = int(self.episode.max()) + 1
        present = np.unique(self.episode)
        rng = np.random.default_rng(0)
        draws = rng.choice(present, (RESAMPLES, len(present)))
        counts = np.stack([np.bincount(draw, minlength=episodes) for draw in draws])
        whole = np.bincount(present, minlength=episodes)[None]
        low, high = np.percentile(statistic(counts), [2.5, 97.5])
        return Score(float(statistic(whole)[0]), float(low), float(high))

    def _sums(self, values: np.ndarray) -> np.ndarray:
        sums = np.zeros((int(self.episode.max()) + 1, values.shape[1]))
        np.add.at(sums, self.episode, values)
        return sums

    def _mse(self, counts: np.ndarray, columns: Sequence[int]) -> np.ndarray:
        error = counts @ self._sums((self.predicted - self.target)[:, columns] ** 2)
        pairs = counts @ self._sums(np.ones((len(self.target), 1)))
        return (error / pairs).mean(axis=1)

    def _r2(self, counts: np.ndarray, columns: Sequence[int]) -> np.ndarray:
        target = self.target[:, columns]
        error = counts @ self._sums((self.predicted[:, columns] - target) ** 2)
        pairs = counts @ self._sums(np.ones((len(target), 1)))
        spread = counts @ self._sums(target**2) - (counts @ self._sums(target)) ** 2 / pairs
        return (1 - error / spread).mean(axis=1)


def run_probe(name: str, features: Features, target: np.ndarray, episode: np.ndarray, seed: int = 0) -> Probe:
    """Probe `features` for `target` [P, A], every one of the episodes [P] held out once.

    Raises ComoError where there are too few episodes to hold any out.
    """
    episodes = np.random.default_rng(seed).permutation(np.unique(episode))
    if len(episodes) < 2 * FOLDS:
        raise ComoError(f"a probe needs at least {2 * FOLDS} labelled episodes to split, got {len(episodes)}; "
                        "give more recordings with actions")
    predicted, scaled = np.zeros(target.shape), np.zeros(target.shape)
    for fold in range(FOLDS):
        held = np.isin(episode, episodes[fold::FOLDS])
        values = features(np.flatnonzero(~held), np.arange(len(target)))
        mean, spread = target[~held].mean(axis=0), target[~held].std(axis=0)
        scaled[held] = (target[held] - mean) / np.maximum(spread, 1e-9)
        known = (target[~held] - mean) / np.maximum(spread, 1e-9)
        predicted[held] = ridge(values[~held], known, episode[~held], values[held])
    return Probe(name, values.shape[1], predicted, scaled, episode)


def ridge(features: np.ndarray, target: np.ndarray, episode: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Ridge regression of `target` on standardised features, predicted for `wanted`.

    Its strength is the best of a grid on every fifth episode, then it is fitted on all.
    """
    mean, spread = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-9)
    features, wanted = (features - mean) / spread, (wanted - mean) / spread
    aside = np.isin(episode, np.unique(episode)[::5])

    def error(strength: float) -> float:
        weights = _solve(features[~aside], target[~aside], strength)
        return float(np.mean((features[aside] @ weights - target[aside]) ** 2))

    return wanted @ _solve(features, target, min(_STRENGTHS, key=error))


def _solve(features: np.ndarray, target: np.ndarray, strength: float) -> np.ndarray:
    return np.linalg.solve(features.T @ features + strength * np.eye(features.shape[1]), features.T @ target)


def window_sums(action: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The sum of action [T, A] over steps first .. second - 1 of each pair: [P, A]."""
    total = np.concatenate([np.zeros((1, action.shape[1])), np.cumsum(action, axis=0, dtype=np.float64)])
    return total[second] - total[first]
