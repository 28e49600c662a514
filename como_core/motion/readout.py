"""The few labels: measured actions of the pairs that have them, which a linear readout of z may be trained on.

With loss.action above 0 training reads the actions of those recordings that have any; otherwise it never does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.motion.pairs import Pairs
from como_core.motion.targets import Target, window_target


def labels_of(episodes: Sequence[Episode], offsets: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Actions summed over each pair, z-scored over the labelled pairs: float32 [P, A], NaN for a pair without.

    episodes  of the frames offsets[e] .. offsets[e + 1] that the pairs speak of

    Raises ComoError where no episode has actions, or they differ in their number.
    """
    labelled = [e for e, episode in enumerate(episodes) if episode.action is not None]
    widths = {episodes[e].action.shape[1]: episodes[e].source for e in labelled}  # type: ignore[union-attr]
    if len(widths) != 1:
        given = ", ".join(f"{width} values a step in {source}" for width, source in widths.items())
        reason = f"actions differ: {given}" if widths else "no clip has actions"
        raise ComoError(f"loss.action is above 0 and {reason}; give labelled recordings of one robot beside the video, "
                        "or set loss.action to 0")
    found = np.full((len(pairs), next(iter(widths))), np.nan)
    for e in labelled:
        mine, episode = np.flatnonzero(pairs.episode == e), episodes[e]
        assert episode.action is not None
        first, second = (side[mine] - offsets[e] for side in (pairs.first, pairs.second))
        values, kept = window_target(episode.action, episode.timestamps, first, second, Target())
        found[mine[kept]] = values[kept]
    mean, spread = np.nanmean(found, axis=0), np.nanstd(found, axis=0)
    return ((found - mean) / np.maximum(spread, 1e-6)).astype(np.float32)


def readout_loss(predicted: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean squared error of predicted actions [B, A] where wanted [B, A] is known; 0 where none of the batch is."""
    known = torch.isfinite(wanted).all(dim=1)
    if not known.any():
        return 0 * predicted.sum()
    return (predicted[known] - wanted[known]).square().mean()
