"""LIBERO behind Env, as far as it goes without its meshes, and its arm in robosuite's own physics.

Installed beside the package are hf-libero and robosuite only by choice; what needs them is skipped, by name.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from policy_data import config

from como_core.cli.main import main
from como_core.config import save
from como_core.errors import ComoError
from como_core.formats.libero import from_command, to_command
from como_core.formats.sources import open_sources
from como_core.interface import Action, load_interface
from como_core.policy.checkpoint import load_policy
from como_core.resources import resource
from como_core.simulation import libero_files
from como_core.simulation.environment import SimulationError, check_env, make_env
from como_core.simulation.graphics import select_backend
from como_core.simulation.robosuite_arm import RobosuiteArm, rotation_vector

INTERFACE = load_interface(resource("config/interfaces/libero.yaml"))
TASK = "libero_goal/turn_on_the_stove"
libero = pytest.mark.skipif(importlib.util.find_spec("libero") is None, reason="hf-libero is not installed")
robosuite = pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed")


def _has_assets() -> bool:
    try:
        return bool(libero_files.assets())
    except SimulationError:
        return False


def test_commands_are_metres_and_radians_per_second() -> None:
    action = np.array([0.25, -0.125, 0.0, 2.5, 0.0, -1.25, 1.0])
    np.testing.assert_allclose(to_command(action), [1.0, -0.5, 0.0, 1.0, 0.0, -0.5, 1.0])
    np.testing.assert_allclose(from_command(to_command(action)), action, atol=1e-6)
    np.testing.assert_allclose(to_command(np.zeros(7))[-1], -1.0)  # open
    assert INTERFACE.action.limits.upper == tuple(from_command(np.ones(7))[:6].tolist())
    assert INTERFACE.action.size == 7 and INTERFACE.state_size == 15


def test_a_rotation_vector_is_axis_times_angle() -> None:
    np.testing.assert_allclose(rotation_vector(np.array([0, 0, np.sin(0.3), np.cos(0.3)])), [0, 0, 0.6])
    np.testing.assert_array_equal(rotation_vector(np.array([0, 0, 0, 1.0])), np.zeros(3))


def _recording(path: Path, actions: np.ndarray) -> None:
    """A file as LIBERO writes it: the picture of a row taken after its action, upside down."""
    steps = len(actions)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": 20}})
        data.attrs["problem_info"] = json.dumps({"language_instruction": "turn on the stove"})
        demo = data.create_group("demo_0")
        demo["actions"] = actions
        seen = np.zeros((steps, 8, 8, 3), np.uint8)
        seen[:, -1] = np.arange(1, steps + 1)[:, None, None]
        demo["obs/agentview_rgb"] = demo["obs/eye_in_hand_rgb"] = seen
        demo["obs/ee_states"] = np.arange(steps)[:, None] + np.zeros((1, 6))
        demo["obs/gripper_states"] = np.zeros((steps, 2))
        demo["obs/joint_states"] = np.zeros((steps, 7))


def test_demonstrations_come_in_the_units_and_the_order_of_the_env(tmp_path: Path) -> None:
    commands = np.zeros((5, 7))
    commands[:, 0], commands[:, 6] = np.arange(5) / 10, [-1, -1, 1, 1, 1]
    _recording(tmp_path / "demo.hdf5", commands)
    (episode,) = open_sources([tmp_path / "demo.hdf5"], INTERFACE).episodes
    assert episode.action is not None and episode.state is not None
    assert len(episode) == 4 and episode.state.shape[1] == INTERFACE.state_size
    np.testing.assert_allclose(np.diff(episode.timestamps), 0.05)
    frames = episode.images["agentview"]
    for step in range(4):  # what was seen after action t is what action t + 1 was chosen from
        assert frames[step][0, 0, 0] == step + 1 and episode.state[step, 0] == step
        np.testing.assert_allclose(episode.action[step], from_command(commands[step + 1]))
    np.testing.assert_allclose(episode.action[:, 0], [0.025, 0.05, 0.075, 0.1], atol=1e-6)
    np.testing.assert_allclose(episode.action[:, 6], [0, 1, 1, 1])
    assert frames[1:3].shape == (2, 8, 8, 3) and frames[-1][0, 0, 0] == 4 and episode.instruction == "turn on the stove"
    _recording(tmp_path / "short.hdf5", commands[:1])
    with pytest.raises(ComoError, match="demo_0: expected two or more steps"):
        open_sources([tmp_path / "short.hdf5"], INTERFACE)


@pytest.mark.parametrize("says", ["problem_info", "bddl_file_name", "pictures"])
def test_a_file_of_libero_is_known_by_itself_whatever_the_interface_is_called(tmp_path: Path, says: str) -> None:
    commands, path = np.linspace(-1, 1, 35, dtype=np.float32).reshape(5, 7), tmp_path / "demo.hdf5"
    _recording(path, commands)
    with h5py.File(path, "r+") as file:
        data, seen = file["data"], file["data/demo_0/obs"]
        if says != "problem_info":
            del data.attrs["problem_info"]
        if says != "pictures":
            for name in ("agentview", "eye_in_hand"):
                seen.move(f"{name}_rgb", f"{name}_image")
        if says == "bddl_file_name":
            data.attrs[says] = "turn_on_the_stove.bddl"
    mine = dataclasses.replace(INTERFACE, name="libero_64px")
    for given in ({"interface": mine}, {"otherwise": mine}, {"interface": INTERFACE}):
        (episode,) = open_sources([path], **given).episodes
        assert episode.action is not None
        np.testing.assert_array_equal(episode.action, from_command(commands[1:]))


def test_another_file_or_another_action_is_not_taken_for_liberos(tmp_path: Path) -> None:
    """Of a robot with other commands, as many: refused as a demonstration, and video as any other."""
    commands, path = np.linspace(-1, 1, 35).reshape(5, 7), tmp_path / "demo.hdf5"
    _recording(path, commands)
    action = Action("joint_velocity", "forward_command", "cmd", tuple(f"joint{i}" for i in range(7)), 20.0)
    joints = dataclasses.replace(INTERFACE, name="joints", action=action)
    with pytest.raises(ComoError, match="demo_0: LIBERO's commands, .*; interface 'joints' has joint_velocity of"):
        open_sources([path], joints)
    (episode,) = open_sources([path], otherwise=joints).episodes
    np.testing.assert_array_equal(episode.action, commands.astype(np.float32))
    with h5py.File(path, "r+") as file:
        del file["data"].attrs["problem_info"]
        for name in ("agentview", "eye_in_hand"):
            file["data/demo_0/obs"].move(f"{name}_rgb", f"{name}_image")
    for robot in (joints, dataclasses.replace(INTERFACE, name="mine")):
        (episode,) = open_sources([path], robot).episodes
        np.testing.assert_array_equal(episode.action, commands.astype(np.float32))


def test_a_policy_is_trained_on_the_recorded_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _recording(tmp_path / "demo.hdf5", np.linspace(-1, 1, 28 * 7).reshape(28, 7))
    save(config("none", steps=3), tmp_path / "tiny.yaml")
    words = ["policy", "train", "--demos", tmp_path / "demo.hdf5", "--preset", tmp_path / "tiny.yaml", "--interface",
             resource("config/interfaces/libero.yaml"), "--set", "training.batch_size=4", "-o", tmp_path / "run"]
    assert main([str(word) for word in words]) == 0
    assert "1 demonstrations, 0 labelled videos, 0 skipped" in capsys.readouterr().out
    policy = load_policy(tmp_path / "run")
    assert policy.interface == INTERFACE and policy.instructions == ("turn on the stove",)
    assert "3 steps of 4" in (tmp_path / "run" / "card.md").read_text()
    words[words.index("training.batch_size=4")] = "training.batch_sise=4"
    assert main([str(word) for word in words]) == 2
    assert "batch_sise" in (said := capsys.readouterr().err) and "batch_size" in said


@pytest.mark.skipif(importlib.util.find_spec("libero") is not None, reason="hf-libero is installed")
def test_without_the_package_the_way_to_get_it_is_said() -> None:
    with pytest.raises(SimulationError, match=r"suite 'libero' needs libero.*pip install -e '.\[libero\]'"):
        make_env(f"libero:{TASK}")


@libero
def test_tasks_instructions_and_start_states_come_from_the_package() -> None:
    assert len(libero_files.tasks()) == 130 and TASK in libero_files.tasks()
    assert libero_files.instruction(TASK) == "turn on the stove"
    states = libero_files.start_states(TASK)
    assert states.shape == (50, 79) and np.isfinite(states).all() and len(np.unique(states, axis=0)) == 50
    check_env(f"libero:{TASK}")
    with pytest.raises(SimulationError, match="did you mean 'libero:libero_goal/turn_on_the_stove'"):
        check_env("libero:libero_goal/turn_on_a_stove")


@libero
def test_start_states_that_are_code_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    (tmp_path / "bddl_files").mkdir()
    (tmp_path / "init_files" / "libero_goal").mkdir(parents=True)
    torch.save(Trap(), tmp_path / "init_files" / f"{TASK}.pruned_init")
    monkeypatch.setattr(libero_files, "package", lambda: tmp_path)
    with pytest.raises(SimulationError, match="cannot be read"):
        libero_files.start_states(TASK)
    assert not (tmp_path / "sprung").exists()


@libero
@pytest.mark.skipif(_has_assets() if importlib.util.find_spec("libero") else True, reason="LIBERO's meshes are here")
def test_without_the_meshes_the_way_to_get_them_is_said() -> None:
    with pytest.raises(SimulationError, match=r"meshes and scenes are not here.*hf download"):
        make_env(f"libero:{TASK}")


@libero
@pytest.mark.skipif(not (importlib.util.find_spec("libero") and _has_assets()), reason="no meshes of LIBERO here")
def test_a_seed_gives_the_same_bits_whatever_came_before() -> None:
    env = make_env(f"libero:{TASK}", 64)

    def drive(seed: int) -> np.ndarray:
        env.reset(seed)
        for _ in range(10):
            env.step(np.array([0.2, 0.1, -0.1, 0.0, 0.0, 0.5, 1.0]))
        return np.concatenate([env.privileged(), env.render().reshape(-1)])

    first = drive(3)
    drive(4)
    np.testing.assert_array_equal(drive(3), first)
    assert not env.success and env.starts == 50 and env.render("eye_in_hand").shape == (64, 64, 3)


@pytest.fixture(scope="module")
def lift() -> Any:
    """robosuite's own task with the arm, controller and cameras that LIBERO's have."""
    select_backend()
    import robosuite as suite

    controller = suite.load_controller_config(default_controller="OSC_POSE")
    return suite.make("Lift", robots="Panda", controller_configs=controller, has_renderer=False, use_camera_obs=False,
                      has_offscreen_renderer=True, control_freq=20, horizon=10_000, ignore_done=True)


@robosuite
def test_the_arm_obeys_a_twist_in_its_own_physics(lift: Any) -> None:
    arm = RobosuiteArm(lift, 96)
    for axis, speed in ((0, 0.2), (1, -0.2), (2, 0.2)):
        lift.reset()
        start = arm.state()
        assert start.shape == (15,) and start.dtype == np.float32
        action = np.zeros(7)
        action[axis] = speed
        planned = arm.path(np.tile(action, (10, 1)))
        np.testing.assert_allclose(planned[-1] - planned[0], speed * 0.5 * np.eye(3)[axis], atol=1e-6)
        for _ in range(10):
            arm.step(action)
        for _ in range(6):
            arm.step(np.zeros(7))
        np.testing.assert_allclose(arm.state()[:3], planned[-1], atol=0.012)
    opened = np.ptp(arm.state()[6:8])
    for _ in range(20):
        arm.step(np.array([0.0] * 6 + [1.0]))
    assert np.ptp(arm.state()[6:8]) < opened - 0.03


@robosuite
def test_the_state_is_what_robosuite_observes(lift: Any) -> None:
    lift.reset()
    seen, state = lift._get_observations(force_update=True), RobosuiteArm(lift, 96).state()
    np.testing.assert_allclose(state[:3], seen["robot0_eef_pos"], atol=1e-6)
    np.testing.assert_allclose(np.cos(state[8:]), seen["robot0_joint_pos_cos"], atol=1e-6)


@robosuite
def test_points_are_projected_to_where_they_are_seen(lift: Any) -> None:
    """The cube of the task is red; nothing else is."""
    lift.reset()
    arm = RobosuiteArm(lift, 192)
    picture = arm.render("agentview").astype(int)
    red = np.argwhere(picture[..., 0] > picture[..., 1:].max(axis=-1) + 40)
    assert len(red) > 10
    cube = np.array(lift.sim.data.body_xpos[lift.cube_body_id])
    np.testing.assert_allclose(192 * arm.project(cube[None], "agentview")[0], red.mean(axis=0)[::-1] + 0.5, atol=1.5)
