"""Relabelling: every frame decoded and encoded once, originals untouched, work taken up where it stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import signal
import stat
from collections import Counter
from pathlib import Path

import av
import bag_messages
import h5py
import numpy as np
import pytest
import torch
from moving_square import FPS, GAP_S, moving_square, tiny, write_bag
from rosbags.highlevel import AnyReader

from como_core import config
from como_core.cli import main as cli
from como_core.errors import ComoError, OutputError
from como_core.formats import labels as label_files
from como_core.formats import video_stream
from como_core.formats.bag_writer import RawBagWriter
from como_core.formats.label_bag import ACTION_TOPIC, CONFIDENCE_TOPIC, LATENT_TOPIC
from como_core.formats.labels import LabelFile, read_labels
from como_core.formats.manifest import MANIFEST, read_manifest
from como_core.formats.sources import open_sources
from como_core.formats.video import CAMERA, read_video, write_video
from como_core.formats.video_stream import NotAsListed, stream_video
from como_core.interface import load_interface
from como_core.motion.clip import CHUNK, label_clip
from como_core.motion.confidence import PARTS, combined, composition, continuity, overlap
from como_core.motion.model import MotionModel, load_motion
from como_core.motion.relabel import relabel
from como_core.motion.train import train
from como_core.resources import resource


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned the moving square."""
    out = tmp_path_factory.mktemp("relabel") / "run"
    train([moving_square(seed) for seed in range(40)], tiny("como-plus"), out)
    return out


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    for seed in range(3):
        write_video(folder / "squares" / f"{seed}.mp4", moving_square(100 + seed).images["top"], FPS)
    return folder


