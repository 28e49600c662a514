"""Metrics of z that need no actions: S-PCFC (paper, section 4) and what forward dynamics gains over copying frame t."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from como_core.intervals import COSINES, NOT_NEGATIVE, Score, mean_of, ratio_of, sums_by_recording
from como_core.motion.measure.eye import Encoded, Eye, encode_pairs_of, spread
from como_core.motion.pairs import Pairs

# More frames than these change no digit that is printed.
MAX_TRIPLES = 1500


@dataclass(frozen=True)
class Consistency:
    """S-PCFC of `features`: cos(z(o_{t-n}, o_t), z(o_{t+n}, o_t)), mean over t.

    raw, centred  as it is, and after the mean of z was taken off
    floor         of the raw one: the second z from another t, drawn at random
    triples       how many t
    """

    features: str
    raw: Score
    centred: Score
    floor: Score
    triples: int


@dataclass(frozen=True)
class Triples:
    """Frames t - n, t, t + n: indices of frames [T], the pair (t - n, t) of each, and its recording."""

    before: np.ndarray
    middle: np.ndarray
    after: np.ndarray
    pair: np.ndarray
    episode: np.ndarray

    def __len__(self) -> int:
        return len(self.pair)

    def only(self, known: np.ndarray) -> Triples:
        """Those where known [T] holds."""
        return Triples(*(getattr(self, part.name)[known] for part in fields(self)))

    @classmethod
    def of(cls, pairs: Pairs, limit: int = MAX_TRIPLES) -> Triples:
        """Pairs that meet in a frame of one recording, evenly thinned out to `limit`."""
        nexts = np.minimum(np.searchsorted(pairs.first, pairs.second), len(pairs) - 1)
        meets = np.flatnonzero((pairs.first[nexts] == pairs.second) & (pairs.episode[nexts] == pairs.episode))
        pair = spread(meets, limit)
        return cls(pairs.first[pair], pairs.second[pair], pairs.second[nexts[pair]], pair, pairs.episode[pair])


def latent_consistency(eye: Eye, frames: np.ndarray, triples: Triples, latent: np.ndarray) -> Consistency:
    """S-PCFC of z; `latent` [P, D] holds those of the forward pairs."""
    backward = encode_pairs_of(eye, frames, triples.after, triples.middle)
    return consistency("z", latent[triples.pair], backward, triples.episode)


def true_consistency(state: np.ndarray, triples: Triples) -> Consistency:
    """The same number of the true motion: displacements of the measured state [N, S], each in units of its spread."""
    forward, backward = state[triples.middle] - state[triples.before], state[triples.middle] - state[triples.after]
    scale = np.maximum(np.concatenate([forward, backward]).std(axis=0), 1e-9)
    return consistency("true motion", forward / scale, backward / scale, triples.episode)


def consistency(features: str, forward: np.ndarray, backward: np.ndarray, episode: np.ndarray) -> Consistency:
    """S-PCFC of forward = z(o_{t-n}, o_t) and backward = z(o_{t+n}, o_t), [T, D] each, of recordings [T]."""
    mean = (forward.mean(axis=0) + backward.mean(axis=0)) / 2
    shuffled = backward[np.random.default_rng(0).permutation(len(backward))]
    return Consistency(features, mean_of(cosine(forward, backward), episode, COSINES),
                       mean_of(cosine(forward - mean, backward - mean), episode, COSINES),
                       mean_of(cosine(forward, shuffled), episode, COSINES), len(forward))


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines of the rows of [P, D] each: [P]; NaN where one has no direction."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    known = lengths > 1e-12
    return np.where(known, (a * b).sum(axis=1) / np.where(known, lengths, 1), np.nan)


def reconstruction_gain(encoded: Encoded, episode: np.ndarray) -> Score:
    """1 - error of forward dynamics over that of copying frame t, for the pairs predicted: 0 is copying, 1 perfect."""
    known = np.isfinite(encoded.error)
    sums = sums_by_recording(np.stack([encoded.error[known], encoded.copying[known]], axis=1), episode[known])
    found = ratio_of(sums, NOT_NEGATIVE)
    return Score(1 - found.mean, 1 - found.high, 1 - found.low, found.recordings)
