"""The motion model on small videos of a moving square: training, probe, relabelling, and what a user sees of each."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import bag_messages
import numpy as np
import pytest
import torch
from rosbags.highlevel import AnyReader

from como_core import config
from como_core.cli import motion as cli
from como_core.cli.relabel import relabel as cli_relabel
from como_core.episode import Episode
from como_core.errors import ComoError, OutputError
from como_core.formats.label_bag import LATENT_TOPIC
from como_core.formats.rosbag import BagWriter
from como_core.formats.sources import open_sources
from como_core.formats.video import write_video
from como_core.interface import load_interface
from como_core.motion.clip import agreement, encode_pairs, label_clip
from como_core.motion.config import MotionConfig, load_preset
from como_core.motion.evaluate import evaluate
from como_core.motion.model import load_motion
from como_core.motion.probe import run_probe, window_sums
from como_core.motion.relabel import relabel
from como_core.motion.train import train
from como_core.resources import resource

FPS = 20
GAP_S = 0.1


def moving_square(seed: int, steps: int = 30) -> Episode:
    """A bright square on a fixed random background; the action is its velocity in pixels per step."""
    rng = np.random.default_rng(seed)
    background = np.random.default_rng(0).integers(0, 120, (32, 32, 3), dtype=np.uint8)
    action = np.repeat(rng.uniform(-3, 3, (steps // 5, 2)), 5, axis=0).astype(np.float32)
    place, pictures = rng.uniform(6, 18, 2), []
    for t in range(steps):
        picture = background.copy()
        y, x = np.round(place).astype(int)
        picture[y:y + 8, x:x + 8] = 255
        pictures.append(picture)
        moved = np.clip(place + action[t], 0, 24)
        action[t] = moved - place
        place = moved
    return Episode(np.arange(steps) / FPS, {"top": np.stack(pictures)}, f"square#{seed}", action=action)


def tiny(preset: str = "como", steps: int = 150) -> MotionConfig:
    base = load_preset(preset)
    loop = dataclasses.replace(base.loop, steps=steps, batch_size=32, learning_rate=3e-3, precision="no",
                               save_every=50)
    inverse = dataclasses.replace(base.inverse, width=32, hidden=64)
    forward = dataclasses.replace(base.forward, width=32, coarse_width=32)
    return dataclasses.replace(base, loop=loop, inverse=inverse, forward=forward, gap_s=GAP_S, image_size=32,
                               latent_size=8)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on 40 clips; only their pictures are read."""
    out = tmp_path_factory.mktemp("motion") / "run"
    clips = [dataclasses.replace(moving_square(seed), action=None, provenance=None) for seed in range(40)]
    train(clips, tiny(), out)
    return out


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for seed in range(3):
        write_video(folder / "squares" / f"{seed}.mp4", moving_square(100 + seed).images["top"], FPS)
    return folder


def test_z_knows_more_of_the_motion_than_the_pca_does(run: Path, tmp_path: Path) -> None:
    held_out = [moving_square(seed) for seed in range(200, 230)]
    report = evaluate(load_motion(run), held_out, ["down", "right"], cache=tmp_path)
    rows = {row.features: row for row in report.rows}
    assert rows["mean of the actions"].r2.mean < 0.05
    assert rows["z"].r2.mean > 0.6
    assert report.gain.low > 0.3
    assert rows["z"].r2.low < rows["z"].r2.mean < rows["z"].r2.high
    assert report.reconstruction_gain > 0.2
    assert report.episodes == 30
    json.dumps(report.to_dict())


def test_a_loaded_model_says_what_the_trained_one_said(run: Path, tmp_path: Path) -> None:
    clips = [moving_square(seed) for seed in range(4)]
    model, history = train(clips, tiny(steps=20), tmp_path)
    frames = moving_square(9).images["top"]
    assert torch.equal(model.encode(frames[:5], frames[2:7]), load_motion(tmp_path).encode(frames[:5], frames[2:7]))
    assert "20 steps of 32, seed 0" in (tmp_path / "card.md").read_text()
    assert set(history.terms) == {"loss", "pixel", "contrast"}


