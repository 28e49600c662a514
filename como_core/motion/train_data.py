"""What a motion model trains on: frames, the pairs that are left of them, features, and an account of it all.

    data = open_training_data(episodes, mixture, config, "runs/motion/cache")
    print(data.summary())
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from como_core.episode import Episode
from como_core.formats.cache import FrameCache, contents
from como_core.motion.config import MotionConfig
from como_core.motion.mixture import Draws, Mixture
from como_core.motion.pairs import Pairs
from como_core.motion.readout import labels_of
from como_core.motion.sampler import PairSampler
from como_core.motion.selection import Selection, select
from como_core.training.progress import Progress, track

_NAMED = 5  # recordings without pairs on the screen; run.json has all


@dataclass(frozen=True)
class TrainingData:
    """Frames and pairs of the episodes that could be decoded.

    sources  names of the recordings, [E]
    labels   float32 [P, A], see `readout.labels_of`; None where no action is read
    """

    cache: FrameCache
    selection: Selection
    mixture: Mixture
    draws: Draws
    sources: list[str]
    labels: np.ndarray | None = None

    @property
    def pairs(self) -> Pairs:
        """The pairs to train on."""
        return self.selection.pairs

    def sampler(self, config: MotionConfig, features: np.ndarray | None = None) -> PairSampler:
        """Draws batches of these pairs; `features` of the cached frames where they are known."""
        return PairSampler(self.cache.frames, self.pairs, self.sources, config, self.draws, self.labels, features)

    def summary(self) -> str:
        """For people: pairs, what was left out and why, and the share of each place where there are several."""
        lines = [f"{len(self.sources):,} clips, {len(self.cache.timestamps):,} frames, {self.selection.summary()}"]
        if idle := self.without_pairs():
            named = ", ".join(idle[:_NAMED]) + (", ..." if len(idle) > _NAMED else "")
            lines.append(f"no pair in {len(idle):,} of them (still, too short, or of a frame rate that does not suit "
                         f"the gap): {named}")
        if self.labels is not None:
            lines.append(f"{np.isfinite(self.labels).all(axis=1).sum():,} pairs with measured actions, which are read")
        places = self.places()
        if len(places) > 1 or self.draws.weighted:
            lines += [f"  {100 * place['share']:5.1f} % of batches from {place['path']}: {place['clips']:,} clips, "
                      f"{place['pairs']:,} pairs" for place in places]
        return "\n".join(lines)

    def without_pairs(self) -> list[str]:
        """Names of the recordings that nothing is learned from."""
        used = np.bincount(self.pairs.episode, minlength=len(self.sources))
        return [source for source, count in zip(self.sources, used, strict=True) if not count]

    def places(self) -> list[dict[str, Any]]:
        """For JSON: path, clips, frames, pairs and weight of each place, and its share of what is drawn."""
        clip_frames = np.diff(self.cache.offsets)
        weights = self.mixture.weights or [None] * len(self.mixture.names)
        return [{"path": name, "clips": int((self.mixture.place == i).sum()),
                 "frames": int(clip_frames[self.mixture.place == i].sum()), "pairs": int(self.draws.count[i]),
                 "weight": weights[i], "share": float(self.draws.share[i])}
                for i, name in enumerate(self.mixture.names)]

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of what is learned from: other recordings, cameras or actions have another.

        It goes by contents, so that data may move: of some pictures (`cache.contents`), with the times of all and the
        choice of pairs, which every picture had a part in.
        """
        found = hashlib.sha256(contents(self.cache.frames, self.cache.offsets))
        for values in (self.cache.offsets, self.cache.timestamps, self.mixture.place, self.pairs.first,
                       self.pairs.second, self.labels):
            found.update(b"absent" if values is None else np.ascontiguousarray(values).tobytes())
        return found.hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the places, the pairs and what was left out of them, and recordings that gave no pictures."""
        return {"clips": len(self.sources), "frames": len(self.cache.timestamps), "places": self.places(),
                "selection": self.selection.to_dict(), "left_out": [list(entry) for entry in self.cache.left_out],
                "without_pairs": self.without_pairs()}


def open_training_data(episodes: Sequence[Episode], mixture: Mixture, config: MotionConfig, camera: str | None,
                       cache: Path, limit_gb: float | None = None) -> TrainingData:
    """Decode `episodes` below `cache`, where that was not done before, and choose the pairs to train on.

    Raises ComoError where no pair is left, or there is no room for the frames.
    """
    frames = FrameCache.build(episodes, camera, config.image_size, cache,
                              functools.partial(track, title="decoding", unit="frames"), limit_gb=limit_gb)
    pairs = Pairs.build(frames.timestamps, frames.offsets, config.gap_s)
    chosen = select(frames, pairs, config.selection,
                    lambda count: Progress(count, "looking for cuts and stillness", "frames"))
    held = mixture.only(frames.held)
    there = [episodes[i] for i in frames.held]
    labels = labels_of(there, frames.offsets, chosen.pairs) if config.loss.action else None
    return TrainingData(frames, chosen, held, held.draws(chosen.pairs.episode), [e.source for e in there], labels)
