"""What the soak heard, and its judgement: limits, staleness, silence after a stop, memory of the node."""

from __future__ import annotations

import bisect
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from command_judge import Judge
from soak_arm import Arm, Trajectory
from soak_policy import BEAT_S, LATE_S, SEEN_WRONG, STALLS, TRACEBACK

from como_core.interface import Interface
from como_ros.messages import NS_PER_S

# From the check of the ages to the stamp of the message, beside what a busy machine takes, which is measured.
SEND_S = 0.03
CLOCK_S = 0.03  # a simulated clock of 100 Hz is so much behind at most
HALT_S = 0.1  # the end of a trajectory follows the stop within a period of the watch
STALL_WINDOW_S = 0.5
SAMPLE_S = 0.5


@dataclass
class Life:
    """One process of the node: when it lived, and what it took (wall ns, MiB anonymous, MiB resident, CPU s)."""

    interface: Interface
    simulated: bool
    folder: Path
    pid: int
    start_ns: int
    closing_ns: int = 0
    end_ns: int = 0
    samples: list[tuple[int, float, float, float]] = field(default_factory=list)

    @property
    def target(self) -> str:
        return self.interface.action.target

    @property
    def trajectories(self) -> bool:
        return self.target == "joint_trajectory"


class Record:
    """Everything that was heard, with the times at which it was sent (wall ns), and what was wrong at once.

    silent       (from ns, grace s, to ns, why): no command may have been sent in between
    reports      (ns, phase, cause) of the node's latch
    reopened_ns  (asked, answered) of each reset and activation
    """

    def __init__(self, arm: Arm) -> None:
        self.arm = arm
        self.commands: dict[str, list[tuple[int, np.ndarray | Trajectory]]] = {"forward_command": [],
                                                                               "joint_trajectory": []}
        self.reports: list[tuple[int, str, str]] = []
        self.reopened_ns: list[tuple[int, int]] = []
        self.silent: list[tuple[int, float, int, str]] = []
        self.events: list[tuple[int, str]] = []
        self.lives: list[Life] = []
        self.latches = self.restarts = self.reopened = 0
        self._told: list[str] = []
        self._crashes: list[str] = []
        self._late: list[tuple[int, float]] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._beat, self._sample)]
        for thread in self._threads:
            thread.start()

    def tell(self, what: str) -> None:
        """Note something that must not be."""
        self._told.append(f"{(time.time_ns() - self.lives[0].start_ns) / NS_PER_S:.2f} s: {what}")

    def crash(self, what: str) -> None:
        self._crashes.append(what)

    def begin(self, interface: Interface, simulated: bool, folder: Path, pid: int) -> Life:
        self.lives.append(Life(interface, simulated, folder, pid, time.time_ns()))
        return self.lives[-1]

    def end(self, life: Life) -> None:
        """The process has ended; its log must tell of no error that was not asked for."""
        life.end_ns = time.time_ns()
        log = (life.folder / "node.log").read_text(errors="replace")
        asked = sum(line.strip() == TRACEBACK for line in log.splitlines())
        if log.count("Traceback") != asked or "Fatal Python error" in log:
            self.crash(f"a traceback in {life.folder}/node.log")
        seen = life.folder / SEEN_WRONG
        if seen.is_file():
            self.tell(f"the policy was given {seen.read_text().splitlines()[:3]}")

    def heard(self, life: Life, since_ns: int) -> int:
        """How many commands of a life were sent since."""
        return sum(ns > since_ns for ns, _ in self.commands[life.target][-20:])

    def phase(self, life: Life | None) -> str:
        """What the node last said of its latch."""
        if life is None or not self.reports or self.reports[-1][0] < life.start_ns:
            return ""
        return self.reports[-1][1]

    def latched_since(self, since_ns: int) -> bool:
        return any(ns > since_ns and phase == "latched" for ns, phase, _ in self.reports[-20:])

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(5.0)

    def _beat(self) -> None:
        while not self._ended.is_set():
            before_s = time.monotonic()
            time.sleep(BEAT_S)
            late_s = time.monotonic() - before_s - BEAT_S
            if late_s > LATE_S:
                self._late.append((time.time_ns(), late_s))

    def _sample(self) -> None:
        ticks = os.sysconf("SC_CLK_TCK")
        while not self._ended.wait(SAMPLE_S):
            life = self.lives[-1] if self.lives else None
            if life is None or life.end_ns:
                continue
            try:
                status = dict(line.split(":", 1) for line in Path(f"/proc/{life.pid}/status").read_text().splitlines())
                stat = Path(f"/proc/{life.pid}/stat").read_text().rpartition(")")[2].split()
                kib = [int(status[key].split()[0]) for key in ("RssAnon", "VmRSS")]
            except (OSError, KeyError):  # it has just ended
                continue
            life.samples.append((time.time_ns(), kib[0] / 1024, kib[1] / 1024, (int(stat[11]) + int(stat[12])) / ticks))

    # The judgement.

    def summary(self) -> dict[str, Any]:
        """All figures, with violations in words."""
        self._late += [late for life in self.lives for late in _late_of(life)]
        self._late.sort()
        violations: Counter[str] = Counter()
        examples: list[str] = list(self._told)
        worst: dict[str, float] = {}
        for life in self.lives:
            judge = Judge(life.interface.action)
            found = [("limits", text) for text in self._limits(life, judge)]
            found += [("stale", text) for text in self._stale(life)]
            found += [("silence", text) for text in self._silence(life)]
            violations.update(kind for kind, _ in found)
            examples += [f"{kind}, {life.folder.name} ({life.target}): {text}" for kind, text in found[:5]]
            worst = {name: max(share, worst.get(name, 0.0)) for name, share in judge.worst.items()} | \
                {name: share for name, share in worst.items() if name not in judge.worst}
        late_s = [late for _, late in self._late]
        return {
            "crashes": self._crashes, "restarts": self.restarts, "latches": self.latches, "went_on": self.reopened,
            "commands": {target: len(heard) for target, heard in self.commands.items()},
            "violations": {"told": len(self._told), **violations}, "examples": examples[:30],
            "share_of_limits_used": {name: round(share, 4) for name, share in sorted(worst.items())},
            "worst_stall_s": round(max(late_s, default=0.0), 3), "memory": self._memory(),
            "lives": [{"target": life.target, "use_sim_time": life.simulated,
                       "seconds": round((life.end_ns - life.start_ns) / NS_PER_S, 1),
                       "cpu_share": _cpu_share(life), "worst_command_gap_s": self._worst_gap(life)}
                      for life in self.lives]}

    def _stall_s(self, ns: int) -> float:
        """How late the heartbeats of both processes were around a moment."""
        window = round(STALL_WINDOW_S * NS_PER_S)
        here = self._late[bisect.bisect(self._late, (ns - window, 0.0)):bisect.bisect(self._late, (ns + window, 0.0))]
        return max((late for _, late in here), default=0.0)

    def _slack_s(self, life: Life, ns: int) -> float:
        """By how much a command may be older than the moment at which it was sent."""
        return SEND_S + self._stall_s(ns) + (CLOCK_S if life.simulated else 0.0)

    def _of(self, life: Life) -> list[tuple[int, Any]]:
        return [sent for sent in self.commands[life.target] if life.start_ns <= sent[0] <= life.end_ns]

    def _measured(self, ns: int) -> list[np.ndarray]:
        """Where the arm said it was in the last half second; as many places as are needed."""
        stamps = self.arm.measured
        first = bisect.bisect(stamps, ns - NS_PER_S // 2, key=lambda place: place[0])
        return [place for _, place in stamps[first:bisect.bisect(stamps, ns, key=lambda place: place[0])]]

    def _clock_ns(self, life: Life, ns: int) -> int:
        """The node's clock at a moment of the wall."""
        if not life.simulated:
            return ns
        return ns + self.arm.clocks[bisect.bisect(self.arm.clocks, ns, key=lambda at: at[0]) - 1][1]

    def _limits(self, life: Life, judge: Judge) -> list[str]:
        """Commands out of the limits of the interface."""
        found, before_ns, period_ns = [], 0, NS_PER_S / life.interface.action.rate_hz
        for ns, sent in self._of(life):
            measured = self._measured(ns)
            if life.trajectories:
                at_s = (self._clock_ns(life, ns) - sent.stamp_ns) / NS_PER_S
                wrong = judge.trajectory(at_s, sent.times_s, sent.positions, sent.velocities, measured,
                                         self._slack_s(life, ns))
            else:
                # Without a chunk in time, or late on a busy machine: a motion may have ended and begun.
                new = ns - before_ns > 1.2 * period_ns or self._stall_s(ns) > 0
                wrong = judge.values(sent, measured, new)
            before_ns = ns
            found += [f"{(ns - life.start_ns) / NS_PER_S:.2f} s, after {self._event(ns)}: {text}" for text in wrong]
        return found

    def _stale(self, life: Life) -> list[str]:
        """Commands while no good message of a stream had been sent for longer than its max_age_s."""
        found = []
        for ns, command in self._of(life):
            if _halt(command):
                continue  # the end of a motion, which a stop asks for
            for name, limit_s in life.interface.max_age_s.items():
                sent = self.arm.streams[name].sent
                at = bisect.bisect(sent, ns)
                age_s = (ns - sent[at - 1]) / NS_PER_S if at else np.inf
                allowed_s = limit_s + self._slack_s(life, ns)
                if age_s > allowed_s:
                    found.append(f"{(ns - life.start_ns) / NS_PER_S:.2f} s, after {self._event(ns)}: {name} is "
                                 f"{age_s:.3f} s old, allowed {allowed_s:.3f}")
        return found

    def _silence(self, life: Life) -> list[str]:
        """Commands between a stop and what ends it."""
        spans = [(ns + round((grace_s + (self._stall_s(ns) if grace_s else 0.0)) * NS_PER_S), to_ns, why)
                 for ns, grace_s, to_ns, why in self.silent]
        asked_ns = [asked for asked, _ in self.reopened_ns]
        for ns, phase, cause in self.reports:
            after = bisect.bisect(asked_ns, ns)
            # What was reported between a question and its answer may be from before the latch was opened.
            if phase == "latched" and not (after and ns <= self.reopened_ns[after - 1][1]):
                to_ns = asked_ns[after] if after < len(asked_ns) else life.end_ns
                spans.append((ns, min(to_ns, life.end_ns), f"the latch: {cause}"))
        found = []
        sent = self._of(life)
        stamps = [ns for ns, _ in sent]
        for from_ns, to_ns, why in spans:
            if from_ns < life.start_ns:
                continue
            for ns, command in sent[bisect.bisect(stamps, from_ns):bisect.bisect_left(stamps, to_ns)]:
                if not (_halt(command) and ns < from_ns + (HALT_S + self._stall_s(ns)) * NS_PER_S):
                    found.append(f"{(ns - life.start_ns) / NS_PER_S:.2f} s: sent {(ns - from_ns) / NS_PER_S:.3f} s "
                                 f"after {why}")
        return found

    def write(self, path: Path) -> None:
        """Everything that was sent as values, for whoever looks into a violation: wall ns, then the values."""
        np.savez_compressed(path, measured_ns=[ns for ns, _ in self.arm.measured],
                            measured=[place for _, place in self.arm.measured],
                            sent_ns=[ns for ns, _ in self.commands["forward_command"]],
                            sent=[values for _, values in self.commands["forward_command"]])

    def _event(self, ns: int) -> str:
        at = bisect.bisect(self.events, ns, key=lambda event: event[0])
        return self.events[at - 1][1] if at else "the start"

    def _worst_gap(self, life: Life) -> float | None:
        """The longest time between two commands while nothing was wrong, in seconds."""
        stamps = [ns for ns, command in self._of(life) if not _halt(command)]
        edges = [ns for ns, _ in self.events] + [ns for ns, phase, _ in self.reports if phase != "running"]
        edges = np.sort([*edges, *(ns for pair in self.reopened_ns for ns in pair), life.closing_ns or life.end_ns])
        gaps = [(b - a) / NS_PER_S for a, b in pairwise(stamps)
                if np.searchsorted(edges, a) == np.searchsorted(edges, b) and self._event(a).endswith("ends")]
        return round(max(gaps), 3) if gaps else None

    def _memory(self) -> dict[str, Any]:
        """Of the node that lived longest: MiB over its life, by anonymous memory, which shared pictures are not in."""
        life = max(self.lives, key=lambda one: len(one.samples), default=None)
        if life is None or len(life.samples) < 8:
            return {}
        samples = np.array(life.samples)
        hours, anonymous = (samples[:, 0] - samples[0, 0]) / NS_PER_S / 3600, samples[:, 1]
        quarter = len(samples) // 4
        settled = slice(quarter, None)
        return {"seconds": round(float(hours[-1] * 3600), 1),
                "second_quarter_mib": round(float(np.median(anonymous[quarter:2 * quarter])), 2),
                "last_quarter_mib": round(float(np.median(anonymous[-quarter:])), 2),
                "slope_mib_per_hour": round(float(np.polyfit(hours[settled], anonymous[settled], 1)[0]), 1),
                "resident_mib": round(float(samples[-1, 2]), 1),
                "over_time_mib": [round(float(value), 1) for value in
                                  anonymous[np.linspace(0, len(anonymous) - 1, 20).astype(int)]]}


def _halt(command: np.ndarray | Trajectory) -> bool:
    """Whether a command is the one point that ends a trajectory."""
    return isinstance(command, Trajectory) and len(command.times_s) == 1


def _cpu_share(life: Life) -> float | None:
    if len(life.samples) < 2:
        return None
    (start_ns, *_, before_s), (end_ns, *_, after_s) = life.samples[0], life.samples[-1]
    return round((after_s - before_s) / ((end_ns - start_ns) / NS_PER_S), 3)


def _late_of(life: Life) -> list[tuple[int, float]]:
    path = life.folder / STALLS
    rows = [line.split() for line in path.read_text().splitlines()] if path.is_file() else []
    return [(int(row[0]), float(row[1])) for row in rows if len(row) == 2]