def test_batches_come_from_the_seed_and_name_their_files(tmp_path: Path) -> None:
    clips = [moving_square(seed) for seed in range(4)]
    first, _ = train(clips, tiny(steps=5), tmp_path / "a")
    again, _ = train(clips, tiny(steps=5), tmp_path / "b")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    broken = dataclasses.replace(tiny(steps=5), loop=dataclasses.replace(tiny(steps=5).loop, learning_rate=1e30))
    with pytest.raises(ComoError, match=r"training stopped.*square#0, square#1"):
        train(clips, broken, tmp_path / "c")


def test_streamed_pairs_are_those_of_encode(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("como_core.motion.clip._CHUNK", 4)
    model, frames = load_motion(run), moving_square(7).images["top"]
    for gap in (2, 9):
        first = np.arange(30 - gap)
        latent, rebuilt = encode_pairs(model, frames, first, first + gap)
        assert np.allclose(latent, model.encode(frames[first], frames[first + gap]).numpy(), atol=1e-5)
        assert rebuilt.shape == first.shape


def test_every_step_has_a_label_and_the_end_has_no_confidence(run: Path) -> None:
    model, episode = load_motion(run), moving_square(7)
    latent, confidence = label_clip(model, episode)
    frames = episode.images["top"]
    assert latent.shape == (30, 8)
    assert np.allclose(latent[:28], model.encode(frames[:28], frames[2:]).numpy(), atol=1e-5)
    assert np.array_equal(latent[28:], latent[[27, 27]])
    assert np.median(confidence[:28]) > 0.2
    assert confidence.min() >= 0
    assert confidence.max() <= 1
    assert (confidence[28:] == 0).all()


def test_a_scene_cut_and_a_glitch_cost_confidence(run: Path) -> None:
    model, episode = load_motion(run), moving_square(7)
    _, usual = label_clip(model, episode)
    frames = episode.images["top"][:].copy()
    frames[15:] = np.random.default_rng(3).integers(0, 256, frames[15:].shape, dtype=np.uint8)
    _, confidence = label_clip(model, dataclasses.replace(episode, images={"top": frames}))
    assert confidence[13:15].max() < 0.5 * np.median(usual[:28])
    assert np.array_equal(confidence[:10], usual[:10])


def test_agreement_is_one_for_steady_motion_and_falls_with_a_jump() -> None:
    times, steady = np.arange(9) / 20, np.outer(np.arange(1, 10), [1.0, 2.0])
    assert np.allclose(agreement(steady, times, GAP_S)[1:-1], 1)
    jump = steady.copy()
    jump[4] *= -1
    assert agreement(jump, times, GAP_S)[4] == 0
    assert agreement(jump, times, GAP_S)[[1, 7]].min() == 1


def test_relabel_leaves_originals_alone_and_resumes(run: Path, videos: Path, tmp_path: Path) -> None:
    bad = videos / "squares" / "broken.mp4"
    bad.write_bytes(b"not a video")
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in videos.rglob("*") if path.is_file()}
    manifest = relabel([videos], run, tmp_path / "out")
    assert {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in before} == before
    assert [entry.frames for entry in manifest.labelled] == [30, 30, 30]
    assert [Path(entry.source).name for entry in manifest.skipped] == ["broken.mp4"]
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    stamps = [path.stat().st_mtime_ns for path in files]
    files[0].unlink()  # as if the first run had been broken off before it
    assert relabel([videos], run, tmp_path / "out") == manifest
    assert [path.stat().st_mtime_ns for path in files][1:] == stamps[1:]
    episodes = open_sources([tmp_path / "out"]).episodes
    assert len(episodes) == 3
    for episode in episodes:
        assert episode.latent is not None
        assert episode.latent.shape == (30, 8)
        assert episode.confidence is not None
        assert episode.action is None


def test_labels_of_two_models_do_not_mix(run: Path, videos: Path, tmp_path: Path) -> None:
    relabel([videos], run, tmp_path / "out")
    train([moving_square(0)], tiny(steps=2), tmp_path / "other")
    with pytest.raises(ComoError, match="holds labels of the model run@.*these would be of other@"):
        relabel([videos], tmp_path / "other", tmp_path / "out")


