"""The controller under random messages, chunks, clocks and switches: no exception, and no command that is not allowed.

COMO_FUZZ=1000 pytest test/test_fuzz_controller.py     # so many sequences of 120 steps for each robot, not 10
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
import pytest

from como_core.action_chunk import ActionChunk
from como_core.control.controller import Controller
from como_core.control.status import Command, Phase, Settings
from como_core.control.worker import Inference
from como_core.interface import Interface, load_interface
from como_core.resources import resources

DEADMAN_S = 0.2
SEQUENCES, STEPS = int(os.environ.get("COMO_FUZZ", "10")), 120
ROBOTS = {name: load_interface(path) for name, path in resources("config/interfaces").items()}
PICTURE = np.zeros((4, 4, 3), np.uint8)
ROUNDING = 1e-4

NASTY = (0.0, 1.2, -1.2, 3.0, 1e30, -1e30, np.nan, np.inf, -np.inf)


def shares(rng: np.random.Generator, base: float, size: int) -> np.ndarray:
    """A chunk [K, A] in shares of the way from the middle of a value's limits to either end, around `base`; in one of
    three something nasty somewhere.
    """
    rows = base + rng.normal(0, 0.01, (int(rng.integers(1, 13)), size))
    if rng.random() < 0.3:
        rows[rng.integers(0, len(rows)), rng.integers(0, size)] = rng.choice(NASTY)
    return rows


def finite(rng: np.random.Generator, base: float) -> float:
    """The same for a measured state, which was seen to be finite before it came here."""
    return float(rng.choice([-1.5, 1.5, 1e6])) if rng.random() < 0.03 else base + float(rng.normal(0, 0.003))


def some_step(rng: np.random.Generator, base: float, size: int) -> tuple[object, ...]:
    """One thing that happens."""
    kinds = {
        "move": (30, lambda: ()),
        "time": (15, lambda: (float(rng.exponential(0.03)), float(rng.normal(0, 0.02)))),
        "streams": (15, lambda: (int(rng.choice([255, 255, 254, 3, 1])), float(rng.choice([0, 0, -0.01, -0.4, 0.2])),
                                 finite(rng, base))),
        "ask": (10, lambda: ()),
        "answer": (15, lambda: (shares(rng, base, size), float(rng.uniform(0.001, 0.1)))),
        "clock": (1, lambda: (float(rng.choice([-5, -0.1, 0.1, 5])),)), "failure": (1, lambda: ()),
        "start": (4, lambda: ()), "stop": (1, lambda: ()), "reset": (6, lambda: ()),
        "estop": (2, lambda: (bool(rng.random() < 0.3),)), "deadman": (6, lambda: (bool(rng.random() < 0.9),)),
        "pause": (2, lambda: (bool(rng.random() < 0.3),))}
    names, weights = list(kinds), np.array([weight for weight, _ in kinds.values()], float)
    name = str(rng.choice(names, p=weights / weights.sum()))
    return name, *kinds[name][1]()


def _scaled(robot: Interface, name: str, share: float) -> float:
    """The value of a joint that is `share` of the way from the middle of its limits to their end."""
    limits, names = robot.action.limits, robot.action.names
    if name not in names or limits.lower is None or limits.upper is None:
        return share
    lower, upper = limits.lower[names.index(name)], limits.upper[names.index(name)]
    return (lower + upper) / 2 + share * (upper - lower) / 2


@dataclass
class World:
    """A controller, its clocks, and what stands of each stream by a count of its own."""

    robot: Interface
    deadman: bool
    base: float = 0.0
    controller: Controller = field(init=False)
    now_s: float = 1000.0
    wall_s: float = 50.0
    arrived: dict[str, tuple[float, float]] = field(default_factory=dict)
    asked: list[tuple[object, int]] = field(default_factory=list)
    paused: bool = False
    pressed: bool = False
    active: bool = False
    held_s: float = -np.inf

    def __post_init__(self) -> None:
        self.controller = Controller(self.robot, Settings(200.0, deadman_max_age_s=DEADMAN_S if self.deadman else None))
        self.do(("start",))

    def do(self, step: tuple[object, ...]) -> None:
        """One thing happens, then the timers tick."""
        kind, *given_values = step
        getattr(self, f"_{kind}")(*given_values)
        self._tick()

    def _move(self) -> None:
        """What usually happens: everything arrives, a chunk is asked for and comes."""
        rows = np.full((12, self.robot.action.size), self.base + 0.01)
        for step in (("time", 0.02, 0.0), ("streams", 255, 0.0, self.base), ("ask",), ("answer", rows, 0.02)):
            self.do(step)

    def _time(self, wall_s: float, drift_s: float) -> None:
        self.wall_s += wall_s
        self.now_s += max(wall_s + drift_s, 0.0)

    def _clock(self, seconds: float) -> None:
        self.now_s += seconds
        if seconds < 0:
            self.controller.clock_jumped()
            self.arrived.clear()

    def _streams(self, which: int, age_s: float, value: float) -> None:
        stamp_s = self.now_s + age_s
        for i, name in enumerate(self.robot.max_age_s):
            if which >> i & 1:
                if name in self.robot.cameras:
                    self.controller.put_image(name, stamp_s, self.wall_s, lambda: PICTURE)
                else:
                    values = [_scaled(self.robot, joint, value) for joint in self.robot.state[name].names]
                    self.controller.put_state(name, stamp_s, self.wall_s, np.array(values, np.float32))
                self.arrived[name] = stamp_s, self.wall_s

    def _ask(self) -> None:
        question = self.controller.question(self.now_s, self.wall_s)
        if question is not None:
            self.asked.append(question)

    def _answer(self, rows: np.ndarray, step_s: float) -> None:
        if self.asked:
            names = [*self.robot.action.names, "gripper"][:self.robot.action.size]
            values = [[_scaled(self.robot, name, share) for name, share in zip(names, row, strict=True)]
                      for row in rows]
            self._inference(ActionChunk(np.arange(len(rows)) * step_s, np.array(values, np.float32), "fuzz"), None)

    def _failure(self) -> None:
        if self.asked:
            self._inference(None, RuntimeError("broken"))

    def _inference(self, chunk: ActionChunk | None, error: Exception | None) -> None:
        snapshot, epoch = self.asked.pop(0)
        self.controller.answer(Inference(snapshot, epoch, chunk, error, 0.01), self.now_s)  # type: ignore[arg-type]

    def _start(self) -> None:
        self.controller.start()
        self.arrived.clear()
        self.active = True

    def _stop(self) -> None:
        self.controller.stop()
        self.active = False

    def _reset(self) -> None:
        self.controller.reset(self.now_s, self.wall_s)

    def _estop(self, pressed: bool) -> None:
        self.controller.estop(pressed)
        self.pressed = pressed

    def _deadman(self, held: bool) -> None:
        self.held_s = self.wall_s if held else -np.inf
        self.controller.deadman(held, self.wall_s)

    def _pause(self, paused: bool) -> None:
        self.controller.pause(paused, self.wall_s)
        self.paused = paused

    def _tick(self) -> None:
        command = self.controller.command(self.now_s, self.wall_s)
        halt = self.controller.take_halt(self.now_s)
        if command is not None:
            status = self.controller.status(self.now_s, self.wall_s)
            assert self.active and status.phase is Phase.RUNNING and not self.paused and not self.pressed
            assert not self.deadman or self.wall_s - self.held_s <= DEADMAN_S, "nobody holds the switch"
            for name, limit_s in self.robot.max_age_s.items():
                assert name in self.arrived, f"a command without {name}"
                stamp_s, wall_s = self.arrived[name]
                assert self.now_s - stamp_s <= limit_s and self.wall_s - wall_s <= limit_s, f"{name} is stale"
        for sent in (command, halt):
            if sent is not None:
                self._check(sent)
        assert self.controller.take_halt(self.now_s) is None, "a motion ends once"

    def _check(self, sent: Command) -> None:
        limits = self.robot.action.limits
        rows = [] if sent.values is None else [sent.values]
        if sent.trajectory is not None:
            rows += list(sent.trajectory.positions)
            assert np.isfinite(sent.trajectory.velocities).all()
        for values in rows:
            assert np.isfinite(values).all()
            if limits.lower is not None and limits.upper is not None:
                count = len(limits.lower)
                assert (values[:count] >= np.array(limits.lower) - ROUNDING).all()
                assert (values[:count] <= np.array(limits.upper) + ROUNDING).all()
        assert sent.gripper is None or 0 <= sent.gripper <= 1


@pytest.mark.parametrize("name", sorted(ROBOTS))
def test_whatever_comes_nothing_is_sent_that_is_not_allowed(name: str) -> None:
    sent = 0
    for seed in range(SEQUENCES):
        rng = np.random.default_rng(seed)
        base = float(rng.choice([0.0, 0.99, -0.99]))  # in the middle of its range, or at either end
        world = World(ROBOTS[name], seed % 2 == 1, base)
        steps: list[tuple[object, ...]] = [("deadman", True)]
        try:
            world.do(steps[0])
            for _ in range(STEPS):
                steps.append(some_step(rng, base, ROBOTS[name].action.size))
                world.do(steps[-1])
        except Exception as error:
            raise AssertionError(f"{name}, sequence {seed}, after {len(steps)} steps, the last {steps[-4:]}") from error
        sent += world.controller.status(world.now_s, world.wall_s).commands
    assert sent > 5 * SEQUENCES, "it moved, or the fuzz would prove nothing"


@pytest.mark.parametrize("name", sorted(ROBOTS))
def test_the_world_of_this_fuzz_does_let_a_robot_move(name: str) -> None:
    """Else the fuzz would prove nothing."""
    world = World(ROBOTS[name], deadman=False)
    moved = 0
    for _ in range(40):
        world.do(("move",))
        moved = world.controller.status(world.now_s, world.wall_s).commands
    assert moved > 3, world.controller.status(world.now_s, world.wall_s)
