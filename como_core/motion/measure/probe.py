"""How much of the real actions a probe reads from features, with an interval over recordings (paper, section 4).

    found = run_probe("z", latent, target, episode, seeds=range(3))
    found.r2().mean, found.mse().mean

Targets are z-scored on the probe's training recordings. Every recording is held out once, in one of FOLDS folds; each
seed draws other folds. The linear probe is a ridge regression; its strength, and when the MLP stops, is chosen on
recordings set aside from the training ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from como_core.errors import ComoError
from como_core.intervals import AT_MOST_ONE, NOT_NEGATIVE, Score, jackknife, sums_by_recording

FOLDS = 5
_STRENGTHS = 10.0 ** np.arange(-2, 6)
_ASIDE = 5  # every fifth of the training recordings


@dataclass(frozen=True)
class Fold:
    """Indices of pairs: those fitted on, those set aside to choose by, those predicted."""

    fitted: np.ndarray
    aside: np.ndarray
    held: np.ndarray

    @property
    def training(self) -> np.ndarray:
        return np.concatenate([self.fitted, self.aside])


Fit = Callable[[np.ndarray, Sequence[np.ndarray], Sequence[Fold], int], Sequence[np.ndarray]]
"""From features [P, D], the z-scored target [P, A] of each fold, the folds and a seed: predictions of each `held`."""


@dataclass(frozen=True)
class Probe:
    """What a probe found.

    size  numbers per pair that it was given
    sums  [S, E, 1 + 3 A], for each seed and recording: pairs, then for each target the sums over pairs of the squared
          error, of the target and of its square, in units of the target's spread
    """

    name: str
    size: int
    sums: np.ndarray

    @property
    def targets(self) -> int:
        return (self.sums.shape[2] - 1) // 3

    def r2(self, columns: Sequence[int] | None = None) -> Score:
        """Coefficient of determination, mean over target `columns`, all where None."""
        return jackknife(self.sums.mean(axis=0), lambda sums: self._r2(sums, columns), AT_MOST_ONE)

    def mse(self, columns: Sequence[int] | None = None) -> Score:
        """Mean squared error in units of the targets' variance, mean over `columns` (LP-MSE)."""
        return jackknife(self.sums.mean(axis=0), lambda sums: self._mse(sums, columns), NOT_NEGATIVE)

    def r2_gain(self, other: Probe, columns: Sequence[int] | None = None) -> Score:
        """R2 of this probe minus that of `other`, on the same recordings."""
        split = self.sums.shape[2]
        both = np.concatenate([self.sums.mean(axis=0), other.sums.mean(axis=0)], axis=1)
        return jackknife(both, lambda sums: self._r2(sums[:, :split], columns) - other._r2(sums[:, split:], columns))

    def seed_spread(self) -> float:
        """Standard deviation of R2 over the seeds."""
        return float(np.std([self._r2(sums.sum(axis=0, keepdims=True), None)[0] for sums in self.sums]))

    def _parts(self, sums: np.ndarray, columns: Sequence[int] | None) -> tuple[np.ndarray, ...]:
        chosen = range(self.targets) if columns is None else columns
        error, total, square = (sums[:, [1 + block * self.targets + c for c in chosen]] for block in range(3))
        return sums[:, :1], error, total, square

    def _mse(self, sums: np.ndarray, columns: Sequence[int] | None) -> np.ndarray:
        pairs, error, _, _ = self._parts(sums, columns)
        return (error / pairs).mean(axis=1)

    def _r2(self, sums: np.ndarray, columns: Sequence[int] | None) -> np.ndarray:
        pairs, error, total, square = self._parts(sums, columns)
        return (1 - error / np.maximum(square - total**2 / pairs, 1e-9)).mean(axis=1)


def run_probe(name: str, values: np.ndarray, target: np.ndarray, episode: np.ndarray, seeds: Sequence[int] = (0,),
              fit: Fit | None = None) -> Probe:
    """Probe features [P, D] for `target` [P, A], every one of the recordings [P] held out once per seed.

    fit  how predictions are made: `ridge` where None

    Raises ComoError where there are fewer than two recordings, so that none can be held out.
    """
    sums = []
    for seed in seeds:
        folds = split(episode, seed)
        scaled = [_scaled(target, fold.training) for fold in folds]
        predicted = (fit or ridge)(values, scaled, folds, seed)
        truth, error = np.zeros(target.shape), np.zeros(target.shape)
        for fold, wanted, guess in zip(folds, scaled, predicted, strict=True):
            truth[fold.held] = wanted[fold.held]
            error[fold.held] = np.square(guess - wanted[fold.held])
        sums.append(sums_by_recording(np.concatenate([np.ones((len(target), 1)), error, truth, truth**2], axis=1),
                                      episode))
    return Probe(name, values.shape[1], np.stack(sums))


def split(episode: np.ndarray, seed: int) -> list[Fold]:
    """Folds of whole recordings, FOLDS or as many as there are recordings; a seed gives the same ones again.

    Where only one recording is left to train on, its last fifth is set aside. Raises ComoError as `run_probe` does.
    """
    recordings = np.random.default_rng(seed).permutation(np.unique(episode))
    if len(recordings) < 2:
        raise ComoError("a probe holds whole recordings out, so it needs at least 2 with actions, got "
                        f"{len(recordings)}; give more recordings with actions")
    folds = []
    for number in range(min(FOLDS, len(recordings))):
        held = np.isin(episode, recordings[number::FOLDS])
        others = np.setdiff1d(recordings, recordings[number::FOLDS])
        others = np.random.default_rng((seed, number)).permutation(others)
        aside = np.isin(episode, others[::_ASIDE])
        if len(others) == 1:
            rest = np.flatnonzero(~held)
            aside = np.zeros_like(held)
            aside[rest[-max(len(rest) // _ASIDE, 1):]] = True
        fitted = ~held & ~aside if np.any(~held & ~aside) else aside
        folds.append(Fold(np.flatnonzero(fitted), np.flatnonzero(aside), np.flatnonzero(held)))
    return folds


def ridge(values: np.ndarray, targets: Sequence[np.ndarray], folds: Sequence[Fold], seed: int) -> list[np.ndarray]:
    """Ridge regression on standardised features: the strength is the best of a grid on those set aside, then all are
    fitted on. `seed` is not needed: there is nothing random in it."""
    predicted = []
    for fold, target in zip(folds, targets, strict=True):
        known = values[fold.training]
        scaled = (values - known.mean(axis=0)) / np.maximum(known.std(axis=0), 1e-9)
        strength = _strength(scaled, target, fold)
        predicted.append(scaled[fold.held] @ _solve(scaled[fold.training], target[fold.training], strength))
    return predicted


def _strength(values: np.ndarray, target: np.ndarray, fold: Fold) -> float:
    def error(strength: float) -> float:
        weights = _solve(values[fold.fitted], target[fold.fitted], strength)
        return float(np.mean(np.square(values[fold.aside] @ weights - target[fold.aside])))

    return min(_STRENGTHS, key=error)


def _solve(features: np.ndarray, target: np.ndarray, strength: float) -> np.ndarray:
    return np.linalg.solve(features.T @ features + strength * np.eye(features.shape[1]), features.T @ target)


def _scaled(target: np.ndarray, training: np.ndarray) -> np.ndarray:
    known = target[training]
    return (target - known.mean(axis=0)) / np.maximum(known.std(axis=0), 1e-9)
