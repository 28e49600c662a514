"""Does the confidence of labels go along with their error? On scripted episodes, whole and spoilt, in simulation.

    python -m benchmarks.confidence --model RUN -o benchmarks/results/confidence.json

The error of a step is the squared error of a linear probe, fitted on z of other, whole episodes, for the arm's velocity
summed over the gap and scaled to unit variance. Spoilt episodes keep the actions of the whole ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.stats import rankdata, spearmanr

from como_core.episode import Episode
from como_core.motion.clip import ClipLabels, label_clip
from como_core.motion.confidence import PARTS
from como_core.motion.model import MotionModel, load_motion
from como_core.motion.pairs import partner
from como_core.simulation.dataset import record_demonstrations

TASKS = ("door-close-v3", "window-open-v3", "button-press-topdown-v3", "drawer-open-v3", "reach-v3", "soccer-v3")
SEEDS = range(6000, 6010)
FOLDS, STRENGTH, RESAMPLES = 5, 100.0, 500

Spoil = Callable[[np.ndarray, slice, np.random.Generator], np.ndarray]
"""From pictures [T, H, W, 3] and a stretch of them to pictures spoilt there."""


def blur(pictures: np.ndarray, at: slice, rng: np.random.Generator) -> np.ndarray:
    """Out of focus: a Gaussian of 4 pixels."""
    return _with(pictures, at, np.stack([cv2.GaussianBlur(picture, (0, 0), 4) for picture in pictures[at]]))


def noise(pictures: np.ndarray, at: slice, rng: np.random.Generator) -> np.ndarray:
    """Sensor noise of 40 grey levels."""
    return _with(pictures, at, np.clip(pictures[at] + rng.normal(0, 40, pictures[at].shape), 0, 255))


def occlusion(pictures: np.ndarray, at: slice, rng: np.random.Generator) -> np.ndarray:
    """A quarter of the picture hidden by a patch that jumps from frame to frame."""
    out = pictures.copy()
    side = pictures.shape[1] // 2
    for t in range(at.start, at.stop):
        y, x = rng.integers(0, side, 2)
        out[t, y:y + side, x:x + side] = rng.integers(0, 255, 3)
    return out


def dropped(pictures: np.ndarray, at: slice, rng: np.random.Generator) -> np.ndarray:
    """Six frames in ten lost, the one before shown again."""
    out = pictures.copy()
    for t in range(at.start + 1, at.stop):
        if rng.random() < 0.6:
            out[t] = out[t - 1]
    return out


def frozen(pictures: np.ndarray, at: slice, rng: np.random.Generator) -> np.ndarray:
    """The picture stands while the arm goes on."""
    return _with(pictures, at, pictures[at.start])


SPOILT: dict[str, Spoil] = {f.__name__: f for f in (blur, noise, occlusion, dropped, frozen)}


def _with(pictures: np.ndarray, at: slice, other: np.ndarray) -> np.ndarray:
    out = pictures.copy()
    out[at] = other
    return out


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Rows of labels with a partner frame, of all episodes: z [N, D], confidences by name, episode [N], frames [N]."""

    latent: np.ndarray
    confidence: dict[str, np.ndarray]
    episode: np.ndarray
    first: np.ndarray
    second: np.ndarray


def label(model: MotionModel, episodes: list[Episode]) -> Labelled:
    """Labels of the steps that have a partner."""
    rows: list[tuple[ClipLabels, np.ndarray, np.ndarray]] = []
    for episode in episodes:
        second = partner(episode.timestamps, model.config.gap_s)
        first = np.flatnonzero(second >= 0)
        rows.append((label_clip(model, episode), first, second[first]))
    confidence = {"confidence": np.concatenate([clip.confidence[first] for clip, first, _ in rows])}
    parts = {part: np.concatenate([clip.parts[part][first] for clip, first, _ in rows]) for part in PARTS}
    others = [values for part, values in parts.items() if part != "composition"]
    confidence |= {"without composition": np.prod(others, axis=0), **parts}
    return Labelled(np.concatenate([clip.latent[first] for clip, first, _ in rows]), confidence,
                    np.repeat(np.arange(len(rows)), [len(first) for _, first, _ in rows]),
                    np.concatenate([first for _, first, _ in rows]), np.concatenate([second for *_, second in rows]))


def probe_errors(whole: Labelled, given: Labelled, target: np.ndarray) -> np.ndarray:
    """Squared error [N] of each row of `given`, by a probe fitted on `whole` episodes of the other folds."""
    fold = np.random.default_rng(0).permutation(whole.episode.max() + 1) % FOLDS
    error = np.zeros(len(target))
    for number in range(FOLDS):
        training, held = fold[whole.episode] != number, fold[given.episode] == number
        centre, spread = whole.latent[training].mean(axis=0), whole.latent[training].std(axis=0) + 1e-9
        x, y = (whole.latent[training] - centre) / spread, target[training]
        mean, scale = y.mean(axis=0), y.std(axis=0)
        weights = np.linalg.solve(x.T @ x + STRENGTH * np.eye(x.shape[1]), x.T @ ((y - mean) / scale))
        guess = (given.latent[held] - centre) / spread @ weights
        error[held] = ((guess - (target[held] - mean) / scale) ** 2).sum(axis=1)
    return error


