"""LeRobot data sets: v2.0, v2.1 and v3.0 read the same, what is absent or broken is named, v1 is refused in words."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_data import (
    FPS,
    LENGTHS,
    TASKS,
    info,
    pictures,
    png,
    rows,
    to_v3,
    write_json,
    write_table,
    write_v2,
    write_v3,
)

from como_core.episode import Provenance
from como_core.errors import ComoError
from como_core.formats.lerobot import LeRobotDataset
from como_core.formats.lerobot_layout import LeRobotError, numbers_text
from como_core.formats.sources import action_names_of, open_sources
from como_core.formats.video import write_video

WRITERS = {
    "v2.0": lambda root: write_v2(root, "v2.0"), "v2.1": write_v2, "v3.0": write_v3,
    "v2.1 images": lambda root: write_v2(root, images=True), "v3.0 images": lambda root: write_v3(root, images=True),
}


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_gives_the_same_episodes(tmp_path, layout):
    root = WRITERS[layout](tmp_path / "dataset")
    episodes = open_sources([tmp_path]).episodes
    assert [e.source for e in episodes] == [f"{root}#episode_{i}" for i in range(3)]
    assert [e.instruction for e in episodes] == [TASKS[0], "; ".join(TASKS), TASKS[1]]
    for i, episode in enumerate(episodes):
        table = rows(i)
        np.testing.assert_array_equal(episode.action, np.asarray(table["action"], np.float32))
        np.testing.assert_array_equal(episode.state, np.asarray(table["observation.state"], np.float32))
        np.testing.assert_allclose(episode.timestamps, np.arange(LENGTHS[i]) / FPS, atol=1e-6)
        assert episode.action.dtype == episode.state.dtype == np.float32
        assert np.all(episode.provenance == Provenance.MEASURED)
        frames = episode.images["image" if "images" in layout else "front"]
        assert list(episode.images) == ["image" if "images" in layout else "front"], "depth is no picture"
        np.testing.assert_allclose(frames[:], pictures(i), atol=0 if "images" in layout else 3)
        np.testing.assert_allclose(frames[[4, 0, 4]], pictures(i)[[4, 0, 4]], atol=0 if "images" in layout else 3)
    assert action_names_of(episodes[1].source) == ["shoulder", "elbow"]


def test_one_episode_can_be_named(tmp_path):
    root = write_v3(tmp_path / "dataset")
    episodes = open_sources([f"{root}#episode_2", f"{root}#episode_0"]).episodes
    assert [len(e) for e in episodes] == [LENGTHS[2], LENGTHS[0]]
    with pytest.raises(ComoError, match="dataset#episode_7: is not there"):
        open_sources([f"{root}#episode_7"])


def test_a_real_data_set_gives_what_is_there_and_names_what_is_not(shared_data):
    root = shared_data / "lerobot" / "g1_humanoid_v21"
    dataset = LeRobotDataset(root)
    here = [int(path.stem[8:]) for path in sorted((root / "data/chunk-000").glob("*.parquet"))]
    assert dataset.episodes == here and len(here) == 20
    assert dataset.absence().startswith(f"{root}: 80 of 100 episodes that the metadata speaks of are not there (0-12, ")
    episode = dataset.read(13)
    table = pq.read_table(root / "data/chunk-000/episode_000013.parquet")
    np.testing.assert_array_equal(episode.action, np.stack(table["action"].to_numpy()))
    np.testing.assert_array_equal(episode.state, np.stack(table["observation.state"].to_numpy()))
    assert list(episode.images) == ["cam_high"] and episode.images["cam_high"].shape == (len(table), 480, 640, 3)
    assert episode.instruction == "Pick up the yellow bottle on the table."
    names = action_names_of(episode.source)
    assert len(names) == 26 and names[0] == "kLeftShoulderPitch" and names[-1] == "kRightHandThumbRotation"


def test_the_real_data_set_reads_the_same_in_the_layout_of_v3(shared_data, tmp_path):
    old = shared_data / "lerobot" / "g1_humanoid_v21"
    new = to_v3(old, tmp_path / "v3", [13, 20])
    before, after = LeRobotDataset(old), LeRobotDataset(new)
    assert after.episodes == [13, 20] and after.absence() is None
    assert before.action_names() == after.action_names()
    for i in (13, 20):
        one, other = before.read(i), after.read(i)
        np.testing.assert_array_equal(one.action, other.action)
        np.testing.assert_array_equal(one.state, other.state)
        np.testing.assert_array_equal(one.timestamps, other.timestamps)
        assert one.instruction == other.instruction
        step = np.array([0, 1, len(one) // 2, len(one) - 1])
        np.testing.assert_array_equal(one.images["cam_high"][step], other.images["cam_high"][step])


def test_version_1_is_refused_with_the_way_to_convert_it(shared_data, tmp_path):
    with pytest.raises(ComoError, match=r"v1_pusht_sim: is a LeRobot data set of version 1 .*convert_dataset_v1_to_v2"):
        open_sources([shared_data / "lerobot" / "v1_pusht_sim"])
    for version in ("v1.6", "v4.0", ""):
        write_json(tmp_path / "meta/info.json", info("v3.0") | {"codebase_version": version})
        with pytest.raises(LeRobotError, match=r"version v1.6, which|codebase_version '(v4.0|unknown)'; read are"):
            LeRobotDataset(tmp_path)


@pytest.mark.parametrize("write", [write_v2, write_v3])
def test_frames_that_do_not_cover_the_table_cost_that_episode(tmp_path, write):
    root = write(tmp_path / "dataset")
    video = sorted(root.rglob("*.mp4"))[-1]
    if write is write_v2:
        write_video(video, pictures(2)[:-1], FPS)
    else:
        write_video(video, np.concatenate([pictures(i) for i in range(3)])[:-1], FPS)
    sources = open_sources([root])
    assert [e.source[-1] for e in sources.episodes] == ["0", "1"]
    assert "dataset#episode_2: " in sources.skipped[0][1]
    assert "has no frame for row 4: the nearest to" in sources.skipped[0][1]


def test_the_frame_nearest_in_time_is_taken_and_not_the_one_of_that_number(tmp_path):
    root = write_v2(tmp_path / "dataset")
    video = root / "videos/chunk-000/observation.images.front/episode_000001.mp4"
    write_video(video, np.repeat(pictures(1), 3, axis=0), 3 * FPS)
    episode = LeRobotDataset(root).read(1)
    np.testing.assert_allclose(episode.images["front"][:], pictures(1), atol=3)


def shorten(root):
    table = rows(1)
    write_table(root / "data/chunk-000/episode_000001.parquet", {key: values[:-1] for key, values in table.items()})


def drop_column(root):
    table = rows(1)
    del table["action"]
    write_table(root / "data/chunk-000/episode_000001.parquet", table)


def holes(root):
    write_table(root / "data/chunk-000/episode_000001.parquet", rows(1) | {"action": [None, *rows(1)["action"][1:]]})


def ragged(root):
    write_table(root / "data/chunk-000/episode_000001.parquet", rows(1) | {"action": [[1.0], *rows(1)["action"][1:]]})


def words(root):
    write_table(root / "data/chunk-000/episode_000001.parquet", rows(1) | {"action": ["up"] * LENGTHS[1]})


def no_video(root):
    (root / "videos/chunk-000/observation.images.front/episode_000001.mp4").write_bytes(b"no video")


def no_table(root):
    (root / "data/chunk-000/episode_000001.parquet").write_bytes(b"PAR1 no more")


@pytest.mark.parametrize(("damage", "reason"), [
    (shorten, "holds 8 rows of it, the metadata says 9"), (drop_column, "the table has no column 'action'"),
    (holes, "column 'action' has 1 empty values"), (ragged, "column 'action' has rows of"),
    (words, "column 'action' is string, expected numbers"), (no_video, "cannot be read as a video"),
    (no_table, "Parquet"),
])
def test_a_broken_episode_is_named_and_costs_only_itself(tmp_path, damage, reason):
    root = write_v2(tmp_path / "dataset")
    damage(root)
    sources = open_sources([root])
    assert len(sources.episodes) == 2 and [str(path) for path, _ in sources.skipped] == [f"{root}#episode_1"]
    assert sources.skipped[0][1].startswith(f"{root}#episode_1: ") and reason in sources.skipped[0][1]


def test_absent_files_are_named_once_with_their_count(tmp_path):
    root = write_v2(tmp_path / "dataset")
    (root / "data/chunk-000/episode_000000.parquet").unlink()
    (root / "videos/chunk-000/observation.images.front/episode_000002.mp4").unlink()
    sources = open_sources([root])
    assert len(sources.episodes) == 1 and len(sources.skipped) == 1
    assert "2 of 3 episodes that the metadata speaks of are not there (0, 2); the first file" in sources.summary()
    assert numbers_text([0, 1, 2, 4, 7, 8]) == "0-2, 4, 7-8"


@pytest.mark.parametrize(("file", "text", "reason"), [
    ("meta/info.json", "{", "info.json: cannot be read as JSON"), ("meta/info.json", "[]", "holds no JSON object"),
    ("meta/info.json", json.dumps({"codebase_version": "v2.1"}), "is damaged: no 'features'"),
    ("meta/episodes.jsonl", "{}\n", "is damaged: no 'episode_index'"),
    ("meta/episodes.jsonl", "no json", "episodes.jsonl: cannot be read as JSON lines"),
])
def test_damaged_metadata_is_refused_by_file(tmp_path, file, text, reason):
    root = write_v2(tmp_path / "dataset")
    (root / file).write_text(text)
    with pytest.raises(LeRobotError, match=reason):
        LeRobotDataset(root)


def test_v3_without_the_places_of_its_episodes_is_refused(tmp_path):
    root = write_v3(tmp_path / "dataset")
    shutil.rmtree(root / "meta/episodes")
    with pytest.raises(LeRobotError, match="dataset: has no meta/episodes/chunk-"):
        LeRobotDataset(root)


def test_pictures_named_by_their_path_are_found_and_others_refused(tmp_path):
    root = write_v2(tmp_path / "dataset", images=True)
    table = rows(0, images=True)
    (root / "frame.png").write_bytes(png(pictures(2)[3]))
    table["observation.image"][2] = {"bytes": None, "path": "frame.png"}
    write_table(root / "data/chunk-000/episode_000000.parquet", table)
    frames = LeRobotDataset(root).read(0).images["image"]
    np.testing.assert_array_equal(frames[2], pictures(2)[3])
    table["observation.image"][4] = {"bytes": png(pictures(0)[0][:8]), "path": None}
    table["observation.image"][5] = {"bytes": b"no picture", "path": None}
    write_table(root / "data/chunk-000/episode_000000.parquet", table)
    frames = LeRobotDataset(root).read(0).images["image"]
    with pytest.raises(ComoError, match=r"episode_000000.parquet: observation.image, row 4: the picture is 32x8"):
        frames[:]
    with pytest.raises(ComoError, match=r"row 5: compressed image of 10 bytes cannot be decoded"):
        frames[5]


def test_fixed_size_and_scalar_columns_are_read(tmp_path):
    root = write_v2(tmp_path / "dataset")
    path = root / "data/chunk-000/episode_000000.parquet"
    table = pa.table(rows(0)).drop_columns(["action", "observation.state"])
    values = np.asarray(rows(0)["action"], np.float32)
    table = table.append_column("action", pa.FixedSizeListArray.from_arrays(values.reshape(-1), 2))
    pq.write_table(table.append_column("observation.state", pa.array(np.arange(LENGTHS[0]))), path)
    episode = LeRobotDataset(root).read(0)
    np.testing.assert_array_equal(episode.action, values)
    np.testing.assert_array_equal(episode.state, np.arange(LENGTHS[0], dtype=np.float32)[:, None])
