"""policy_node with a policy that can be told to fail: `python test/soak_policy.py --ros-args ...`.

Its instruction is its mood. Besides, it looks at every observation, and a thread writes down how late it woke: what a
busy machine took from this process. Its checkpoint folder holds interface.yaml.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

from como_core.action_chunk import ActionChunk, Observation
from como_core.errors import ComoError
from como_core.interface import Interface, load_interface
from como_ros.policy_node import PolicyNode, run

STEPS = 40
STEP_S = 0.02
SPEED_SHARE = 0.3  # of max_velocity_per_s, in good moods
BEAT, BEAT_S, LATE_S = "beat", 0.005, 0.005
ASKED = "the soak asked for this"
TRACEBACK = f"RuntimeError: {ASKED}"
STALLS, SEEN_WRONG = "stalls.txt", "observations.txt"


class SoakPolicy:
    """Moves each joint slowly to and fro from wherever the arm is."""

    def __init__(self, folder: Path) -> None:
        self.interface: Interface = load_interface(folder / "interface.yaml")
        self._folder, self._rng = folder, np.random.default_rng(os.getpid())
        limits = self.interface.action.limits
        assert limits.lower and limits.upper and limits.max_velocity_per_s
        self._middle = (np.array(limits.lower) + np.array(limits.upper)) / 2
        self._half = (np.array(limits.upper) - np.array(limits.lower)) / 2
        self._speed = np.array(limits.max_velocity_per_s)

    def warm_up(self) -> None:
        """Begin to watch; one thread for the process, however often it is configured."""
        if not any(thread.name == BEAT for thread in threading.enumerate()):
            threading.Thread(target=_beat, args=(self._folder / STALLS,), name=BEAT, daemon=True).start()

    def predict(self, observation: Observation) -> ActionChunk:
        mood = observation.instruction or ""
        wrong = self._wrong(observation)
        if wrong:
            with (self._folder / SEEN_WRONG).open("a") as file:
                file.write(wrong + "\n")
        time.sleep(float(self._rng.uniform(0.005, 0.03)) + (0.7 if mood == "slow" else 0.0))
        if mood == "raise":
            raise RuntimeError(ASKED)
        if mood == "refuse":
            raise ComoError(ASKED)
        return _spoilt(self._chunk(observation, mood), mood, self._rng)

    def _chunk(self, observation: Observation, mood: str) -> ActionChunk:
        assert observation.state is not None
        here, times_s = observation.state[:len(self._middle)].astype(np.float64), np.arange(STEPS) * STEP_S
        phases = observation.stamp_s * 0.7 + np.arange(len(here)) + times_s[:, None] * 0.7
        goal = self._middle + 0.3 * self._half * np.sin(phases)
        reach = SPEED_SHARE * self._speed * times_s[:, None]
        values = here + np.clip(goal - here, -reach, reach)
        if mood == "eager":  # faster and further than is allowed
            values += np.sign(np.sin(3 * phases)) * np.maximum(times_s - 0.3, 0)[:, None] * 4 * self._speed
        if mood == "far":
            values += 0.5 * np.sign(np.sin(phases))
        closing = 0.5 + 0.5 * np.sin(phases[:, :1])
        return ActionChunk(times_s, np.hstack([values, closing]).astype(np.float32), "soak")

    def _wrong(self, observation: Observation) -> str | None:
        """What is wrong with an observation: it must be whole, finite, and of the moment that it is stamped with."""
        for name, image in observation.images.items():
            camera = self.interface.cameras[name]
            if image.shape != (camera.height, camera.width, 3) or image.dtype != np.uint8:
                return f"{name}: {image.dtype} {image.shape}"
            stamp_s = int.from_bytes(image.reshape(-1)[:8].tobytes(), "little") / 1e9
            # All streams were fresh when it was made, so none is older than its max_age_s before the newest.
            if not -camera.max_age_s <= observation.stamp_s - stamp_s <= camera.max_age_s:
                return f"{name}: a picture of {stamp_s:.3f} in an observation of {observation.stamp_s:.3f}"
        state = observation.state
        size = sum(len(stream.names) for stream in self.interface.state.values())
        if state is None or state.shape != (size,) or not np.isfinite(state).all():
            return f"state {state}"
        return None


def _spoilt(chunk: ActionChunk, mood: str, rng: np.random.Generator) -> ActionChunk:
    """What a broken policy makes of a chunk."""
    times, values = chunk.times_s.copy(), chunk.values.astype(np.float64)
    i, j = int(rng.integers(len(values))), int(rng.integers(values.shape[1]))
    if mood in ("nan", "inf", "huge", "beyond"):
        values[i, j] = {"nan": np.nan, "inf": -np.inf, "huge": 1e30, "beyond": 1e200}[mood]
    elif mood == "shape":
        values = values[:, :-1]
    elif mood == "empty":
        times, values = times[:0], values[:0]
    elif mood == "order":
        times = times[::-1]
    elif mood == "late":
        times = times + 1e12
    return ActionChunk(times, values if mood in ("beyond", "shape") else values.astype(np.float32), chunk.source)


def _beat(path: Path) -> None:
    """Write down each time this thread woke late: time in ns, and by how many seconds."""
    while True:
        before = time.monotonic()
        time.sleep(BEAT_S)
        late_s = time.monotonic() - before - BEAT_S
        if late_s > LATE_S:
            with path.open("a") as file:
                file.write(f"{time.time_ns()} {late_s:.4f}\n")


if __name__ == "__main__":
    sys.exit(run(lambda: PolicyNode(lambda folder, device: SoakPolicy(folder))))
