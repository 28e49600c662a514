"""`como policy train` on real bags and videos; what is refused, and how."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from bag_messages import image, number, pose, twist
from policy_data import GOALS, INTERFACE, RATE_HZ, config, demonstrations, episode
from torchrun import started, torchrun

from como_core import config as configuration
from como_core.cli.main import main
from como_core.episode import Episode
from como_core.formats.labels import LabelFile, read_labels, sha256_of, write_labels
from como_core.formats.manifest import LabelledSource, Manifest, read_manifest, relative_to, write_manifest
from como_core.formats.rosbag import BagWriter, read_bag
from como_core.formats.video import read_video, write_video
from como_core.interface import Interface
from como_core.policy.checkpoint import load_policy
from como_core.policy.sources import TrainingData, open_training_data

Capture = pytest.CaptureFixture[str]
START_NS, PERIOD_NS, MODEL, GAP_S = 10**9, round(1e9 / RATE_HZ), "motion@1234", 0.1
POSE, TWIST = "geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/TwistStamped"


def _record(path: Path, given: Episode, robot: Interface = INTERFACE, more: Mapping[str, np.ndarray] | None = None
            ) -> None:
    """The episode as the recorder would have written it."""
    assert given.action is not None and given.state is not None
    with BagWriter(path, robot, given.instruction) as bag:
        bag.write("/gripper", "std_msgs/msg/Float64", START_NS, number(given.action[0, 2]))
        for step in range(len(given)):
            stamp = START_NS + step * PERIOD_NS
            bag.write("/image", "sensor_msgs/msg/Image", stamp, image(stamp, given.images["front"][step]))
            for topic, frames in (more or {}).items():
                bag.write(f"/{topic}", "sensor_msgs/msg/Image", stamp, image(stamp, frames[step]))
            bag.write("/pose", POSE, stamp, pose(stamp, (*given.state[step], 0)))
            bag.write("/twist", TWIST, stamp, twist(stamp, (*given.action[step, :2], 0)))


def _label(folder: Path, source: Path, read: Episode, given: Episode, model: str = MODEL) -> LabelledSource:
    assert given.latent is not None and given.confidence is not None
    steps = len(read)
    labels = LabelFile(read.timestamps, given.latent[:steps], given.confidence[:steps], str(source), sha256_of(source),
                       model, GAP_S)
    name = f"{source.stem}_{labels.source_sha256[:8]}.labels.safetensors"
    write_labels(folder / name, labels)
    return LabelledSource(relative_to(source, folder), labels.source_sha256, name, steps)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bags/, videos/, relabeled/ and small.yaml, as a user would have them."""
    root = tmp_path_factory.mktemp("data")
    entries = []
    for index, given in enumerate(demonstrations()):
        bag = root / "bags" / f"demo_{index}"
        _record(bag, given)
        entries.append(_label(root / "relabeled", bag, read_bag(bag), given))
    for name in GOALS:
        for seed in (100, 101):
            given, film = episode(name, seed), root / "videos" / name / f"{seed}.mp4"
            write_video(film, given.images["front"][:], fps=RATE_HZ)
            (film.parent / "instruction.txt").write_text(name)
            entries.append(_label(root / "relabeled", film, read_video(film), given))
    write_manifest(root / "relabeled", Manifest(MODEL, GAP_S, tuple(entries)))
    configuration.save(config("decoded", steps=6), root / "small.yaml")
    return root


def _train(data: Path, out: Path, *options: object) -> int:
    words = ["policy", "train", "--preset", data / "small.yaml", "-o", out, *options]
    return main([str(word) for word in words])


def test_bags_and_relabelled_videos_become_a_policy(data: Path, tmp_path: Path, capsys: Capture) -> None:
    assert _train(data, tmp_path, "--demos", data / "bags", "--videos", data / "relabeled") == 0
    said = capsys.readouterr().out
    assert "4 demonstrations, 4 labelled videos, 0 skipped" in said and "video: 4 clips with pseudo-actions" in said
    policy = load_policy(tmp_path)
    assert policy.interface == INTERFACE and policy.instructions == ("left", "right")
    assert "como" in (tmp_path / "card.md").read_text() or "pytest" in (tmp_path / "card.md").read_text()


