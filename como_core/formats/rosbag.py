"""rosbag2 recordings as episodes: every stream on the first camera's timeline of header stamps.

    episode = read_bag("bags/0003")
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from como_core.episode import Episode
from como_core.formats.bag_align import align_action, align_state, pick_pictures, timeline, whole_steps
from como_core.formats.bag_frames import BagFrames
from como_core.formats.bag_layout import find_bags
from como_core.formats.bag_reader import BagReader
from como_core.formats.bag_recording import EpisodeNote, Recording, image_topic, read_note, read_recording
from como_core.formats.bag_topics import resolve
from como_core.formats.bag_writer import BagError, BagWriter
from como_core.formats.lazy import CAMERA
from como_core.interface import Interface, require_same

__all__ = ["BagError", "BagWriter", "find_bags", "frame_log_ns", "frame_stamps_ns", "note_of", "read_bag"]


def read_bag(path: str | Path, interface: Interface | None = None, otherwise: Interface | None = None,
             camera: str | None = None) -> Episode:
    """The episode of one rosbag2: a folder or a storage file, sqlite3 or MCAP.

    The timeline is the header stamps of the interface's first camera; receive times of stamped messages play no part.
    At each stamp t stand: of another camera the last picture at or before t; the state, linear between the samples
    around t; the action in force, which is the last command stamped at or before t. A velocity older than `hold_s`
    counts as zero, since the robot has stopped by then; the gripper keeps its last value. Steps at either end at which
    a stream is not there yet, or no longer, are cut. State or action are None where none of their topics was recorded.

    `interface` is the bag's own where None, and `otherwise` where it has none. A bag for which there is none is read
    like a video: its one image topic becomes the camera `lazy.CAMERA`; of several, the topic `camera` becomes a camera
    of that name. Raises BagError, naming bag, topic and reason, and ConfigError, naming the key, where `interface` is
    not the one inside.

    Of pictures of the first camera that share a stamp the last stands; how many were left out is in the episode's
    notes.
    """
    path = Path(path)
    with BagReader(path) as bag:
        note = read_note(bag)
        if interface is not None and note.interface is not None:
            require_same(interface, note.interface, "the interface given", str(path))
        robot = interface or note.interface or otherwise
        if robot is None:
            topic = image_topic(bag, camera)
            found, cameras = {topic: topic}, {topic if topic == camera else CAMERA: topic}
        else:
            found = resolve(robot, bag.topics, path)
            cameras = {name: found[camera.topic] for name, camera in robot.cameras.items()}
        recording = read_recording(bag, found.values())
    if robot is not None:
        _require_sizes(robot, cameras, recording, path)
    return _aligned(path, robot, found, cameras, recording, note.instruction)


def note_of(path: str | Path) -> EpisodeNote:
    """Interface, instruction and metadata that the recorder noted in a bag. Raises BagError."""
    with BagReader(path) as bag:
        return read_note(bag)


def frame_stamps_ns(episode: Episode) -> np.ndarray:
    """Header stamps of a bag's episode in nanoseconds, exact: int64 [T]. Raises BagError for any other episode."""
    return _first_camera(episode).stamps_ns


def frame_log_ns(episode: Episode) -> np.ndarray:
    """Log times of the first camera's pictures in nanoseconds: int64 [T]. Raises BagError as `frame_stamps_ns`."""
    return _first_camera(episode).logged_ns


def _first_camera(episode: Episode) -> BagFrames:
    frames = next(iter(episode.images.values()))
    if not isinstance(frames, BagFrames):
        raise BagError(f"{episode.source}: has no header stamps, it was not read from a bag")
    return frames


def _aligned(path: Path, robot: Interface | None, found: dict[str, str], cameras: dict[str, str], recording: Recording,
             instruction: str | None) -> Episode:
    first = next(iter(cameras.values()))
    pictures = recording.pictures[first]
    at_ns = timeline(pictures, f"{path}: {first}")
    again = len(pictures) - len(at_ns)
    notes = (f"{path}: {again} of {len(pictures)} pictures on {first!r} are left out: they have the header stamp of a "
             "later one; look at how the camera's driver sets it",) if again else ()
    state = align_state(robot, found, recording, at_ns, path) if robot else {}
    action = align_action(robot, found, recording, at_ns, path) if robot else {}
    picks = {topic: pick_pictures(recording.pictures[topic], at_ns) for topic in cameras.values()}
    present = {topic: pick >= 0 for topic, pick in picks.items()}
    present |= {topic: ~np.isnan(values).any(axis=1) for topic, values in (state | action).items()}
    steps = whole_steps(present, at_ns, path)
    images = {}
    for name, topic in cameras.items():
        log_ns = np.array([picture.log_ns for picture in recording.pictures[topic]])
        images[name] = BagFrames(path, recording.signature, topic, recording.sizes[topic], log_ns, picks[topic][steps],
                                 at_ns[steps])
    try:
        return Episode(at_ns[steps] / 1e9, images, str(path), _joined(state, steps), _joined(action, steps),
                       instruction=instruction, notes=notes)
    except ValueError as error:
        raise BagError(str(error)) from error


def _joined(columns: dict[str, np.ndarray], steps: slice) -> np.ndarray | None:
    return np.concatenate(list(columns.values()), axis=1)[steps].astype(np.float32) if columns else None


def _require_sizes(robot: Interface, cameras: dict[str, str], recording: Recording, path: Path) -> None:
    for name, camera in robot.cameras.items():
        height, width = recording.sizes[cameras[name]]
        if (height, width) != (camera.height, camera.width):
            raise BagError(f"{path}: pictures on {cameras[name]!r} are {width}x{height}, "
                           f"cameras.{name} of the interface says {camera.width}x{camera.height}")
