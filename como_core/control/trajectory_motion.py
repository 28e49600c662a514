"""Motion for joint_trajectory_controller: each chunk is one message, and the controller keeps the time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from como_core.control.blending import Blender
from como_core.control.limits import Guard
from como_core.control.motion import LimitFault, Motion, States
from como_core.control.plan import EARLY_S, Plan
from como_core.control.status import Command
from como_core.control.trajectory import Trajectory, spline_velocities, velocity_at
from como_core.interface import Action

# Where no acceleration is known, an arm is brought to rest in this time.
BRAKE_S = 0.2
_SHORTEST_BRAKE_S = 0.05


class TrajectoryMotion(Motion):
    """Sends a trajectory when a chunk has come, stamped with its observation's time, and the gripper in between.

    Of a chunk the points that are past go out as they were planned, then where the arm should be at present, then what
    is still ahead, within limits, with the velocities of a spline that ends at rest.
    """

    def __init__(self, action: Action, guard: Guard, blender: Blender) -> None:
        self._speed = np.full(len(action.names), np.inf)
        if action.limits.max_velocity_per_s is not None:
            self._speed = np.array(action.limits.max_velocity_per_s)
        super().__init__(action, guard, blender)

    def _rest(self) -> None:
        super()._rest()
        self._sent: Trajectory | None = None
        self._stopping: tuple[Plan, Trajectory, np.ndarray, np.ndarray] | None = None
        self._chunk: tuple[Plan, Plan | None, float] | None = None

    def take(self, chunk: Plan, stamp_s: float, now_s: float) -> None:
        self._chunk = chunk, self.plan, stamp_s
        super().take(chunk, stamp_s, now_s)

    def command(self, now_s: float, states: States, position_age_s: float) -> Command | None:
        planned = self.plan.at(now_s) if self.plan is not None else None
        trajectory = None
        if self._chunk is not None:
            chunk, self._chunk = self._chunk, None
            trajectory = self._trajectory(*chunk, now_s, states)
            if trajectory is not None:
                self._sent = trajectory
        if self._sent is None:
            return None
        gripper = self._changed_gripper(planned) if planned is not None else None
        return None if trajectory is None and gripper is None else Command(None, gripper, trajectory)

    def finish(self, states: States) -> None:
        stopping = self._stopping
        if self._sent is not None and self.plan is not None and self.last is not None:
            stopping = self.plan, self._sent, self._guard.reference.values(states), self.last
        self._rest()
        self._stopping = stopping

    def halt(self, now_s: float) -> Command | None:
        """One point that ends the motion on its way: where even braking leads to, at rest. None where it is over."""
        if self._stopping is None:
            return None
        (plan, sent, measured, last), self._stopping = self._stopping, None
        at_s = now_s - sent.stamp_s
        if at_s >= sent.times_s[-1]:
            return None
        size = len(self._action.names)
        planned = plan.at(now_s)
        velocity = velocity_at(sent.times_s, sent.positions[:, :size], sent.velocities[:, :size], at_s)
        here = np.asarray(measured if planned is None else planned[:size], np.float64)
        brake_s = BRAKE_S
        if self._action.limits.max_acceleration_per_s2 is not None:
            brake_s = float(np.max(np.abs(velocity) / np.array(self._action.limits.max_acceleration_per_s2)))
        brake_s = max(brake_s, _SHORTEST_BRAKE_S)
        goal = self._guard.bound(np.append(here + velocity * brake_s / 2, last[size:]), None, {}, paced=False)
        positions = self._joints(goal[None].astype(np.float64))
        return Command(None, None, Trajectory(now_s, np.array([brake_s]), positions, np.zeros_like(positions)))

    def _trajectory(self, chunk: Plan, old: Plan | None, stamp_s: float, now_s: float,
                    states: States) -> Trajectory | None:
        assert self.plan is not None
        # A camera's clock may be ahead of ours, a simulated one comes in steps: no point is due before the stamp.
        now_s = max(now_s, stamp_s)
        ahead = self.plan.due_s > now_s + EARLY_S
        if not ahead.any():
            return None
        here, velocity = self._here(old, now_s, states)
        due_s, values = self.plan.due_s[ahead], self._bounded(self.plan, ahead, here, velocity, now_s, states)
        self.plan = replace(self.plan, values=np.concatenate([self.plan.values[~ahead], values]))
        past = (chunk.due_s < now_s - EARLY_S) & (chunk.due_s >= stamp_s)
        before = [self._guard.bound(row, None, {}, paced=False) for row in (*self._as_planned(chunk, old, past), here)]
        rows = np.concatenate([np.array(before), values]).astype(np.float64)
        times_s = np.concatenate([chunk.due_s[past], [now_s], due_s])
        positions = self._joints(rows)
        start = np.zeros(positions.shape[1])
        start[:len(velocity)] = velocity
        velocities = np.zeros_like(positions)
        first = int(past.sum())
        velocities[first:] = spline_velocities(times_s[first:], positions[first:], start)
        velocities[:first] = start
        size = len(self._speed)
        velocities[:, :size] = np.clip(velocities[:, :size], -self._speed, self._speed)
        self.last = values[-1]
        return Trajectory(stamp_s, times_s - stamp_s, positions, velocities)

    def _here(self, old: Plan | None, now_s: float, states: States) -> tuple[np.ndarray, np.ndarray]:
        """Where the arm should be at present [A] and how fast it moves [len(names)]."""
        size = len(self._action.names)
        planned = old.at(now_s) if old is not None and self._sent is not None else None
        if planned is None or self._sent is None:
            assert self.plan is not None
            first = self.plan.values[np.searchsorted(self.plan.due_s, now_s, side="right") - 1]
            return np.append(self._guard.reference.values(states), first[size:]), np.zeros(size)
        velocity = velocity_at(self._sent.times_s, self._sent.positions[:, :size], self._sent.velocities[:, :size],
                               now_s - self._sent.stamp_s)
        return planned, velocity

    def _bounded(self, plan: Plan, ahead: np.ndarray, here: np.ndarray, velocity: np.ndarray, now_s: float,
                 states: States) -> np.ndarray:
        """The waypoints ahead [K, A] within all limits. Raises LimitFault where the first is out of the arm's reach."""
        size = len(self._action.names)
        wanted, due_s = plan.values[ahead], plan.due_s[ahead]
        fault = self._guard.waypoint_fault(wanted[0], states, due_s[0] - now_s)
        if fault is None and self._sent is None:
            fault = self._guard.first_fault(wanted[0], states)
        if fault:
            raise LimitFault(fault)
        rows, last, at_s = [], here, now_s
        for value, then_s in zip(wanted, due_s, strict=True):
            bounded = self._guard.bound(value, last, states, 0.0, velocity, then_s - at_s)
            velocity = (bounded[:size].astype(np.float64) - last[:size]) / (then_s - at_s)
            last, at_s = bounded, then_s
            rows.append(bounded)
        # Where the arm did not follow, what was wanted may be in its reach and the way to it from the plan is not.
        fault = self._guard.waypoint_fault(rows[0], states, due_s[0] - now_s)
        if fault:
            raise LimitFault(fault)
        self.bounded += not np.array_equal(rows, wanted)
        return np.array(rows)

    @staticmethod
    def _as_planned(chunk: Plan, old: Plan | None, past: np.ndarray) -> np.ndarray:
        values = chunk.values[past].copy()
        for k, due_s in enumerate(chunk.due_s[past]):
            planned = old.at(due_s) if old is not None else None
            values[k] = values[k] if planned is None else planned
        return values

    def _joints(self, rows: np.ndarray) -> np.ndarray:
        """Actions [K, A] as joint positions [K, J]: the gripper, where it is a joint, in metres or radians."""
        size, gripper = len(self._action.names), self._action.gripper
        if gripper is None or gripper.joint is None:
            return rows[:, :size]
        closing = np.clip(rows[:, size:], 0.0, 1.0)
        return np.concatenate([rows[:, :size], gripper.position(0.0) + closing * (gripper.position(1.0)
                                                                                  - gripper.position(0.0))], axis=1)
