"""One pass over a bag: the small messages whole, of the pictures only when they were taken and where they lie."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from como_core import config
from como_core.formats.bag_frames import Picture, decode_picture
from como_core.formats.bag_reader import BagReader, Signature, deserialize
from como_core.formats.bag_streams import stamp_ns
from como_core.formats.bag_writer import EPISODE_FORMAT, EPISODE_KEY, EPISODE_TOPIC, BagError
from como_core.interface import IMAGE_TYPES, Interface


@dataclass(frozen=True)
class EpisodeNote:
    """What the recorder noted in a bag: interface, instruction and what else it gave; empty where it noted nothing."""

    interface: Interface | None = None
    instruction: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recording:
    """Contents of a bag by recorded topic.

    signature of the storage files
    pictures  of image topics, in the order of log time
    sizes     (height, width) of image topics
    messages  of the other topics: log time in nanoseconds and message
    """

    signature: Signature

    pictures: dict[str, list[Picture]]
    sizes: dict[str, tuple[int, int]]
    messages: dict[str, list[tuple[int, Any]]]


def read_recording(bag: BagReader, topics: Iterable[str]) -> Recording:
    """Index `topics` of an open bag, each of which has messages by the bag's own count.

    Raises BagError where one has none after all, a message is damaged or pictures change size.
    """
    topics = list(topics)
    pictures: dict[str, list[Picture]] = defaultdict(list)
    messages: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    sizes: dict[str, tuple[int, int]] = {}
    for raw in bag.messages(topics):
        message = deserialize(raw, bag.path)
        if raw.type not in IMAGE_TYPES:
            messages[raw.topic].append((raw.log_ns, message))
            continue
        # Each picture is decoded once here, so that a damaged one is found before training and not in its midst.
        size = decode_picture(message, raw.topic, bag.path).shape[:2]
        if sizes.setdefault(raw.topic, size) != size:
            raise BagError(f"{bag.path}: pictures on {raw.topic!r} change their size (height, width) from "
                           f"{sizes[raw.topic]} to {size}")
        pictures[raw.topic].append(Picture(raw.log_ns, stamp_ns(message)))
    silent = [topic for topic in topics if topic not in pictures and topic not in messages]
    if silent:
        raise BagError(f"{bag.path}: its index counts messages on {silent[0]!r} and it holds none; if it is damaged, "
                       "`como data recover` may mend it")
    return Recording(bag.signature, pictures, sizes, messages)


def read_note(bag: BagReader) -> EpisodeNote:
    """The recorder's note, from metadata.yaml or the message on `/como/episode`. Raises BagError if it is damaged."""
    text = bag.custom_data.get(EPISODE_KEY)
    if text is None:
        raw = next(bag.messages([EPISODE_TOPIC]), None)
        if raw is None:
            return EpisodeNote()
        text = deserialize(raw, bag.path).data
    return parse_note(text, bag.path)


def parse_note(text: str, bag: Path) -> EpisodeNote:
    """The note of its JSON text. Raises BagError, naming the bag, if it is damaged."""
    try:
        note = json.loads(text)
        if note.pop("format") != EPISODE_FORMAT:
            raise BagError(f"{bag}: its note on the episode is not of the format {EPISODE_FORMAT!r}")
        interface = config.build(Interface, note.pop("interface"), f"{bag}: interface")
        return EpisodeNote(interface, note.pop("instruction"), note)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BagError(f"{bag}: its note on the episode ({EPISODE_KEY}) is damaged: {error}") from error


def image_topic(bag: BagReader, wanted: str | None = None) -> str:
    """The image topic of a bag that has one, or the `wanted` one of several. Raises BagError where there is none."""
    found = sorted(name for name, topic in bag.topics.items() if topic.type in IMAGE_TYPES and topic.count)
    if len(found) > 1:
        if wanted in found:
            return wanted
        lacks = "" if wanted is None else f", none of which is {wanted!r}"
        raise BagError(f"{bag.path}: has {len(found)} image topics ({', '.join(found)}){lacks}, and no interface "
                       f"inside; say which is meant, as in --camera {found[0]}, or give an interface file "
                       "(--interface)")
    if not found:
        others = ", ".join(sorted(name for name, topic in bag.topics.items() if topic.count))
        raise BagError(f"{bag.path}: holds no pictures ({' or '.join(IMAGE_TYPES)}); it has {others or 'no messages'}")
    return found[0]
