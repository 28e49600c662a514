"""The leakage audit: does z say what moved, or what it looks like? (paper, section 4)

    for line in audit(Eye(model), cache.frames, pairs, encoded, scenes):
        print(line.name, line.value, line.verdict, line.meaning)

Judged on pairs in which something moves: the half of all in which more changes, thinned out to MAX_PAIRS.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from como_core.intervals import (
    COSINES,
    NOT_NEGATIVE,
    Score,
    jackknife,
    mean_of,
    ratio_of,
    sums_by_recording,
)
from como_core.motion.measure.eye import Encoded, Eye, View, look_at_pairs, spread
from como_core.motion.measure.metrics import cosine
from como_core.motion.measure.verdicts import RULES, Verdict
from como_core.motion.pairs import Pairs

MAX_PAIRS = 384

# Below these there is nothing that a ratio could be taken of.
MIN_GAIN = 0.05
MIN_COSINE = 0.1

# Recordings whose frames are less apart than this, in units of those of one recording, show one scene.
MIN_APART = 1.5


@dataclass(frozen=True)
class AuditLine:
    """One question, its answer and what it means.

    value       the number that the verdict is on; None where the question does not apply
    threshold   the bounds of the verdict
    meaning     what the verdict says, or why there is none
    references  numbers to read it by, such as its floor, by name
    pairs       how many pairs it was asked of
    """

    name: str
    value: Score | None
    verdict: Verdict
    threshold: str
    quantity: str
    meaning: str
    references: dict[str, float] = field(default_factory=dict)
    pairs: int = 0


def judged(name: str, value: Score, pairs: int, less_constant: float | None = None, **references: float
           ) -> AuditLine:
    """The line of rule `name` for a value.

    less_constant  the same number after a constant vector was taken off every z: where that constant is all that is
                   wrong, the verdict is no worse than warn
    """
    rule = RULES[name]
    verdict = rule.verdict(value.mean)
    if less_constant is not None:
        references = {"less_constant": less_constant, **references}
        verdict = "warn" if verdict == "leak" and rule.verdict(less_constant) != "leak" else verdict
    return AuditLine(name, value, verdict, rule.threshold, rule.quantity, rule.means[verdict], references, pairs)


def skipped(name: str, why: str) -> AuditLine:
    """The line of rule `name` where it does not apply."""
    return AuditLine(name, None, "not applicable", RULES[name].threshold, RULES[name].quantity, why)


@dataclass(frozen=True)
class _Sample:
    """Pairs that are audited, and for each a pair of another scene, or -1: indices [S] of pairs."""

    pair: np.ndarray
    other: np.ndarray
    episode: np.ndarray


def audit(eye: Eye, frames: np.ndarray, pairs: Pairs, encoded: Encoded, scenes: np.ndarray) -> list[AuditLine]:
    """Every line but "appearance", which `appearance` gives.

    frames   uint8 [N, H, W, 3]
    encoded  what the model says of `pairs`
    scenes   int [E], the scene of each recording: pairs are cut between scenes or, where there is one, recordings
    """
    sample = _choose(pairs, encoded.copying, scenes)
    parts = [_measure(eye, frames, pairs, encoded, sample, slice(i, i + eye.chunk))
             for i in range(0, len(sample.pair), eye.chunk)]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    latent = encoded.latent[sample.pair]
    return [
        _shuffle_gap(found, sample), _scene_cut(found, sample), _transfer(found, latent, sample),
        _static(found, encoded.latent, sample), _reversal(found, latent, sample), _composition(found, latent, sample),
    ]


def _choose(pairs: Pairs, change: np.ndarray, scenes: np.ndarray) -> _Sample:
    moving = np.flatnonzero(change >= np.median(change))
    pair = spread(moving, MAX_PAIRS)
    episode, scene = pairs.episode[pair], scenes[pairs.episode[pair]]
    rng = np.random.default_rng(0)
    other = np.full(len(pair), -1)
    kind = scene if len(np.unique(scene)) > 1 else episode
    for value in np.unique(kind):
        strangers = np.flatnonzero(kind != value)
        if len(strangers):
            mine = np.flatnonzero(kind == value)
            other[mine] = pair[rng.choice(strangers, len(mine))]
    return _Sample(pair, other, episode)


def _measure(eye: Eye, frames: np.ndarray, pairs: Pairs, encoded: Encoded, sample: _Sample, part: slice
             ) -> dict[str, np.ndarray]:
    """What the lines are made of, a row for each pair of `part` of the sample."""
    index = sample.pair[part]
    halves = pairs.middle(index)
    first, second = look_at_pairs(eye, frames, pairs.first[index], pairs.second[index])
    middle, stranger = eye.look(frames[halves]), eye.look(frames[pairs.first[sample.other[part]]])
    exchanged = encoded.latent[np.random.default_rng(1).permutation(sample.pair)[part]]
    latent, foreign = (torch.from_numpy(z).to(first.features.device) for z in (encoded.latent[index], exchanged))
    return {
        "error": eye.error(eye.predict(first, latent), second), "copying": encoded.copying[index],
        "exchanged": eye.error(eye.predict(first, foreign), second),
        "static": _numpy(eye.motion(first, first)),
        "reverse": _numpy(eye.motion(second, first)),
        "parts": _numpy(eye.motion(first, middle) + eye.motion(middle, second)),
        "divided": (halves > pairs.first[index]) & (halves < pairs.second[index]),
        "cut": eye.error(eye.predict(first, eye.motion(first, stranger)), stranger),
        "cut copying": eye.error(eye.truth(first), stranger),
        "far copying": eye.error(eye.truth(first), eye.look(frames[_far(pairs, index)])),
        "home": _read_again(eye, first, latent),
        "away": _read_again(eye, stranger, latent),
    }


def _far(pairs: Pairs, index: np.ndarray) -> np.ndarray:
    """The frame half a recording away from the first of each pair, which lies in the same scene."""
    start, end = pairs.offsets[pairs.episode[index]], pairs.offsets[pairs.episode[index] + 1]
    return start + (pairs.first[index] - start + (end - start) // 2) % (end - start)


def _read_again(eye: Eye, view: View, latent: torch.Tensor) -> np.ndarray:
    """z of a frame and what forward dynamics makes of it with z; NaN where the model cannot look at its predictions."""
    seen = eye.look_again(eye.predict(view, latent))
    return np.full(latent.shape, np.nan) if seen is None else _numpy(eye.motion(view, seen))


def _shuffle_gap(found: dict[str, np.ndarray], sample: _Sample) -> AuditLine:
    columns = np.stack([found[name] for name in ("exchanged", "error", "copying")], axis=1)
    sums = sums_by_recording(columns, sample.episode)
    gap = jackknife(sums, lambda total: (total[:, 0] - total[:, 1]) / np.maximum(total[:, 2], 1e-12))
    total = sums.sum(axis=0)
    return judged("shuffle gap", gap, len(columns), gain=float(1 - total[1] / total[2]),
                  exchanged=float(1 - total[0] / total[2]))


def _scene_cut(found: dict[str, np.ndarray], sample: _Sample) -> AuditLine:
    if (sample.other < 0).any():
        return skipped("scene cut", "needs two recordings")
    apart = found["cut copying"].mean() / max(found["far copying"].mean(), 1e-12)
    if apart < MIN_APART:
        return skipped("scene cut", f"frames of two recordings are but {apart:.1f} times as far apart as those of one: "
                                    "they show one scene")
    columns = np.stack([found[name] for name in ("error", "copying", "cut", "cut copying")], axis=1)
    sums = sums_by_recording(columns, sample.episode)

    def gains(total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        true, cut = total[:, :2].T, total[:, 2:].T
        return 1 - true[0] / np.maximum(true[1], 1e-12), 1 - cut[0] / np.maximum(cut[1], 1e-12)

    true, cut = (float(gain[0]) for gain in gains(sums.sum(axis=0, keepdims=True)))
    if true < MIN_GAIN:
        return skipped("scene cut", f"forward dynamics removes only {true:.0%} of the error on true pairs")
    ratio = jackknife(sums, lambda total: gains(total)[1] / np.maximum(gains(total)[0], 1e-6))
    return judged("scene cut", ratio, len(columns), true=true, cut=cut, apart=float(apart))


def _transfer(found: dict[str, np.ndarray], latent: np.ndarray, sample: _Sample) -> AuditLine:
    if (sample.other < 0).any():
        return skipped("transfer", "needs two recordings")
    if not np.isfinite(found["away"]).all():
        return skipped("transfer", "the model predicts features and looks at pictures: it cannot look at what it "
                                   "predicts")
    shuffled = found["away"][np.random.default_rng(2).permutation(len(latent))]
    away, home, floor = (np.nan_to_num(cosine(latent, other)) for other in (found["away"], found["home"], shuffled))
    sums = sums_by_recording(np.stack([away, home, floor], axis=1), sample.episode)
    value = jackknife(sums, lambda t: (t[:, 0] - t[:, 2]) / np.maximum(t[:, 1] - t[:, 2], 1e-6))
    means = [float(values.mean()) for values in (away, home, floor)]
    if means[1] - means[2] < MIN_COSINE:
        return skipped("transfer", f"z read again in its own scene is hardly itself (cosine {means[1]:.2f}, floor "
                                   f"{means[2]:.2f})")
    return judged("transfer", value, len(latent), cosine=means[0], home=means[1], floor=means[2])


def _static(found: dict[str, np.ndarray], every: np.ndarray, sample: _Sample) -> AuditLine:
    def over_typical(rest: np.ndarray) -> np.ndarray:
        typical = max(float(np.median(np.linalg.norm(every - rest, axis=1))), 1e-12)
        return np.linalg.norm(found["static"] - rest, axis=1) / typical

    value = mean_of(over_typical(np.zeros(every.shape[1])), sample.episode, NOT_NEGATIVE)
    return judged("static pairs", value, len(sample.pair), float(over_typical(found["static"].mean(axis=0)).mean()))


def _reversal(found: dict[str, np.ndarray], latent: np.ndarray, sample: _Sample) -> AuditLine:
    # Of pairs both ways round: it has no direction of its own.
    mean = (latent.mean(axis=0) + found["reverse"].mean(axis=0)) / 2
    centred = np.nanmean(cosine(latent - mean, mean - found["reverse"]))
    value = mean_of(cosine(latent, -found["reverse"]), sample.episode, COSINES)
    return judged("reversal", value, len(latent), float(centred))


def _composition(found: dict[str, np.ndarray], latent: np.ndarray, sample: _Sample) -> AuditLine:
    known = found["divided"]
    if not known.any():
        return skipped("composition", "no frame lies between the two of a pair")
    lengths = np.stack([np.linalg.norm(found["parts"] - latent, axis=1), np.linalg.norm(latent, axis=1)], axis=1)
    value = ratio_of(sums_by_recording(lengths[known], sample.episode[known]), NOT_NEGATIVE)
    return judged("composition", value, int(known.sum()))


def _numpy(values: torch.Tensor) -> np.ndarray:
    return values.cpu().numpy()
