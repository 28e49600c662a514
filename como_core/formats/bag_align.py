"""The streams of a recording on one timeline, and which steps of it are whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from como_core.formats.bag_frames import Picture
from como_core.formats.bag_recording import Recording
from como_core.formats.bag_streams import Samples, command_samples, hold, interpolate, state_samples
from como_core.formats.bag_writer import BagError
from como_core.interface import Interface

_VELOCITY_KINDS = ("joint_velocity", "ee_twist")


def align_state(robot: Interface, found: Mapping[str, str], recording: Recording, at_ns: np.ndarray,
                bag: Path) -> dict[str, np.ndarray]:
    """Recorded topic -> values float64 [T, K] of each state stream in the interface's order; NaN where it is silent."""
    columns = {}
    for stream in robot.state.values():
        if stream.topic in found:
            topic = found[stream.topic]
            messages = [message for _, message in recording.messages[topic]]
            samples = _finite(state_samples(stream, messages, f"{bag}: {topic}"), f"{bag}: {topic}")
            columns[topic] = interpolate(samples, at_ns, stream.max_age_s, stream.names)
    return columns


def align_action(robot: Interface, found: Mapping[str, str], recording: Recording, at_ns: np.ndarray,
                 bag: Path) -> dict[str, np.ndarray]:
    """Recorded topic -> values float64 [T, K] of the command and then the gripper; NaN before the first message."""
    action = robot.action
    if action.topic not in found:
        return {}
    topic = found[action.topic]
    log_ns, messages = zip(*recording.messages[topic], strict=True)
    samples = _finite(command_samples(action, messages, log_ns, f"{bag}: {topic}"), f"{bag}: {topic}")
    columns = {topic: hold(samples, at_ns, action.hold_s if action.kind in _VELOCITY_KINDS else None)}
    if action.gripper:
        topic = found[action.gripper.topic]
        commands = recording.messages[topic]
        gripper = Samples.sorted([log for log, _ in commands], [[message.data] for _, message in commands])
        columns[topic] = hold(_finite(gripper, f"{bag}: {topic}"), at_ns)
    return columns


def timeline(pictures: list[Picture], where: str) -> np.ndarray:
    """Header stamps of a camera's pictures, sorted and each once: int64 [T]. Raises BagError where none was set."""
    at_ns = np.unique([picture.stamp_ns for picture in pictures])
    if len(at_ns) == 1 and len(pictures) > 1:
        raise BagError(f"{where}: all {len(pictures)} pictures have the header stamp {at_ns[0] / 1e9} s; the camera's "
                       "driver does not set it")
    return at_ns


def pick_pictures(pictures: list[Picture], at_ns: np.ndarray) -> np.ndarray:
    """Place in `pictures` of the last one stamped at or before each time: int64 [T], -1 before the first."""
    stamps = np.array([picture.stamp_ns for picture in pictures])
    order = np.argsort(stamps, kind="stable")
    last = np.searchsorted(stamps[order], at_ns, side="right") - 1
    return np.where(last < 0, -1, order[last])


def whole_steps(present: Mapping[str, np.ndarray], at_ns: np.ndarray, bag: Path) -> slice:
    """The steps at which every stream is there, ends cut; `present` is recorded topic -> bool [T].

    Raises BagError, naming the topic, where there is none, or a stream falls silent in between.
    """
    whole = np.flatnonzero(np.logical_and.reduce(list(present.values())))
    if not len(whole):
        fewest = min(present, key=lambda topic: int(present[topic].sum()))
        raise BagError(f"{bag}: at no picture's stamp are all streams there; {fewest!r} covers "
                       f"{present[fewest].sum()} of {len(at_ns)} (are all header stamps of one clock?)")
    steps = slice(int(whole[0]), int(whole[-1]) + 1)
    for topic, there in present.items():
        silent = np.flatnonzero(~there[steps])
        if len(silent):
            when = (at_ns[steps][silent[0]] - at_ns[0]) / 1e9
            raise BagError(f"{bag}: {topic!r} is silent for longer than its max_age_s, {when:.2f} s after the first "
                           "picture; an episode with such a gap is not read")
    return steps


def _finite(samples: Samples, where: str) -> Samples:
    if not np.all(np.abs(samples.values) <= np.finfo(np.float32).max):
        raise BagError(f"{where}: a message holds NaN or infinity; such an episode is refused whole")
    return samples
