"""Data from several places, each with a weight: how often training draws from it.

    sources, mixture = open_mixture(["robot/=3", "human/=1"])     # three pairs of a robot to each of a person
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.formats.source_files import split_source
from como_core.formats.sources import NothingRead, Sources, open_sources


@dataclass(frozen=True)
class Mixture:
    """Which place each episode came from.

    names    the places, as they were given
    place    int64 [E], for each episode the index of its place, increasing
    weights  shares of what is drawn, one for each place; None: every pair is drawn as often as any other
    """

    names: tuple[str, ...]
    place: np.ndarray
    weights: tuple[float, ...] | None = None

    @classmethod
    def of_one(cls, name: str, episodes: int) -> Mixture:
        """All from one place."""
        return cls((name,), np.zeros(episodes, np.int64))

    def only(self, held: Sequence[int]) -> Mixture:
        """The mixture of those episodes that are `held`, increasing."""
        return Mixture(self.names, self.place[list(held)], self.weights)

    def draws(self, episode_of_pair: np.ndarray) -> Draws:
        """How to draw pairs; `episode_of_pair` int64 [P], increasing.

        Raises ComoError for a place that has a weight and no pair.
        """
        edges = np.searchsorted(self.place[episode_of_pair], np.arange(len(self.names) + 1))
        counts = np.diff(edges)
        if self.weights is None:
            return Draws(edges[:-1], counts, counts / max(counts.sum(), 1), weighted=False)
        for name, weight, count in zip(self.names, self.weights, counts, strict=True):
            if weight and not count:
                raise ComoError(f"{name}: its weight is {weight:g}, and none of its frame pairs is left to train on; "
                                "give longer clips in which something moves, or leave it out")
        return Draws(edges[:-1], counts, np.asarray(self.weights) / sum(self.weights), weighted=True)


@dataclass(frozen=True)
class Draws:
    """Where the pairs of each place begin, how many there are, and the share of all draws that it has."""

    begin: np.ndarray
    count: np.ndarray
    share: np.ndarray
    weighted: bool
    _edges: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_edges", np.cumsum(self.share)[:-1])

    def __call__(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Indices of `size` pairs, with replacement, int64."""
        if not self.weighted:
            return rng.integers(int(self.count.sum()), size=size)
        place = np.searchsorted(self._edges, rng.random(size), side="right")
        return self.begin[place] + rng.integers(self.count[place])


def open_mixture(given: Sequence[str | Path], progress: Callable[[Sequence[Path]], Iterable[Path]] | None = None,
                 camera: str | None = None) -> tuple[Sources, Mixture]:
    """The recordings at places PATH or PATH=WEIGHT, each once, and the mixture of them.

    `progress` may wrap the loop over the recordings of a place, to show where it is; `camera` as of `open_sources`.

    Raises ComoError for a path that does not exist, where nothing at all can be read, for a weight that is none, where
    some places have one and others do not, and for a weighted place whose recordings were all given before it.
    """
    places = [split_weight(str(item)) for item in given]
    without = [path for path, weight in places if weight is None]
    if without and len(without) < len(places):
        raise ComoError(f"{without[0]}: has no weight while others have one; give each path one, as in "
                        f"{without[0]}=1, or none")
    if places and not without and not sum(weight or 0 for _, weight in places):
        raise ComoError("every weight is 0; give one path a weight above 0")
    episodes: list[Episode] = []
    skipped: list[tuple[Path, str]] = []
    refused: list[str] = []
    place: list[int] = []
    seen: set[str] = set()
    for index, (path, _) in enumerate(places):
        try:
            found = open_sources([path], progress=progress, camera=camera)
        except ComoError as error:
            if not split_source(path)[0].exists():
                raise
            refused.append(str(error))
            skipped += error.skipped if isinstance(error, NothingRead) else [(Path(path), str(error))]
            continue
        skipped += found.skipped
        fresh = {str(Path(episode.source).resolve()): episode for episode in found.episodes}
        fresh = {name: episode for name, episode in fresh.items() if name not in seen}
        if not fresh and not without:
            raise ComoError(f"{given[index]}: all of its {len(found.episodes)} recordings were given before, and the "
                            "first place that has a recording keeps it; leave it out, or give its weight there")
        seen |= fresh.keys()
        episodes += fresh.values()
        place += [index] * len(fresh)
    if not episodes:
        raise ComoError("; ".join(refused) or "no path to data was given")
    weights = None if without else tuple(weight or 0.0 for _, weight in places)
    return Sources(episodes, skipped), Mixture(tuple(path for path, _ in places), np.array(place, np.int64), weights)


def split_weight(given: str) -> tuple[str, float | None]:
    """A path and its weight: "robot/=3" is ("robot/", 3.0). A file whose name has such an end is taken as it is.

    Raises ComoError for a weight that is below 0 or no number.
    """
    path, sign, text = given.rpartition("=")
    if not sign or Path(given).exists():
        return given, None
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        if split_source(given)[0].exists():  # an episode of a file may have such a name
            return given, None
        raise ComoError(f"{given}: no such path, and {text!r} is no weight (expected PATH or PATH=WEIGHT with a number "
                        "of 0 or more)")
    return path, weight
