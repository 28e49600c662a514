"""Which recorded topics carry the streams of an interface, under whatever namespace they were recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from como_core.formats.bag_compress import COMPRESSED_SUFFIX, COMPRESSED_TYPE, RAW_TYPE
from como_core.formats.bag_reader import Topic
from como_core.formats.bag_writer import BagError
from como_core.interface import Interface

GRIPPER_TYPE = "std_msgs/msg/Float64"


def resolve(interface: Interface, recorded: Mapping[str, Topic], bag: Path) -> dict[str, str]:
    """Interface topic -> recorded topic, of the streams that hold messages.

    A relative topic `ee_pose` is found as `/ee_pose` or under one namespace, such as `/left/ee_pose`, that all streams
    share. State and action are there with all of their topics or with none. A camera of raw pictures may have been
    recorded compressed, on `<topic>/compressed`. Raises BagError, naming the topic, where a camera or a part of them is
    missing, a type differs, or two namespaces would do.
    """
    state = {s.topic: s.type for s in interface.state.values()}
    action = {interface.action.topic: interface.action.type}
    if interface.action.gripper:
        action[interface.action.gripper.topic] = GRIPPER_TYPE
    cameras: dict[str, str] = {camera.topic: camera.type for camera in interface.cameras.values()}
    spoken = {name: topic for name, topic in recorded.items() if topic.count}
    compressed = _compressed(spoken)
    spoken |= {raw: Topic(RAW_TYPE, spoken[name].count) for raw, name in compressed.items()}
    namespace = _namespace(list(cameras), [*state, *action], spoken, bag)
    found: dict[str, str] = {}
    for group, wanted in (("camera", cameras), ("state", state), ("action", action)):
        present = {topic: full for topic in wanted if (full := _full(topic, namespace)) in spoken}
        if group != "camera" and not present:
            continue
        for topic, type in wanted.items():
            if topic not in present:
                raise BagError(f"{bag}: no message on {_full(topic, namespace)!r}, a topic of the interface's {group}; "
                               f"recorded are {', '.join(sorted(spoken)) or 'no messages at all'}")
            if spoken[present[topic]].type != type:
                raise BagError(f"{bag}: {present[topic]!r} is {spoken[present[topic]].type}, the interface says {type}")
        found.update(present)
    return {topic: compressed.get(full, full) for topic, full in found.items()}


def _compressed(spoken: Mapping[str, Topic]) -> dict[str, str]:
    """The name that a raw topic would have -> the compressed topic that stands for it, where only that is there."""
    names = [name for name, topic in spoken.items() if topic.type == COMPRESSED_TYPE]
    return {raw: name for name in names if name.endswith(COMPRESSED_SUFFIX)
            and (raw := name.removesuffix(COMPRESSED_SUFFIX)) not in spoken}


def _full(topic: str, namespace: str) -> str:
    return topic if topic.startswith("/") else f"{namespace}/{topic}"


def _namespace(cameras: list[str], others: list[str], spoken: Mapping[str, Topic], bag: Path) -> str:
    """The namespace that has every camera and, of several, the most of the other topics."""
    relative = [topic for topic in cameras if not topic.startswith("/")]
    if not relative:
        return ""
    endings = {full.removesuffix(f"/{relative[0]}") for full in spoken if full.endswith(f"/{relative[0]}")}
    whole = {space for space in endings if all(_full(topic, space) in spoken for topic in cameras)}
    if not whole:
        return ""
    score = {space: sum(_full(topic, space) in spoken for topic in others) for space in whole}
    best = sorted(space for space in whole if score[space] == max(score.values()))
    if len(best) > 1:
        raise BagError(f"{bag}: the interface's topics are there under {' and '.join(repr(s or '/') for s in best)}; "
                       "give an interface with absolute topics")
    return best[0]
