"""LeRobot data sets v2.0, v2.1 and v3.0 as episodes: table and videos on the table's timestamps.

    dataset = LeRobotDataset("datasets/pick_bottle")
    episode = dataset.read(12)  # source "datasets/pick_bottle#episode_12"
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.formats.lazy import LazyFrames, PickedFrames
from como_core.formats.lerobot_layout import (
    EpisodePlace,
    LeRobotError,
    VideoPlace,
    member_of,
    numbers_text,
    read_layout,
    short_key,
)
from como_core.formats.parquet_frames import ParquetFrames
from como_core.formats.source_files import join_source
from como_core.formats.video_frames import FrameTable, VideoError, VideoFrames, scan
from como_core.formats.video_time import timestamps

_STATE, _ACTION = "observation.state", "action"
_SCANS = 8  # videos whose frames stay listed; neighbouring episodes share one


class LeRobotDataset:
    """A data set on disk. Raises LeRobotError where its metadata cannot be read.

    Tables and videos that several episodes share are gone through once while episodes are read in order.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.layout = read_layout(self.root)
        self._absent = self.layout.absent
        self._table: tuple[Path, pa.Table] | None = None
        self._scans: OrderedDict[Path, FrameTable | VideoError] = OrderedDict()

    @property
    def episodes(self) -> list[int]:
        """Numbers of the episodes whose files are all there."""
        return [index for index in self.layout.episodes if index not in self._absent]

    def absence(self) -> str | None:
        """Which episodes the metadata speaks of that are not there, with their count; None where all are."""
        if not self._absent:
            return None
        first = next(iter(self._absent.values())).relative_to(self.root)
        return (f"{self.root}: {len(self._absent)} of {len(self.layout.episodes)} episodes that the metadata speaks of "
                f"are not there ({numbers_text(list(self._absent))}); the first file that is missing is {first}")

    def source(self, index: int) -> str:
        """How the episode's `source` names it."""
        return join_source(self.root, member_of(index))

    def read(self, index: int) -> Episode:
        """Episode `index`: state and action float32, cameras by their short key, the task as instruction.

        Timestamps are those of the table. The picture of a row is the video frame nearest to it in time. Several tasks
        of one episode are joined by "; ". Raises LeRobotError, naming the episode, where it is not there, holds another
        number of rows than the metadata says, or a row has no frame within half a frame's time.
        """
        source = self.source(index)
        place = self.layout.episodes.get(index)
        if place is None or index in self._absent:
            raise LeRobotError(f"{source}: is not there" + (f"; {self._absent[index]} is missing" if place else ""))
        try:
            rows, first = self._rows(place)
            times = _column(rows, "timestamp")[:, 0].astype(np.float64)
            images = dict(self._cameras(place, times, first))
            return Episode(times, images, source, self._values(rows, _STATE), self._values(rows, _ACTION),
                           instruction=self._instruction(rows, place))
        except (ComoError, ValueError, OSError, pa.ArrowException) as error:
            text = str(error)
            raise LeRobotError(text if text.startswith(source) else f"{source}: {text}") from error

    def action_names(self) -> list[str] | None:
        """Names of the action's values as info.json has them; None where it has none that fit."""
        feature = self.layout.features.get(_ACTION, {})
        names = [str(name) for name in _flat(feature.get("names"))]
        size = int(np.prod(feature.get("shape") or [0]))
        return names if names and len(names) == size else None

    def _rows(self, place: EpisodePlace) -> tuple[pa.Table, int]:
        """The episode's rows, without pictures, and the place of the first in its file."""
        if self._table is None or self._table[0] != place.data:
            names = pq.read_schema(place.data).names
            wanted = [n for n in ("timestamp", "episode_index", "task_index", _STATE, _ACTION) if n in names]
            self._table = place.data, pq.read_table(place.data, columns=wanted)
        table = self._table[1]
        found = np.flatnonzero(_column(table, "episode_index")[:, 0] == place.index)
        if len(found) != place.length:
            raise LeRobotError(f"{place.data} holds {len(found)} rows of it, the metadata says {place.length}")
        if not len(found) or found[-1] - found[0] + 1 != len(found):
            raise LeRobotError(f"{place.data}: its rows do not stand together")
        return table.slice(int(found[0]), len(found)), int(found[0])

    def _values(self, rows: pa.Table, name: str) -> np.ndarray | None:
        return _column(rows, name).astype(np.float32) if name in self.layout.features else None

    def _instruction(self, rows: pa.Table, place: EpisodePlace) -> str | None:
        numbers = _column(rows, "task_index")[:, 0].astype(int).tolist() if "task_index" in rows.column_names else []
        named = [self.layout.tasks[number] for number in dict.fromkeys(numbers) if number in self.layout.tasks]
        return "; ".join(named or place.tasks) or None

    def _cameras(self, place: EpisodePlace, times: np.ndarray, first: int) -> Iterator[tuple[str, LazyFrames]]:
        for key, video in place.videos.items():
            yield short_key(key), self._film(video, times)
        for key in self.layout.keys("image"):
            yield short_key(key), ParquetFrames(place.data, key, first, len(times), self.root)

    def _film(self, video: VideoPlace, times: np.ndarray) -> PickedFrames:
        table = self._scan(video.path)
        shown = timestamps(table.pts, table.time_base, table.rate_hz, str(video.path))
        known = next((i for i, pts in enumerate(table.pts) if pts is not None), None)
        if known is not None:  # on the file's own clock, which from_timestamp is on too
            shown = shown + float(table.pts[known] * table.time_base) - shown[known]  # type: ignore[operator]
        wanted = times + video.start_s
        after = np.minimum(np.searchsorted(shown, wanted), len(shown) - 1)
        before = np.maximum(after - 1, 0)
        picks = np.where(wanted - shown[before] <= shown[after] - wanted, before, after)
        off_s = np.abs(shown[picks] - wanted)
        worst = int(np.argmax(off_s))
        if off_s[worst] > 0.5 / self.layout.fps:
            raise LeRobotError(f"{video.path} has no frame for row {worst}: the nearest to {wanted[worst]:.3f} s is "
                               f"{off_s[worst]:.3f} s away, more than half a frame at {self.layout.fps:g} Hz")
        return PickedFrames(VideoFrames(video.path, table), picks)

    def _scan(self, path: Path) -> FrameTable:
        if path not in self._scans:
            try:
                self._scans[path] = scan(path)
            except VideoError as error:
                self._scans[path] = error
            if len(self._scans) > _SCANS:
                self._scans.popitem(last=False)
        found = self._scans[path]
        if isinstance(found, VideoError):
            raise found
        return found


