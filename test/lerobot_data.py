"""LeRobot data sets for the tests, written after the layouts that huggingface/lerobot documents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from como_core.episode import Episode
from como_core.formats.video import write_video

FPS = 10
LENGTHS = (6, 9, 5)
TASKS = ("open the drawer", "close the drawer")
SIZE = 32


def pictures(index: int) -> np.ndarray:
    """Frames of episode `index`, of one colour each, so that encoding loses little: uint8 [T, 32, 32, 3]."""
    levels = 20 + 10 * np.arange(LENGTHS[index]) + 60 * index
    return np.broadcast_to(levels[:, None, None, None], (LENGTHS[index], SIZE, SIZE, 3)).astype(np.uint8)


def rows(index: int, images: bool = False) -> dict[str, list[object]]:
    """The table of episode `index`; episode 1 has both tasks."""
    rng = np.random.default_rng(index)
    steps = LENGTHS[index]
    table: dict[str, list[object]] = {
        "observation.state": rng.normal(size=(steps, 3)).astype(np.float32).tolist(),
        "action": rng.normal(size=(steps, 2)).astype(np.float32).tolist(),
        "timestamp": (np.arange(steps) / FPS).astype(np.float32).tolist(),
        "frame_index": list(range(steps)), "episode_index": [index] * steps,
        "index": list(range(sum(LENGTHS[:index]), sum(LENGTHS[:index + 1]))),
        "task_index": [int(index == 2 or (index == 1 and i > 4)) for i in range(steps)],
    }
    if images:
        table["observation.image"] = [{"bytes": png(frame), "path": f"frame_{i}.png"}
                                      for i, frame in enumerate(pictures(index))]
    return table


def png(rgb: np.ndarray) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1].tobytes()


def info(version: str, images: bool = False) -> dict[str, object]:
    camera = {"shape": [SIZE, SIZE, 3], "names": ["height", "width", "channels"]}
    cameras = {"observation.image": {"dtype": "image", **camera}} if images else {
        "observation.images.front": {"dtype": "video", **camera},
        "observation.images.depth": {"dtype": "video", **camera, "info": {"video.is_depth_map": True}}}
    v3 = version == "v3.0"
    return {
        "codebase_version": version, "fps": FPS, "total_episodes": len(LENGTHS), "chunks_size": 1000,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet" if v3
        else "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4" if v3
        else "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": {
            "observation.state": {"dtype": "float32", "shape": [3], "names": None},
            "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["shoulder", "elbow"]}}, **cameras,
        },
    }


def write_v2(root: Path, version: str = "v2.1", images: bool = False) -> Path:
    """An episode a file."""
    write_json(root / "meta/info.json", info(version, images))
    tasks = [{"task_index": i, "task": task} for i, task in enumerate(TASKS)]
    (root / "meta/tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    episodes = [{"episode_index": i, "tasks": list(TASKS), "length": n} for i, n in enumerate(LENGTHS)]
    (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, episodes)))
    for i in range(len(LENGTHS)):
        write_table(root / f"data/chunk-000/episode_{i:06d}.parquet", rows(i, images))
        if not images:
            write_video(root / f"videos/chunk-000/observation.images.front/episode_{i:06d}.mp4", pictures(i), FPS)
    return root


def write_v3(root: Path, images: bool = False) -> Path:
    """All episodes in one table and one video, as the converter of huggingface/lerobot leaves them."""
    tables = [rows(i, images) for i in range(len(LENGTHS))]
    joined = {key: [value for table in tables for value in table[key]] for key in tables[0]}
    write_table(root / "data/chunk-000/file-000.parquet", joined, row_group_size=4)
    starts = np.cumsum([0, *LENGTHS])
    video = "videos/observation.images.front/"
    columns: dict[str, list[object]] = {
        "episode_index": list(range(len(LENGTHS))), "length": list(LENGTHS), "tasks": [list(TASKS)] * len(LENGTHS),
        "data/chunk_index": [0] * len(LENGTHS), "data/file_index": [0] * len(LENGTHS),
        "dataset_from_index": starts[:-1].tolist(), "dataset_to_index": starts[1:].tolist(),
        "stats/action/mean": [[0.0, 0.0]] * len(LENGTHS),
    }
    if not images:
        write_video(root / f"{video}chunk-000/file-000.mp4", np.concatenate([pictures(i) for i in range(len(LENGTHS))]),
                    FPS)
        columns |= {f"{video}chunk_index": [0] * len(LENGTHS), f"{video}file_index": [0] * len(LENGTHS),
                    f"{video}from_timestamp": (starts[:-1] / FPS).tolist(),
                    f"{video}to_timestamp": (starts[1:] / FPS).tolist()}
    write_table(root / "meta/episodes/chunk-000/file-000.parquet", columns)
    write_table(root / "meta/tasks.parquet", {"task_index": [0, 1], "__index_level_0__": list(TASKS)})
    write_json(root / "meta/info.json", info("v3.0", images))
    return root


def to_v3(old: Path, root: Path, episodes: Sequence[int]) -> Path:
    """Some episodes of a real v2.1 data set in the layout of v3.0; videos are joined without encoding them again."""
    settings = json.loads((old / "meta/info.json").read_text())
    key = next(key for key, feature in settings["features"].items() if feature["dtype"] == "video")
    tables = [pq.read_table(old / f"data/chunk-000/episode_{i:06d}.parquet") for i in episodes]
    (root / "data/chunk-000").mkdir(parents=True)
    pq.write_table(pa.concat_tables(tables), root / "data/chunk-000/file-000.parquet")
    starts = np.cumsum([0, *(len(table) for table in tables)])
    columns: dict[str, list[object]] = {
        "episode_index": list(episodes), "length": [len(table) for table in tables],
        "tasks": [["Pick up the yellow bottle on the table."]] * len(tables),
        "data/chunk_index": [0] * len(tables), "data/file_index": [0] * len(tables),
        f"videos/{key}/chunk_index": [0] * len(tables), f"videos/{key}/file_index": [0] * len(tables),
        f"videos/{key}/from_timestamp": (starts[:-1] / settings["fps"]).tolist(),
        f"videos/{key}/to_timestamp": (starts[1:] / settings["fps"]).tolist(),
    }
    write_table(root / "meta/episodes/chunk-000/file-000.parquet", columns)
    write_table(root / "meta/tasks.parquet", {"task_index": [0], "task": ["Pick up the yellow bottle on the table."]})
    settings |= {"codebase_version": "v3.0", "data_path": info("v3.0")["data_path"],
                 "video_path": info("v3.0")["video_path"]}
    write_json(root / "meta/info.json", settings)
    films = [old / f"videos/chunk-000/{key}/episode_{i:06d}.mp4" for i in episodes]
    _join(films, root / f"videos/{key}/chunk-000/file-000.mp4", starts, settings["fps"])
    return root


def write_episodes(root: Path, episodes: Sequence[Episode], fps: int, names: Sequence[str]) -> Path:
    """Episodes of one camera and with actions, as v3.0."""
    starts = np.cumsum([0, *(len(episode) for episode in episodes)])
    camera = next(iter(episodes[0].images))
    video = f"videos/observation.images.{camera}/"
    write_table(root / "data/chunk-000/file-000.parquet", {
        "action": [row for episode in episodes for row in np.asarray(episode.action).tolist()],
        "timestamp": [i / fps for episode in episodes for i in range(len(episode))],
        "episode_index": [e for e, episode in enumerate(episodes) for _ in range(len(episode))],
        "task_index": [0] * int(starts[-1])})
    count = len(episodes)
    write_table(root / "meta/episodes/chunk-000/file-000.parquet", {
        "episode_index": list(range(count)), "length": np.diff(starts).tolist(), "tasks": [[TASKS[0]]] * count,
        "data/chunk_index": [0] * count, "data/file_index": [0] * count, f"{video}chunk_index": [0] * count,
        f"{video}file_index": [0] * count, f"{video}from_timestamp": (starts[:-1] / fps).tolist(),
        f"{video}to_timestamp": (starts[1:] / fps).tolist()})
    write_table(root / "meta/tasks.parquet", {"task_index": [0], "task": [TASKS[0]]})
    features = {"action": {"dtype": "float32", "shape": [len(names)], "names": [list(names)]},
                f"observation.images.{camera}": {"dtype": "video", "shape": [32, 32, 3], "names": None}}
    write_json(root / "meta/info.json", info("v3.0") | {"fps": fps, "features": features})
    write_video(root / f"{video}chunk-000/file-000.mp4",
                (frame for episode in episodes for frame in episode.images[camera][:]), fps)
    return root


def _join(films: Sequence[Path], path: Path, starts: np.ndarray, fps: int) -> None:
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as target:
        stream = None
        for film, start in zip(films, starts, strict=False):
            with av.open(str(film)) as source:
                video = source.streams.video[0]
                stream = stream or target.add_stream_from_template(video, opaque=True)
                shift = int(Fraction(int(start), fps) / video.time_base)
                for packet in source.demux(video):
                    if packet.pts is not None:
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        target.mux(packet)


def write_table(path: Path, columns: dict[str, list[object]], row_group_size: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
