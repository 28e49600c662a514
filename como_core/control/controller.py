"""Controller: everything between messages and commands, in plain Python.

Images and states go in; snapshots for the policy and commands for the robot come out. In this order a planned action
passes: finiteness of its chunk, the operator's switches, stream ages, jump check, limits and workspace. What fails
there closes the latch.

Times: `now_s` is the node's clock (simulated where there is one), `wall_s` a monotonic clock. Thread-safe.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from como_core.control.blending import Blender
from como_core.control.latch import Latch
from como_core.control.limits import Guard
from como_core.control.loop_timing import LoopTiming
from como_core.control.motion import LimitFault, Motion
from como_core.control.observations import Decode, Snapshot
from como_core.control.operator import Operator
from como_core.control.plan import chunk_fault, chunk_plan, interpolation_of
from como_core.control.senses import Senses
from como_core.control.status import Command, Phase, Settings, Status
from como_core.control.trajectory_motion import TrajectoryMotion
from como_core.control.worker import Inference
from como_core.interface import Interface

Method = TypeVar("Method", bound=Callable[..., Any])


def _locked(method: Method) -> Method:
    @wraps(method)
    def call(self: Controller, *args: Any, **keywords: Any) -> Any:
        with self._lock:
            return method(self, *args, **keywords)
    return call  # type: ignore[return-value]


class Controller:
    """One robot's way from observations to commands.

    Raises config.ConfigError where the interface's limits need a state stream that it does not have.
    """

    def __init__(self, interface: Interface, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        self._action = interface.action
        self._interpolation = interpolation_of(self._action.kind)
        self._guard = Guard(interface)
        blender = Blender(self._settings.blend, self._settings.blend_s, self._settings.ensemble_decay,
                          1 / self._action.rate_hz)
        kind = TrajectoryMotion if self._action.target == "joint_trajectory" else Motion
        self._motion: Motion = kind(self._action, self._guard, blender)
        self._senses = Senses(interface, self._settings)
        self._operator = Operator(self._settings.deadman_max_age_s, self._settings.estop_required)
        self._latch = Latch()
        self._lock = threading.RLock()
        self._timing = LoopTiming()
        self._phase = Phase.IDLE
        self._epoch = self._chunks = self._late_chunks = self._commands = 0
        self._forget_answers()

    def _forget_answers(self) -> None:
        """Answers of predictions under way will be ignored."""
        self._epoch += 1
        self._asked_s: float | None = None
        self._origin: Snapshot | None = None
        self._last_wall_s: float | None = None
        self._refusal: str | None = None

    @property
    def position_stream(self) -> str | None:
        """The state stream that must be in the command frame, because the workspace box is kept by it."""
        return self._guard.position_stream

    @property
    def cause(self) -> str | None:
        """Why the latch is closed; None while it is open."""
        return self._latch.cause

    # What the owner decides.

    @_locked
    def start(self) -> None:
        """Permit commands; they begin when every stream is fresh and a chunk has come. Opens the latch.

        While the e-stop is pressed the latch closes again at once.
        """
        self._motion.forget()
        self._forget_answers()
        self._senses.clear()
        self._latch.open()
        self._phase = Phase.WAITING
        if self._operator.stop:
            self._close(self._operator.stop)

    @_locked
    def stop(self) -> None:
        """Forbid commands at once. The latch keeps its cause."""
        self._end()
        self._phase = Phase.IDLE

    @_locked
    def reset(self, now_s: float, wall_s: float) -> str | None:
        """Open the latch. Refused, with the reason as result, while the e-stop is pressed or a stream is stale."""
        if self._phase is not Phase.LATCHED:
            return None
        if self._operator.stop:
            return self._operator.stop
        faults = self._senses.faults(now_s, wall_s)
        if faults:
            return faults[0]
        self._latch.open()
        self._phase = Phase.WAITING
        return None

    @_locked
    def clock_jumped(self) -> None:
        """The node's clock went back, so what is stored is of another time: begin again from fresh streams."""
        self._end()
        self._senses.clear()
        if self._phase is Phase.RUNNING:
            self._phase = Phase.WAITING

    # What the operator says.

    @_locked
    def estop(self, pressed: bool) -> None:
        """The e-stop: pressed closes the latch, released lets it be reset."""
        self._operator.pressed = pressed
        if pressed and self._phase in (Phase.WAITING, Phase.RUNNING):
            self._close("the e-stop is pressed")

    @property
    def estop_pressed(self) -> bool:
        """Whether the e-stop was pressed when it was last heard."""
        return bool(self._operator.pressed)

    @_locked
    def deadman(self, held: bool, wall_s: float) -> None:
        """A message of the deadman switch; released ends the motion, held lets the next one begin."""
        self._operator.deadman(held, wall_s)
        self._hold_if_told(wall_s)

    @_locked
    def pause(self, paused: bool, wall_s: float) -> None:
        """End the motion and send nothing, or let the next one begin. The latch stays as it is."""
        self._operator.paused = paused
        self._hold_if_told(wall_s)

    # What arrives.

    @_locked
    def put_image(self, name: str, stamp_s: float, wall_s: float, decode: Decode) -> None:
        """The newest image of a camera."""
        self._senses.put_image(name, stamp_s, wall_s, decode)

    @_locked
    def put_state(self, name: str, stamp_s: float, wall_s: float, values: np.ndarray) -> None:
        """The newest values of a state stream."""
        self._senses.put_state(name, stamp_s, wall_s, values)

    @_locked
    def put_instruction(self, text: str | None) -> None:
        """What the robot is asked to do."""
        self._senses.instruct(text)

    # What the policy is asked and answers.

    @_locked
    def question(self, now_s: float, wall_s: float) -> tuple[Snapshot, int] | None:
        """A snapshot to predict from and its epoch, where a chunk is due and every stream is fresh; else None."""
        if self._phase not in (Phase.WAITING, Phase.RUNNING) or self._senses.faults(now_s, wall_s):
            return None
        if self._operator.hold(wall_s):
            return None
        snapshot = self._senses.question(wall_s, self._asked_s)
        if snapshot is None:
            return None
        self._asked_s = snapshot.stamp_s
        return replace(snapshot, prefix=self._motion.prefix(snapshot.stamp_s)), self._epoch

    @_locked
    def answer(self, inference: Inference, now_s: float) -> None:
        """Take a finished prediction into the plan; NaN, infinity or an error of the policy while moving latch."""
        if inference.epoch != self._epoch or self._phase not in (Phase.WAITING, Phase.RUNNING):
            return
        self._timing.inference_s.append(inference.seconds)
        if inference.chunk is None:
            self._refusal = f"the policy gave no chunk: {type(inference.error).__name__}: {inference.error}"
            if self._phase is Phase.RUNNING:
                self._close(self._refusal)
            return
        fault = chunk_fault(inference.chunk, self._action.size)
        if fault:
            self._close(f"{fault}; the chunk is dropped whole (policy {inference.chunk.source or 'unnamed'!r})")
            return
        self._refusal = None
        new = chunk_plan(inference.chunk, inference.snapshot.stamp_s, 1 / self._action.rate_hz, self._interpolation)
        ahead_s = now_s + self._settings.command_lead_s
        self._chunks += 1
        if new.remaining(ahead_s) == 0:
            self._late_chunks += 1
            return
        self._motion.take(new, inference.snapshot.stamp_s, ahead_s)
        self._origin = inference.snapshot

    # What goes out.

    @_locked
    def check(self, now_s: float, wall_s: float) -> None:
        """End the motion where a stream went stale or the operator let go. To be called on a wall clock."""
        self._hold_if_told(wall_s)
        if self._phase is not Phase.RUNNING:
            return
        faults = self._senses.faults(now_s, wall_s)
        fault = "; ".join(faults) if faults else self._guard.workspace_fault(self._senses.states())
        if fault:
            self._close(fault)

    @_locked
    def command(self, now_s: float, wall_s: float) -> Command | None:
        """The command to send now, or None where there is none."""
        self.check(now_s, wall_s)
        if self._motion.plan is None or self._senses.faults(now_s, wall_s):
            return None
        ahead_s = now_s + self._settings.command_lead_s
        if self._motion.over(ahead_s):
            self._motion.finish(self._senses.states())
            self._origin = self._last_wall_s = None
            return None
        position_age_s = self._senses.stamp_age_s(self._guard.position_stream, now_s, wall_s)
        try:
            command = self._motion.command(ahead_s, self._senses.states(), position_age_s)
        except LimitFault as fault:
            self._close(str(fault))
            return None
        if command is not None:
            self._phase = Phase.RUNNING
            self._note(command, now_s, wall_s)
        return command

    @_locked
    def take_halt(self, now_s: float) -> Command | None:
        """One last command after a motion has ended, or None: Motion.halt."""
        return self._motion.halt(now_s + self._settings.command_lead_s)

    @_locked
    def status(self, now_s: float, wall_s: float) -> Status:
        """A picture of all this."""
        waiting: list[str] = []
        if self._phase is Phase.WAITING:
            hold = self._operator.hold(wall_s)
            waiting = [hold] if hold else []
            waiting += self._senses.faults(now_s, wall_s)
            waiting = waiting or [self._refusal or "the first chunk of the policy"]
        plan = self._motion.plan
        return Status(self._phase, self._latch.cause, tuple(waiting),
                      self._senses.ages(now_s, wall_s),
                      plan.remaining(now_s) if plan else 0, max(plan.end_s - now_s, 0.0) if plan else 0.0,
                      self._chunks, self._late_chunks, self._commands, self._motion.bounded)

    @_locked
    def write_timing(self, path: Path, **about: object) -> None:
        """Write the loop timing and `about` as JSON. Raises OSError where that fails."""
        self._timing.write(path, **about)

    @_locked
    def timing(self) -> dict[str, Any]:
        """The loop timing's figures: LoopTiming.summary()."""
        return self._timing.summary()

    def _note(self, command: Command, now_s: float, wall_s: float) -> None:
        if command.values is None and command.trajectory is None:
            return
        self._commands += 1
        if self._last_wall_s is not None:
            self._timing.command_interval_s.append(wall_s - self._last_wall_s)
        self._last_wall_s = wall_s
        if self._origin is not None:
            self._timing.arrival_to_command_s.append(wall_s - self._origin.arrival_s)
            self._timing.stamp_to_command_s.append(now_s - self._origin.stamp_s)
            self._origin = None

    def _hold_if_told(self, wall_s: float) -> None:
        """End the motion, or the one that is about to begin with a chunk that came late."""
        planned = self._phase is Phase.RUNNING or (self._phase is Phase.WAITING and self._motion.plan is not None)
        if planned and self._operator.hold(wall_s):
            self._end()
            self._phase = Phase.WAITING

    def _close(self, cause: str) -> None:
        self._end()
        self._latch.close(cause)
        self._phase = Phase.LATCHED

    def _end(self) -> None:
        """End the motion, if there is one, and ignore what is being predicted."""
        self._motion.end(self._senses.states())
        self._forget_answers()
