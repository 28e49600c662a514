"""Which frames make a pair: a gap in seconds on each clip's own timeline, whatever its frame rate.

    pairs = Pairs.build(cache.timestamps, cache.offsets, gap_s=0.125)
    cache.frames[pairs.first], cache.frames[pairs.second]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from como_core.errors import ComoError

# A partner further from t + gap than this fraction of the gap is none: a hole in the recording, or the clip's end.
TOLERANCE = 0.25

# The third frame of a contrast triple lies within n/5 of the second (paper, L_tcl).
JITTER = 0.2

# Two frames are as near to a time as one another where the difference is less than this share of the step between them:
# rounding and the jitter of stamps must not choose between 2 and 3 frames from pair to pair.
TIE = 0.1


@dataclass(frozen=True)
class Pairs:
    """Frame pairs (first, second) of many clips that lie end to end on one frame axis.

    first, second  int64 [P], frame indices; timestamps differ by about gap_s
    episode        int64 [P], the clip of each pair
    offsets        int64 [E + 1], clip e is frames offsets[e] .. offsets[e + 1]
    timestamps     float64 [N], seconds, increasing within a clip
    shots          int64 [S + 1], shot s is frames shots[s] .. shots[s + 1]: a clip, or what lies between its cuts
    """

    first: np.ndarray
    second: np.ndarray
    episode: np.ndarray
    offsets: np.ndarray
    timestamps: np.ndarray
    gap_s: float
    shots: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def build(cls, timestamps: np.ndarray, offsets: np.ndarray, gap_s: float) -> Pairs:
        """Pair each frame with the one nearest to `gap_s` later, where one lies within TOLERANCE of the gap.

        Raises ComoError where no clip holds a pair.
        """
        offsets = np.asarray(offsets, np.int64)
        partners = [partner(timestamps[a:b], gap_s) for a, b in pairwise(offsets)]
        first = [a + np.flatnonzero(found >= 0) for a, found in zip(offsets[:-1], partners, strict=True)]
        second = [a + found[found >= 0] for a, found in zip(offsets[:-1], partners, strict=True)]
        episode = np.repeat(np.arange(len(first)), [len(f) for f in first])
        if not len(episode):
            raise ComoError(f"none of {len(first)} clips holds two frames that are {gap_s:g} s apart; "
                            "give longer clips, or choose a gap_s that suits their frame rate")
        return cls(np.concatenate(first), np.concatenate(second), episode, offsets, np.asarray(timestamps), gap_s,
                   shots=offsets)

    def ends(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First and second frames of pairs `index`."""
        return self.first[index], self.second[index]

    def without(self, dropped: np.ndarray, cuts: np.ndarray) -> Pairs:
        """These pairs but those in `dropped`, bool [P]; a new shot begins at each frame of `cuts`, int64."""
        kept = ~dropped
        return replace(self, first=self.first[kept], second=self.second[kept], episode=self.episode[kept],
                       shots=np.union1d(self.shots, cuts))

    def third(self, index: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Frames at n + d for pairs `index`: d within a fifth of the gap where the frame rate allows, and never 0.

        Where no frame is that near, the neighbour of the second frame is taken. At the end of a shot, and where the
        neighbour is the first frame, it is the one on the other side, if the shot has it.
        """
        first, second = self.first[index], self.second[index]
        shot = np.searchsorted(self.shots, second, side="right")
        low, high = self.shots[shot - 1], self.shots[shot] - 1
        shift = rng.uniform(-JITTER, JITTER, len(index)) * self.gap_s
        found = nearest_within(self.timestamps, low, high, self.timestamps[second] + shift)
        step = np.where(shift >= 0, 1, -1)
        moved = np.abs(self.timestamps[found] - self.timestamps[second])
        found = np.where(moved > JITTER * self.gap_s * (1 + 1e-6), found - step, found)
        found = np.where(found == second, second + step, found)
        other = 2 * second - found
        swap = ((found <= first) & (other <= high)) | (found > high)
        return np.where(swap, other, found)

    def middle(self, index: np.ndarray) -> np.ndarray:
        """The frame nearest in time to the middle of each pair of `index`; an end of it where none lies between."""
        first, second = self.first[index], self.second[index]
        wanted = (self.timestamps[first] + self.timestamps[second]) / 2
        return nearest_within(self.timestamps, first, second, wanted)


def partner(timestamps: np.ndarray, gap_s: float) -> np.ndarray:
    """For each frame of a clip the index of the frame `gap_s` later, int64 [T]; -1 where there is none."""
    if len(timestamps) < 2:
        return np.full(len(timestamps), -1)
    wanted = timestamps + gap_s
    found = nearest(timestamps, wanted)
    near = np.abs(timestamps[found] - wanted) <= TOLERANCE * gap_s
    # Past the end the last frame would be nearest to all: only half a frame is forgiven there.
    near &= wanted <= timestamps[-1] + 0.5 * (timestamps[-1] - timestamps[-2])
    return np.where(near & (found > np.arange(len(timestamps))), found, -1)


def nearest(timestamps: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Index of the timestamp nearest to each wanted time; the earlier one of two equally near, but for TIE."""
    right = np.minimum(np.searchsorted(timestamps, wanted), len(timestamps) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(_is_nearer(timestamps, right, left, wanted), right, left)


def nearest_within(timestamps: np.ndarray, low: np.ndarray, high: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """`nearest` for many stretches at once: for each i the index in low[i] .. high[i] nearest to wanted[i], int64."""
    left, right = low.astype(np.int64), high.astype(np.int64)  # the first at or after `wanted` lies in here, or is high
    while (left < right).any():
        middle = (left + right) // 2
        before = timestamps[middle] < wanted
        left, right = np.where(before & (left < right), middle + 1, left), np.where(before, right, middle)
    after, before_it = left, np.maximum(left - 1, low)
    return np.where(_is_nearer(timestamps, after, before_it, wanted), after, before_it)


def _is_nearer(timestamps: np.ndarray, right: np.ndarray, left: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Whether the frame `right` is clearly nearer to `wanted` than `left`, the one before it."""
    after, before = timestamps[right], timestamps[left]
    nearer: np.ndarray = (after - wanted) + TIE * (after - before) < wanted - before
    return nearer
