"""Env: a simulated robot in SI units, one control period a step.

    env = make_env("metaworld:drawer-open-v3", size=64)
    env.reset(seed=7)
    env.step(np.array([0.0, 0.2, -0.1, 0.0], np.float32))
    picture, state = env.render(), env.state()
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable
from typing import Protocol

import numpy as np

from como_core.errors import ComoError
from como_core.interface import Interface


class SimulationError(ComoError, ValueError):
    """An environment that does not exist, or an action that it cannot take."""


class Env(Protocol):
    """A simulated robot with one camera. It has a start state only after `reset`.

    name         the id that `make_env` took
    instruction  what the robot is asked to do
    interface    the robot's streams and commands, with the size of this camera
    camera       name of the camera in the interface
    period_s     simulated seconds of one `step`
    """

    name: str
    instruction: str
    interface: Interface
    camera: str
    period_s: float

    def reset(self, seed: int) -> None:
        """Go to the start state of `seed`: the same bits each time, whatever was done before."""

    def step(self, action: np.ndarray) -> None:
        """Obey `action` [A], in the units of the interface, for one control period."""

    def render(self) -> np.ndarray:
        """What the camera sees now, uint8 [H, W, 3], RGB."""

    def state(self) -> np.ndarray:
        """Proprioception now, float32 [S], in the order of the interface."""

    def privileged(self) -> np.ndarray:
        """What only a simulator knows, float64 [P]: the input of the scripted expert, never of a policy."""

    @property
    def success(self) -> bool:
        """Whether the task was achieved at any time since `reset`."""

    def close(self) -> None:
        """Free the renderer."""


def make_env(name: str, size: int = 64) -> Env:
    """Build the environment `suite:task` with a square camera of `size` pixels.

    `suite:task@view` looks from another place ("metaworld:drawer-open-v3@left"); all else is the same. Raises
    SimulationError for an unknown suite, task or view, with the nearest one that exists.
    """
    suite, _, task = name.partition(":")
    if suite not in _SUITES or not task:
        raise SimulationError(f"unknown environment {name!r}: expected suite:task, such as 'metaworld:drawer-open-v3'; "
                               f"suites: {', '.join(_SUITES)}")
    return _SUITES[suite](task, size)


def unknown_task(suite: str, task: str, valid: list[str]) -> SimulationError:
    """The error for a task that `suite` does not have, with the nearest ones that it has."""
    near = difflib.get_close_matches(task, valid, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(repr(f'{suite}:{t}') for t in near)}?" if near else f"tasks: {', '.join(valid)}"
    return SimulationError(f"unknown task {task!r} of suite {suite!r}; {hint}")


def _metaworld(task: str, size: int) -> Env:
    missing = [name for name in ("mujoco", "metaworld") if importlib.util.find_spec(name) is None]
    if missing:
        raise SimulationError(f"suite 'metaworld' needs {' and '.join(missing)}: pip install -e '.[sim]'")
    from como_core.simulation.metaworld import MetaWorld  # takes seconds to import; other suites do not need it

    return MetaWorld(task, size)


_SUITES: dict[str, Callable[[str, int], Env]] = {"metaworld": _metaworld}
