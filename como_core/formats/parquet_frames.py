"""Pictures inside a Parquet table, as LeRobot stores a camera of dtype "image": a struct of bytes and path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from como_core.errors import ComoError
from como_core.formats.images import ImageError, decode_compressed
from como_core.formats.lazy import LazyFrames

_BATCH = 16  # rows of encoded pictures in memory at once


class ParquetFrames(LazyFrames):
    """Frames in the rows `first` .. `first + count` of a column, decoded when asked for: uint8 [T, H, W, 3], RGB.

    A picture that is only named by its path is looked for below `root`. Raises ComoError, naming file, column and row.
    """

    def __init__(self, path: Path, column: str, first: int, count: int, root: Path) -> None:
        self._path, self._column, self._first, self._root = path, column, first, root
        height, width = next(self._pictures(np.array([0]))).shape[:2]
        super().__init__((count, height, width, 3))

    def _read(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        for index, picture in zip(indices.tolist(), self._pictures(indices), strict=True):
            if picture.shape != self.shape[1:]:
                raise ComoError(f"{self._at(index)}: the picture is {picture.shape[1]}x{picture.shape[0]}, the first "
                                f"is {self.shape[2]}x{self.shape[1]}")
            yield picture

    def _pictures(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        for index, value in zip(indices.tolist(), self._values(indices + self._first), strict=True):
            try:
                yield decode_compressed(self._bytes(value))
            except (ImageError, OSError, TypeError, AttributeError) as error:
                raise ComoError(f"{self._at(index)}: {error}") from error

    def _values(self, rows: np.ndarray) -> Iterator[Any]:
        """The column's values in `rows`, int64, increasing; only the row groups that hold them are read."""
        try:
            with pq.ParquetFile(self._path, memory_map=True) as file:
                sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
                starts = np.cumsum([0, *sizes])
                groups = sorted(set((np.searchsorted(starts, rows, side="right") - 1).tolist()))
                if len(rows) and rows[-1] >= starts[-1]:
                    raise ComoError(f"{self._path}: has {starts[-1]} rows, row {rows[-1]} was there when it was read")
                for group in groups:
                    yield from self._in_group(file, group, rows[(rows >= starts[group]) & (rows < starts[group + 1])]
                                              - starts[group])
        except (OSError, pa.ArrowException) as error:
            raise ComoError(f"{self._path}: column {self._column!r} cannot be read: {error}") from error

    def _in_group(self, file: pq.ParquetFile, group: int, rows: np.ndarray) -> Iterator[Any]:
        start = done = 0
        for batch in file.iter_batches(_BATCH, row_groups=[group], columns=[self._column]):
            end = int(np.searchsorted(rows, start + len(batch)))
            yield from (batch.column(0)[int(row) - start].as_py() for row in rows[done:end])
            start, done = start + len(batch), end
            if done == len(rows):
                return

    def _bytes(self, value: Any) -> bytes:
        if isinstance(value, bytes):
            return value
        return value["bytes"] or (self._root / value["path"]).read_bytes()

    def _at(self, index: int) -> str:
        return f"{self._path}: {self._column}, row {self._first + index}"