def _column(table: pa.Table, name: str) -> np.ndarray:
    """A column of numbers, or of rows of N numbers, as [T, N]."""
    if name not in table.column_names:
        raise LeRobotError(f"the table has no column {name!r}")
    column = table[name].combine_chunks()
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if column.null_count:
        raise LeRobotError(f"column {name!r} has {column.null_count} empty values")
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type):
        sizes = pc.unique(pc.list_value_length(column)).to_pylist()
        if len(sizes) > 1:
            raise LeRobotError(f"column {name!r} has rows of {sizes} values, expected one length")
        values = column.flatten()
        if not pa.types.is_primitive(values.type) or values.null_count:
            raise LeRobotError(f"column {name!r} is {column.type}, expected rows of numbers")
        return np.asarray(values).reshape(len(column), -1)
    if not pa.types.is_primitive(column.type):
        raise LeRobotError(f"column {name!r} is {column.type}, expected numbers")
    return np.asarray(column).reshape(-1, 1)


def _flat(names: Any) -> Iterator[Any]:
    """Names as data sets have them: a list, a list in a list, or lists by what they belong to."""
    if isinstance(names, dict):
        names = list(names.values())
    for name in names or []:
        if isinstance(name, (list, dict)):
            yield from _flat(name)
        else:
            yield name
