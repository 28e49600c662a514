"""Controller: everything between messages and commands, in plain Python.

Images and states go in; snapshots for the policy and commands for the robot come out. In this order a planned action
passes: finiteness of its chunk, stream ages, jump check, limits and workspace; what fails there closes the latch.

Times: `now_s` is the node's clock (simulated where there is one), `wall_s` a monotonic clock. Thread-safe.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from como_core.control.latch import Latch
from como_core.control.limits import Guard
from como_core.control.loop_timing import LoopTiming
from como_core.control.observations import Decode, ObservationBuffer, Snapshot
from como_core.control.plan import Plan, chunk_fault, chunk_plan, interpolation_of, spliced
from como_core.control.reference import VELOCITY_KINDS
from como_core.control.status import Command, Phase, Settings, Status
from como_core.control.streams import StreamAges
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
        self._interface, self._settings = interface, settings or Settings()
        self._action = interface.action
        self._interpolation = interpolation_of(self._action.kind)
        self._guard = Guard(interface)
        self._ages = StreamAges(interface.max_age_s, self._settings.wall_rate, self._settings.margin_s)
        self._buffer = ObservationBuffer(interface)
        self._state_wait_s = max((1 / stream.rate_hz for stream in interface.state.values()), default=0.0)
        self._latch = Latch()
        self._lock = threading.RLock()
        self._timing = LoopTiming()
        self._phase = Phase.IDLE
        self._epoch = self._chunks = self._late_chunks = self._commands = self._bounded = 0
        self._forget_motion()

    def _forget_motion(self) -> None:
        """No plan, no last command, no halt owed; answers of predictions under way will be ignored."""
        self._epoch += 1
        self._asked_s: float | None = None
        self._last_gripper: float | None = None
        self._refusal: str | None = None
        self._rest()

    def _rest(self) -> None:
        """Nothing is planned and nothing was sent: the next command is a first one."""
        self._plan: Plan | None = None
        self._origin: Snapshot | None = None
        self._last: np.ndarray | None = None
        self._last_wall_s: float | None = None
        self._halt_owed = False

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
        """Permit commands; they begin when every stream is fresh and a chunk has come. Opens the latch."""
        self._forget_motion()
        self._forget_streams()
        self._latch.open()
        self._phase = Phase.WAITING

    @_locked
    def stop(self) -> None:
        """Forbid commands at once. The latch keeps its cause."""
        self._end(self._forget_motion)
        self._phase = Phase.IDLE

    @_locked
    def reset(self, now_s: float, wall_s: float) -> str | None:
        """Open the latch. Refused, with the reason as result, while a stream is stale."""
        if self._phase is not Phase.LATCHED:
            return None
        faults = self._ages.faults(now_s, wall_s)
        if faults:
            return faults[0]
        self._latch.open()
        self._phase = Phase.WAITING
        return None

    @_locked
    def clock_jumped(self) -> None:
        """The node's clock went back, so what is stored is of another time: begin again from fresh streams."""
        self._end(self._forget_motion)
        self._forget_streams()
        if self._phase is Phase.RUNNING:
            self._phase = Phase.WAITING

    # What arrives.

    @_locked
    def put_image(self, name: str, stamp_s: float, wall_s: float, decode: Decode) -> None:
        """The newest image of a camera."""
        self._ages.arrived(name, stamp_s, wall_s)
        self._buffer.put_image(name, stamp_s, wall_s, decode)

    @_locked
    def put_state(self, name: str, stamp_s: float, wall_s: float, values: np.ndarray) -> None:
        """The newest values of a state stream."""
        self._ages.arrived(name, stamp_s, wall_s)
        self._buffer.put_state(name, stamp_s, values)

    @_locked
    def put_instruction(self, text: str | None) -> None:
        """What the robot is asked to do."""
        self._buffer.instruction = text

    # What the policy is asked and answers.

    @_locked
    def question(self, now_s: float, wall_s: float) -> tuple[Snapshot, int] | None:
        """A snapshot to predict from and its epoch, where a chunk is due and every stream is fresh; else None."""
        if self._phase not in (Phase.WAITING, Phase.RUNNING) or self._ages.faults(now_s, wall_s):
            return None
        snapshot = self._buffer.snapshot()
        half_frame_s = 0.5 / max(camera.rate_hz for camera in self._interface.cameras.values())
        if self._asked_s is not None and snapshot.stamp_s < self._asked_s + 1 / self._settings.replan_hz - half_frame_s:
            return None
        # The state of the same instant is mostly on its way behind the image; one of its periods is worth waiting.
        if wall_s < snapshot.arrival_s + self._state_wait_s and not self._buffer.states_reach(snapshot.stamp_s):
            return None
        self._asked_s = snapshot.stamp_s
        return snapshot, self._epoch

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
        self._plan = spliced(self._plan, new, ahead_s, self._settings.blend_s)
        self._origin = inference.snapshot

    # What goes out.

    @_locked
    def check(self, now_s: float, wall_s: float) -> None:
        """Close the latch where a stream went stale while the robot moves. To be called on a wall clock."""
        if self._phase is Phase.RUNNING:
            faults = self._ages.faults(now_s, wall_s)
            if faults:
                self._close("; ".join(faults))

    @_locked
    def command(self, now_s: float, wall_s: float) -> Command | None:
        """The command to send now, or None where there is none."""
        self.check(now_s, wall_s)
        if self._plan is None or self._ages.faults(now_s, wall_s):
            return None
        ahead_s = now_s + self._settings.command_lead_s
        planned = self._plan.at(ahead_s)
        if planned is None:
            if self._plan.remaining(ahead_s) == 0:
                self._end(self._rest)
            return None
        values = self._guarded(planned, now_s, wall_s)
        if values is None:
            return None
        self._phase = Phase.RUNNING
        self._note(values, now_s, wall_s)
        return Command(values[:len(self._action.names)], self._changed_gripper(values))

    @_locked
    def take_halt(self) -> Command | None:
        """One final zero velocity after a motion ended, for velocity kinds only; None in every other case.

        A position command holds by itself, and zero would be a pose. A velocity would go on for Action.hold_s, or
        for ever where the controller has no timeout (forward_command).
        """
        if not self._halt_owed:
            return None
        self._halt_owed = False
        return Command(np.zeros(len(self._action.names), np.float32))

    @_locked
    def status(self, now_s: float, wall_s: float) -> Status:
        """A picture of all this."""
        waiting: list[str] = []
        if self._phase is Phase.WAITING:
            waiting = self._ages.faults(now_s, wall_s) or [self._refusal or "the first chunk of the policy"]
        plan = self._plan
        return Status(self._phase, self._latch.cause, tuple(waiting),
                      {name: self._ages.age(name, now_s, wall_s) for name in self._interface.max_age_s},
                      plan.remaining(now_s) if plan else 0, max(plan.end_s - now_s, 0.0) if plan else 0.0,
                      self._chunks, self._late_chunks, self._commands, self._bounded)

    @_locked
    def write_timing(self, path: Path, **about: object) -> None:
        """Write the loop timing and `about` as JSON. Raises OSError where that fails."""
        self._timing.write(path, **about)

    @_locked
    def timing(self) -> dict[str, Any]:
        """The loop timing's figures: LoopTiming.summary()."""
        return self._timing.summary()

    def _guarded(self, planned: np.ndarray, now_s: float, wall_s: float) -> np.ndarray | None:
        """The planned action within all limits; None, with the latch closed, where it must not be begun at all."""
        states = self._buffer.newest_state()
        if self._last is None:
            fault = self._guard.first_fault(planned, states)
            if fault:
                self._close(fault)
                return None
        age = self._ages.age(self._guard.position_stream, now_s, wall_s) if self._guard.position_stream else None
        values = self._guard.bound(planned, self._last, states, age.stamp_age_s if age else 0.0)
        self._bounded += not np.array_equal(values, planned)
        return values

    def _note(self, values: np.ndarray, now_s: float, wall_s: float) -> None:
        self._commands += 1
        self._last = values
        if self._last_wall_s is not None:
            self._timing.command_interval_s.append(wall_s - self._last_wall_s)
        self._last_wall_s = wall_s
        if self._origin is not None:
            self._timing.arrival_to_command_s.append(wall_s - self._origin.arrival_s)
            self._timing.stamp_to_command_s.append(now_s - self._origin.stamp_s)
            self._origin = None

    def _changed_gripper(self, values: np.ndarray) -> float | None:
        gripper = self._action.gripper
        if gripper is None:
            return None
        value = float(values[-1])
        if self._last_gripper is not None and abs(value - self._last_gripper) < gripper.resolution:
            return None
        self._last_gripper = value
        return value

    def _close(self, cause: str) -> None:
        self._end(self._forget_motion)
        self._latch.close(cause)
        self._phase = Phase.LATCHED

    def _end(self, forget: Callable[[], None]) -> None:
        """End the motion, if there is one; a velocity that was sent is owed a halt."""
        owed = self._halt_owed or (self._last is not None and self._action.kind in VELOCITY_KINDS)
        forget()
        self._halt_owed = owed

    def _forget_streams(self) -> None:
        self._ages.clear()
        self._buffer.clear()
