"""Bags that a crash or a power loss cut off, saved as new bags beside them; what is there is only read.

    for found in recover("bags/"): print(found.summary())

What the recorder leaves is `episode_0003.part`, and becomes `episode_0003`. Of any other bag, a storage file without
its end, `x` becomes `x_recovered`.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from como_core.errors import ComoError
from como_core.formats.bag_audit import AUDIT_FILE, Audit, AuditReport, recorded_topics
from como_core.formats.bag_layout import METADATA
from como_core.formats.bag_reader import BagReader, RawMessage, Topic, deserialize
from como_core.formats.bag_recording import EpisodeNote, parse_note
from como_core.formats.bag_streams import serialized_stamp_ns
from como_core.formats.bag_topics import resolve
from como_core.formats.bag_writer import EPISODE_KEY, EPISODE_TOPIC, LOCK, BagError, RawBagWriter, Storage
from como_core.formats.episode_index import EpisodeEntry, append_entry
from como_core.formats.file_lock import is_held
from como_core.formats.mcap_salvage import SalvagedMessage, is_whole, salvage

PART, RECOVERED = ".part", "_recovered"
RECOVERED_KEY = "como_recovered_from"


@dataclass(frozen=True)
class Recovered:
    """What became of one cut bag: the new bag with its audit, or None and why not."""

    source: Path
    bag: Path | None
    messages: int = 0
    audit: AuditReport | None = None
    reason: str = ""

    def summary(self) -> str:
        """A line or more for people."""
        if self.bag is None:
            return f"{self.source}: not recovered: {self.reason}"
        lines = [f"{self.source}: {self.messages} messages saved as {self.bag}; remove the cut one when you have "
                 "looked at it"]
        faults = (*self.audit.faults, *self.audit.warnings) if self.audit else ()
        return "\n".join([*lines, *(f"  {text}" for text in faults)])


class _RecoveredBag(RawBagWriter):
    """Written beside the `.part` that it is made of, under a name that gives way when this is cut off too."""

    suffix = ".recovered.part"


def cut_bags(folder: str | Path) -> list[Path]:
    """Cut bags at or below `folder` that nobody is writing and that are not saved yet, sorted."""
    folder = Path(folder)
    if not folder.exists():
        raise ComoError(f"{folder}: no such folder (expected one with recordings)")
    found = [folder] if _is_cut(folder) else []
    if folder.is_dir() and not found:
        for entry in sorted(folder.iterdir()):
            if entry.name.startswith(".") or entry.name.endswith(_RecoveredBag.suffix):
                continue
            if _is_cut(entry):
                found.append(entry)
            elif entry.is_dir() and entry.suffix != PART:
                found.extend(cut_bags(entry))
    return [bag for bag in found if not recovered_path(bag).exists()]


def recovered_path(cut: Path) -> Path:
    """Where the saved messages of a cut bag go."""
    if cut.suffix == PART:
        return cut.with_suffix("")
    return cut.with_name(f"{cut.name.removesuffix('.mcap')}{RECOVERED}")


def recover(cuts: Iterable[Path], tell: Callable[[Recovered], None] = lambda found: None) -> list[Recovered]:
    """Save each of the bags that `cut_bags` found; `tell` is called after each.

    A bag of which nothing can be saved is named with the reason. An episode of the recorder gets its audit and a line
    in its folder's index, without a label of success.
    """
    done = []
    for cut in cuts:
        try:
            done.append(_recover_one(cut))
        except ComoError as error:
            done.append(Recovered(cut, None, reason=str(error)))
        tell(done[-1])
    return done


def _is_cut(path: Path) -> bool:
    if path.is_dir() and path.suffix == PART:
        return not is_held(path / LOCK)
    if path.is_dir():
        files = sorted(path.glob("*.mcap"))
        # rosbag2 names the parts of a bag after its folder; others lie there alone, and each is looked at by itself.
        parts = [file for file in files if re.fullmatch(rf"{re.escape(path.name)}(_\d+)?", file.stem)]
        return (bool(files) and parts == files and not (path / METADATA).exists()
                and not all(is_whole(file) for file in files))
    return path.suffix == ".mcap" and not is_whole(path)


@dataclass
class _Survey:
    """What a cut bag holds, found in a pass of its own, so that nothing is made where nothing can be saved."""

    note: str | None = None
    topics: dict[str, Topic] = field(default_factory=dict)
    times: list[tuple[str, int, bytes]] = field(default_factory=list)


def _recover_one(cut: Path) -> Recovered:
    files = _storage_files(cut)
    survey = _survey(files)
    if not survey.topics:
        raise BagError("no whole message had reached the disk")
    note = parse_note(survey.note, cut) if survey.note else EpisodeNote()
    audit = _audit(survey, note, cut) if note.interface else None
    data = {RECOVERED_KEY: cut.name, **({EPISODE_KEY: survey.note} if survey.note else {})}
    storage: Storage = "sqlite3" if files[0].suffix == ".db3" else "mcap"
    with _RecoveredBag(recovered_path(cut), data, storage) as bag:
        for message in _messages(files):
            bag.write(message.topic, message.type, message.log_ns, message.cdr, message.definition)
        bag.close({AUDIT_FILE: audit.report().to_json()} if audit else None)
    messages = len(survey.times)
    if audit is None:
        return Recovered(cut, bag.path, messages)
    report = audit.report()
    append_entry(bag.path.parent, EpisodeEntry(
        bag.path.name, audit.start_ns / 1e9, report.seconds, messages, note.instruction, None, report.faults,
        report.warnings, recovered=True))
    return Recovered(cut, bag.path, messages, report)


def _storage_files(cut: Path) -> list[Path]:
    files = [cut] if cut.is_file() else sorted(file for suffix in ("mcap", "db3") for file in cut.rglob(f"*.{suffix}"))
    if not files:
        raise BagError("it holds no storage file: nothing had reached the disk")
    return files


def _survey(files: Sequence[Path]) -> _Survey:
    found = _Survey()
    for message in _messages(files):
        if message.topic == EPISODE_TOPIC and message.type == "std_msgs/msg/String":
            raw = RawMessage(message.topic, message.type, message.log_ns, message.cdr)
            found.note = str(deserialize(raw, files[0]).data)
            continue
        known = found.topics.get(message.topic, Topic(message.type, 0))
        found.topics[message.topic] = Topic(message.type, known.count + 1)
        found.times.append((message.topic, message.log_ns, message.cdr[:12]))
    return found


def _audit(survey: _Survey, note: EpisodeNote, cut: Path) -> Audit:
    assert note.interface is not None, "only a noted episode has an audit"
    try:
        found = resolve(note.interface, survey.topics, cut)
    except BagError:
        found = {}  # a topic that was silent up to the cut; the audit says so
    topics = {topic.name: topic for topic in recorded_topics(
        note.interface, lambda name: found.get(name, name if name.startswith("/") else f"/{name}"))}
    audit = Audit(tuple(topics.values()))
    for name, log_ns, head in survey.times:
        if name in topics:
            audit.add(name, log_ns, serialized_stamp_ns(head) if topics[name].stamped else None)
    return audit


def _messages(files: Sequence[Path]) -> Iterator[SalvagedMessage]:
    for file in files:
        yield from salvage(file) if file.suffix == ".mcap" else _of_sqlite(file)


def _of_sqlite(file: Path) -> Iterator[SalvagedMessage]:
    """Messages of a database whose last transaction was cut: sqlite rolls it back, in a copy.

    Raises BagError where sqlite cannot.
    """
    with tempfile.TemporaryDirectory(prefix="como_recover_") as folder:
        for part in file.parent.glob(f"{file.name}*"):
            shutil.copy2(part, folder)
        copy = Path(folder) / file.name
        try:
            # The bag's reader opens it read-only, which rolls nothing back.
            with closing(sqlite3.connect(copy)) as database:
                database.execute("SELECT count(*) FROM messages").fetchone()
        except sqlite3.Error as error:
            raise BagError(f"{file}: {error}") from error
        with BagReader(copy) as bag:
            for raw in bag.messages(bag.topics):
                yield SalvagedMessage(raw.topic, raw.type, "", raw.log_ns, raw.cdr)
