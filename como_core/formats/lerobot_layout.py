"""Where a LeRobot data set keeps each episode: v2.0 and v2.1 in files of its own, v3.0 in files that many share.

    layout = read_layout("datasets/pick_bottle")
    layout.episodes[12].data, layout.absent

The facts are those of huggingface/lerobot: src/lerobot/datasets (v3.0) and its v2.1 release.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from como_core.errors import ComoError

_INFO = Path("meta") / "info.json"
_INFO_V1 = Path("meta_data") / "info.json"
_MEMBER = "episode_"
_CHUNK = 1000  # episodes a folder, where info.json of a v2 data set does not say

_CONVERT_V1 = ("LeRobot converts it with lerobot/common/datasets/v2/convert_dataset_v1_to_v2.py of its 2025 releases "
               "(--repo-id, --single-task, --local-dir); then it is read here")


class LeRobotError(ComoError, ValueError):
    """A LeRobot data set or episode that cannot be read; the message names it and the reason."""


@dataclass(frozen=True)
class VideoPlace:
    """The file of one camera of an episode, and the second in it at which the episode begins."""

    path: Path
    start_s: float = 0.0


@dataclass(frozen=True)
class EpisodePlace:
    """Where one episode lies.

    length  rows that the metadata promises
    tasks   what was asked, as the episode's metadata says it
    data    the table
    videos  feature key -> file
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    data: Path
    videos: dict[str, VideoPlace] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """The table, then the videos."""
        return [self.data, *(place.path for place in self.videos.values())]


@dataclass(frozen=True)
class Layout:
    """A data set's metadata: features as in info.json, tasks by number, and the place of each episode by number."""

    root: Path
    fps: float
    features: dict[str, dict[str, Any]]
    tasks: dict[int, str]
    episodes: dict[int, EpisodePlace]

    @property
    def absent(self) -> dict[int, Path]:
        """Episodes that the metadata speaks of and the first of their files that is not there."""
        missing = {index: next((file for file in place.files if not file.is_file()), None)
                   for index, place in self.episodes.items()}
        return {index: file for index, file in missing.items() if file is not None}

    def keys(self, dtype: str) -> list[str]:
        """Cameras stored as `dtype`, "video" or "image"; depth maps are left out."""
        return [key for key, feature in self.features.items() if feature["dtype"] == dtype and not _is_depth(feature)]


def is_lerobot(path: Path) -> bool:
    """Whether `path` is the root of a LeRobot data set of any version."""
    return (path / _INFO).is_file() or (path / _INFO_V1).is_file()


def member_of(index: int) -> str:
    """How a source names an episode."""
    return f"{_MEMBER}{index}"


def episode_index(member: str) -> int:
    """The number of a member that `member_of` made; -1 where it did not make it."""
    number = member.removeprefix(_MEMBER)
    return int(number) if number.isdigit() and member != number else -1


def short_key(key: str) -> str:
    """Name of a camera: its feature key without what all cameras have."""
    return key.removeprefix("observation.images.").removeprefix("observation.")


def metadata_files(root: Path) -> list[Path]:
    """The files from which `read_layout` takes where episodes lie."""
    found = [root / _INFO, root / _INFO_V1, root / "meta" / "episodes.jsonl", *_episode_tables(root)]
    return [file for file in found if file.is_file()]


def read_layout(root: str | Path) -> Layout:
    """Read the metadata of the data set at `root`.

    Raises LeRobotError where it is damaged, or of version 1, which lies in Arrow files, or of one not known here.
    """
    root = Path(root)
    if not (root / _INFO).is_file():
        raise LeRobotError(f"{root}: is a LeRobot data set of version 1 (meta_data/, Arrow), not read; {_CONVERT_V1}")
    info = _read_json(root / _INFO)
    version = str(info.get("codebase_version", ""))
    major = version.removeprefix("v").partition(".")[0]
    if major == "1":
        raise LeRobotError(f"{root}: is a LeRobot data set of version {version}, which is not read; {_CONVERT_V1}")
    if major not in ("2", "3"):
        raise LeRobotError(f"{root}: is of codebase_version {version or 'unknown'!r}; read are v2.0, v2.1 and v3.0")
    try:
        features = {str(key): {**feature, "dtype": str(feature["dtype"])} for key, feature in info["features"].items()}
        places, tasks = (_v2 if major == "2" else _v3)(root, info, features)
        fps = float(info["fps"])
        if not fps > 0:
            raise ValueError(f"fps is {fps}")
    except (OSError, KeyError, TypeError, ValueError, IndexError, AttributeError, pa.ArrowException) as error:
        if isinstance(error, LeRobotError):
            raise
        why = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise LeRobotError(f"{root}: its metadata ({version}) is damaged: {why}") from error
    return Layout(root, fps, features, tasks, {place.index: place for place in sorted(places, key=lambda p: p.index)})


