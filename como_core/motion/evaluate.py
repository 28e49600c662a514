"""Measure a MotionModel on labelled recordings that it was not trained on: probes beside baselines, reconstruction.

    report = evaluate(model, episodes, action_names=["linear.x", "linear.y", "linear.z"], cache="cache")
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.formats.cache import FrameCache
from como_core.formats.sources import action_names_of
from como_core.interface import Interface
from como_core.motion.model import MotionModel
from como_core.motion.pairs import Pairs
from como_core.motion.probe import Features, Probe, Score, run_probe, window_sums
from como_core.training.progress import track

_PCA_PAIRS = 2000
_CHUNK = 256


@dataclass(frozen=True)
class ProbeRow:
    """A line of the probe table."""

    features: str
    size: int
    r2: Score
    mse: Score
    r2_by_action: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found. `gain` is R2 of z minus R2 of the PCA, on the same resampled episodes.

    reconstruction_gain  1 - error of the forward dynamics over the error of copying frame t
    """

    rows: list[ProbeRow]
    gain: Score
    reconstruction_gain: float
    episodes: int
    pairs: int
    gap_s: float
    actions: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def evaluate(model: MotionModel, episodes: Sequence[Episode], action_names: Sequence[str],
             camera: str | None = None, cache: str | Path = "cache", seed: int = 0) -> Evaluation:
    """Probe z for the actions of `episodes`; those without actions are left out.

    action_names  names of the first action values. R2 and MSE are means over these; a gripper, the last value, is
                  left out, since the task's identity alone tells most of it
    cache         where decoded frames are kept

    Raises ComoError where fewer episodes have actions than a split needs.
    """
    labelled = [episode for episode in episodes if episode.action is not None]
    if not labelled:
        raise ComoError(f"none of {len(episodes)} recordings has actions; a probe needs some, such as recorded bags")
    frames = FrameCache.build(labelled, camera, model.config.image_size, Path(cache),
                              functools.partial(track, title="decoding", unit="frames"))
    labelled = [labelled[i] for i in frames.held]
    _require_one_width(labelled, len(action_names))
    pairs = Pairs.build(frames.timestamps, frames.offsets, model.config.gap_s)
    action = np.concatenate([episode.action for episode in labelled if episode.action is not None])
    columns = list(range(len(action_names)))
    target = window_sums(action[:, columns], pairs.first, pairs.second)
    latent, gain = _encode(model, frames.frames, pairs)
    size = model.config.latent_size
    candidates: dict[str, Features] = {
        "mean of the actions": lambda train, every: np.ones((len(every), 1)),
        "PCA of the RGB difference": DifferencePca(frames.frames, pairs, size),
        "z": lambda train, every: latent[every],
    }
    probes = [run_probe(name, features, target, pairs.episode, seed) for name, features in candidates.items()]
    return Evaluation([_row(probe, action_names) for probe in probes], probes[2].r2_gain(probes[1], columns), gain,
                      len(np.unique(pairs.episode)), len(pairs), model.config.gap_s, list(action_names))


@dataclass(frozen=True)
class DifferencePca:
    """Features of the baseline: the first `size` principal components of F_{t+n} - F_t in pixels."""

    frames: np.ndarray
    pairs: Pairs
    size: int

    def __call__(self, train: np.ndarray, every: np.ndarray) -> np.ndarray:
        sample = np.sort(np.random.default_rng(0).choice(train, min(len(train), _PCA_PAIRS), replace=False))
        known = self._difference(sample)
        mean = known.mean(dim=0)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            _, _, basis = torch.pca_lowrank(known - mean, q=min(self.size + 10, *known.shape), center=False, niter=3)
        basis = basis[:, :self.size]
        chunks = [every[i:i + _CHUNK] for i in range(0, len(every), _CHUNK)]
        return torch.cat([(self._difference(chunk) - mean) @ basis for chunk in chunks]).numpy()

    def _difference(self, index: np.ndarray) -> torch.Tensor:
        first, second = (torch.from_numpy(self.frames[side[index]]) for side in (self.pairs.first, self.pairs.second))
        return (second.float() - first.float()).flatten(1) / 255


def _encode(model: MotionModel, frames: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, float]:
    """z of all pairs, float32 [P, D], and the reconstruction gain."""
    latents, error, change = [], 0.0, 0.0
    for start in range(0, len(pairs), _CHUNK):
        part = slice(start, start + _CHUNK)
        first, second = frames[pairs.first[part]], frames[pairs.second[part]]
        latent = model.encode(first, second)
        rebuilt = model.reconstruct(first, latent).cpu().numpy().astype(np.float32)
        error += float(np.square(rebuilt - second).sum())
        change += float(np.square(first.astype(np.float32) - second).sum())
        latents.append(latent.cpu().numpy())
    return np.concatenate(latents), 1 - error / max(change, 1e-9)


def _row(probe: Probe, action_names: Sequence[str]) -> ProbeRow:
    columns = list(range(len(action_names)))
    return ProbeRow(probe.name, probe.size, probe.r2(columns), probe.mse(columns),
                    {name: probe.r2([column]).mean for column, name in enumerate(action_names)})


def action_names(episodes: Sequence[Episode], interface: Interface | None = None) -> list[str]:
    """Names of the commanded values: of `interface`, or as the first recording with actions that says has them.

    A gripper is left out where the recording tells which value it is. Raises ComoError where no recording says.
    """
    if interface is not None:
        return list(interface.action.names)
    for episode in episodes:
        names = action_names_of(episode.source) if episode.action is not None else None
        if names:
            return names
    raise ComoError(f"none of {len(episodes)} recordings has actions and says what they mean; give recorded bags, "
                    "LeRobot data sets or HDF5 files, or the robot's interface YAML with --interface")


def _require_one_width(episodes: Sequence[Episode], names: int) -> None:
    """Raise ComoError unless all actions have the same number of values, and a value for each name."""
    first = episodes[0]
    for episode in episodes:
        assert episode.action is not None and first.action is not None, "only recordings with actions are measured"
        width, expected = episode.action.shape[1], first.action.shape[1]
        if width != expected or width < names:
            raise ComoError(f"{episode.source}: actions have {width} values a step, those of {first.source} have "
                            f"{expected}, and {names} are named; measure recordings of one robot at a time")


def probe_table(report: Evaluation) -> Table:
    """The probe rows for a terminal."""
    by_action = ", ".join(f"{name} {value:.3f}" for name, value in report.rows[-1].r2_by_action.items())
    caption = (f"{report.episodes} recordings, {report.pairs} pairs {report.gap_s:g} s apart; 95 % intervals over "
               f"recordings. z is ahead of the PCA by {report.gain}; its R2 is {by_action}. The forward dynamics "
               f"removes {report.reconstruction_gain:.0%} of the error of copying frame t.")
    table = Table(title="Linear probe: actions summed over the gap", caption=caption, caption_justify="left")
    table.add_column("features", no_wrap=True)
    for heading in ("size", "R2", "MSE"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(row.features, str(row.size), str(row.r2), f"{row.mse.mean:.3f}")
    return table