def hashes(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def same_labels(one: Path, other: Path) -> bool:
    a, b = read_labels(one), read_labels(other)
    assert a.parts.keys() == b.parts.keys()
    return all(np.array_equal(x, y) for x, y in zip(
        [a.timestamps, a.latent, a.confidence, *a.parts.values()],
        [b.timestamps, b.latent, b.confidence, *(b.parts[name] for name in a.parts)], strict=True))


def test_streamed_labels_are_those_of_encode(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, episode = load_motion(run), moving_square(7)
    at_once = label_clip(model, episode)
    monkeypatch.setattr("como_core.motion.clip.CHUNK", 4)
    labels = label_clip(model, episode)
    frames = episode.images["top"]
    assert labels.latent.shape == (30, 8)
    assert np.allclose(labels.latent[:28], model.encode(frames[:28], frames[2:]).numpy(), atol=1e-5)
    assert np.array_equal(labels.latent[28:], labels.latent[[27, 27]])
    assert all(np.allclose(labels.parts[part], at_once.parts[part], atol=1e-4) for part in PARTS)


def test_confidence_is_the_product_of_its_parts_and_0_where_no_frame_follows(run: Path) -> None:
    labels = label_clip(load_motion(run), moving_square(7))
    assert tuple(labels.parts) == PARTS
    assert np.allclose(labels.confidence, np.prod(list(labels.parts.values()), axis=0), atol=1e-6)
    assert np.median(labels.confidence[:28]) > 0.2
    assert (labels.confidence[28:] == 0).all()
    assert labels.confidence.max() <= 1


def test_each_frame_is_decoded_and_encoded_once(run: Path, videos: Path, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    longer = np.concatenate([moving_square(seed).images["top"] for seed in range(5)])  # several chunks
    write_video(videos / "long.mp4", longer, FPS)
    seen: Counter[str] = Counter()
    opened, features = video_stream._open, MotionModel.features

    class Counting:
        def __init__(self, container: av.container.InputContainer) -> None:
            self._container = container

        def __enter__(self) -> Counting:
            return self

        def __exit__(self, *error: object) -> None:
            self._container.close()

        def __getattr__(self, name: str) -> object:
            return getattr(self._container, name)

        def decode(self, stream: object) -> object:
            for frame in self._container.decode(stream):  # type: ignore[call-overload]
                seen["decoded"] += 1
                yield frame

    def encode(self: MotionModel, pixels: torch.Tensor, backbone: torch.Tensor | None = None) -> torch.Tensor:
        seen["encoded"] += len(pixels)
        return features(self, pixels, backbone)

    monkeypatch.setattr(video_stream, "_open", lambda path: Counting(opened(path)))
    monkeypatch.setattr("como_core.formats.video_frames._open", lambda path: pytest.fail("decoded a second time"))
    monkeypatch.setattr(MotionModel, "features", encode)
    manifest = relabel([videos], run, tmp_path / "out")
    assert sum(entry.frames for entry in manifest.labelled) == 3 * 30 + 150
    assert CHUNK < 150
    assert seen == {"decoded": 240, "encoded": 240}


def test_a_streamed_video_is_the_one_that_is_read(videos: Path) -> None:
    for path in sorted(videos.rglob("*.mp4")):
        streamed, read = stream_video(path), read_video(path)
        assert np.array_equal(streamed.timestamps, read.timestamps)
        assert np.array_equal(np.stack(list(streamed.images[CAMERA])), read.images[CAMERA][:])
        assert streamed.images[CAMERA].shape == read.images[CAMERA].shape
        assert np.array_equal(streamed.images[CAMERA][3:5], read.images[CAMERA][3:5])


def real_pts(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return sorted(packet.pts for packet in container.demux(video=0) if packet.size)


def test_a_video_that_decodes_to_other_frames_than_it_lists_is_read_again(
        run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "in" / "a.mp4"
    write_video(path, moving_square(1).images["top"], FPS)
    relabel([path], run, tmp_path / "whole")
    times = video_stream.timestamps
    lie = lambda pts, *rest: times(pts[:-3], *rest)  # noqa: E731
    real = video_stream.StreamedFrames
    monkeypatch.setattr(video_stream, "timestamps", lie)
    monkeypatch.setattr(video_stream, "StreamedFrames", lambda path, pts: real(path, pts[:-3]))
    with pytest.raises(NotAsListed, match="lists 27 frames, and decodes to others from frame 27"):
        list(stream_video(path).images[CAMERA])
    with pytest.raises(NotAsListed, match="lists 31 frames, and decodes to others from frame 30"):
        list(real(path, [*real_pts(path), 10**9]))
    manifest = relabel([path], run, tmp_path / "short")
    assert [entry.frames for entry in manifest.labelled] == [30]
    name = manifest.labelled[0].labels
    assert same_labels(tmp_path / "short" / name, tmp_path / "whole" / name)


def test_originals_stay_and_work_is_taken_up(run: Path, videos: Path, tmp_path: Path) -> None:
    (videos / "squares" / "broken.mp4").write_bytes(b"not a video")
    (videos / "squares" / "cut_off.mp4").write_bytes((videos / "squares" / "0.mp4").read_bytes()[:1500])
    write_video(videos / "squares" / "short.mp4", moving_square(0).images["top"][:2], FPS)
    before = hashes(videos)
    folders = [videos, videos / "squares"]
    for folder in folders:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        manifest = relabel([videos], run, tmp_path / "out")
        assert hashes(videos) == before
        assert [entry.sha256 for entry in manifest.labelled] == [before[videos / "squares" / f"{i}.mp4"]
                                                                 for i in range(3)]
        assert [entry.frames for entry in manifest.labelled] == [30, 30, 30]
        assert sorted(Path(e.source).name for e in manifest.skipped) == ["broken.mp4", "cut_off.mp4", "short.mp4"]
        assert "no two of them 0.1 s apart" in {Path(e.source).name: e.reason for e in manifest.skipped}["short.mp4"]
        files = sorted((tmp_path / "out").glob("*.safetensors"))
        stamps = [path.stat().st_mtime_ns for path in files]
        files[0].unlink()  # as if the first run had been broken off before it
        assert relabel([videos], run, tmp_path / "out") == manifest
        assert [path.stat().st_mtime_ns for path in files][1:] == stamps[1:]
    finally:
        for folder in folders:
            folder.chmod(stat.S_IRWXU)
    for episode in open_sources([tmp_path / "out"]).episodes:
        assert episode.latent is not None
        assert episode.latent.shape == (30, 8)
        assert episode.action is None


def test_labels_without_the_parts_of_their_confidence_are_made_anew(run: Path, videos: Path, tmp_path: Path) -> None:
    entry = relabel([videos], run, tmp_path / "out").labelled[1]
    path = tmp_path / "out" / entry.labels
    shutil.copy(path, tmp_path / "whole")
    label_files.write_labels(path, dataclasses.replace(read_labels(path), parts={}))
    relabel([videos], run, tmp_path / "out")
    assert same_labels(path, tmp_path / "whole")


def test_processes_give_the_same_labels(run: Path, videos: Path, tmp_path: Path) -> None:
    (videos / "squares" / "broken.mp4").write_bytes(b"not a video")
    one = relabel([videos], run, tmp_path / "one", workers=1)
    two = relabel([videos], run, tmp_path / "two", workers=2)
    assert two == one
    for entry in one.labelled:
        first, second = read_labels(tmp_path / "one" / entry.labels), read_labels(tmp_path / "two" / entry.labels)
        assert np.allclose(first.latent, second.latent, atol=1e-5)
        assert np.allclose(first.confidence, second.confidence, atol=1e-4)
    with pytest.raises(ComoError, match="workers must be at least 1, got 0"):
        relabel([videos], run, tmp_path / "none", workers=0)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_ends_the_work(workers: int, run: Path, videos: Path, tmp_path: Path,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    names = [entry.labels for entry in relabel([videos], run, out).labelled]
    shutil.rmtree(out)
    (out / names[0]).mkdir(parents=True)  # what stands in the way of the first label file
    with pytest.raises(OutputError, match=f"{names[0]}: cannot be written"):
        relabel([videos], run, out, workers=workers)
    listed = [entry.labels for entry in read_manifest(out).labelled]
    assert names[0] not in listed and all((out / name).is_file() for name in listed)
    assert workers > 1 or not listed, "only another process may have done some by then"


def test_labels_of_two_models_do_not_mix(run: Path, videos: Path, tmp_path: Path) -> None:
    relabel([videos], run, tmp_path / "out")
    train([moving_square(0)], tiny(steps=2), tmp_path / "other")
    with pytest.raises(ComoError, match="holds labels of the model run@.*these would be of other@"):
        relabel([videos], tmp_path / "other", tmp_path / "out")


def test_an_empty_folder_among_others_is_named(run: Path, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = relabel([tmp_path / "empty", videos], run, tmp_path / "out")
    (left,) = done.skipped
    assert done.labelled and left.reason.startswith(f"{tmp_path}/empty: no recording at or below it (expected videos")


def test_an_output_that_cannot_be_written_is_said_before_the_work(run: Path, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/out: cannot be written: Not a directory"):
        relabel([videos], run, tmp_path / "file" / "out")


def test_nothing_to_label_is_said(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ComoError, match=r"empty: no recording could be labelled:\n  .*empty: no recording at or below"):
        relabel([tmp_path / "empty"], run, tmp_path / "out")
    with pytest.raises(ComoError, match="no path: no recording could be labelled; expected videos"):
        relabel([], run, tmp_path / "out")


def test_the_command_says_what_was_done_and_left_out(run: Path, videos: Path, tmp_path: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    (videos / "broken.mp4").write_bytes(b"not a video")
    words = ["relabel", str(videos), "--model", str(run), "-o", str(tmp_path / "out"), "--engine", "local"]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "3 recordings, 90 frames labelled" in shown
    assert "1 skipped:" in shown
    assert "broken.mp4: cannot be read as a video" in shown
    assert "frames/s" in shown


def test_a_bag_gets_a_sidecar_on_its_own_clock(run: Path, tmp_path: Path) -> None:
    write_bag(tmp_path / "bags" / "0003", moving_square(303))
    manifest = relabel([tmp_path / "bags"], run, tmp_path / "out")
    entry = manifest.labelled[0]
    assert entry.sidecar is not None
    with AnyReader([tmp_path / "out" / entry.sidecar]) as bag:
        messages = [bag.deserialize(raw, c.msgtype) for c, _, raw in bag.messages() if c.topic == LATENT_TOPIC]
    assert len(messages) == entry.frames == 30
    stamps = [message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in messages]
    assert stamps == [t * 25_000_000 for t in range(1, 31)]
    latent = open_sources([tmp_path / "out"]).episodes[0].latent
    assert np.allclose([message.position for message in messages], latent)


def test_pictures_of_a_bag_that_share_a_stamp_are_in_the_manifest_and_said(
        run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RawBagWriter(tmp_path / "bags" / "foreign", {}) as bag:
        for t, picture in enumerate(moving_square(304).images["top"], start=1):
            stamp = (t - t % 10 // 9) * 25_000_000  # the ninth of ten has the stamp of the eighth
            bag.write("/image", "sensor_msgs/msg/Image", t * 25_000_000, bag_messages.image(stamp, picture))
    words = ["relabel", str(tmp_path / "bags"), "--model", str(run), "-o", str(tmp_path / "out")]
    for _ in ("labelled now", "labelled before"):
        assert cli.main(words) == 0
        said = "foreign: 3 of 30 pictures on '/image' are left out: they have the header stamp of a later one"
        assert said in (shown := capsys.readouterr().out) and "1 recordings, 27 frames labelled" in shown
        manifest = read_manifest(tmp_path / "out")
        assert manifest.labelled[0].frames == 27 and said in manifest.skipped[0].reason
        assert len(open_sources([tmp_path / "out"]).episodes[0]) == 27


def test_a_bag_of_several_cameras_without_an_interface_is_labelled_by_the_one_that_is_given(
        run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    robot = load_interface(resource("config/interfaces/metaworld.yaml"))
    front = robot.cameras["front"]
    config.save(dataclasses.replace(robot, cameras={"side": dataclasses.replace(front, topic="/side/image")}),
                tmp_path / "robot.yaml")
    episode = moving_square(304)
    with RawBagWriter(tmp_path / "bags" / "foreign", {}) as bag:
        for t, picture in enumerate(episode.images["top"], start=1):
            at, pixels = t * 25_000_000, picture.repeat(2, axis=0).repeat(2, axis=1)
            for topic, shown in (("/side/image", pixels), ("/front/image", 0 * pixels)):
                bag.write(topic, "sensor_msgs/msg/Image", at, bag_messages.image(at, shown))
            bag.write("/ee_pose", "geometry_msgs/msg/PoseStamped", at, bag_messages.pose(at, (0, 0, 0)))
            bag.write("/joint_states", "sensor_msgs/msg/JointState", at, bag_messages.joints(at, {"gripper": 0.0}))
    words = ["relabel", str(tmp_path / "bags"), "--model", str(run), "-o", str(tmp_path / "out")]
    assert cli.main(words) == 2
    assert "2 image topics (/front/image, /side/image)" in (said := capsys.readouterr().err) and "--interface" in said
    assert cli.main([*words, "--interface", str(tmp_path / "robot.yaml")]) == 0
    labels = read_labels(next((tmp_path / "out").glob("*.labels.safetensors")))
    alone = label_clip(load_motion(run), dataclasses.replace(episode, timestamps=labels.timestamps))
    assert np.allclose(labels.latent, alone.latent, atol=1e-5), "of the camera that the interface names"
    config.save(dataclasses.replace(robot, cameras={"front": dataclasses.replace(front, topic="/front/image")}),
                tmp_path / "robot.yaml")
    assert cli.main([*words, "--interface", str(tmp_path / "robot.yaml")]) == 0
    dark = read_labels(next((tmp_path / "out").glob("*.labels.safetensors")))
    assert not np.allclose(dark.latent, labels.latent, atol=1e-5), "of the other camera, made anew"
    assert cli.main([*words[:-1], str(tmp_path / "topic"), "--camera", "/side/image"]) == 0
    side = read_labels(next((tmp_path / "topic").glob("*.labels.safetensors")))
    assert np.array_equal(side.latent, labels.latent), "the same pictures, by their topic"
    capsys.readouterr()
    assert cli.main([*words[:-1], str(tmp_path / "none"), "--camera", "/back/image"]) == 2
    assert "(/front/image, /side/image), none of which is '/back/image'" in capsys.readouterr().err


def test_a_folder_takes_the_labels_of_one_camera(run: Path, tmp_path: Path) -> None:
    sets, out = tmp_path / "lift.hdf5", tmp_path / "out"
    with h5py.File(sets, "w") as file:
        for name, seed in (("left", 40), ("right", 50)):
            file[f"data/demo_0/obs/{name}_image"] = moving_square(seed).images["top"]
        file["data/demo_0/actions"] = moving_square(40).action
    relabel([sets], run, out)
    first = read_manifest(out)
    for camera in ("right", "nowhere"):
        with pytest.raises(ComoError, match=f"holds labels of each recording's first camera.*of camera '{camera}'"):
            relabel([sets], run, out, camera=camera)
    assert read_manifest(out) == first
    relabel([sets], run, tmp_path / "right", camera="right")
    left, right = (read_labels(folder / first.labelled[0].labels) for folder in (out, tmp_path / "right"))
    assert not np.allclose(left.latent, right.latent)
    (out / MANIFEST).unlink()  # label files say it too, each for itself
    relabel([sets], run, out, camera="right")
    assert same_labels(out / first.labelled[0].labels, tmp_path / "right" / first.labelled[0].labels)
    with pytest.raises(ComoError, match=r"demo_0: has no camera 'nowhere'; it has"):
        relabel([sets], run, tmp_path / "none", camera="nowhere")


def test_a_name_that_is_not_utf8_or_very_long_is_labelled_like_any_other(
        run: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd, long = videos / os.fsdecode(b"caf\xe9.mp4"), videos / ("x" * 125 + "\u00e9" * 60 + ".mp4")
    shutil.copy(videos / "squares" / "0.mp4", odd)
    shutil.copy(videos / "squares" / "1.mp4", long)
    bag = tmp_path / "bags" / ("y" * 240)
    write_bag(bag, moving_square(305))
    (videos / os.fsdecode(b"broken\xe9.mp4")).write_bytes(b"not a video")
    words = ["relabel", str(videos), str(bag.parent), "--model", str(run), "-o", str(tmp_path / "out")]
    assert cli.main(words) == 0
    assert "6 recordings" in (said := capsys.readouterr().out) and r"broken\udce9.mp4: cannot be read" in said
    manifest = read_manifest(tmp_path / "out")
    assert max(len(entry.labels.encode()) for entry in manifest.labelled) < 220
    found = open_sources([tmp_path / "out"])
    assert not found.skipped and len(found.episodes) == 6
    assert {Path(e.source) for e in found.episodes} >= {odd, long, bag}
    assert read_labels(tmp_path / "out" / next(e.labels for e in manifest.labelled if "caf" in e.source)
                       ).source == rf"{videos}/caf\udce9.mp4"
    assert relabel([videos, bag.parent], run, tmp_path / "out") == manifest


def test_labels_may_lie_among_their_recordings_and_never_in_one(run: Path, videos: Path, tmp_path: Path) -> None:
    squares = videos / "squares"
    write_bag(squares / "bag", moving_square(306))
    assert len(relabel([squares], run, squares).labelled) == 4
    shutil.copy(squares / "0.mp4", squares / "later.mp4")
    found = open_sources([squares])
    assert len(found.episodes) == 5 and not found.skipped, "the bag of labels is no recording"
    assert [Path(e.source).name for e in found.episodes if e.latent is None] == ["later.mp4"]
    assert len(relabel([squares], run, squares).labelled) == 5
    before = hashes(squares / "bag")
    for inside in (squares / "bag", squares / "bag" / "labels"):
        with pytest.raises(OutputError, match="is a part of the recording .*bag, which is never written"):
            relabel([squares], run, inside)
    assert hashes(squares / "bag") == before


def test_what_was_there_before_is_guarded(run: Path, videos: Path, tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    whole = relabel([videos], run, out)
    train([moving_square(0)], tiny(steps=2), tmp_path / "other")
    (out / MANIFEST).unlink()
    kept = hashes(out)
    with pytest.raises(ComoError, match="holds labels of the model run@.*these would be of other@"):
        relabel([videos], tmp_path / "other", out)
    for text, why in (('{"name": "shop"}', "is not a list of labels made by"), ('{"format": ', "cannot be read")):
        (out / MANIFEST).write_text(text)
        with pytest.raises(OutputError, match=f"{why}.*complete label files are not made anew"):
            relabel([videos], run, out)
        assert (out / MANIFEST).read_text() == text
    (out / MANIFEST).unlink()
    assert relabel([videos], run, out) == whole
    assert {path: kept[path] for path in kept if path.suffix == ".safetensors"}.items() <= hashes(out).items()


def test_recordings_that_are_gone_or_broken_since_are_told(run: Path, videos: Path, tmp_path: Path,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    out, squares = tmp_path / "out", videos / "squares"
    relabel([videos], run, out)
    whole = (squares / "1.mp4").read_bytes()
    (squares / "0.mp4").unlink()
    (squares / "1.mp4").write_bytes(whole[:1500])
    words = ["relabel", str(videos), "--model", str(run), "-o", str(out)]
    assert cli.main(words) == 0
    assert [Path(entry.source).name for entry in read_manifest(out).labelled] == ["0.mp4", "2.mp4"]
    said = capsys.readouterr().out
    assert "2 recordings, 60 frames labelled" in said and "1 skipped:" in said
    assert f"1 of them, labelled before, are not there now; their labels are kept:\n  {squares / '0.mp4'}" in said
    (squares / "1.mp4").write_bytes(whole)
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    assert len(relabel([videos], run, out).labelled) == 3
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.safetensors")} == stamps, "found again, not remade"


@pytest.mark.parametrize("every_s", [0.0, 1e9])
def test_a_run_that_is_broken_off_leaves_a_manifest_of_what_it_did(
        every_s: float, run: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def listed() -> list[str]:
        return [Path(entry.source).name for entry in read_manifest(tmp_path / "out").labelled]

    def write(path: Path, labels: LabelFile) -> None:
        if "_2-" in path.name:
            at_the_time.extend(listed())
            os.kill(os.getpid(), signal.SIGINT)
        label_files.write_labels(path, labels)

    at_the_time: list[str] = []
    monkeypatch.setattr("como_core.motion.relabel._WRITE_EVERY_S", every_s)
    monkeypatch.setattr("como_core.motion.labeller.write_labels", write)
    with pytest.raises(KeyboardInterrupt):
        relabel([videos], run, tmp_path / "out", workers=1)
    assert listed() == ["0.mp4", "1.mp4"]
    assert at_the_time == ([] if every_s else ["0.mp4", "1.mp4"]), "so that a kill, too, costs seconds"


def test_where_nothing_can_be_labelled_every_reason_is_named(run: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for i in range(22):
        (tmp_path / "videos" / f"{i:02}.mp4").write_bytes(b"not a video")
    with pytest.raises(ComoError) as found:
        relabel([tmp_path / "videos"], run, tmp_path / "out")
    lines = str(found.value).splitlines()
    assert lines[0].endswith("no recording could be labelled:") and len(lines) == 22
    assert all(f"{i:02}.mp4: cannot be read as a video" in lines[i + 1] for i in range(20))
    assert lines[-1] == "  and 2 more, which manifest.json names"
    assert len(read_manifest(tmp_path / "out").skipped) == 22


def test_demonstrations_make_pseudo_actions_beside_every_bag(run: Path, tmp_path: Path,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(6):
        write_bag(tmp_path / ("demos" if seed < 5 else "more") / f"{seed}", moving_square(400 + seed))
    before = hashes(tmp_path)
    words = ["relabel", str(tmp_path / "demos"), str(tmp_path / "more"), "--model", str(run), "-o",
             str(tmp_path / "out"), "--demos", str(tmp_path / "demos")]
    assert cli.main(words) == 0
    assert "6 bags of labels with pseudo-actions; R2 on left-out demonstrations: " in capsys.readouterr().out
    assert all(hashes(tmp_path)[path] == digest for path, digest in before.items()), "originals are only read"
    sidecar, = (tmp_path / "out").glob("more_5-*/metadata.yaml")
    sent = {topic: [] for topic in (ACTION_TOPIC, CONFIDENCE_TOPIC)}
    with AnyReader([sidecar.parent]) as bag:
        for connection, _, raw in bag.messages():
            if connection.topic in sent:
                sent[connection.topic].append(bag.deserialize(raw, connection.msgtype))
    assert sent[ACTION_TOPIC][0].name == ["linear.x", "linear.y", "linear.z", "gripper"]
    assert sent[CONFIDENCE_TOPIC][0].name == ["confidence", "pseudo_action"]
    assert [m.header.stamp for m in sent[ACTION_TOPIC]] == [m.header.stamp for m in sent[CONFIDENCE_TOPIC]]
    decoded = np.array([message.position for message in sent[ACTION_TOPIC]])
    done = moving_square(405).action
    for axis in range(2):
        assert np.corrcoef(decoded[:-2, axis], done[:-2, axis])[0, 1] > 0.5, "what the arm was told is read from z"
    assert all(0 <= value <= 1 for message in sent[CONFIDENCE_TOPIC] for value in message.position)


def test_a_scene_cut_costs_all_confidence_and_nothing_elsewhere(run: Path) -> None:
    model, episode = load_motion(run), moving_square(7)
    usual = label_clip(model, episode).confidence
    frames = episode.images["top"][:].copy()
    frames[15:] = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    cut = label_clip(model, dataclasses.replace(episode, images={"top": frames})).confidence
    assert cut[13:15].max() < 0.01
    assert np.allclose(cut[:10], usual[:10], atol=0.05)


def test_a_picture_that_stands_still_has_labels_of_no_motion(run: Path) -> None:
    episode = moving_square(7)
    still = np.repeat(episode.images["top"][:1], 30, axis=0)
    labels = label_clip(load_motion(run), dataclasses.replace(episode, images={"top": still}))
    moving = label_clip(load_motion(run), episode).latent
    assert np.linalg.norm(labels.latent, axis=1).max() < 1e-3 * np.median(np.linalg.norm(moving, axis=1))
    assert np.isfinite(labels.confidence).all()
    assert (labels.parts["overlap"][:28] > 0.99).all()
    assert (labels.parts["continuity"][:28] == 1).all()


def test_overlap_is_one_for_steady_motion_and_falls_with_a_jump() -> None:
    times, steady = np.arange(9) / 20, np.outer(np.arange(1, 10), [1.0, 2.0])
    assert np.allclose(overlap(steady, times, GAP_S)[1:-1], 1)
    jump = steady.copy()
    jump[4] *= -1
    assert overlap(jump, times, GAP_S)[4] == 0
    assert overlap(jump, times, GAP_S)[[1, 7]].min() == 1


def test_a_model_that_never_composes_keeps_its_confidence() -> None:
    rng = np.random.default_rng(0)
    never = 1.8 * rng.uniform(0.8, 1.2, 50)
    assert (composition(never, np.ones(50)) == 1).all()
    seldom = np.full(50, 0.07)
    seldom[20] = 2.0
    assert composition(seldom, np.ones(50))[20] == pytest.approx(0.25)
    assert (np.delete(composition(seldom, np.ones(50)), 20) == 1).all()
    rests = np.concatenate([never, np.zeros(80)])
    assert (composition(rests, np.repeat([1.0, 1e-3], [50, 80])) == 1).all()


def test_continuity_tells_cuts_from_motion_that_begins_and_from_noise() -> None:
    first = np.arange(28)
    rest = np.full(29, 0.002)
    begins = rest.copy()
    begins[15:] = 0.1
    assert continuity(begins, first, first + 2).min() == 1
    cut = rest + 0.05
    cut[15] = 0.4
    found = continuity(cut, first, first + 2)
    assert (found[[14, 15]] == 0).all()
    assert np.delete(found, [14, 15]).min() == 1
    flash = rest + 0.05
    flash[15:17] = 0.4  # a single broken picture
    assert (continuity(flash, first, first + 2)[14:17] == 0).all()
    noise = rest.copy()
    noise[15] = 0.01  # a grey level and a quarter
    assert continuity(noise, first, first + 2).min() == 1
    assert continuity(np.array([0.3]), np.array([0]), np.array([1])).tolist() == [0]


def test_parts_are_multiplied() -> None:
    assert combined({"a": np.array([0.5, 1.0]), "b": np.array([0.5, 0.2])}) == pytest.approx([0.25, 0.2])


def test_originals_are_not_even_opened_for_writing(run: Path, videos: Path, tmp_path: Path) -> None:
    """Root passes a read-only folder; times of change tell it as well."""
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in videos.rglob("*")}
    relabel([videos], run, tmp_path / "out")
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in videos.rglob("*")} == before
    assert set(os.listdir(videos / "squares")) == {"0.mp4", "1.mp4", "2.mp4"}
