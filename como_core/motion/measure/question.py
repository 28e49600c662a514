"""What the probes are asked of which pairs: a target for each pair of the recordings that have actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from como_core.episode import Episode, Provenance
from como_core.errors import ComoError
from como_core.motion.measure.probe import FOLDS
from como_core.motion.measure.recordings import Recordings
from como_core.motion.pairs import Pairs
from como_core.motion.targets import Target, window_target


@dataclass(frozen=True)
class Question:
    """What the probes are asked.

    rows     int [Q], the pairs that have a target
    target   float64 [Q, C]
    episode  int [Q], the recording of each
    names    columns of the target that belong to each action
    """

    rows: np.ndarray
    target: np.ndarray
    episode: np.ndarray
    names: dict[str, list[int]]

    @property
    def recordings(self) -> int:
        return len(np.unique(self.episode))

    @classmethod
    def of(cls, data: Recordings, names: list[str], kind: Target, only: Sequence[str] = ()) -> Question | None:
        """The question, or None, with a note why, where there is none to ask.

        names  of the first action values
        only   ask for those whose name contains one of these; for all where empty

        Raises ComoError where the recordings with actions are not of one robot, or `only` fits no name.
        """
        labelled = [i for i, episode in enumerate(data.episodes) if episode.action is not None]
        if not labelled or not names:
            data.notes.append("no recording has actions, so there are no probes" if not labelled else
                              "no action is named, so there are no probes")
            return None
        _require_one_width([data.episodes[i] for i in labelled], len(names))
        wanted = [name for name in names if not only or any(part in name for part in only)]
        if not wanted:
            raise ComoError(f"no action is named like {', '.join(only)}; there are {', '.join(names)}")
        rows, targets = [], []
        for index in labelled:
            mine = np.flatnonzero(data.pairs.episode == index)
            values, kept = _target_of(data.episodes[index], data.pairs, mine, len(names), kind)
            rows.append(mine[kept])
            targets.append(values[kept])
        found, episode = np.concatenate(targets), data.pairs.episode[np.concatenate(rows)]
        count = len(np.unique(episode))
        if count < 2:
            data.notes.append(f"{count} recording{'' if count == 1 else 's'} with actions, and a probe needs two: one "
                              "to learn from and one to be judged on")
            return None
        if count < 2 * FOLDS:
            data.notes.append(f"only {count} recordings with actions: the probes learn from few")
        columns = {name: mine for name, mine in _columns(found, names, kind, data.notes).items() if name in wanted}
        return cls(np.concatenate(rows), found, episode, columns) if columns else None


def _target_of(episode: Episode, pairs: Pairs, mine: np.ndarray, width: int, kind: Target
               ) -> tuple[np.ndarray, np.ndarray]:
    """Target of the pairs `mine` of one recording, and which of them have one that was measured throughout."""
    assert episode.action is not None, "only recordings with actions are asked about"
    base = pairs.offsets[pairs.episode[mine[0]]] if len(mine) else 0
    first, second = pairs.first[mine] - base, pairs.second[mine] - base
    values, kept = window_target(episode.action[:, :width], episode.timestamps, first, second, kind)
    measured = np.concatenate([[0], np.cumsum(episode.provenance == Provenance.MEASURED)])
    return values, kept & (measured[second] - measured[first] == second - first)


def _columns(target: np.ndarray, names: list[str], kind: Target, notes: list[str]) -> dict[str, list[int]]:
    """Columns of the target for each action; those that never change are left out, with a note."""
    width = len(names)
    spread = target.std(axis=0) > 1e-6 * np.maximum(np.abs(target).max(axis=0), 1e-6)
    found = {name: [c for c in range(i, width * kind.columns_per_action, width) if spread[c]]
             for i, name in enumerate(names)}
    still = [name for name, columns in found.items() if not columns]
    if still:
        notes.append(f"never change, so left out of the probes: {', '.join(still)}")
    return {name: columns for name, columns in found.items() if columns}


def _require_one_width(episodes: Sequence[Episode], names: int) -> None:
    """Raise ComoError unless all actions have the same number of values, and a value for each name."""
    first = episodes[0]
    for episode in episodes:
        assert episode.action is not None and first.action is not None, "only recordings with actions are measured"
        width, expected = episode.action.shape[1], first.action.shape[1]
        if width != expected or width < names:
            raise ComoError(f"{episode.source}: actions have {width} values a step, those of {first.source} have "
                            f"{expected}, and {names} are named; measure recordings of one robot at a time")