def numbers_text(numbers: Sequence[int]) -> str:
    """Increasing numbers as people list them: `0-12, 15, 17-19`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _v2(root: Path, info: dict[str, Any], features: dict[str, dict[str, Any]]
        ) -> tuple[list[EpisodePlace], dict[int, str]]:
    chunk = int(info.get("chunks_size", _CHUNK))
    places = []
    for row in _read_jsonl(root / "meta" / "episodes.jsonl"):
        index = int(row["episode_index"])
        where = {"episode_chunk": index // chunk, "episode_index": index}
        videos = {key: VideoPlace(root / info["video_path"].format(video_key=key, **where))
                  for key, feature in features.items() if feature["dtype"] == "video" and not _is_depth(feature)}
        places.append(EpisodePlace(index, int(row["length"]), tuple(map(str, row.get("tasks") or ())),
                                   root / info["data_path"].format(**where), videos))
    return places, {int(row["task_index"]): str(row["task"]) for row in _read_jsonl(root / "meta" / "tasks.jsonl")}


def _v3(root: Path, info: dict[str, Any], features: dict[str, dict[str, Any]]
        ) -> tuple[list[EpisodePlace], dict[int, str]]:
    cameras = [key for key, feature in features.items() if feature["dtype"] == "video" and not _is_depth(feature)]
    tables = _episode_tables(root)
    if not tables:
        raise LeRobotError(f"{root}: has no meta/episodes/chunk-*/file-*.parquet, which say where episodes lie")
    places = []
    for table in tables:
        # Statistics are most of these tables, and are not of use here.
        columns = [name for name in pq.read_schema(table).names if not name.startswith("stats/")]
        for row in pq.read_table(table, columns=columns).to_pylist():
            data = info["data_path"].format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
            videos = {key: _v3_video(root, info, row, key) for key in cameras}
            places.append(EpisodePlace(int(row["episode_index"]), int(row["length"]),
                                       tuple(map(str, row.get("tasks") or ())), root / data, videos))
    return places, _v3_tasks(root / "meta" / "tasks.parquet")


def _v3_video(root: Path, info: dict[str, Any], row: dict[str, Any], key: str) -> VideoPlace:
    path = info["video_path"].format(video_key=key, chunk_index=row[f"videos/{key}/chunk_index"],
                                     file_index=row[f"videos/{key}/file_index"])
    return VideoPlace(root / path, float(row[f"videos/{key}/from_timestamp"]))


def _v3_tasks(path: Path) -> dict[int, str]:
    """Task texts, which pandas has written as the index of the table: a column by the name of `task`, or of none."""
    if not path.is_file():
        return {}
    table = pq.read_table(path)
    name = "task" if "task" in table.column_names else "__index_level_0__"
    return {int(i): str(task) for i, task in zip(table["task_index"].to_pylist(), table[name].to_pylist(), strict=True)}


def _episode_tables(root: Path) -> list[Path]:
    return sorted((root / "meta" / "episodes").glob("*/*.parquet"))


def _is_depth(feature: dict[str, Any]) -> bool:
    info = {**(feature.get("video_info") or {}), **(feature.get("info") or {})}
    return bool(info.get("is_depth_map") or info.get("video.is_depth_map"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LeRobotError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise LeRobotError(f"{path}: holds no JSON object")
    return found


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise LeRobotError(f"{path}: cannot be read as JSON lines: {error}") from error
