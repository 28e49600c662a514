"""The appearance probe of the audit: can a linear classifier tell from z where it comes from?

Asked for the scene, it is trained on half of the recordings of each and asked about the others. Where there is one
scene only, it is asked for the recording: trained on every other quarter of each, and asked about the quarters between.

A frame that tells the scenes apart is what z is held against: only then is the line a leak. That z tells them, and a
frame does not, is worth a warning: they may differ in motion.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from como_core.intervals import AT_MOST_ONE, SHARES, jackknife, ratio_of, sums_by_recording
from como_core.motion.measure.audit import AuditLine, judged, skipped
from como_core.motion.measure.eye import spread
from como_core.motion.pairs import Pairs

NAME = "appearance"
MAX_CLASSES = 40
MIN_PAIRS = 4  # of a class in either half
MIN_ABOVE_CHANCE = 0.1  # of the interval of an accuracy, for it to be clear
_QUARTERS = 4
_STRENGTH = 10.0


def appearance(latent: np.ndarray, frame: np.ndarray, pairs: Pairs, scenes: np.ndarray,
               displacement: np.ndarray | None = None) -> AuditLine:
    """The line of the audit: accuracy above chance from z, over the same from features of frame t alone.

    Where z is right more often than the frame, the share is 1. It is taken where either is clearly above chance: by
    MIN_ABOVE_CHANCE with its whole interval over recordings.

    latent        [P, D]
    frame         [P, F], features of frame t of each pair
    scenes        int [E], the scene of each recording
    displacement  [P, S], the true motion where it is known: how much motion alone tells
    """
    label, half, what = _classes(pairs, scenes)
    known = [c for c in np.unique(label) if all((half[label == c] == side).sum() >= MIN_PAIRS for side in (0, 1))]
    if len(known) < 2:
        return skipped(NAME, f"needs two recordings with {MIN_PAIRS} pairs in either half, got {len(known)}")
    chosen = spread(np.array(known), MAX_CLASSES)
    rows = np.flatnonzero(np.isin(label, chosen) & (half >= 0))
    label, half, chance = np.searchsorted(chosen, label[rows]), half[rows], 1 / len(chosen)
    found = {name: _right(values[rows], label, half)
             for name, values in {"z": latent, "frame": frame, "true_motion": displacement}.items()
             if values is not None}
    # Each class counts the same.
    weight = 1 / np.bincount(label)[label]
    sums = sums_by_recording(np.stack([right * weight for right in found.values()] + [weight], axis=1),
                             pairs.episode[rows])
    scores = {name: ratio_of(sums[:, [column, -1]], SHARES) for column, name in enumerate(found)}
    clear = {name: score.low - chance >= MIN_ABOVE_CHANCE for name, score in scores.items()}
    told = f"accuracy {scores['frame']}, of z {scores['z']}, chance {chance:.3f}"
    if not clear["frame"] and not clear["z"]:
        return skipped(NAME, f"a frame does not clearly tell the {what}s apart either ({told})")

    def share(total: np.ndarray) -> np.ndarray:
        ours, frames = (total[:, column] / total[:, -1] - chance for column in (0, 1))
        return ours / np.maximum(ours, frames)

    accuracy = {name: score.mean for name, score in scores.items()}
    line = judged(NAME, jackknife(sums, share, AT_MOST_ONE), len(rows), accuracy=accuracy.pop("z"), chance=chance,
                  **accuracy)
    if line.verdict == "leak" and not clear["frame"]:
        return replace(line, verdict="warn", meaning=f"z tells the {what}s apart where a frame hardly does ({told}): "
                                                     "by their motion, or by what a coarse frame does not show")
    return line


def _classes(pairs: Pairs, scenes: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Class of each pair [P], the half [P] it is in (-1: neither), and what the classes are."""
    present = np.unique(pairs.episode)
    order = np.zeros(len(scenes), int)  # which recording of its scene
    for scene in np.unique(scenes[present]):
        mine = present[scenes[present] == scene]
        order[mine] = np.arange(len(mine))
    whole = [scene for scene in np.unique(scenes[present]) if (scenes[present] == scene).sum() >= 2]
    if len(whole) >= 2:
        label = scenes[pairs.episode]
        return label, np.where(np.isin(label, whole), order[pairs.episode] % 2, -1), "scene"
    start, end = pairs.offsets[pairs.episode], pairs.offsets[pairs.episode + 1]
    quarters = [(side - start) * _QUARTERS // (end - start) for side in (pairs.first, pairs.second)]
    return pairs.episode, np.where(quarters[0] == quarters[1], quarters[0] % 2, -1), "recording"


def _right(values: np.ndarray, label: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Whether each row is given its own label by ridge regression on one-hot labels, fitted on the other half: [R]."""
    right = np.zeros(len(label))
    wanted = np.eye(int(label.max()) + 1)[label]
    for held in (0, 1):
        known, asked = half != held, half == held
        mean, scale = values[known].mean(axis=0), np.maximum(values[known].std(axis=0), 1e-9)
        fitted, judged_on = (values[known] - mean) / scale, (values[asked] - mean) / scale
        # Rare recordings count as much as long ones.
        weight = 1 / np.maximum(wanted[known].sum(axis=0), 1)[label[known]]
        weight = weight / weight.mean()
        gram = (fitted * weight[:, None]).T @ fitted + _STRENGTH * np.eye(fitted.shape[1])
        offset = (wanted[known] * weight[:, None]).sum(axis=0) / weight.sum()
        solution = np.linalg.solve(gram, (fitted * weight[:, None]).T @ (wanted[known] - offset))
        right[asked] = (judged_on @ solution + offset).argmax(axis=1) == label[asked]
    return right
