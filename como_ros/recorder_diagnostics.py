"""/diagnostics of a recorder: the episode under way, the last one with its audit, and a status per topic."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from como_core.formats.bag_audit import RecordedTopic
from como_core.formats.episode_index import EpisodeEntry
from como_ros.recorder_topics import RecorderTopics
from como_ros.recording import Recording

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
# A stream is told as silent after this much of the wall, or its max_age_s where that is longer.
_SILENT_S = 1.0


def report(node: str, hardware: str, stamp: Time, recording: Recording | None,
           last: tuple[Path, EpisodeEntry] | None, topics: RecorderTopics) -> DiagnosticArray:
    """The whole report."""
    counts = recording.counts() if recording is not None else {}
    statuses = [_episode(recording, counts), _last(last)]
    unheard = {topic.name for topic in topics.unheard()}
    statuses += [_topic(topic, topic.name in unheard, topics, counts) for topic in topics.all]
    for item in statuses:
        item.name, item.hardware_id = f"{node}: {item.name}", hardware
    array = DiagnosticArray(status=statuses)
    array.header.stamp = stamp
    return array


def _episode(recording: Recording | None, counts: Mapping[str, int]) -> DiagnosticStatus:
    if recording is None:
        return _status("episode", OK, "not recording", {})
    values = {"path": str(recording.path), "messages": str(sum(counts.values())), "waiting": str(recording.waiting)}
    if recording.error:
        return _status("episode", ERROR, f"will not be kept: {recording.error}", values)
    return _status("episode", OK, f"recording {recording.path.name}", values)


def _last(last: tuple[Path, EpisodeEntry] | None) -> DiagnosticStatus:
    if last is None:
        return _status("last episode", OK, "none yet", {})
    entry = last[1]
    label = {None: "not labelled", True: "success", False: "failure"}[entry.success]
    values = {"folder": str(last[0]), "seconds": f"{entry.seconds:.2f}", "messages": str(entry.messages),
              "label": label}
    values |= {f"fault {i}": text for i, text in enumerate(entry.faults)}
    values |= {f"warning {i}": text for i, text in enumerate(entry.warnings)}
    if entry.faults:
        return _status("last episode", ERROR, f"{entry.name}: {entry.faults[0]}", values)
    if entry.warnings:
        return _status("last episode", WARN, f"{entry.name}: {entry.warnings[0]}", values)
    return _status("last episode", OK, f"{entry.name}: no fault, {label}", values)


def _topic(topic: RecordedTopic, unheard: bool, topics: RecorderTopics, counts: Mapping[str, int]) -> DiagnosticStatus:
    name = f"topic {topic.name}"
    values = {"messages": str(counts.get(topic.name, 0))}
    if unheard:
        return _status(name, WARN, topics.why_unheard(topic), values)
    if topic.max_age_s is None:
        return _status(name, OK, "published", values)
    age_s = time.monotonic() - topics.heard_s.get(topic.name, float("-inf"))
    if age_s > max(_SILENT_S, topic.max_age_s):
        level = ERROR if counts else WARN
        return _status(name, level, "nothing has arrived yet" if topic.name not in topics.heard_s else
                       f"silent for {age_s:.1f} s", values)
    return _status(name, OK, "heard", values)


def _status(name: str, level: bytes, message: str, values: Mapping[str, str]) -> DiagnosticStatus:
    return DiagnosticStatus(name=name, level=level, message=message,
                            values=[KeyValue(key=key, value=value) for key, value in values.items()])
