"""Meta-World behind Env: the same start from the same seed, SI units, and a picture that shows what it must."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from como_core.simulation import graphics
from como_core.simulation.environment import Env, SimulationError, make_env

DEMO_TASKS = ("reach-v3", "drawer-open-v3", "door-open-v3", "window-open-v3", "button-press-topdown-v3",
              "plate-slide-v3")
MAGENTA = (200, 60, 200)  # red above, green below, blue above


def _drive(env: Env, seed: int, periods: int) -> np.ndarray:
    """Privileged observations [periods + 1, P] under a fixed wild motion from the start of `seed`."""
    rng = np.random.default_rng(11)
    env.reset(seed)
    seen = [env.privileged()]
    for _ in range(periods):
        env.step(np.append(rng.uniform(-0.8, 0.8, 3), rng.uniform()).astype(np.float32))
        seen.append(env.privileged())
    return np.stack(seen)


def _magenta(picture: np.ndarray) -> np.ndarray:
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    return (red > MAGENTA[0]) & (green < MAGENTA[1]) & (blue > MAGENTA[2])


@pytest.fixture(scope="module")
def reach() -> Env:
    return make_env("metaworld:reach-v3")


@pytest.mark.parametrize("task", DEMO_TASKS)
def test_a_seed_gives_the_same_bits_whatever_came_before(task: str) -> None:
    used, fresh = make_env(f"metaworld:{task}"), make_env(f"metaworld:{task}")
    first = _drive(used, seed=7, periods=25)
    _drive(used, seed=8, periods=60)
    np.testing.assert_array_equal(_drive(used, seed=7, periods=25), first)
    np.testing.assert_array_equal(_drive(fresh, seed=7, periods=25), first)
    assert not np.array_equal(_drive(used, seed=8, periods=0), first[:1])


def test_pictures_are_reproducible_and_show_the_present(reach: Env) -> None:
    reach.reset(3)
    start = reach.render()
    assert start.shape == (64, 64, 3)
    assert start.dtype == np.uint8
    assert start.std() > 20
    for _ in range(8):
        reach.step(np.array([0.5, 0.0, 0.0, 0.0]))
    assert (reach.render() != start).mean() > 0.02
    reach.reset(3)
    np.testing.assert_array_equal(reach.render(), start)


def test_the_first_picture_already_shows_the_scene_of_the_seed() -> None:
    """Meta-World alone would draw objects where they stood in its reset before the last until its first step."""
    env = make_env("metaworld:drawer-open-v3")
    for seed in (1, 3):
        env.reset(seed)
        first = env.render().astype(int)
        env.step(np.zeros(4))
        changed = np.abs(env.render() - first).max(axis=-1) > 60
        assert changed.sum() < 80, "more than the arm, which settles a little, has moved"


def test_an_action_is_metres_per_second(reach: Env) -> None:
    """0.2 m/s along each axis for 0.5 s: the hand follows its target by 0.1 m, after a short lag."""
    for axis in range(3):
        for sign in (-1, 1):
            reach.reset(0)
            start = reach.state()
            action = np.zeros(4)
            action[axis] = sign * 0.2
            for _ in range(20):
                reach.step(action)
            for _ in range(8):
                reach.step(np.zeros(4))
            moved = (reach.state() - start)[:3]
            assert moved[axis] == pytest.approx(sign * 0.1, abs=0.012)
            assert np.abs(np.delete(moved, axis)).max() < 0.015
    assert reach.period_s == 0.025


def test_faster_than_the_arm_is_as_fast_as_the_arm(reach: Env) -> None:
    ends = []
    for speed in (0.8, 5.0):
        reach.reset(0)
        for _ in range(6):
            reach.step(np.array([speed, 0.0, 0.0, 0.0]))
        ends.append(reach.privileged())
    np.testing.assert_array_equal(*ends)


def test_gripper_zero_is_open_and_one_is_closed(reach: Env) -> None:
    opening = {}
    for command in (0.0, 1.0):
        reach.reset(0)
        for _ in range(20):
            reach.step(np.array([0.0, 0.0, 0.0, command]))
        opening[command] = float(reach.state()[3])
    assert opening[0.0] > 0.9
    assert opening[1.0] < 0.5


def test_the_goal_of_reach_is_visible_and_no_other_task_has_marks() -> None:
    env = make_env("metaworld:reach-v3")
    places = []
    for seed in range(4):
        env.reset(seed)
        marked = np.argwhere(_magenta(env.render()))
        places.append(marked.mean(axis=0) if len(marked) >= 2 else None)
    seen = [place for place in places if place is not None]
    assert len(seen) >= 3, "the marker should be hidden by the arm only now and then"
    assert np.ptp(np.stack(seen), axis=0).max() > 1
    for task in DEMO_TASKS[1:]:
        other = make_env(f"metaworld:{task}")
        other.reset(0)
        picture = other.render().astype(int)
        assert not _magenta(picture).any(), task
        vivid_green = (picture[..., 1] > 120) & (picture[..., [0, 2]].max(axis=-1) < 50)
        assert not vivid_green.any(), f"{task}: Meta-World's own mark of the goal can be seen"


def test_an_episode_may_last_longer_than_meta_world_allows(reach: Env) -> None:
    reach.reset(0)
    for _ in range(260):
        reach.step(np.zeros(4))
    assert np.isfinite(reach.state()).all()


def test_success_stays_once_it_was_reached() -> None:
    env = make_env("metaworld:reach-v3")
    env.reset(0)
    assert not env.success
    for _ in range(160):
        privileged = env.privileged()
        env.step(np.append(np.clip(8 * (privileged[-3:] - privileged[:3]), -0.8, 0.8), 0.0))
    assert env.success
    for _ in range(40):
        env.step(np.array([0.0, -0.8, 0.0, 0.0]))
    assert env.success
    env.reset(0)
    assert not env.success


def test_several_cameras_are_seen_at_once_and_named_by_their_views(reach: Env) -> None:
    env = make_env("metaworld:reach-v3@left|high")
    assert tuple(env.interface.cameras) == ("left", "high") and env.camera == "left"
    assert len({camera.topic for camera in env.interface.cameras.values()}) == 2
    env.reset(3)
    reach.reset(3)
    pictures = [env.render("left"), env.render("high"), reach.render()]
    assert all((a != b).any() for a, b in ((pictures[0], pictures[1]), (pictures[1], pictures[2])))
    np.testing.assert_array_equal(env.render(), pictures[0])
    wanted = make_env("metaworld:reach-v3", cameras=("front", "left"))
    wanted.reset(3)
    np.testing.assert_array_equal(wanted.render("left"), pictures[0])
    np.testing.assert_array_equal(wanted.render("front"), pictures[2])
    moved = make_env("metaworld:reach-v3@left|high", cameras=("front", "side"))
    moved.reset(3)
    np.testing.assert_array_equal(moved.render("front"), pictures[0])
    np.testing.assert_array_equal(moved.render("side"), pictures[1])
    alone = make_env("metaworld:reach-v3@left")
    alone.reset(3)
    assert tuple(alone.interface.cameras) == ("front",)
    np.testing.assert_array_equal(alone.render(), pictures[0])


@pytest.mark.parametrize(("name", "cameras", "reason"), [
    ("metaworld:reach-v3@left|hihg", (), "no view 'hihg'.*did you mean 'high'"),
    ("metaworld:reach-v3@left|high", ("front",), "2 views for 1 cameras"),
    ("metaworld:reach-v3@left|left", (), "a view stands twice"),
])
def test_views_that_cannot_be_are_refused(name: str, cameras: tuple[str, ...], reason: str) -> None:
    with pytest.raises(SimulationError, match=reason):
        make_env(name, cameras=cameras)


def test_simulators_of_one_task_keep_their_own_scenes() -> None:
    """They share a renderer."""
    one, other = make_env("metaworld:drawer-open-v3"), make_env("metaworld:drawer-open-v3")
    one.reset(1)
    first = one.render()
    other.reset(3)
    assert (other.render() != first).any()
    np.testing.assert_array_equal(one.render(), first)
    other.close()
    np.testing.assert_array_equal(one.render(), first)


@pytest.mark.parametrize("view", ["front", "left", "high"])
def test_points_are_projected_to_where_they_are_seen(view: str) -> None:
    env = make_env(f"metaworld:reach-v3@{view}", size=128)
    errors = []
    for seed in range(6):
        env.reset(seed)
        marked = np.argwhere(_magenta(env.render()))
        if len(marked) > 20:  # not hidden by the arm
            errors.append(marked.mean(axis=0)[::-1] + 0.5 - 128 * env.project(env.privileged()[None, -3:])[0])
    assert errors
    assert np.abs(errors).max() < 1.0, "pixels"


def test_the_path_of_velocities_is_their_sum(reach: Env) -> None:
    reach.reset(0)
    path = reach.path(np.tile(np.float32([0.2, 0.0, -0.1, 1.0]), (20, 1)))
    np.testing.assert_allclose(path[0], reach.state()[:3], atol=1e-6)
    np.testing.assert_allclose(path[-1] - path[0], [0.1, 0.0, -0.05], atol=1e-6)
    np.testing.assert_array_equal(reach.rest(), np.zeros(4))


def test_closing_frees_the_renderer_and_rendering_brings_it_back(reach: Env) -> None:
    reach.reset(0)
    before = reach.render()
    reach.close()
    np.testing.assert_array_equal(reach.render(), before)


@pytest.mark.parametrize("action", [np.zeros(3), np.array([0.0, np.nan, 0.0, 0.0]), np.array([0.0, 0.0, np.inf, 0.0])])
def test_a_bad_action_is_refused_and_nothing_moves(reach: Env, action: np.ndarray) -> None:
    reach.reset(0)
    before = reach.privileged()
    with pytest.raises(SimulationError, match="4 finite values"):
        reach.step(action)
    np.testing.assert_array_equal(reach.privileged(), before)


def test_nothing_is_known_before_the_first_reset() -> None:
    env = make_env("metaworld:reach-v3")
    for call in (env.render, env.state, env.privileged, lambda: env.step(np.zeros(4))):
        with pytest.raises(SimulationError, match="call reset"):
            call()


@pytest.mark.parametrize(("name", "hint"), [
    ("metaworld:draw-open-v3", "did you mean 'metaworld:drawer-open-v3'"),
    ("metaworld:drawer-open", "drawer-open-v3"),
    ("metaworld:", "expected suite:task"),
    ("drawer-open-v3", "expected suite:task"),
    ("gibero:kitchen", "suites: metaworld"),
])
def test_an_unknown_environment_is_named_with_what_there_is(name: str, hint: str) -> None:
    with pytest.raises(SimulationError, match=hint):
        make_env(name)


def test_without_any_opengl_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)
    monkeypatch.setattr(graphics.ctypes.util, "find_library", lambda name: None)
    with pytest.raises(graphics.GraphicsError, match="apt-get install"):
        graphics.select_backend()
    monkeypatch.setattr(graphics.ctypes.util, "find_library", lambda name: name if name == "OSMesa" else None)
    assert graphics.select_backend() == "osmesa"


@pytest.mark.parametrize(("backend", "first", "explanation"), [
    ("", "import mujoco", "mujoco was imported before"),
    ("no such backend", "", "GraphicsError: MuJoCo cannot render with MUJOCO_GL=no such backend"),
])
def test_a_backend_that_cannot_work_is_explained(backend: str, first: str, explanation: str) -> None:
    program = f"{first}\nfrom como_core.simulation.environment import make_env\nmake_env('metaworld:reach-v3')"
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False,
                          env={**os.environ, "MUJOCO_GL": backend, "PYTHONPATH": path})
    assert explanation in done.stderr