def test_two_processes_train_one_policy(data: Path, tmp_path: Path) -> None:
    done = started([*torchrun(2), "-m", "como_core.cli.main", "policy", "train", "--preset", str(data / "small.yaml"),
                    "--demos", str(data / "bags"), "--videos", str(data / "relabeled"), "-o", str(tmp_path),
                    "--device", "cpu", "--set", "cotraining.guard_steps=2"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("next: como policy show") == 1 and "guard: error on 2 left-out" in done.stdout
    assert load_policy(tmp_path).instructions == ("left", "right")


def test_demonstrations_get_their_latents_and_keep_their_actions(data: Path) -> None:
    found = open_training_data([data / "bags"], [data / "relabeled"], INTERFACE)
    for given, read in zip(demonstrations(), found.demonstrations, strict=True):
        assert given.action is not None and read.action is not None
        np.testing.assert_allclose(read.action, given.action[-len(read):], atol=1e-6)
        assert read.latent is not None and read.instruction == given.instruction
    assert all(video.action is None and video.latent is not None for video in found.videos)


def test_what_was_left_out_of_a_recording_is_said() -> None:
    note = "bag: 2 of 20 pictures on '/image' are left out"
    whole, part = episode("left", 0), dataclasses.replace(episode("left", 1), notes=(note,))
    said = TrainingData([whole], [part], []).summary()
    assert said.splitlines() == ["1 demonstrations, 1 labelled videos, 0 skipped", f"  in part: {note}"]


def test_labels_alone_need_no_video(data: Path, tmp_path: Path) -> None:
    assert _train(data, tmp_path, "--demos", data / "bags") == 0
    assert "co-training none" in (tmp_path / "card.md").read_text()


def test_labels_of_another_model_are_refused_by_name(data: Path, tmp_path: Path, capsys: Capture) -> None:
    above, tmp_path = tmp_path, tmp_path / "below"
    film = data / "videos" / "left" / "100.mp4"
    entry = _label(tmp_path, film, read_video(film), episode("left", 100), model="other@9")
    write_manifest(tmp_path, Manifest(MODEL, GAP_S, (entry,)))
    assert _train(data, tmp_path / "run", "--demos", data / "bags", "--videos", data / "relabeled", tmp_path) == 2
    said = capsys.readouterr().err
    assert entry.labels in said and "'other@9'" in said and said.count("\n") == 1
    assert _train(data, tmp_path / "run", "--demos", data / "bags", "--videos", data / "relabeled", above) == 2
    assert "'other@9'" in capsys.readouterr().err, "in a folder below the one that is given"
    labels = dataclasses.replace(read_labels(tmp_path / entry.labels), model=MODEL, gap_s=0.5)
    write_labels(tmp_path / entry.labels, labels)
    assert _train(data, tmp_path / "run", "--demos", data / "bags", "--videos", data / "relabeled", tmp_path) == 2
    assert "at gap 0.5 s" in capsys.readouterr().err


def test_what_cannot_be_used_is_said_in_one_line(data: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "empty").mkdir()
    other = dataclasses.replace(INTERFACE, name="other")
    configuration.save(other, tmp_path / "other.yaml")
    demos = ("--demos", data / "bags")
    cases: list[tuple[tuple[object, ...], str]] = [
        (("--demos", tmp_path / "empty"), "empty"),
        (("--demos", data / "nowhere"), "nowhere"),
        ((*demos, "--mode", "decoded"), "no labelled video to co-train on"),
        ((*demos, "--videos", data / "videos"), "no labelled video to co-train on"),
        ((*demos, "--interface", tmp_path / "other.yaml"), "'name'"),
        ((*demos, "--preset", "difusion"), "did you mean 'diffusion'"),
        ((*demos, "--labels", 0), "--labels 0 leaves no demonstration with actions, and co-training none learns"),
    ]
    for options, expected in cases:
        assert _train(data, tmp_path / "run", *options) == 2
        said = capsys.readouterr().err
        assert said.startswith("como: ") and expected in said, said


def test_a_broken_bag_among_good_ones_is_skipped_and_named(data: Path, tmp_path: Path,
                                                           capsys: Capture) -> None:
    (tmp_path / "broken.mcap").write_bytes(b"no bag")
    assert _train(data, tmp_path / "run", "--demos", data / "bags", tmp_path / "broken.mcap") == 0
    said = capsys.readouterr().out
    assert "4 demonstrations, 0 labelled videos, 1 skipped" in said and "broken.mcap" in said


def test_a_folder_without_recordings_is_named(data: Path, tmp_path: Path, capsys: Capture) -> None:
    """Whatever the mode: among others it is skipped; where there is nothing else it is what the refusal is about."""
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("no recording")
    demos = ("--demos", data / "bags")
    named = f"1 skipped\n  {empty}: no recording at or below it"
    for mode in ("none", "decoded", "joint"):
        assert _train(data, tmp_path / mode, *demos, "--videos", data / "relabeled", empty, "--mode", mode) == 0
        assert f"4 demonstrations, 4 labelled videos, {named}" in capsys.readouterr().out
    for mode in ("decoded", "heads"):
        assert _train(data, tmp_path / "refused", *demos, "--videos", empty, "--mode", mode) == 2
        assert f"no labelled video to co-train on: nothing with latents was given by {empty}" in capsys.readouterr().err
    assert _train(data, tmp_path / "alone", *demos, "--videos", empty, "--mode", "none") == 0
    assert f"4 demonstrations, 0 labelled videos, {named}" in capsys.readouterr().out
    assert _train(data, tmp_path / "twice", *demos, empty) == 0
    assert f"4 demonstrations, 0 labelled videos, {named}" in capsys.readouterr().out


def test_demonstrations_that_are_neither_labelled_nor_video_are_named(data: Path, tmp_path: Path,
                                                                      capsys: Capture) -> None:
    assert _train(data, tmp_path, "--demos", data / "bags", "--labels", 0.5) == 0
    assert ("labels: 2 demonstrations stay labelled, 0 are video now, 2 are not used, for want of latents:\n"
            f"  {data / 'bags' / 'demo_1'}\n  {data / 'bags' / 'demo_3'}\n") in capsys.readouterr().out


def test_all_labels_and_no_further_video_train_heads(data: Path, tmp_path: Path, capsys: Capture) -> None:
    """The labelled folder names the demonstrations alone."""
    folder = data / "own"
    shutil.copytree(data / "relabeled", folder)
    found = read_manifest(folder)
    own = tuple(entry for entry in found.labelled if "bags" in entry.source)
    write_manifest(folder, dataclasses.replace(found, labelled=own))
    assert _train(data, tmp_path, "--demos", data / "bags", "--videos", folder, "--labels", 1, "--mode", "joint") == 0
    assert "4 demonstrations, 0 labelled videos, 0 skipped" in capsys.readouterr().out


def test_a_damaged_label_file_costs_its_recording_alone(data: Path, tmp_path: Path, capsys: Capture) -> None:
    film = data / "videos" / "left" / "100.mp4"
    labelled = data / "damaged"  # beside the recordings, which the manifest names from where it lies
    shutil.copytree(data / "relabeled", labelled)
    damaged = next(labelled / entry.labels for entry in read_manifest(labelled).labelled
                   if (labelled / entry.source).resolve() == film.resolve())
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert _train(data, tmp_path / "run", "--demos", data / "bags", "--videos", labelled) == 0
    said = capsys.readouterr().out
    assert "4 demonstrations, 3 labelled videos, 1 skipped" in said and damaged.name in said


def test_demonstrations_without_an_instruction_are_left_out_where_others_have_one(
        data: Path, tmp_path: Path, capsys: Capture) -> None:
    for index, said in enumerate((None, " ")):
        _record(tmp_path / "mute" / f"demo_{index}", dataclasses.replace(episode("left", 50 + index), instruction=said))
    assert _train(data, tmp_path / "run", "--demos", data / "bags", tmp_path / "mute") == 0
    printed = capsys.readouterr().out
    assert "4 demonstrations, 0 labelled videos, 2 skipped" in printed
    for index in range(2):
        assert f"mute/demo_{index}: an empty instruction, where 4 other demonstrations have one" in printed
    assert load_policy(tmp_path / "run").instructions == ("left", "right")
    assert _train(data, tmp_path / "alone", "--demos", tmp_path / "mute") == 0, "of one task, nothing need be said"
    assert _train(data, tmp_path / "text", "--demos", tmp_path / "mute", "--set", "observation.text.model=bert") == 2
    assert "demo_0: an empty instruction, which a text encoder cannot read; say what" in capsys.readouterr().err


def test_a_beginning_that_does_not_fit_is_said_before_the_guard(data: Path, tmp_path: Path, capsys: Capture) -> None:
    given = ("--demos", data / "bags", "--videos", data / "relabeled", "--set", "cotraining.guard_steps=2")
    assert _train(data, tmp_path / "run", *given, "--start-from", data / "nowhere") == 2
    said = capsys.readouterr()
    assert "nowhere: no complete checkpoint here" in said.err and "guard" not in said.out


def test_weights_that_predict_latents_of_another_motion_model_are_refused(data: Path, tmp_path: Path,
                                                                          capsys: Capture) -> None:
    """The checkpoint and its card say whose they are; one from before that was recorded is taken as it was."""
    motion, demos = tmp_path / "motion", ("--demos", data / "bags")
    given = (*demos, "--videos", data / "relabeled", "--labels", 0, "--mode", "joint")
    assert _train(data, motion, *given) == 0
    assert f"- latents: of motion model {MODEL} at gap 0.1 s" in (motion / "card.md").read_text()
    film, others = data / "videos" / "left" / "100.mp4", tmp_path / "others"
    entry = _label(others, film, read_video(film), episode("left", 100), model="other@9")
    write_manifest(others, Manifest("other@9", GAP_S, (entry,)))
    for videos, options, code in ((others, ("--mode", "joint"), 2), (data / "relabeled", ("--mode", "joint"), 0)):
        capsys.readouterr()
        out = tmp_path / f"begun_{videos.name}"
        assert _train(data, out, *demos, "--videos", videos, *options, "--start-from", motion) == code
        assert code == 0 or (f"como: {motion}: training cannot begin with its weights: they predict latents of {MODEL} "
                             "at gap 0.1 s, and those of this training are of other@9 at gap 0.1 s") in (
            capsys.readouterr().err)
    (state,) = (motion / "training").glob("step_*/state.json")
    for path, before in ((motion / "config.yaml", f"latents: {{model: {MODEL}, gap_s: 0.1}}\n"),
                         (state, ', "latents": {"model": "", "gap_s": 0.0}')):
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, ""))
    assert _train(data, tmp_path / "begun_old", *demos, "--videos", others, "--mode", "joint",
                  "--start-from", motion) == 0
    capsys.readouterr()
    assert _train(data, motion, *given) == 0, "a run from before is gone on with"
    assert f"model: {MODEL}" in (motion / "config.yaml").read_text()


