"""Folders of everything: what can be read is read, what cannot is named and counted, labels find their recording."""

import shutil

import numpy as np
import pytest

from como_core.errors import ComoError
from como_core.formats.labels import LabelFile, sha256_of, write_labels
from como_core.formats.lazy import CAMERA
from como_core.formats.manifest import (
    MANIFEST,
    LabelledSource,
    Manifest,
    SkippedSource,
    read_manifest,
    relative_to,
    write_manifest,
)
from como_core.formats.rosbag import frame_stamps_ns
from como_core.formats.sources import open_sources
from como_core.formats.video import read_video, write_video


@pytest.fixture
def folder(tmp_path):
    """videos/drawer/{0,1}.mp4 with an instruction, videos/broken.mp4."""
    rng = np.random.default_rng(0)
    for i in range(2):
        write_video(tmp_path / "videos" / "drawer" / f"{i}.mp4", rng.integers(0, 255, (6, 16, 16, 3), np.uint8), fps=40)
    (tmp_path / "videos" / "drawer" / "instruction.txt").write_text("drawer open")
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "videos" / "notes.txt").write_text("not a recording")
    return tmp_path


def label(folder, names):
    """What `como relabel` leaves in folder/relabeled for the videos of those names."""
    entries = []
    for i, name in enumerate(names):
        video = folder / "videos" / name
        episode = read_video(video)
        latent = np.full((len(episode), 3), i, np.float32)
        labels = LabelFile(episode.timestamps, latent, np.ones(len(episode), np.float32), str(video), sha256_of(video),
                           "runs/motion", 0.05)
        write_labels(folder / "relabeled" / f"{i}.labels.safetensors", labels)
        entries.append(LabelledSource(relative_to(video, folder / "relabeled"), labels.source_sha256,
                                      f"{i}.labels.safetensors", len(episode)))
    manifest = Manifest("runs/motion", 0.05, tuple(entries), (SkippedSource("../videos/broken.mp4", "no video"),))
    write_manifest(folder / "relabeled", manifest)
    return manifest


def test_good_recordings_are_read_and_broken_ones_named_and_counted(folder):
    sources = open_sources([folder / "videos"])
    assert [e.source for e in sources.episodes] == [str(folder / "videos" / "drawer" / f"{i}.mp4") for i in range(2)]
    assert {e.instruction for e in sources.episodes} == {"drawer open"}
    assert [path for path, _ in sources.skipped] == [folder / "videos" / "broken.mp4"]
    summary = sources.summary()
    assert summary.startswith("2 episodes read, 1 skipped:\n") and "broken.mp4: cannot be read as a video" in summary


def test_each_recording_is_read_once_however_often_it_is_named(folder):
    drawer = folder / "videos" / "drawer"
    given = [drawer / "1.mp4", folder / "videos", drawer, drawer / ".." / "drawer" / "0.mp4"]
    sources = open_sources(given)
    assert [e.source[-5:] for e in sources.episodes] == ["1.mp4", "0.mp4"] and len(sources.skipped) == 1


def test_labels_come_with_the_recordings_that_the_manifest_names(folder):
    manifest = label(folder, ["drawer/0.mp4", "drawer/1.mp4"])
    assert read_manifest(folder / "relabeled") == manifest
    for given in ([folder / "relabeled"], [folder / "videos" / "drawer", folder / "relabeled"],
                  [folder / "relabeled", folder / "videos" / "drawer"]):
        episodes = open_sources(given).episodes
        assert [float(e.latent[0, 0]) for e in episodes] == [0, 1] and len(episodes) == 2
        assert episodes[0].confidence.shape == (6,) and episodes[0].instruction == "drawer open"


def test_the_whole_tree_can_move(folder, tmp_path_factory):
    label(folder, ["drawer/0.mp4"])
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "data"
    shutil.move(folder, elsewhere)
    assert open_sources([elsewhere / "relabeled"]).episodes[0].latent is not None


def test_a_recording_that_changed_or_went_is_skipped_and_named(folder):
    label(folder, ["drawer/0.mp4", "drawer/1.mp4"])
    write_video(folder / "videos" / "drawer" / "0.mp4", np.zeros((6, 16, 16, 3), np.uint8), fps=40)
    sources = open_sources([folder / "relabeled"])
    assert len(sources.episodes) == 1
    assert "0.mp4: labels belong to another recording" in sources.summary()
    (folder / "videos" / "drawer" / "1.mp4").unlink()
    with pytest.raises(ComoError, match=r"(?s)no recording that can be read; 0 episodes read, 2 skipped.*1.mp4"):
        open_sources([folder / "relabeled"])


def test_a_damaged_manifest_is_named_and_a_foreign_one_is_no_manifest(folder):
    label(folder, ["drawer/0.mp4"])
    path = folder / "relabeled" / MANIFEST
    path.write_text(path.read_text().replace('"gap_s"', '"gap"'))
    with pytest.raises(ComoError, match=r"relabeled/manifest.json: unknown key 'gap'; did you mean 'gap_s'"):
        open_sources([folder / "relabeled"])
    path.write_text('{"dataset": "somebody\'s"}')
    with pytest.raises(ComoError, match="relabeled: no recording that can be read"):
        open_sources([folder / "relabeled"])
    with pytest.raises(ComoError, match="is not a list of labels made by `como relabel`"):
        read_manifest(folder / "relabeled")


def test_a_path_that_does_not_exist_is_an_error_and_not_a_skip(folder):
    with pytest.raises(ComoError, match="nowhere: no such file or folder"):
        open_sources([folder / "videos", folder / "nowhere"])
    with pytest.raises(ComoError, match="no path: no recording that can be read"):
        open_sources([])


def test_progress_sees_every_recording(folder):
    seen = []
    open_sources([folder / "videos"], progress=lambda paths: (seen.append(path.name) or path for path in paths))
    assert seen == ["broken.mp4", "0.mp4", "1.mp4"]


def test_everything_that_is_shared_is_read_or_refused_with_a_reason(shared_data):
    sources = open_sources([shared_data / "video" / "sim", shared_data / "bags"])
    assert len(sources.episodes) == 3 and all(CAMERA in e.images for e in sources.episodes)
    assert len(sources.skipped) == 18, "none of the shared bags is an episode"
    assert all(str(path) in reason and "\n" not in reason for path, reason in sources.skipped)
    with pytest.raises(ComoError, match="has no header stamps"):
        frame_stamps_ns(sources.episodes[0])


def test_links_are_followed_once_and_those_to_nothing_are_named(folder):
    drawer = folder / "videos" / "drawer"
    for name in ("loop_a", "loop_b"):
        (drawer / name).symlink_to(folder / "videos", target_is_directory=True)
    (folder / "elsewhere").mkdir()
    shutil.copy(drawer / "0.mp4", folder / "elsewhere" / "2.mp4")
    (folder / "videos" / "linked").symlink_to(folder / "elsewhere", target_is_directory=True)
    for name in ("lost.mp4", "lost"):
        (folder / "videos" / name).symlink_to(folder / "nowhere")
    sources = open_sources([folder / "videos"])
    assert [e.source for e in sources.episodes] == [str(drawer / "0.mp4"), str(drawer / "1.mp4"),
                                                    str(folder / "videos" / "linked" / "2.mp4")]
    assert [(path.name, reason.partition(": ")[2]) for path, reason in sources.skipped if path.is_symlink()] == [
        (name, f"is a link to {folder / 'nowhere'}, which is not there") for name in ("lost", "lost.mp4")]
    assert len(sources.skipped) == 3
