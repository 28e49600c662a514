"""From messages to numbers on one timeline: values of state and command messages, interpolated or held."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from como_core.formats.bag_writer import BagError
from como_core.interface import Action, StateStream

_ORIENTATION = ("orientation.x", "orientation.y", "orientation.z", "orientation.w")
# The part of a stamped message that dotted names such as `position.x` start from.
_BODY = {"geometry_msgs/msg/PoseStamped": "pose", "geometry_msgs/msg/TwistStamped": "twist"}


@dataclass(frozen=True)
class Samples:
    """Values of one stream: stamps_ns int64 [N], strictly increasing; values float64 [N, K]."""

    stamps_ns: np.ndarray
    values: np.ndarray

    @classmethod
    def sorted(cls, stamps_ns: Sequence[int], values: Sequence[Sequence[float]]) -> Samples:
        """Samples in the order of their stamps; of several with one stamp the last stands."""
        stamps, first_of_reversed = np.unique(np.asarray(stamps_ns, np.int64)[::-1], return_index=True)
        return cls(stamps, np.asarray(values, np.float64)[::-1][first_of_reversed])


def stamp_ns(message: Any) -> int:
    """Header stamp of a message, nanoseconds."""
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


def serialized_stamp_ns(cdr: bytes) -> int:
    """Header stamp, in nanoseconds, of a serialized message that begins with a std_msgs/Header.

    CDR: four bytes of encapsulation, of which the second says little-endian (1) or big (0), then sec and nanosec.
    Raises BagError where there are fewer bytes.
    """
    if len(cdr) < 12:
        raise BagError(f"a message of {len(cdr)} bytes; one with a header has 12 or more")
    sec, nanosec = struct.unpack_from("<iI" if cdr[1] else ">iI", cdr, 4)
    return int(sec) * 1_000_000_000 + int(nanosec)


def state_samples(stream: StateStream, messages: Sequence[Any], where: str) -> Samples:
    """Values of a state stream's messages by header stamp, in the order of `stream.names`.

    JointState messages that speak only of other joints are passed over. Raises BagError, with `where`, for a name that
    no message has.
    """
    if stream.type != "sensor_msgs/msg/JointState":
        rows = [_fields(message, stream.type, stream.names, where) for message in messages]
        return Samples.sorted([stamp_ns(message) for message in messages], rows)
    found = [(stamp_ns(message), row) for message in messages
             if (row := _joints(message, stream.field, stream.names)) is not None]
    if not found:
        raise BagError(f"{where}: no message has a {stream.field} for each of {', '.join(stream.names)}; "
                       f"the joints there are {', '.join(messages[0].name)}")
    return Samples.sorted(*zip(*found, strict=True))


def command_samples(action: Action, messages: Sequence[Any], log_ns: Sequence[int], where: str) -> Samples:
    """Commands by the time from which each is in force, in the order of `action.names`.

    The header stamp where the message has one, the log time for forward_command. Of a trajectory each point counts from
    its own time on, and a new trajectory replaces what is left of the one before. Raises BagError, with `where`.
    """
    if action.target == "joint_trajectory":
        return _trajectory_samples(action, messages, where)
    if action.target == "forward_command":
        for message in messages:
            if len(message.data) != len(action.names):
                raise BagError(f"{where}: a command has {len(message.data)} values, expected {len(action.names)}")
        return Samples.sorted(log_ns, [message.data for message in messages])
    rows = [_fields(message, action.type, action.names, where) for message in messages]
    return Samples.sorted([stamp_ns(message) for message in messages], rows)


def interpolate(samples: Samples, at_ns: np.ndarray, max_age_s: float, names: Sequence[str]) -> np.ndarray:
    """Values at `at_ns`, linear between samples: float64 [T, K]; NaN where there is nothing to say.

    That is before the first sample, later than `max_age_s` after the last, and within gaps longer than `max_age_s`: a
    value there would be invented. Quaternions are interpolated along the shorter way and normalised.
    """
    values = samples.values.copy()
    columns = [names.index(name) for name in _ORIENTATION] if set(_ORIENTATION) <= set(names) else []
    if columns:
        values[:, columns] = _same_hemisphere(values[:, columns])
    stamps, last = samples.stamps_ns, len(samples.stamps_ns) - 1
    seconds, at = (stamps - stamps[0]) / 1e9, (at_ns - stamps[0]) / 1e9
    result = np.column_stack([np.interp(at, seconds, column) for column in values.T])
    if columns:
        result[:, columns] /= np.linalg.norm(result[:, columns], axis=1, keepdims=True)
    before, after = np.searchsorted(stamps, at_ns, "right") - 1, np.searchsorted(stamps, at_ns, "left")
    following = np.where(after > last, at_ns, stamps[np.minimum(after, last)])
    silent = following - stamps[np.maximum(before, 0)] > round(max_age_s * 1e9)
    result[(before < 0) | silent] = np.nan
    return result


def hold(samples: Samples, at_ns: np.ndarray, hold_s: float | None = None) -> np.ndarray:
    """The last values at or before each of `at_ns`: float64 [T, K]; NaN before the first.

    `hold_s` is for velocities: a robot stops when its last command is older than that, so zero is in force from then.
    """
    last = np.searchsorted(samples.stamps_ns, at_ns, side="right") - 1
    result = samples.values[np.maximum(last, 0)].copy()
    if hold_s is not None:
        result[at_ns - samples.stamps_ns[np.maximum(last, 0)] > hold_s * 1e9] = 0.0
    result[last < 0] = np.nan
    return result


def _fields(message: Any, type: str, names: Sequence[str], where: str) -> list[float]:
    try:
        return [float(reduce(getattr, name.split("."), getattr(message, _BODY[type]))) for name in names]
    except (AttributeError, TypeError) as error:
        raise BagError(f"{where}: {error} in {type}; names are fields such as position.x or linear.z") from error


def _joints(message: Any, field: str, names: Sequence[str]) -> list[float] | None:
    place = {name: i for i, name in enumerate(message.name)}
    values = getattr(message, field)
    if any(name not in place or place[name] >= len(values) for name in names):
        return None
    return [float(values[place[name]]) for name in names]


def _trajectory_samples(action: Action, messages: Sequence[Any], where: str) -> Samples:
    field = "velocities" if action.kind == "joint_velocity" else "positions"
    times: list[int] = []
    rows: list[list[float]] = []
    for message in sorted(messages, key=stamp_ns):
        place = {name: i for i, name in enumerate(message.joint_names)}
        if missing := [name for name in action.names if name not in place]:
            raise BagError(f"{where}: a trajectory lacks joint {missing[0]!r}; it has {', '.join(message.joint_names)}")
        for point in message.points:
            values = getattr(point, field)
            if len(values) != len(place):
                raise BagError(f"{where}: a trajectory point has {len(values)} {field}, expected {len(place)}")
            offset = point.time_from_start
            start = stamp_ns(message) + offset.sec * 1_000_000_000 + offset.nanosec
            while times and times[-1] >= start:
                times.pop()
                rows.pop()
            times.append(start)
            rows.append([float(values[place[name]]) for name in action.names])
    if not times:
        raise BagError(f"{where}: no trajectory has a point")
    return Samples.sorted(times, rows)


def _same_hemisphere(quaternions: np.ndarray) -> np.ndarray:
    """q and -q are one rotation: give each the sign that is nearer to the one before it."""
    flips = np.sum(quaternions[1:] * quaternions[:-1], axis=1) < 0
    return quaternions * np.concatenate([[1.0], np.where(np.cumsum(flips) % 2, -1.0, 1.0)])[:, None]
