"""The recordings that a model is measured on: their frames, pairs and states on one frame axis."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from como_core.episode import Episode
from como_core.formats.cache import FrameCache
from como_core.formats.source_files import split_source
from como_core.motion.model import MotionModel
from como_core.motion.pairs import Pairs
from como_core.motion.selection import select
from como_core.training.progress import Progress, track

# With fewer recordings an interval over them says little.
FEW = 10


@dataclass(frozen=True)
class Recordings:
    """Recordings end to end.

    cache     frames uint8 [N, H, W, 3] of all
    episodes  the E recordings that gave frames
    state     float64 [N, S], NaN where a recording has none; None where none has, or they are not of one kind
    notes     what was left out, and why
    """

    cache: FrameCache
    pairs: Pairs
    episodes: list[Episode]
    state: np.ndarray | None
    notes: list[str]

    @property
    def frames(self) -> np.ndarray:
        return self.cache.frames

    @classmethod
    def of(cls, model: MotionModel, episodes: Sequence[Episode], camera: str | None, folder: Path) -> Recordings:
        """Cut pairs from `episodes`, none across a scene cut, decoded once into `folder`.

        Raises ComoError where no pair is left.
        """
        cache = FrameCache.build(episodes, camera, model.config.image_size, folder,
                                 functools.partial(track, title="decoding", unit="frames"))
        held = [episodes[i] for i in cache.held]
        pairs = Pairs.build(cache.timestamps, cache.offsets, model.config.gap_s)
        notes = []
        rules = dataclasses.replace(model.config.selection, still_share=0.0)  # that nothing moves is an answer, too
        chosen = select(cache, pairs, rules, lambda count: Progress(count, "looking for cuts", "frames"))
        if chosen.crossing:
            notes.append(f"{chosen.crossing:,} of {chosen.found:,} pairs lie across {len(chosen.cuts):,} scene cuts "
                         "and are left out")
        pairs, measured = chosen.pairs, len(np.unique(chosen.pairs.episode))
        if cache.left_out:
            notes.append(f"{len(cache.left_out)} of {len(episodes)} recordings gave no pictures")
        if measured < len(held):
            notes.append(f"{len(held) - measured} of {len(held)} recordings hold no two frames that are "
                         f"{model.config.gap_s:g} s apart{' in one scene' if chosen.crossing else ''}")
        if measured < FEW:
            notes.append(f"only {measured} recording{'' if measured == 1 else 's'}: intervals say little")
        return cls(cache, pairs, held, _states(held, notes), notes)

    @property
    def scenes(self) -> np.ndarray:
        """A number for each recording's scene: what was asked for or, where that is not known, its folder."""
        names = [episode.instruction or str(split_source(episode.source)[0].parent) for episode in self.episodes]
        return np.unique(names, return_inverse=True)[1]

    @property
    def displacement(self) -> np.ndarray | None:
        """Change of the measured state over each pair, [P, S]; NaN where a recording has none."""
        return None if self.state is None else self.state[self.pairs.second] - self.state[self.pairs.first]


def _states(episodes: Sequence[Episode], notes: list[str]) -> np.ndarray | None:
    widths = {episode.state.shape[1] for episode in episodes if episode.state is not None}
    if len(widths) > 1:
        notes.append(f"states have {', '.join(map(str, sorted(widths)))} values, so the true motion is not compared")
    if len(widths) != 1:
        return None
    width = widths.pop()
    return np.concatenate([np.full((len(episode), width), np.nan) if episode.state is None else
                           episode.state.astype(np.float64) for episode in episodes])
