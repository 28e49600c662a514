"""How far a label is to be trusted: a product of four parts in [0, 1], each 0 for another kind of failure.

    rebuilt      share of the change that forward dynamics rebuilds from z (`MotionModel.explained`)
    overlap      agreement of z with that of windows a little earlier and later
    composition  agreement of z(t, t+n) with z(t, m) + z(m, t+n), m half a gap on, measured by the model's own habit
    continuity   0 where a scene is cut within the window

How well each of them, and the product, goes along with the error of a label is measured in docs/relabel.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from como_core.motion.pairs import nearest

PARTS = ("rebuilt", "overlap", "composition", "continuity")

# How far the two windows that overlap a step's own are shifted, as a part of the gap.
_SHIFT = 1 / 3

# A composition that misses by this many times what the model usually misses on the clip begins to count, where that
# usual miss is at least _HABIT. Motion that composes worse than half of the clip's does is not worse labelled; counted
# from three times on, it made the confidence tell less of the error than without (docs/relabel.md).
_OUTLIER = 5.0
_HABIT = 0.1
_MOVING = 0.1  # of the length of the clip's long z: below it nothing moves

# A frame that differs from the one before it this many times as much as frames nearby do is in doubt, or a cut. Of
# scripted arms at 40 Hz one step in a thousand reaches 1.5; cuts between clips of one scene 1.7 to 2.5.
_DOUBT, _CUT = 1.5, 2.5
_NEARBY = 4  # frames on each side
_GREY = 1 / 127.5  # one grey level, in units of pixels: sensor noise is no cut


def combined(parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """The confidence: the product of `parts`, float32 [P] in [0, 1]."""
    product = np.ones(len(next(iter(parts.values()))), np.float32)
    for part in parts.values():
        product *= part.astype(np.float32)
    return product


def overlap(latent: np.ndarray, times: np.ndarray, gap_s: float) -> np.ndarray:
    """How well z [P, D] of windows that start at `times` agrees with those of overlapping windows: [P] in [0, 1].

    1 - |z(t) - (z(t - s) + z(t + s)) / 2| / |z(t)|, with s a third of the gap or, at low frame rates, one frame. Motion
    that z tells apart changes little in that time; a z that jumps there and back was misread.
    """
    index = np.arange(len(times))
    before = np.maximum(np.minimum(nearest(times, times - _SHIFT * gap_s), index - 1), 0)
    after = np.minimum(np.maximum(nearest(times, times + _SHIFT * gap_s), index + 1), len(times) - 1)
    distance = np.linalg.norm(latent - (latent[before] + latent[after]) / 2, axis=1)
    return np.clip(1 - distance / np.maximum(np.linalg.norm(latent, axis=1), 1e-9), 0, 1)


def composition(miss: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Agreement with composition, [P] in [0, 1], of |z(t, m) + z(m, t+n) - z(t, t+n)| with |z(t, t+n)|, [P] each.

    1 where their ratio is up to _OUTLIER times its median over the clip, then falling as its inverse. So a model that
    never composes is not held to what it cannot do, and one that always does shows where it fails. Stretches where
    nothing moves compose perfectly and are no part of the median.
    """
    ratio = miss / np.maximum(length, 1e-9)
    moving = length >= _MOVING * np.percentile(length, 90)
    usual = max(float(np.median(ratio[moving])), _HABIT)
    return np.minimum(1, _OUTLIER * usual / np.maximum(ratio, 1e-9))


def continuity(change: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether no scene is cut between the frames of each pair: [P] in [0, 1], 1 where none is.

    change         [T - 1], root mean square difference, in units of pixels, of each frame to the next
    first, second  frame indices [P], first before second

    Each change is set against the median of the changes before it and of those after it, the larger: where something
    begins to move, what follows is as large; a cut, or a single broken picture, stands alone.
    """
    pad = np.full(_NEARBY, np.inf)  # at either end one side has no frame
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([pad, change, pad]), _NEARBY)
    usual = np.maximum(_median_of_finite(windows[:len(change)]), _median_of_finite(windows[_NEARBY + 1:]))
    smooth = np.clip((_CUT - change / (usual + _GREY)) / (_CUT - _DOUBT), 0, 1)
    # The least of each first .. second - 1; the last value closes a pair that ends with the clip.
    return np.minimum.reduceat(np.append(smooth, 1.0), np.stack([first, second], axis=1).ravel())[::2]


def _median_of_finite(rows: np.ndarray) -> np.ndarray:
    """Median of each row without its infinities, 0 where nothing is left. Much faster than numpy's nanmedian."""
    ranked, count = np.sort(rows, axis=1), np.isfinite(rows).sum(axis=1)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, rows.shape[1] - 1)
    index = np.arange(len(rows))
    return np.where(count > 0, (ranked[index, low] + ranked[index, high]) / 2, 0)
