"""Labels that nobody would have: what the faults of decoded pseudo-actions cost a policy.

    rest = better_labels.label("decoder of 20", recorded, labels=2, config=DecoderConfig())

decoder of 20  decoded as always, but the decoder was fitted on 20 demonstrations of each task
no bias        decoded as always, less what the decoder is wrong by on average over the recordings of a task, at the
               same share of their length: errors that do not average out over many videos
"""

from __future__ import annotations

import dataclasses

import numpy as np

from como_core.episode import Episode, Provenance
from como_core.policy.decoder import ActionDecoder, DecoderConfig

TOLD = 20
_VELOCITIES = 3  # of the actions of Meta-World; the gripper is none
_PHASES = np.linspace(0.0, 1.0, 11)
WAYS = ("decoder of 20", "no bias")


def label(way: str, recorded: dict[str, list[Episode]], labels: int, config: DecoderConfig) -> list[Episode]:
    """The recordings of each task but for the first `labels`, which have latents, with pseudo-actions instead."""
    fitted = TOLD if way == "decoder of 20" else labels
    decoder = ActionDecoder.fit([e for group in recorded.values() for e in group[:fitted]], config, _VELOCITIES)
    made = []
    for group in recorded.values():
        decoded = [decoder.decode(e) for e in group[labels:]]
        if way == "no bias":
            bias = _bias([(action, e) for (action, _), e in zip(decoded, group[labels:], strict=True)])
            decoded = [(action - _at(bias, len(action)), confidence) for action, confidence in decoded]
        made += [dataclasses.replace(e.as_video(), latent=None, action=action, confidence=confidence,
                                     provenance=np.full(len(e), Provenance.PSEUDO, np.uint8))
                 for (action, confidence), e in zip(decoded, group[labels:], strict=True)]
    return made


def _bias(decoded: list[tuple[np.ndarray, Episode]]) -> np.ndarray:
    """Mean error of decoded velocities at each phase, [P, A]; 0 for the gripper."""
    errors = []
    for action, episode in decoded:
        assert episode.action is not None
        error = action - episode.action
        error[:, _VELOCITIES:] = 0.0
        errors.append(_resampled(error, np.linspace(0.0, 1.0, len(error)), _PHASES))
    return np.mean(errors, axis=0)


def _at(bias: np.ndarray, steps: int) -> np.ndarray:
    return _resampled(bias, _PHASES, np.linspace(0.0, 1.0, steps)).astype(np.float32)


def _resampled(values: np.ndarray, at: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return np.stack([np.interp(wanted, at, column) for column in values.T], axis=1)
