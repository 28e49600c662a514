"""Label files: what is written is what is read, and labels never land on another recording."""

import dataclasses
import os
from resource import RLIMIT_FSIZE, getrlimit, setrlimit

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from como_core.episode import Episode
from como_core.errors import OutputError
from como_core.formats.labels import LabelError, LabelFile, read_labels, sha256_of, with_labels, write_labels
from como_core.formats.video import CAMERA, read_video, write_video
from como_core.training.checkpoint import save_tensors


@pytest.fixture
def episode(tmp_path) -> Episode:
    rng = np.random.default_rng(0)
    write_video(tmp_path / "a.mp4", rng.integers(0, 255, (7, 16, 16, 3), dtype=np.uint8), fps=40)
    return read_video(tmp_path / "a.mp4")


@pytest.fixture
def labels(episode) -> LabelFile:
    rng = np.random.default_rng(1)
    return LabelFile(episode.timestamps, rng.normal(size=(7, 5)).astype(np.float32), rng.random(7).astype(np.float32),
                     episode.source, sha256_of(episode.source), "runs/motion", 0.125,
                     {"rebuilt": rng.random(7).astype(np.float32)})


def test_labels_survive_the_file(tmp_path, labels):
    path = tmp_path / "deep" / "er" / "a.labels.safetensors"
    write_labels(path, labels)
    back = read_labels(path)
    assert list(back.parts) == ["rebuilt"]
    np.testing.assert_array_equal(back.parts["rebuilt"], labels.parts["rebuilt"])
    for field in dataclasses.fields(LabelFile):
        if field.name == "parts":
            continue
        np.testing.assert_array_equal(getattr(back, field.name), getattr(labels, field.name))
    assert (back.timestamps.dtype, back.latent.dtype, back.confidence.dtype) == (np.float64, np.float32, np.float32)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_episode_takes_its_labels_and_keeps_the_rest(episode, labels):
    labelled = with_labels(episode, labels)
    np.testing.assert_array_equal(labelled.latent, labels.latent)
    np.testing.assert_array_equal(labelled.confidence, labels.confidence)
    assert labelled.images[CAMERA] is episode.images[CAMERA]
    assert labelled.action is None and not labelled.provenance.any()


def test_labels_of_another_recording_are_refused(tmp_path, episode, labels):
    write_video(tmp_path / "a.mp4", np.full((7, 16, 16, 3), 9, np.uint8), fps=40)
    with pytest.raises(LabelError, match=r"a.mp4: labels belong to another recording"):
        with_labels(episode, labels)


def test_labels_of_another_length_or_time_are_refused(episode, labels):
    short = dataclasses.replace(labels, timestamps=labels.timestamps[:6], latent=labels.latent[:6],
                                confidence=labels.confidence[:6], parts={})
    with pytest.raises(LabelError, match="6 labels for 7 frames"):
        with_labels(episode, short)
    late = dataclasses.replace(labels, timestamps=labels.timestamps + 0.01)
    with pytest.raises(LabelError, match="differ in time"):
        with_labels(episode, late)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"latent": np.zeros((7,), np.float32)}, r"latent \[T, D\]"),
        ({"latent": np.zeros((6, 5), np.float32)}, "7 timestamps, 6 latents"),
        ({"latent": np.full((7, 5), np.nan, np.float32)}, "NaN"),
        ({"confidence": np.full(7, 1.5, np.float32)}, r"confidence must be \[7\] and lie in \[0, 1\]"),
        ({"parts": {"rebuilt": np.full(7, -0.1, np.float32)}}, r"confidence.rebuilt must be \[7\] and lie in \[0, 1\]"),
        ({"parts": {"rebuilt": np.zeros(6, np.float32)}}, r"confidence.rebuilt must be \[7\]"),
        ({"gap_s": 0.0}, "gap_s must be above 0"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, change, words):
    with pytest.raises(LabelError, match=words):
        dataclasses.replace(labels, **change)


def test_damaged_and_foreign_files_are_refused_by_name(tmp_path, labels):
    path = tmp_path / "a.labels.safetensors"
    with pytest.raises(LabelError, match="a.labels.safetensors"):
        read_labels(path)
    write_labels(path, labels)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(LabelError, match=r"a.labels.safetensors: cannot be read as a label file"):
        read_labels(path)
    save_file({"latent": labels.latent}, path)
    with pytest.raises(LabelError, match="is not a label file"):
        read_labels(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, labels):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file/a.labels.safetensors: cannot be written"):
        write_labels(tmp_path / "file" / "a.labels.safetensors", labels)


def test_others_may_read_labels_and_weights(tmp_path, labels):
    usual, folder = tmp_path / "usual", tmp_path / "written"
    usual.touch()
    write_labels(folder / "a.labels.safetensors", labels)
    save_tensors(folder / "model.safetensors", {"w": torch.ones(2)})
    assert {path.stat().st_mode for path in folder.iterdir()} == {usual.stat().st_mode}


def test_a_full_disk_keeps_the_old_labels_and_leaves_no_part(tmp_path, labels):
    path = tmp_path / "labels" / "a.labels.safetensors"
    write_labels(path, labels)
    before = path.read_bytes()
    old = getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, (100, old[1]))  # the kernel refuses to let any file grow further
    try:
        with pytest.raises(OutputError, match="a.labels.safetensors: cannot be written"):
            write_labels(path, labels)
    finally:
        setrlimit(RLIMIT_FSIZE, old)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_the_hash_of_a_folder_sees_names_and_contents(tmp_path):
    bag = tmp_path / "bag"
    bag.mkdir()
    (bag / "a").write_text("1")
    (bag / "b").write_text("2")
    before = sha256_of(bag)
    (bag / "b").rename(bag / "c")
    renamed = sha256_of(bag)
    (bag / "c").write_text("3")
    assert len({before, renamed, sha256_of(bag)}) == 3
    with pytest.raises(LabelError, match="nowhere: cannot be read"):
        sha256_of(tmp_path / "nowhere")
