"""Senses: what is known of the robot, how fresh it is, and what the policy is asked about."""

from __future__ import annotations

import numpy as np

from como_core.control.observations import Decode, ObservationBuffer, Snapshot
from como_core.control.status import Settings
from como_core.control.streams import StreamAge, StreamAges
from como_core.interface import Interface


class Senses:
    """The newest messages of every stream of an interface and their ages. Not thread-safe: its owner locks."""

    def __init__(self, interface: Interface, settings: Settings) -> None:
        self._interface, self._settings = interface, settings
        self._ages = StreamAges(interface.max_age_s, settings.wall_rate, settings.margin_s)
        self._buffer = ObservationBuffer(interface, settings.history_s)
        self._state_wait_s = max((1 / stream.rate_hz for stream in interface.state.values()), default=0.0)
        self._half_frame_s = 0.5 / max(camera.rate_hz for camera in interface.cameras.values())

    def clear(self) -> None:
        """Nothing has arrived; the instruction stays."""
        self._ages.clear()
        self._buffer.clear()

    def put_image(self, name: str, stamp_s: float, wall_s: float, decode: Decode) -> None:
        self._ages.arrived(name, stamp_s, wall_s)
        self._buffer.put_image(name, stamp_s, wall_s, decode)

    def put_state(self, name: str, stamp_s: float, wall_s: float, values: np.ndarray) -> None:
        self._ages.arrived(name, stamp_s, wall_s)
        self._buffer.put_state(name, stamp_s, values)

    def instruct(self, text: str | None) -> None:
        self._buffer.instruction = text

    def faults(self, now_s: float, wall_s: float) -> list[str]:
        """A sentence for every stream that is not to be used; empty when all are fresh."""
        return self._ages.faults(now_s, wall_s)

    def ages(self, now_s: float, wall_s: float) -> dict[str, StreamAge | None]:
        """Stream name -> its age; None where nothing has arrived."""
        return {name: self._ages.age(name, now_s, wall_s) for name in self._interface.max_age_s}

    def stamp_age_s(self, name: str | None, now_s: float, wall_s: float) -> float:
        """Age of a stream by its header stamp; 0 for no stream."""
        age = self._ages.age(name, now_s, wall_s) if name is not None else None
        return age.stamp_age_s if age is not None else 0.0

    def states(self) -> dict[str, np.ndarray]:
        """The newest values of every state stream that has any."""
        return self._buffer.newest_state()

    def question(self, wall_s: float, asked_s: float | None) -> Snapshot | None:
        """What to predict from, where a chunk is due. Every stream must be fresh.

        asked_s  stamp of the snapshot before; None for a first one
        """
        snapshot = self._buffer.snapshot()
        if asked_s is not None and snapshot.stamp_s < asked_s + 1 / self._settings.replan_hz - self._half_frame_s:
            return None
        # Pictures of the other cameras and the state of the same instant are mostly on their way behind the first
        # picture: half a frame is worth waiting for the ones, a period for the other.
        if (wall_s < snapshot.arrival_s + self._half_frame_s
                and not self._buffer.images_reach(snapshot.stamp_s - self._half_frame_s)):
            return None
        if (self._settings.uses_state and wall_s < snapshot.arrival_s + self._state_wait_s
                and not self._buffer.states_reach(snapshot.stamp_s)):
            return None
        return snapshot