def test_video_of_another_robot_is_trained_on_without_its_state(data: Path, tmp_path: Path, capsys: Capture) -> None:
    """A bag with an interface of its own: it is read by that, and a state that is as long is no less foreign."""
    other = dataclasses.replace(INTERFACE, name="other")
    given = episode("left", 200)
    _record(tmp_path / "bags" / "foreign", given, other)
    folder = tmp_path / "relabeled"
    write_manifest(folder, Manifest(MODEL, GAP_S, (
        _label(folder, tmp_path / "bags" / "foreign", read_bag(tmp_path / "bags" / "foreign"), given),)))
    found = open_training_data([data / "bags"], [data / "relabeled", folder], INTERFACE)
    foreign = next(video for video in found.videos if Path(video.source).name == "foreign")
    assert foreign.state is None and foreign.action is None and foreign.latent is not None and not found.skipped
    options = ["--demos", data / "bags", "--videos", data / "relabeled", folder]
    assert _train(data, tmp_path / "run", *options, "--set", "observation.state=true") == 0
    assert "4 demonstrations, 5 labelled videos, 0 skipped" in capsys.readouterr().out
    asked = open_training_data([data / "bags", tmp_path / "bags"], [folder], INTERFACE)
    assert [Path(source).name for source, _ in asked.skipped] == ["foreign"], "as a demonstration it is refused"
    assert "interface mismatch" in asked.skipped[0][1] and not asked.videos


