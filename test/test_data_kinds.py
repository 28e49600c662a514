"""Recordings of every kind in one folder: trained on, measured, labelled, and used for a policy, each once, by name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import bag_messages
import h5py
import numpy as np
import policy_data
import pytest
from lerobot_data import write_episodes
from test_motion_train import moving_square, tiny

from como_core import config
from como_core.cli import motion as cli
from como_core.episode import Episode
from como_core.errors import ComoError
from como_core.formats.bag_writer import RawBagWriter
from como_core.formats.labels import read_labels, sha256_of
from como_core.formats.manifest import located, read_manifest
from como_core.formats.source_files import files_of, join_source, split_source
from como_core.formats.sources import open_sources
from como_core.formats.video import write_video
from como_core.motion.relabel import relabel
from como_core.motion.train import train as train_motion
from como_core.policy.sources import open_training_data
from como_core.policy.train import camera_stack
from como_core.policy.train import train as train_policy

FPS = 20


def write_hdf5(path: Path, episodes: Sequence[Episode], pictures: bool = True) -> Path:
    """Episodes as demonstrations; the state as LIBERO's ee_states."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for i, episode in enumerate(episodes):
            group = file.create_group(f"data/demo_{i}")
            group["actions"] = episode.action
            if episode.state is not None:
                group["obs/ee_states"] = episode.state
            if episode.instruction:
                group.attrs["ep_meta"] = f'{{"lang": "{episode.instruction}"}}'
            for name, frames in episode.images.items() if pictures else ():
                group[f"obs/{name}_image"] = frames[:]
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nested folders: 2 videos, 2 bags, HDF5 with 10 demonstrations and with 3 blind ones, 10 LeRobot episodes."""
    root = tmp_path_factory.mktemp("all")
    for seed in range(2):
        write_video(root / "videos" / "deep" / f"{seed}.mp4", moving_square(seed).images["top"], FPS)
        with RawBagWriter(root / "bags" / f"{seed:04d}", {}) as bag:
            for i, picture in enumerate(moving_square(seed + 10).images["top"][:], start=1):
                stamp = i * 1_000_000_000 // FPS
                bag.write("/camera", "sensor_msgs/msg/Image", stamp, bag_messages.image(stamp, picture))
    write_hdf5(root / "sets" / "lift.hdf5", [moving_square(seed + 20) for seed in range(10)])
    write_hdf5(root / "sets" / "blind.hdf5", [moving_square(seed) for seed in range(3)], pictures=False)
    write_episodes(root / "sets" / "pick", [moving_square(seed + 40) for seed in range(10)], FPS, ("right", "down"))
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("motion") / "run"
    train_motion(open_sources([folder]).episodes, tiny(steps=20), out)
    return out


def names(folder: Path, episodes: Sequence[Episode]) -> list[str]:
    return [Path(episode.source).relative_to(folder).as_posix() for episode in episodes]


def test_every_recording_is_found_once_in_its_order(folder: Path) -> None:
    sources = open_sources([folder])
    lift = [f"sets/lift.hdf5#demo_{i}" for i in range(10)]
    assert names(folder, sources.episodes) == [
        "bags/0000", "bags/0001", *(f"sets/blind.hdf5#demo_{i}" for i in range(3)), *lift,
        *(f"sets/pick#episode_{i}" for i in range(10)), "videos/deep/0.mp4", "videos/deep/1.mp4"]
    assert sources.skipped == []
    given = [f"{folder}/sets/lift.hdf5#demo_7", folder / "sets" / ".." / "sets" / "lift.hdf5", folder / "sets"]
    again = open_sources(given).episodes
    assert len({episode.source.rpartition("/")[2] for episode in again}) == len(again) == 23


def test_training_names_what_has_no_pictures_and_takes_the_rest(
        folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    episodes = open_sources([folder]).episodes
    train_motion(episodes, tiny(steps=2), tmp_path / "run")
    said = capsys.readouterr().out
    assert "left out, 3 of 27 episodes, since no pictures come of them:" in said
    assert f"  {folder}/sets/blind.hdf5#demo_2: has no camera" in said
    assert "decoding: 720/720" in said, "24 clips of 30 frames"
    assert "24 clips" in (tmp_path / "run" / "card.md").read_text()
    with pytest.raises(ComoError, match="no frames to put into .*3 episodes were given; the first: .*has no camera"):
        train_motion(open_sources([folder / "sets" / "blind.hdf5"]).episodes, tiny(steps=2), tmp_path / "blind")


def test_the_command_shows_where_it_is_and_keeps_the_limit_of_the_cache(
        folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.save(tiny(steps=2), tmp_path / "tiny.yaml")
    with pytest.raises(ComoError, match=r"720 frames of 32 px need 0.00 GB, and the limit of this frame cache is"):
        cli.train((folder,), tmp_path / "run", preset=str(tmp_path / "tiny.yaml"), cache_limit_gb=0.002)
    cli.train((folder,), tmp_path / "run", preset=str(tmp_path / "tiny.yaml"), cache_limit_gb=0.003)
    said = capsys.readouterr().out
    assert "reading: 27/27" in said and "27 episodes read" in said and "decoding: 720/720" in said


@pytest.mark.parametrize(("data", "actions"), [("pick", ["right", "down"]), ("lift.hdf5", ["a0", "a1"])])
def test_a_model_is_measured_on_data_sets_without_an_interface(
        folder: Path, run: Path, tmp_path: Path, data: str, actions: list[str]) -> None:
    cli.evaluate(run, (folder / "sets" / data,), cache=tmp_path, baselines=False, seeds=1)
    metrics = json.loads((run / "metrics.json").read_text())["summary"]
    assert metrics["actions"] == actions and metrics["episodes"] == 10


def test_robots_of_different_width_are_not_measured_together(folder: Path, run: Path, tmp_path: Path) -> None:
    wide = [dataclasses.replace(e, action=np.repeat(e.action, 2, axis=1)) for e in map(moving_square, range(2))]
    write_hdf5(tmp_path / "wide.hdf5", wide)
    with pytest.raises(ComoError, match=r"wide.hdf5#demo_0: actions have 4 values a step, those of .*demo_0 have 2"):
        cli.evaluate(run, (folder / "sets" / "lift.hdf5", tmp_path / "wide.hdf5"), cache=tmp_path)


def test_every_episode_of_a_data_set_gets_a_label_file_of_its_own(folder: Path, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels"
    manifest = relabel([folder], run, out)
    assert len(manifest.labelled) == 24 and len(manifest.skipped) == 3
    assert "blind.hdf5#demo_0: has no camera" in manifest.skipped[0].reason
    files = sorted(path.name for path in out.glob("*.safetensors"))
    assert len(files) == 24
    assert sum(name.startswith("sets_lift_demo_") for name in files) == 10
    assert sum(name.startswith("sets_pick_episode_") for name in files) == 10
    episodes = open_sources([out]).episodes
    assert len(episodes) == 24 and all(e.latent is not None and len(e.latent) == 30 for e in episodes)
    both = open_sources([folder / "sets" / "pick", out]).episodes
    assert len(both) == 24 and all(e.latent is not None for e in both)
    stamps = {name: (out / name).stat().st_mtime_ns for name in files}
    assert relabel([folder], run, out) == manifest
    assert {name: (out / name).stat().st_mtime_ns for name in files} == stamps


@pytest.mark.parametrize("data", ["lift.hdf5", "pick"])
def test_labels_of_one_episode_do_not_land_on_another(folder: Path, run: Path, tmp_path: Path, data: str) -> None:
    manifest = relabel([folder / "sets" / data], run, tmp_path)
    first, second = (tmp_path / entry.labels for entry in manifest.labelled[:2])
    assert read_labels(first).source_sha256 != read_labels(second).source_sha256
    second.write_bytes(first.read_bytes())
    sources = open_sources([tmp_path])
    assert len(sources.episodes) == 9
    assert "labels belong to another recording" in sources.skipped[0][1]
    assert str(sources.skipped[0][0]) == str(located(manifest.labelled[1].source, tmp_path))


def test_a_source_knows_its_files_and_their_contents(folder: Path, tmp_path: Path) -> None:
    demo, episode = f"{folder}/sets/lift.hdf5#demo_3", f"{folder}/sets/pick#episode_4"
    assert split_source(demo) == (folder / "sets" / "lift.hdf5", "demo_3")
    assert files_of(demo) == [folder / "sets" / "lift.hdf5"]
    assert [path.relative_to(folder / "sets" / "pick").parts[0] for path in files_of(episode)] == ["data", "videos"]
    assert files_of("simulated#3") == [] == files_of(f"{folder}/sets/pick#episode_99")
    assert len({sha256_of(demo), sha256_of(demo[:-1] + "4"), sha256_of(demo[:-7]), sha256_of(episode)}) == 4
    odd = tmp_path / "a#b.mp4"
    odd.write_bytes(b"x")
    assert split_source(odd) == (odd, None), "a file's own name may have the mark in it"
    assert split_source(join_source(odd, "c")) == (odd, "c")
    before = sha256_of(f"{odd}")
    odd.write_bytes(b"y")
    assert sha256_of(f"{odd}") != before


def test_a_policy_learns_from_hdf5_and_labelled_data_sets(tmp_path: Path, folder: Path, run: Path) -> None:
    shown = write_hdf5(tmp_path / "demos.hdf5", policy_data.demonstrations())
    relabel([folder / "sets" / "pick"], run, tmp_path / "labels")
    data = open_training_data([shown], [tmp_path / "labels"], policy_data.INTERFACE, use_state=True)
    assert names(tmp_path, data.demonstrations) == [f"demos.hdf5#demo_{i}" for i in range(4)]
    assert len(data.videos) == 10 and data.skipped == []
    assert {e.instruction for e in data.demonstrations} == {"left", "right"}
    trained = train_policy(data.demonstrations, [], policy_data.INTERFACE, policy_data.config(steps=2, state=True),
                           tmp_path / "policy")
    assert trained.directory.is_dir()
    manifest = read_manifest(tmp_path / "labels")
    assert manifest.labelled[3].source.endswith("sets/pick#episode_3")


def test_a_demonstration_that_one_camera_breaks_is_left_out_of_all(tmp_path: Path) -> None:
    demonstrations, videos = ([dataclasses.replace(e, images={"front": e.images["front"], "wrist": e.images["front"]})
                               for e in given] for given in (policy_data.demonstrations(), policy_data.videos()))
    whole = list(demonstrations)
    demonstrations[1] = dataclasses.replace(whole[1], images={**whole[1].images, "wrist": Unreadable()})
    front = policy_data.INTERFACE.cameras["front"]
    cameras = {"front": front, "wrist": dataclasses.replace(front, topic="wrist")}
    robot = dataclasses.replace(policy_data.INTERFACE, cameras=cameras)
    (tmp_path / "demo").write_bytes(b"")  # an episode that was never a file is decoded once more, to know it by
    demonstrations[1] = dataclasses.replace(demonstrations[1], source=str(tmp_path / "demo"))
    stack, held = camera_stack(demonstrations, robot, 16, tmp_path / "cache")
    assert held == [0, 2, 3] and stack[np.arange(len(stack))].shape == (3 * 24, 2, 16, 16, 3)
    np.testing.assert_array_equal(stack[np.array([24])][0, 1], whole[2].images["front"][0])
    trained = train_policy(demonstrations, videos, robot, policy_data.config("decoded", steps=2), tmp_path / "policy")
    card = (trained.directory / "card.md").read_text()
    assert "demonstrations: 3 episodes, 72 steps" in card and "- video: 8 episodes" in card


class Unreadable:
    """A camera of which nothing can be decoded."""

    shape = (24, 16, 16, 3)

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: object) -> np.ndarray:
        raise ComoError("damaged")
