"""Ages of the streams that a policy needs: each has its own limit, on two clocks.

The header stamp against the node's clock finds a driver that repeats an old frame; the arrival against the wall finds
a stream that ended, also where the node's clock ended with it (a simulation that died).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class StreamAge:
    """How old a stream is: seconds since its newest header stamp and since its newest arrival."""

    name: str
    max_age_s: float
    stamp_age_s: float
    arrival_age_s: float
    arrival_limit_s: float
    margin_s: float

    @property
    def fault(self) -> str | None:
        """Why the stream is not to be used, or None while it is fresh."""
        stream, limit = f"stream {self.name!r}", f"max_age_s is {self.max_age_s:g}"
        if self.arrival_age_s > self.arrival_limit_s - self.margin_s:
            return f"{stream} is stale: nothing arrived for {self.arrival_age_s:.3f} s, {limit}"
        if self.stamp_age_s > self.max_age_s - self.margin_s:
            return f"{stream} is stale: its header stamp is {self.stamp_age_s:.3f} s old, {limit}"
        if self.stamp_age_s < -self.max_age_s:
            return (f"{stream} is stamped {-self.stamp_age_s:.3f} s in the future, {limit}; "
                    "set the clocks of driver and node alike (use_sim_time)")
        return None


class StreamAges:
    """The newest stamp and arrival of every stream.

    wall_rate  simulated seconds per wall second, where below 1 (a slow simulation); arrival limits stretch by it
    margin_s   a stream counts as stale this much early, so that the check that finds it still ends in time
    """

    def __init__(self, max_age_s: Mapping[str, float], wall_rate: float = 1.0, margin_s: float = 0.0) -> None:
        self._max_age_s = dict(max_age_s)
        self._stretch = 1.0 / min(1.0, wall_rate)
        self._margin_s = margin_s
        self._newest: dict[str, tuple[float, float]] = {}

    def arrived(self, name: str, stamp_s: float, wall_s: float) -> None:
        """Note a message: header stamp on the node's clock, arrival on a monotonic wall clock."""
        self._newest[name] = (stamp_s, wall_s)

    def clear(self) -> None:
        """Forget every message, as if none had arrived."""
        self._newest.clear()

    def missing(self) -> list[str]:
        """Streams of which nothing has arrived."""
        return [name for name in self._max_age_s if name not in self._newest]

    def age(self, name: str, now_s: float, wall_s: float) -> StreamAge | None:
        """Age of one stream; None where nothing has arrived."""
        if name not in self._newest:
            return None
        stamp_s, arrival_s = self._newest[name]
        limit = self._max_age_s[name]
        return StreamAge(name, limit, now_s - stamp_s, wall_s - arrival_s, limit * self._stretch, self._margin_s)

    def faults(self, now_s: float, wall_s: float) -> list[str]:
        """A sentence for every stream that has no message, or none young enough; empty when all are fresh."""
        found = []
        for name in self._max_age_s:
            age = self.age(name, now_s, wall_s)
            fault = f"stream {name!r}: nothing has arrived yet" if age is None else age.fault
            if fault:
                found.append(fault)
        return found