def test_an_output_that_cannot_be_written_is_said_before_the_work(run: Path, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/out: cannot be written: Not a directory"):
        relabel([videos], run, tmp_path / "file" / "out")


def test_commands_say_what_they_did(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.train((videos,), tmp_path / "run", preset=str(_preset_file(tmp_path)), steps=3)
    assert "next: como relabel" in capsys.readouterr().out
    cli_relabel((videos,), tmp_path / "run", tmp_path / "labels")
    assert "3 recordings, 90 frames labelled" in capsys.readouterr().out
    with pytest.raises(ComoError, match="none of 3 recordings has actions and says what they mean"):
        cli.evaluate(tmp_path / "run", (videos,))


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten recorded bags; the arm is the moving square."""
    folder = tmp_path_factory.mktemp("bags")
    robot = load_interface(resource("config/interfaces/metaworld.yaml"))
    period_ns = 25_000_000
    for seed in range(10):
        episode = moving_square(300 + seed)
        assert episode.action is not None
        with BagWriter(folder / f"{seed:04d}", robot, "push") as bag:
            bag.write("/gripper_command", "std_msgs/msg/Float64", period_ns, bag_messages.number(0))
            for t, (picture, action) in enumerate(zip(episode.images["top"], episode.action, strict=True), start=1):
                at = t * period_ns
                pixels = picture.repeat(2, axis=0).repeat(2, axis=1)
                bag.write("/camera/image_raw", "sensor_msgs/msg/Image", at, bag_messages.image(at, pixels))
                bag.write("/ee_pose", "geometry_msgs/msg/PoseStamped", at, bag_messages.pose(at, (0, 0, 0)))
                bag.write("/joint_states", "sensor_msgs/msg/JointState", at, bag_messages.joints(at, {"gripper": 0.0}))
                bag.write("/servo/delta_twist_cmds", "geometry_msgs/msg/TwistStamped", at,
                          bag_messages.twist(at, (*action, action.sum())))
    return folder


def test_eval_reads_bags(run: Path, bags: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.evaluate(run, (bags,), cache=tmp_path)
    shown = capsys.readouterr().out
    assert "PCA of the RGB difference" in shown
    assert "10 episodes read" in shown
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["actions"] == ["linear.x", "linear.y", "linear.z"]
    assert [row["features"] for row in metrics["rows"]][-1] == "z"
    assert metrics["rows"][-1]["r2"]["mean"] > 0.3


def test_a_bag_gets_a_sidecar_on_its_own_clock(run: Path, bags: Path, tmp_path: Path) -> None:
    manifest = relabel([bags / "0003"], run, tmp_path / "out")
    entry = manifest.labelled[0]
    assert entry.sidecar is not None
    with AnyReader([tmp_path / "out" / entry.sidecar]) as bag:
        messages = [bag.deserialize(raw, c.msgtype) for c, _, raw in bag.messages() if c.topic == LATENT_TOPIC]
    assert len(messages) == entry.frames == 30
    stamps = [message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in messages]
    assert stamps == [t * 25_000_000 for t in range(1, 31)]
    latent = open_sources([tmp_path / "out"]).episodes[0].latent
    assert np.allclose([message.position for message in messages], latent)


def _preset_file(folder: Path) -> Path:
    path = folder / "tiny.yaml"
    config.save(tiny(), path)
    return path


def test_the_probe_holds_out_whole_episodes() -> None:
    rng = np.random.default_rng(0)
    episode = np.repeat(np.arange(20), 30)
    offset = rng.standard_normal((20, 2))[episode]
    identity = np.eye(20)[episode]  # tells an episode's own mean, and nothing of any other
    target = offset + 0.1 * rng.standard_normal((600, 2))
    leak = run_probe("identity", lambda train, every: identity[every], target, episode)
    assert leak.r2([0, 1]).mean < 0.05
    linear = rng.standard_normal((600, 5))
    probe = run_probe("linear", lambda train, every: linear[every], linear[:, :2] - 3, episode)
    assert probe.r2([0, 1]).mean > 0.99
    assert probe.mse([0, 1]).mean < 0.01
    assert probe.r2_gain(leak, [0, 1]).low > -1e9
    with pytest.raises(ComoError, match="at least 10 labelled episodes to split, got 3"):
        run_probe("few", lambda train, every: linear[every], target[:90], episode[:90])


def test_window_sums_are_the_actions_between_the_two_frames() -> None:
    action = np.arange(12, dtype=np.float32).reshape(6, 2)
    sums = window_sums(action, np.array([0, 2]), np.array([3, 4]))
    assert np.array_equal(sums, [action[0:3].sum(0), action[2:4].sum(0)])
