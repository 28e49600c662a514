"""What a command may be, worked out from the interface file alone: the judge of the soak and of the fuzz.

It knows nothing of the controller's code: it is told what was sent, when, and where the arm was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from como_core.interface import Action

ROUNDING = 1e-4  # commands are float32
VELOCITIES = ("joint_velocity", "ee_twist")
AT_NOW_S = 2e-3  # a point due so much later than now is at present: stamps are rounded on their way
_LAG_S = 0.1  # an arm may lag so much behind its trajectory (docs/nodes.md)


@dataclass
class Way:
    """One way from a place to the next: which limits it passes, in words, and how much of each it uses."""

    moved: np.ndarray
    wrong: list[str] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)

    def compare(self, name: str, used: np.ndarray, limit: np.ndarray) -> None:
        """`used` [len(names)] beside its limit, which may be infinite."""
        bounded = np.isfinite(limit)
        if bounded.any():
            self.shares[name] = float((used[bounded] / limit[bounded]).max())
        if (used > limit + ROUNDING).any():
            worst = int(np.argmax(used - limit))
            self.wrong.append(f"{name}: value {worst} uses {used[worst]:.5f}, limit {limit[worst]:.5f}")


@dataclass
class Judge:
    """Commands of one interface, one after the other. Each call returns what is wrong with a command, in words.

    worst  name of a limit -> the largest share of it that was used
    """

    action: Action
    worst: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        limits, size = self.action.limits, len(self.action.names)
        self._lower, self._upper, self._speed, self._acceleration, self._step, self._jump = (
            np.full(size, default) if bound is None else np.array(bound, np.float64) for bound, default in (
                (limits.lower, -np.inf), (limits.upper, np.inf), (limits.max_velocity_per_s, np.inf),
                (limits.max_acceleration_per_s2, np.inf), (limits.step, np.inf), (limits.jump, np.inf)))
        self._period_s = 1 / self.action.rate_hz
        self._turn = [i for i, name in enumerate(self.action.names) if self.action.kind == "ee_pose"
                      and name.startswith("orientation")]
        self.forget()

    def forget(self) -> None:
        """The next command begins a motion."""
        self._last: np.ndarray | None = None
        self._moved: list[np.ndarray] = []  # by which the last command may have moved on

    def values(self, values: Sequence[float], measured: Iterable[np.ndarray], new_motion: bool) -> list[str]:
        """A command of one value for each name.

        measured    where the arm was lately, each [len(names)]: one of them is where a new motion begins
        new_motion  whether this may be the first command of a motion, which begins from rest
        """
        sent = np.asarray(values, np.float64)
        wrong = self._standing(sent[None])
        if wrong:
            return wrong
        ways = [] if self._last is None else [self._pace(sent, self._last, moved) for moved in self._moved]
        if self._last is None or new_motion:
            start = [np.zeros(len(sent))] if self.action.kind in VELOCITIES else _different(measured)
            ways += [self._pace(sent, here, np.zeros(len(sent)), first=True) for here in start]
        best = min(ways, key=lambda way: len(way.wrong), default=None)
        self._last = sent
        self._moved = [] if best is None else _different(way.moved for way in ways if len(way.wrong) == len(best.wrong))
        return [] if best is None else self._noted(best)

    def trajectory(self, at_s: float, times_s: Sequence[float], positions: Sequence[Sequence[float]],
                   velocities: Sequence[Sequence[float]], measured: Iterable[np.ndarray] = (),
                   late_s: float = 0.0) -> list[str]:
        """A trajectory of K points that was sent `at_s` after its stamp. One point alone is the end of a motion.

        late_s  by how much it may have been made earlier than it was sent
        """
        size = len(self.action.names)
        times, points = np.asarray(times_s, np.float64), np.asarray(positions, np.float64)
        speeds = np.asarray(velocities, np.float64)
        if not (len(times) == len(points) == len(speeds)) or not len(times):
            return [f"{len(times)} times, {len(points)} positions, {len(speeds)} velocities"]
        wrong = self._standing(points[:, :size])
        if not (np.isfinite(times).all() and np.isfinite(speeds).all()):
            wrong.append("NaN or infinity in times or velocities")
        if wrong:
            return wrong
        points, speeds = points[:, :size], speeds[:, :size]
        if np.any(np.diff(times) <= 0) or times[0] < 0:
            wrong.append("times that do not increase from 0 on")
        if np.any(speeds[-1]):
            wrong.append("it does not end at rest")
        if (np.abs(speeds) > self._speed + ROUNDING).any():
            wrong.append(f"velocity {np.abs(speeds).max():.3f}")
        here = int(np.searchsorted(times, max(at_s, 0.0) + AT_NOW_S, side="right")) - 1
        if len(times) == 1 or here < 0:
            return wrong
        start = points[here]
        # It was sent a little after it was made: what is past by now may have been ahead, and bounded by the way to it.
        moved = [speeds[here]]
        if here > 0:
            moved.append((start - points[here - 1]) / (times[here] - times[here - 1]))
        before_s = times[here]
        for k in range(here + 1, len(times)):
            gap_s = times[k] - before_s
            ways = [self._pace(points[k], start, velocity * gap_s, gap_s) for velocity in moved]
            wrong += self._noted(min(ways, key=lambda way: len(way.wrong)))
            moved, start, before_s = [(points[k] - start) / gap_s], points[k], times[k]
        first = here + 1
        lag = [np.abs(points[first] - place) for place in measured] if first < len(times) else []
        if lag:
            reach = self._speed * (times[first] - times[here] + _LAG_S + late_s) + ROUNDING
            if not any((distance <= reach).all() for distance in lag):
                wrong.append(f"its first point ahead is {np.min(lag, axis=0).max():.3f} from the arm")
        return wrong

    def _standing(self, rows: np.ndarray) -> list[str]:
        """What is wrong with each row [K, len(names)] by itself."""
        if not np.isfinite(rows).all():
            return ["NaN or infinity"]
        if rows.shape[1:] != (len(self.action.names),):
            return [f"{rows.shape[1:]} values, expected {len(self.action.names)}"]
        off = np.maximum(self._lower - rows, rows - self._upper)
        if self._turn:
            off[:, self._turn] = np.abs(np.linalg.norm(rows[:, self._turn], axis=1) - 1)[:, None]
        span = np.where(np.isfinite(self._upper - self._lower), self._upper - self._lower, 1.0)
        self._note("position", float((1 + 2 * off / span).max()))
        if not (off > ROUNDING).any():
            return []
        k, i = np.unravel_index(int(np.argmax(off)), off.shape)
        return [f"{self.action.names[i]} at {rows[k, i]:.5f}, limits {self._lower[i]:g} to {self._upper[i]:g}"]

    def _pace(self, sent: np.ndarray, last: np.ndarray, moved: np.ndarray, gap_s: float | None = None,
              first: bool = False) -> Way:
        """The way from `last` to `sent`, where the way before it was `moved` in as much time."""
        gap_s = self._period_s if gap_s is None else gap_s
        way = np.abs(sent - last)
        # Bounds come last: a value may stop at its limit however fast it came, and come back in from a place outside.
        edge = (np.abs(sent - self._lower) < ROUNDING) | (np.abs(sent - self._upper) < ROUNDING)
        way[edge & ((last < self._lower) | (last > self._upper))] = 0
        found = Way(sent - last)
        if self.action.kind in VELOCITIES:
            if np.any(sent):  # an end by zero velocity is not held back
                found.compare("acceleration", way, self._acceleration * gap_s)
                found.compare("step", way, self._step)
            return found
        found.compare("velocity", way, self._speed * gap_s)
        found.compare("step", way, self._step)
        if first:
            found.compare("jump", way, self._jump)
        if not self._turn:
            found.compare("acceleration", np.where(edge, 0, np.abs(sent - last - moved)), self._acceleration * gap_s**2)
        return found

    def _noted(self, way: Way) -> list[str]:
        for name, share in way.shares.items():
            self._note(name, share)
        return way.wrong

    def _note(self, name: str, share: float) -> None:
        self.worst[name] = max(self.worst.get(name, 0.0), share)


def _different(rows: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Rows without those that are the same as one before."""
    return list({tuple(np.round(row, 6)): np.asarray(row, np.float64) for row in rows}.values())
