"""robomimic and LIBERO HDF5: every demonstration an episode, pictures lazy and upright, what is broken named."""

import json
import multiprocessing
import pickle

import h5py
import numpy as np
import pytest

from como_core.episode import Provenance
from como_core.formats.hdf5 import Hdf5Error, hdf5_action_names, list_demos, read_demo
from como_core.formats.sources import action_names_of, open_sources

STEPS = 7


def pictures(seed, steps=STEPS, height=12, width=16):
    return np.random.default_rng(seed).integers(0, 255, (steps, height, width, 3), dtype=np.uint8)


def write_robomimic(path, demos=("demo_0", "demo_2", "demo_10"), rate_hz=10, compression=None):
    """The layout of robomimic's docs/datasets/overview.md, the seed of each demonstration its place."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {
            "control_freq": rate_hz, "controller_configs": {"type": "OSC_POSE"}}})
        for seed, name in enumerate(demos):
            rng = np.random.default_rng(seed)
            group = data.create_group(name)
            group.attrs["num_samples"] = STEPS
            group["actions"], group["states"] = rng.normal(size=(STEPS, 7)), rng.normal(size=(STEPS, 32))
            for key, size in (("gripper_qpos", 2), ("eef_pos", 3), ("eef_quat", 4)):
                group[f"obs/robot0_{key}"] = rng.normal(size=(STEPS, size))
            group["obs/object"] = rng.normal(size=(STEPS, 10))
            group.create_dataset("obs/agentview_image", data=pictures(seed), compression=compression)
            group["obs/robot0_eye_in_hand_image"] = pictures(seed + 100)
            group["obs/agentview_depth"] = rng.random((STEPS, 12, 16, 1)).astype(np.float32)
    return path


def write_libero(path, convention="opengl"):
    """The layout of LIBERO's scripts/create_dataset.py."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"type": 1, "env_kwargs": {"control_freq": 20}})
        data.attrs["problem_info"] = json.dumps({"language_instruction": ['"', "put the bowl on the stove", '"']})
        if convention:
            data.attrs["macros_image_convention"] = convention
        group = data.create_group("demo_0")
        rng = np.random.default_rng(0)
        group["actions"] = rng.normal(size=(STEPS, 7))
        for key, size in {"gripper_states": 2, "joint_states": 7, "ee_states": 6, "ee_pos": 3, "ee_ori": 3}.items():
            group[f"obs/{key}"] = rng.normal(size=(STEPS, size))
        group["obs/agentview_rgb"], group["obs/eye_in_hand_rgb"] = pictures(0), pictures(1)
    return path


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_robomimic_file_gives_every_demonstration_in_the_order_of_the_numbers(tmp_path, compression):
    path = write_robomimic(tmp_path / "lift.hdf5", ("demo_10", "demo_2", "demo_0"), compression=compression)
    assert list_demos(path) == ["demo_0", "demo_2", "demo_10"]
    episode = read_demo(path, "demo_2")
    assert episode.source == f"{path}#demo_2" and episode.instruction is None
    np.testing.assert_allclose(episode.timestamps, np.arange(STEPS) / 10)
    assert list(episode.images) == ["agentview", "robot0_eye_in_hand"]
    np.testing.assert_array_equal(episode.images["agentview"][:], pictures(1))
    np.testing.assert_array_equal(episode.images["robot0_eye_in_hand"][[5, 0, 5]], pictures(101)[[5, 0, 5]])
    with h5py.File(path) as file:
        group = file["data/demo_2"]
        np.testing.assert_array_equal(episode.action, group["actions"][()].astype(np.float32))
        keys = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
        state = np.concatenate([group[f"obs/{key}"][()] for key in keys], axis=1)
        np.testing.assert_array_equal(episode.state, state.astype(np.float32))
    assert episode.action.dtype == episode.state.dtype == np.float32
    assert np.all(episode.provenance == Provenance.MEASURED)


def test_libero_says_what_is_asked_and_its_pictures_are_turned_upright(tmp_path):
    episode = read_demo(write_libero(tmp_path / "a.hdf5"), "demo_0")
    assert episode.instruction == "put the bowl on the stove" and list(episode.images) == ["agentview", "eye_in_hand"]
    np.testing.assert_array_equal(episode.images["agentview"][:], pictures(0)[:, ::-1])
    np.testing.assert_array_equal(episode.images["eye_in_hand"][3], pictures(1)[3, ::-1])
    assert episode.state.shape == (STEPS, 15) and episode.timestamps[1] == 0.05
    upright = read_demo(write_libero(tmp_path / "b.hdf5", "opencv"), "demo_0")
    np.testing.assert_array_equal(upright.images["agentview"][:], pictures(0))
    # Files that others made anew from LIBERO's lack the note, and are upside down all the same.
    silent = read_demo(write_libero(tmp_path / "c.hdf5", None), "demo_0")
    np.testing.assert_array_equal(silent.images["agentview"][:], pictures(0)[:, ::-1])


