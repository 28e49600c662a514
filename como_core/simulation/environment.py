"""Env: a simulated robot in SI units, one control period a step.

    env = make_env("metaworld:drawer-open-v3", size=64)
    env.reset(seed=7)
    env.step(np.array([0.0, 0.2, -0.1, 0.0], np.float32))
    picture, state = env.render(), env.state()

Suites: metaworld (a task of Meta-World v3), pusht (gym-pusht), libero (hf-libero, as libero:suite/task).
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import numpy as np

from como_core.errors import ComoError
from como_core.interface import Interface


class SimulationError(ComoError, ValueError):
    """An environment that does not exist, or an action that it cannot take."""


class Env(Protocol):
    """A simulated robot with one or more cameras. It has a start state only after `reset`.

    name         the id that `make_env` took, without its views
    instruction  what the robot is asked to do
    interface    the robot's streams and commands, with the cameras of this environment and their size
    camera       name of the first camera in the interface
    period_s     simulated seconds of one `step`
    time_limit_s seconds after which the suite counts a trial as failed
    starts       how many different start states there are, None where every seed gives another
    """

    name: str
    instruction: str
    interface: Interface
    camera: str
    period_s: float
    time_limit_s: float
    starts: int | None

    def reset(self, seed: int) -> None:
        """Go to the start state of `seed`: the same bits each time, whatever was done before."""

    def step(self, action: np.ndarray) -> None:
        """Obey `action` [A], in the units of the interface, for one control period."""

    def rest(self) -> np.ndarray:
        """The action, float32 [A], that keeps the robot where it is and its gripper as at the start."""

    def render(self, camera: str | None = None) -> np.ndarray:
        """What a camera of the interface sees now, the first where None: uint8 [H, W, 3], RGB."""

    def state(self) -> np.ndarray:
        """Proprioception now, float32 [S], in the order of the interface."""

    def path(self, actions: np.ndarray) -> np.ndarray:
        """Where the hand would go from here if `actions` [K, A] were obeyed exactly: metres [K + 1, 3], here first."""

    def project(self, points: np.ndarray, camera: str | None = None) -> np.ndarray:
        """Where a camera sees points [N, 3] given in metres: column and row as shares of the picture, [N, 2]."""

    def privileged(self) -> np.ndarray:
        """What only a simulator knows, float64 [P]: the input of the scripted expert, never of a policy."""

    @property
    def success(self) -> bool:
        """Whether the task was achieved at any time since `reset`."""

    def close(self) -> None:
        """Free the renderer."""


def make_env(name: str, size: int = 64, cameras: Sequence[str] = ()) -> Env:
    """Build the environment `suite:task` with square cameras of `size` pixels.

    `suite:task@view` looks from another place ("metaworld:drawer-open-v3@left"); all else is the same.
    `suite:task@view|view` has several cameras at once, named by their views. `cameras` are the names that are wanted,
    those of a policy's interface: each view gets the name at its place, and without views the names choose them.

    Raises SimulationError for an unknown suite, task or view, with the nearest one that exists, and for a suite that
    is not installed, with the way to install it.
    """
    suite, task, views = _parts(name)
    return _SUITES[suite].make(task, size, _named_views(name, views, cameras))


def canonical_name(name: str) -> str:
    """The one name of an environment that goes by several: "pusht:" for "pusht", "pusht:" and "pusht:push-t".

    Raises SimulationError for an unknown suite.
    """
    suite, task, views = _parts(name)
    view = f"@{'|'.join(views)}" if views else ""
    return f"{suite}:{'' if task == _SUITES[suite].only_task else task}{view}"


def seen_from(name: str, cameras: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The environment without its views, and the view of each of `cameras`: alike for two names of the same thing."""
    alone, _, views = canonical_name(name).partition("@")
    return alone, tuple(views.split("|")) if views else tuple(cameras)


def check_env(name: str) -> None:
    """Raise SimulationError where `make_env` would for want of a suite or a task, without building anything."""
    suite, task, _ = _parts(name)
    tasks = _SUITES[suite].tasks()
    if task not in tasks:
        raise unknown_task(suite, task, tasks)


def env_with_instruction(suite: str, instructions: Sequence[str], any_sentence: bool) -> str | None:
    """An environment of `suite` that asks for one of these instructions, or, where any will do, some environment.

    None where there is none. Raises SimulationError for a suite that is not installed.
    """
    task = _SUITES[suite].task_asking_for(instructions) or (_SUITES[suite].example if any_sentence else None)
    return None if task is None else canonical_name(f"{suite}:{task}")


