"""The newest messages of every stream, and the observation that is made of them.

Callbacks put messages in, which is cheap; the worker makes the observation, which decodes images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from como_core.action_chunk import Observation, history_rows
from como_core.errors import ComoError
from como_core.interface import Interface, state_vector

# States are kept for as long as an image may be late. This many messages are the most, whatever their stamps say.
_LARGEST_HISTORY = 4096

Decode = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Snapshot:
    """What was known at one instant, not yet decoded.

    stamp_s      header stamp of the newest image
    arrival_s    when that image arrived, on the wall
    images       camera name -> a call that decodes to uint8 [H, W, 3], RGB
    state        float32 [S] at stamp_s, or None where the interface has no state
    prefix       float32 [P, A] of actions that are carried out in any case, or None: Observation.prefix
    past         the same as `images`, of earlier moments: Observation.past
    """

    stamp_s: float
    arrival_s: float
    images: dict[str, Decode]
    state: np.ndarray | None
    instruction: str | None
    prefix: np.ndarray | None = None
    past: tuple[dict[str, Decode], ...] = ()

    def observation(self) -> Observation:
        """Decode. Raises ComoError, naming the topic, for an image that cannot be used."""
        now, *past = ({name: decode() for name, decode in images.items()} for images in (self.images, *self.past))
        return Observation(self.stamp_s, now, self.state, self.instruction, self.prefix, tuple(past))


@dataclass(frozen=True)
class _Image:
    stamp_s: float
    arrival_s: float
    decode: Decode


class ObservationBuffer:
    """The last images of every camera and a short history of every state stream. Not thread-safe: its owner locks.

    history_s  how long before the newest image those of `Snapshot.past` are, in seconds
    """

    def __init__(self, interface: Interface, history_s: tuple[float, ...] = ()) -> None:
        self._interface, self._history_s = interface, history_s
        self._late_s = max((camera.max_age_s for camera in interface.cameras.values()), default=0.0)
        self.instruction: str | None = None
        self.clear()

    def clear(self) -> None:
        """Forget images and states; the instruction stays."""
        self._images: dict[str, deque[_Image]] = {}
        self._states: dict[str, deque[tuple[float, np.ndarray]]] = {
            name: deque(maxlen=_LARGEST_HISTORY) for name in self._interface.state}

    def put_image(self, name: str, stamp_s: float, arrival_s: float, decode: Decode) -> None:
        images = self._images.setdefault(name, deque())
        while images and images[-1].stamp_s >= stamp_s:
            images.pop()  # repeated or reordered: the one that came last counts
        images.append(_Image(stamp_s, arrival_s, decode))
        # One image at least as old as the longest lag is kept, and all since.
        horizon_s = stamp_s - max(self._history_s, default=0.0)
        while len(images) > 1 and images[1].stamp_s <= horizon_s:
            images.popleft()

    def put_state(self, name: str, stamp_s: float, values: np.ndarray) -> None:
        history = self._states[name]
        if history and stamp_s <= history[-1][0]:
            # Interpolation needs increasing stamps: a repeated or reordered one starts anew.
            history.clear()
        history.append((stamp_s, values))
        while len(history) > 2 and history[1][0] <= stamp_s - self._late_s:
            history.popleft()

    def newest_state(self) -> dict[str, np.ndarray]:
        """The last values of every state stream that has any."""
        return {name: history[-1][1] for name, history in self._states.items() if history}

    def images_reach(self, stamp_s: float) -> bool:
        """Whether every camera has an image of `stamp_s` or later."""
        return all(name in self._images and self._images[name][-1].stamp_s >= stamp_s
                   for name in self._interface.cameras)

    def states_reach(self, stamp_s: float) -> bool:
        """Whether every state stream has a message of `stamp_s` or later."""
        return all(history and history[-1][0] >= stamp_s for history in self._states.values())

    def snapshot(self) -> Snapshot:
        """What an observation is made of. Raises ComoError, naming the stream, where one is missing."""
        missing = [n for n in self._interface.cameras if n not in self._images]
        missing += [n for n in self._interface.state if not self._states[n]]
        if missing:
            raise ComoError(f"no observation without stream {missing[0]!r}: nothing has arrived on it")
        newest = max((images[-1] for images in self._images.values()), key=lambda image: image.stamp_s)
        stamp_s = newest.stamp_s
        state = None
        if self._interface.state:
            values = {name: _at(history, stamp_s) for name, history in self._states.items()}
            state = state_vector(self._interface, values)
        rows = {name: history_rows(np.array([image.stamp_s for image in images]), self._history_s,
                                   np.array([stamp_s]))[0].tolist() for name, images in self._images.items()}
        now, *past = ({name: images[rows[name][moment]].decode for name, images in self._images.items()}
                      for moment in range(1 + len(self._history_s)))
        return Snapshot(stamp_s, newest.arrival_s, now, state, self.instruction, past=tuple(past))


def _at(history: deque[tuple[float, np.ndarray]], stamp_s: float) -> np.ndarray:
    """The state at `stamp_s`, as training sees it: linear between messages, the nearest one outside of them."""
    stamps = np.array([stamp for stamp, _ in history])
    index = int(np.searchsorted(stamps, stamp_s))
    if index == 0 or index == len(stamps):
        return history[min(index, len(stamps) - 1)][1]
    (before_s, before), (after_s, after) = history[index - 1], history[index]
    way = (stamp_s - before_s) / (after_s - before_s)
    return np.asarray((1 - way) * before + way * after, np.float32)