def test_names_of_actions_are_those_of_the_controller_or_numbers(tmp_path):
    lift, libero = write_robomimic(tmp_path / "a.hdf5"), write_libero(tmp_path / "b.hdf5")
    assert action_names_of(f"{lift}#demo_2") == ["x", "y", "z", "roll", "pitch", "yaw"]
    assert hdf5_action_names(libero, "demo_0") == [f"a{i}" for i in range(7)]


def test_a_real_robosuite_file_has_states_and_actions_and_no_camera(shared_data):
    path = shared_data / "hdf5" / "robosuite_lift_demo.hdf5"
    episodes = open_sources([path.parent]).episodes
    assert [e.source for e in episodes] == [f"{path}#demo_{i}" for i in (1, 2, 3)]
    assert [len(e) for e in episodes] == [482, 510, 392]
    with h5py.File(path) as file:
        for i, episode in enumerate(episodes, 1):
            np.testing.assert_array_equal(episode.action, file[f"data/demo_{i}/actions"][()].astype(np.float32))
            np.testing.assert_array_equal(episode.state, file[f"data/demo_{i}/states"][()].astype(np.float32))
    assert all(e.images == {} and e.state.shape[1] == 32 and e.timestamps[1] == 0.05 for e in episodes)


def damage_nothing(file):
    del file["data"]
    file["weights"] = np.zeros(3)


def damage_demos(file):
    for name in list(file["data"]):
        del file["data"][name]


def damage_length(file):
    del file["data/demo_2/obs/agentview_image"]
    file["data/demo_2/obs/agentview_image"] = pictures(0, STEPS - 1)


def damage_pixels(file):
    del file["data/demo_2/obs/agentview_image"]
    file["data/demo_2/obs/agentview_image"] = np.zeros((STEPS, 3, 12, 16), np.uint8)


def damage_numbers(file):
    file["data/demo_2/actions"][3, 1] = np.nan


def damage_link(file):
    del file["data/demo_2/actions"]
    file["data/demo_2/actions"] = h5py.SoftLink("/gone")


@pytest.mark.parametrize(("damage", "words"), [
    (damage_nothing, "a.hdf5: has no group `data`, as robomimic and LIBERO write it; it holds weights"),
    (damage_demos, "a.hdf5: has no demonstration"),
    (damage_length, "#demo_2: camera 'agentview' has 6 frames, expected 7"),
    (damage_pixels, r"#demo_2: obs/agentview_image is uint8 \[7, 3, 12, 16\], expected pictures as uint8"),
    (damage_numbers, "#demo_2: action holds NaN"),
    (damage_link, "#demo_2: cannot be read: .*component not found"),
])
def test_what_is_broken_is_named_and_costs_only_itself(tmp_path, damage, words):
    path = write_robomimic(tmp_path / "a.hdf5")
    good = write_robomimic(tmp_path / "good.hdf5", ("demo_0",))
    with h5py.File(path, "r+") as file:
        damage(file)
    sources = open_sources([tmp_path])
    assert len(sources.skipped) == 1 and f"{good}#demo_0" in [e.source for e in sources.episodes]
    with pytest.raises(Hdf5Error, match=words):
        raise Hdf5Error(sources.skipped[0][1])
    assert len(sources.episodes) == (3 if "demo_2" in words else 1)


def test_files_that_are_no_hdf5_or_cut_short_are_refused(tmp_path):
    whole = write_robomimic(tmp_path / "a.hdf5").read_bytes()
    for size in (0, 100, len(whole) // 2):
        (tmp_path / "a.hdf5").write_bytes(whole[:size])
        with pytest.raises(Hdf5Error, match="a.hdf5: cannot be read as HDF5"):
            list_demos(tmp_path / "a.hdf5")
    with pytest.raises(Hdf5Error, match="gone.hdf5: cannot be read"):
        read_demo(tmp_path / "gone.hdf5", "demo_0")


def test_frames_are_small_lazy_and_notice_another_file(tmp_path):
    frames = read_demo(write_robomimic(tmp_path / "a.hdf5"), "demo_0").images["agentview"]
    assert len(pickle.dumps(frames)) < 1000
    write_robomimic(tmp_path / "a.hdf5", ("demo_0",))
    with pytest.raises(Hdf5Error, match="a.hdf5: changed since it was read"):
        frames[0]


def _send(frames, queue):
    queue.put(frames[3].tolist())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_frames_work_in_child_processes_beside_the_parent(tmp_path, method):
    frames = read_demo(write_robomimic(tmp_path / "a.hdf5"), "demo_0").images["agentview"]
    frames[0]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_send, args=(frames, queue))
    child.start()
    np.testing.assert_array_equal(queue.get(timeout=60), pictures(0)[3])
    child.join(timeout=60)
    np.testing.assert_array_equal(frames[6], pictures(0)[6])


def test_long_recordings_are_read_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("como_core.formats.hdf5._BATCH_BYTES", 3 * 12 * 16 * 3)
    frames = read_demo(write_robomimic(tmp_path / "a.hdf5"), "demo_0").images["agentview"]
    np.testing.assert_array_equal(list(frames), pictures(0))
    np.testing.assert_array_equal(frames[[0, 6, 3]], pictures(0)[[0, 6, 3]])