def unknown_task(suite: str, task: str, valid: list[str]) -> SimulationError:
    """The error for a task that `suite` does not have, with the nearest ones that it has."""
    near = difflib.get_close_matches(task, valid, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(repr(f'{suite}:{t}') for t in near)}?" if near else f"tasks: {', '.join(valid)}"
    return SimulationError(f"unknown task {task!r} of suite {suite!r}; {hint}")


def known_views(name: str, views: dict[str, str], valid: Sequence[str], default: dict[str, str]) -> dict[str, str]:
    """Camera name -> view, of an environment that looks from `valid`; `default` where none is wanted.

    Names that are wanted without views and are none of `valid` are left out: comparing the interfaces names them.
    Raises SimulationError for a view that does not exist, with the nearest one.
    """
    for camera, view in views.items():
        if view and view not in valid:
            near = difflib.get_close_matches(view, valid, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise SimulationError(f"{name}: no view {view!r} (camera {camera or default!r}); {hint}views: "
                                  f"{', '.join(valid)}")
    if list(views) == [""]:
        return dict.fromkeys(default, views[""])
    found = {camera: view or camera for camera, view in views.items() if view or camera in valid}
    return found or default


def _parts(name: str) -> tuple[str, str, list[str]]:
    """Suite, task and views of an environment's name."""
    suite, _, rest = name.partition(":")
    task, _, views = rest.partition("@")
    if suite not in _SUITES or not (task or _SUITES[suite].only_task):
        near = difflib.get_close_matches(suite, _SUITES, n=1)
        hint = f"did you mean {name.replace(suite, near[0], 1)!r}? " if near and near[0] != suite else ""
        raise SimulationError(f"unknown environment {name!r}: {hint}expected suite:task, such as "
                              f"'metaworld:drawer-open-v3'; suites: {', '.join(_SUITES)}")
    return suite, task or _SUITES[suite].only_task, views.split("|") if views else []


def _named_views(name: str, views: list[str], cameras: Sequence[str]) -> dict[str, str]:
    """Camera -> view; "" is a view that the camera's name chooses, or the name of an only camera."""
    if not views:
        return dict.fromkeys(cameras, "")
    if cameras and len(cameras) != len(views):
        raise SimulationError(f"{name}: {len(views)} views for {len(cameras)} cameras ({', '.join(cameras)}); name one "
                              "view for each camera, with | between them")
    if len(set(views)) < len(views):
        raise SimulationError(f"{name}: a view stands twice; each camera needs another")
    return dict(zip(cameras or (views if len(views) > 1 else [""]), views, strict=True))


@dataclass(frozen=True)
class _Suite:
    """Where a suite is: its module, imported when it is asked for, what that needs, and how to install this.

    The module has TASKS, `instruction(task)`, and `make(task, size, views)` that builds an Env. The robot's interface
    is config/interfaces/NAME.yaml; `example` is a task to name where any would do.
    """

    name: str
    module: str
    needs: tuple[str, ...]
    remedy: str
    example: str
    only_task: str = ""

    def make(self, task: str, size: int, views: dict[str, str]) -> Env:
        env: Env = self._open().make(task, size, views)
        return env

    def tasks(self) -> list[str]:
        return list(self._open().TASKS)

    def task_asking_for(self, instructions: Sequence[str]) -> str | None:
        asked = {self._open().instruction(task): task for task in self.tasks()}
        return next((asked[instruction] for instruction in instructions if instruction in asked), None)

    def _open(self) -> ModuleType:
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            raise SimulationError(f"suite {self.name!r} needs {' and '.join(missing)}: {self.remedy}")
        return importlib.import_module(self.module)


_SUITES = {suite.name: suite for suite in (
    _Suite("metaworld", "como_core.simulation.metaworld", ("mujoco", "metaworld"), "pip install -e '.[sim]'",
           example="drawer-open-v3"),
    # gym-pusht asks for opencv-python below 5, whose files would replace those of opencv-python-headless; it runs with
    # both, so it is installed without what it asks for.
    _Suite("pusht", "como_core.simulation.pusht", ("gym_pusht", "pymunk", "pygame", "shapely"),
           "pip install -c constraints.txt -e '.[pusht]' && pip install -c constraints.txt --no-deps gym-pusht",
           example="push-t", only_task="push-t"),
    _Suite("libero", "como_core.simulation.libero", ("libero", "robosuite"), "pip install -e '.[libero]'",
           example="libero_goal/turn_on_the_stove"),
)}
SUITES = tuple(_SUITES)