def correlation(values: np.ndarray, error: np.ndarray, episode: np.ndarray) -> list[float]:
    """Spearman's rank correlation of values with -error, and its 95 % interval by resampling episodes."""
    if np.ptp(values) == 0:
        return [0.0, 0.0, 0.0]
    rows = [np.flatnonzero(episode == e) for e in range(episode.max() + 1)]
    rng, draws = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        index = np.concatenate([rows[e] for e in rng.integers(len(rows), size=len(rows))])
        draws.append(spearmanr(values[index], -error[index])[0] if np.ptp(values[index]) else 0.0)
    return [float(spearmanr(values, -error)[0]), *np.percentile(draws, [2.5, 97.5]).tolist()]


def separation(values: np.ndarray, spoilt: np.ndarray) -> float:
    """Chance that a whole step has more confidence than a spoilt one (area under the ROC curve)."""
    ranks, whole = rankdata(values), int((~spoilt).sum())
    return float((ranks[~spoilt].sum() - whole * (whole + 1) / 2) / (whole * spoilt.sum()))


def measure(model: MotionModel, episodes: list[Episode]) -> dict[str, Any]:
    """Correlations on whole episodes, and for each way of spoiling them what becomes of error and confidence."""
    whole = label(model, episodes)
    target = np.zeros((len(whole.first), 3))
    for row, (e, a, b) in enumerate(zip(whole.episode, whole.first, whole.second, strict=True)):
        action = episodes[e].action
        assert action is not None
        target[row] = action[a:b, :3].sum(axis=0)
    error = probe_errors(whole, whole, target)
    result: dict[str, Any] = {
        "episodes": len(episodes), "steps": len(error), "error": float(error.mean() / 3),
        "whole": {name: correlation(values, error, whole.episode) for name, values in whole.confidence.items()}}
    every = {name: [values] for name, values in whole.confidence.items()}
    errors, owner = [error], [whole.episode]
    for kind, spoil in (SPOILT | {"cut": None}).items():
        rng, pictures, stretches = np.random.default_rng(1), [], []
        for episode in episodes:
            frames = episode.images["front"][:] if "front" in episode.images else next(iter(episode.images.values()))[:]
            start = int(rng.integers(2, len(frames) - max(6, len(frames) // 4) - 4))
            at = slice(start, start + max(6, len(frames) // 4))
            if spoil is None:
                other = next(iter(episodes[int(rng.integers(len(episodes)))].images.values()))[:]
                pictures.append(np.concatenate([frames[:start], other[np.arange(len(frames) - start) % len(other)]]))
            else:
                pictures.append(spoil(frames, at, rng).astype(np.uint8))
            stretches.append(at)
        given = label(model, [dataclasses.replace(e, images={"front": p})
                              for e, p in zip(episodes, pictures, strict=True)])
        start, stop = (np.array([getattr(at, side) for at in stretches])[given.episode] for side in ("start", "stop"))
        if spoil is None:
            spoilt = (given.first < start) & (given.second >= start)
        else:
            spoilt = ((given.first >= start) & (given.first < stop)) | ((given.second >= start) & (given.second < stop))
        now = probe_errors(whole, given, target)
        # After a cut the actions are those of another episode: only the steps before and across it can be compared.
        fair = (given.first < start) if spoil is None else np.ones(len(now), bool)
        result[kind] = {"error_whole": float(now[fair & ~spoilt].mean() / 3),
                        "error_spoilt": float(now[spoilt].mean() / 3)}
        for name, values in given.confidence.items():
            result[kind][name] = {"whole": float(values[fair & ~spoilt].mean()), "spoilt": float(values[spoilt].mean()),
                                  "separation": separation(values[fair], spoilt[fair])}
            every[name].append(values[spoilt])
        errors.append(now[spoilt])
        owner.append(given.episode[spoilt])
    joined, owners = np.concatenate(errors), np.concatenate(owner)
    result["whole and spoilt"] = {name: correlation(np.concatenate(values), joined, owners)
                                  for name, values in every.items()}
    result["steps whole and spoilt"] = len(joined)
    return result


def main() -> None:
    """Measure and print; write JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    episodes = record_demonstrations(TASKS, SEEDS)
    result = measure(load_motion(options.model), episodes)
    result |= {"tasks": TASKS, "seeds": [SEEDS.start, SEEDS.stop]}
    print(json.dumps(result, indent=1))
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