def test_a_camera_of_a_video_may_stand_for_the_robots(data: Path, tmp_path: Path, capsys: Capture) -> None:
    """Another robot's bag, whose cameras have other names: the one that is named is looked at, not the first."""
    camera = INTERFACE.cameras["front"]
    other = dataclasses.replace(INTERFACE, name="other", cameras={
        "down": dataclasses.replace(camera, topic="down"), "top": camera})
    given, folder, bag = episode("left", 200), tmp_path / "relabeled", tmp_path / "bags" / "foreign"
    _record(bag, given, other, {"down": 255 - given.images["front"]})
    write_manifest(folder, Manifest(MODEL, GAP_S, (_label(folder, bag, read_bag(bag), given),)))
    options = ["--demos", data / "bags", "--videos", data / "relabeled", folder, "--mode", "joint"]
    assert _train(data, tmp_path / "without", *options) == 0
    assert "has no camera 'front'; it has down, top; --video-cameras tells which one stands for it" in (
        capsys.readouterr().out)
    assert _train(data, tmp_path / "with", *options, "--video-cameras", "front=top") == 0
    assert "video: 5 clips with latents, and no action, 0 skipped" in capsys.readouterr().out
    found = open_training_data([data / "bags"], [data / "relabeled", folder], INTERFACE, cameras={"front": "top"})
    foreign = next(video for video in found.videos if Path(video.source).name == "foreign")
    assert np.array_equal(foreign.images["front"][:], given.images["front"][:])
    for words, said in ((["front"], "expected OURS=THEIRS"), (["side=top"], "OURS being a camera of .*front"),
                        (["front=top", "front=down"], "front is given twice, also as top")):
        assert _train(data, tmp_path / "wrong", *options, "--video-cameras", *words) == 2
        assert re.search(said, capsys.readouterr().err)


def test_motion_alone_may_be_learned_with_the_state(data: Path, tmp_path: Path) -> None:
    assert _train(data, tmp_path, "--demos", data / "bags", "--videos", data / "relabeled", "--labels", 0,
                  "--mode", "heads", "--set", "observation.state=true") == 0
