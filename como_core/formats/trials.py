"""Trials of a policy on disk: an append-only log, a JSON object a line, that an interrupted evaluation goes on with.

The first line names the schema and the conditions under which every trial of the file was run; each further line is
one Trial. A last line that was cut off by a crash is dropped when the file is opened again.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from como_core import config
from como_core.errors import ComoError

SCHEMA = "como_trials"
VERSION = 1


class TrialLogError(ComoError, ValueError):
    """A trial log that cannot be read or gone on with; the message names file, line and reason."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One try of a policy from one start state.

    env, seed   the start state, as `make_env` and `Env.reset` take it
    success     whether the task was achieved; nobody may leave it out
    duration_s  seconds until success, or until the trial was ended as a failure
    film        the video of the trial beside the log, or None where none was made
    wall_s      seconds of one process that it took, or None where nobody looked; plays no part in comparisons
    inference_ms  milliseconds for each chunk, that of a call shared among the chunks it computed; likewise
    """

    env: str
    seed: int
    success: bool
    duration_s: float
    film: str | None = None
    wall_s: float | None = dataclasses.field(default=None, compare=False)
    inference_ms: tuple[float, ...] = dataclasses.field(default=(), compare=False)

    @property
    def start(self) -> tuple[str, int]:
        """What makes two trials of different policies a pair."""
        return self.env, self.seed


class TrialLog:
    """The trials of one policy under fixed conditions; `trials` are those that are done.

    Opening an existing log goes on with it. Raises TrialLogError where the file is no trial log, is of another
    version, was made under other conditions (the differing key is named), or holds a line that is no trial.
    """

    def __init__(self, path: str | Path, conditions: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self.conditions = json.loads(json.dumps(dict(conditions or {})))
        self.trials = trials_under(self.path, self.conditions)
        self._starts = {trial.start for trial in self.trials}
        if not self._drop_cut_line():
            self._write({"schema": SCHEMA, "version": VERSION, "conditions": self.conditions})

    def append(self, trial: Trial) -> None:
        """Add a trial and force it to the disk. Raises TrialLogError for a start state that is in the log already."""
        if trial.start in self._starts:
            raise TrialLogError(f"{self.path}: {trial.env} from seed {trial.seed} is logged already; it counts once")
        self._write(dataclasses.asdict(trial))
        self.trials.append(trial)
        self._starts.add(trial.start)

    def _write(self, data: Mapping[str, Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(data) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise TrialLogError(f"{self.path}: cannot be written: {error.strerror}") from error

    def _drop_cut_line(self) -> bool:
        """Cut the file behind its last whole line; whether it has one."""
        if not self.path.is_file():
            return False
        try:
            data = self.path.read_bytes()
            end = data.rfind(b"\n") + 1
            if end < len(data):
                os.truncate(self.path, end)
        except OSError as error:
            raise TrialLogError(f"{self.path}: cannot be opened: {error.strerror}") from error
        return end > 0


def trials_under(path: str | Path, conditions: Mapping[str, Any]) -> list[Trial]:
    """The trials of a log that is gone on with under `conditions`, none where there is no log yet. It only looks.

    Raises TrialLogError as TrialLog does, but for a folder that cannot be written.
    """
    path = Path(path)
    if not path.is_file() or not _whole_lines(path):
        return []
    there, trials = read_trials(path)
    found = config.first_difference(there, json.loads(json.dumps(dict(conditions))))
    if found:
        key, before, now = found
        raise TrialLogError(f"{path}: these trials were run with {key} = {before!r}, now it is {now!r}; trials under "
                            "other conditions belong into another file: choose another folder, or move this one away")
    return trials


def read_trials(path: str | Path) -> tuple[dict[str, Any], list[Trial]]:
    """Conditions and trials of a log that is only looked at; a last line that was cut off is left out.

    Raises TrialLogError where the file is no trial log, is of another version, or holds a line that is no trial.
    """
    path = Path(path)
    first, *lines = _whole_lines(path) or [""]
    trials = [_trial(line, f"{path}:{number}") for number, line in enumerate(lines, start=2)]
    return _header(first, path).get("conditions", {}), trials


def _whole_lines(path: Path) -> list[str]:
    """The lines of a log but for a last one that was cut off."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TrialLogError(f"{path}: cannot be opened: {error.strerror}") from error
    return data[: data.rfind(b"\n") + 1].decode("utf-8", errors="replace").splitlines()


def _header(line: str, path: Path) -> dict[str, Any]:
    header = _object(line, f"{path}:1")
    if header.get("schema") != SCHEMA or header.get("version") != VERSION:
        raise TrialLogError(f"{path}: expected a log of schema {SCHEMA!r} version {VERSION}, got "
                            f"{header.get('schema')!r} version {header.get('version')!r}")
    if not isinstance(header.get("conditions", {}), dict):
        raise TrialLogError(f"{path}:1: conditions: expected a JSON object, got {type(header['conditions']).__name__}")
    return header


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise TrialLogError(f"{where}: not JSON: {error}") from error
    if not isinstance(data, dict):
        raise TrialLogError(f"{where}: expected a JSON object, got {type(data).__name__}")
    return data


def _trial(line: str, where: str) -> Trial:
    try:
        return config.build(Trial, _object(line, where), where)
    except config.ConfigError as error:
        raise TrialLogError(str(error)) from error
