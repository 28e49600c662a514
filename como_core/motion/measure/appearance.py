"""The appearance probe of the audit: can a linear classifier tell from z where it comes from?

Asked for the scene, it is trained on half of the recordings of each and asked about the others. Where there is one
scene only, it is asked for the recording: trained on every other quarter of each, and asked about the quarters between.
"""

from __future__ import annotations

import numpy as np

from como_core.motion.measure.audit import AuditLine, judged, skipped
from como_core.motion.measure.eye import spread
from como_core.motion.measure.intervals import bootstrap, sums_by_recording
from como_core.motion.pairs import Pairs

NAME = "appearance"
MAX_CLASSES = 40
MIN_PAIRS = 4  # of a class in either half
MIN_ABOVE_CHANCE = 0.1
_QUARTERS = 4
_STRENGTH = 10.0


def appearance(latent: np.ndarray, frame: np.ndarray, pairs: Pairs, scenes: np.ndarray,
               displacement: np.ndarray | None = None) -> AuditLine:
    """The line of the audit: accuracy above chance from z, over the same from features of frame t alone.

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
    share = 1 / np.bincount(label)[label]
    sums = sums_by_recording(np.stack([right * share for right in found.values()] + [share], axis=1),
                             pairs.episode[rows])
    total = sums.sum(axis=0)
    mean = {name: float(right / total[-1]) for name, right in zip(found, total[:-1], strict=True)}
    if mean["frame"] - chance < MIN_ABOVE_CHANCE:
        return skipped(NAME, f"a frame does not tell the {what}s apart either (accuracy {mean['frame']:.2f}, chance "
                             f"{chance:.2f})")
    value = bootstrap(sums, lambda total: (total[:, 0] / total[:, -1] - chance)
                      / np.maximum(total[:, 1] / total[:, -1] - chance, MIN_ABOVE_CHANCE))
    accuracy = {"accuracy": mean.pop("z"), "chance": chance, **mean}
    return judged(NAME, value, len(rows), **accuracy)


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
