"""The policy node under faults for as long as is wanted: it stops, goes on, keeps its limits and its memory.

    COMO_SOAK_S=1800 COMO_SOAK_SEED=7 COMO_SOAK_JSON=soak.json pytest test/test_soak.py

COMO_SOAK_S     how long faults are put in, 60 s where it is not set
COMO_SOAK_SEED  which faults, when
COMO_SOAK_JSON  where the summary goes
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_judge import Judge
from soak_rig import Schedule, interfaces

from como_core.interface import Action, Limits
from como_core.resources import resource

REPOSITORY = Path(__file__).resolve().parents[1]
SECONDS, SEED = float(os.environ.get("COMO_SOAK_S", "60")), int(os.environ.get("COMO_SOAK_SEED", "0"))
# Starts, the last fault and the judgement come on top.
EXTRA_S = 200 + 0.2 * SECONDS
KINDS = [name.removeprefix("fault_") for name in dir(Schedule) if name.startswith("fault_")]
# What a Python process moves by itself; a picture that is kept from each fault is far more within the minute.
FLAT_MIB = 16.0


@contextmanager
def soaking(folder: Path, domain: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The soak in a process group of its own, which is ended whatever happens."""
    environment = {**os.environ, **domain, "OMP_NUM_THREADS": "1",
                   "FASTDDS_DEFAULT_PROFILES_FILE": str(resource("config/fastdds/large_images.xml")),
                   "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    words = [sys.executable, str(Path(__file__).with_name("soak_rig.py")), str(folder), str(SECONDS), str(SEED),
             domain["ROS_DOMAIN_ID"]]
    with (folder / "rig.log").open("wb") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.timeout(SECONDS + EXTRA_S + 60)
def test_the_policy_node_stops_and_goes_on_under_every_fault(ros_domain: dict[str, str], tmp_path: Path) -> None:
    with soaking(tmp_path, ros_domain) as process:
        code = process.wait(SECONDS + EXTRA_S)
    assert code == 0, (tmp_path / "rig.log").read_text()[-4000:]
    summary = json.loads((tmp_path / "summary.json").read_text())
    if "COMO_SOAK_JSON" in os.environ:
        shutil.copy(tmp_path / "summary.json", os.environ["COMO_SOAK_JSON"])
    print(json.dumps(summary, indent=1))
    assert not summary["crashes"]
    assert not any(summary["violations"].values()), summary["examples"]
    memory = summary["memory"]
    assert memory["last_quarter_mib"] - memory["second_quarter_mib"] < FLAT_MIB, memory
    # And it did see faults and commands, or nothing was shown.
    faults = summary["faults"]
    assert faults["restart by SIGKILL"] and faults["restart by SIGINT"] and summary["latches"] > 0
    # Once in about twenty kills the next node cannot open Fast DDS' shared memory. It must say so, and stay still.
    assert faults.get("deaf after SIGKILL", 0) <= 1 + faults["restart by SIGKILL"] / 5
    assert set(KINDS) <= set(faults), f"not seen: {set(KINDS) - set(faults)}"
    assert sum(summary["commands"].values()) > SECONDS / 2


ROBOT = interfaces()["forward_command"].action
PERIOD_S = 1 / ROBOT.rate_hz
MIDDLE = (np.array(ROBOT.limits.lower) + np.array(ROBOT.limits.upper)) / 2


def drive(action: Action, steps: list[float], measured: float = 0.0) -> list[str]:
    """What the judge says to the first value moving by these steps from the middle, all others at rest."""
    judge, place, wrong = Judge(action), MIDDLE.copy(), []
    for number, step in enumerate(steps):
        place = place + np.eye(len(place))[0] * step
        wrong += judge.values(place, [MIDDLE + np.eye(len(place))[0] * measured], number == 0)
    return wrong


def test_the_judge_passes_what_keeps_limits_and_tells_what_does_not() -> None:
    change = ROBOT.limits.max_acceleration_per_s2[0] * PERIOD_S**2  # type: ignore[index]
    fastest = ROBOT.limits.max_velocity_per_s[0] * PERIOD_S  # type: ignore[index]
    up = [change * k for k in range(1, int(fastest / change))]
    assert drive(ROBOT, [*up, *up[::-1]]) == []
    assert "acceleration" in drive(ROBOT, [2 * change])[0]
    assert "acceleration" in drive(ROBOT, [*up[:3], up[2] + 2 * change])[0]
    assert "acceleration" in drive(ROBOT, [*up[:4], 0.0])[0], "a motion that stops dead while commands go on"
    free = replace(ROBOT, limits=replace(ROBOT.limits, max_acceleration_per_s2=None))
    assert drive(free, [fastest]) == [] and "velocity" in drive(free, [1.1 * fastest])[0]
    slow = replace(free, limits=replace(free.limits, step=(0.01,) * 7))
    assert "step" in drive(slow, [0.02])[0]
    assert "jump" in drive(replace(free, limits=Limits(jump=(0.1,) * 7)), [0.0], measured=0.2)[0]
    assert Judge(ROBOT).values(np.array(ROBOT.limits.upper) + 0.01, [], True)
    assert Judge(ROBOT).values([np.nan] * 7, [], True) == ["NaN or infinity"]


def test_the_judge_looks_at_every_point_of_a_trajectory() -> None:
    times = np.array([0.0, 0.05, 0.1, 0.15, 0.2])
    way = np.tile(MIDDLE, (5, 1))
    way[:, 0] += [0.0, 0.005, 0.02, 0.04, 0.05]
    speeds = np.zeros((5, 7))

    def judged(points: np.ndarray, at_s: float = 0.0, velocities: np.ndarray = speeds) -> list[str]:
        return Judge(ROBOT).trajectory(at_s, times, points, velocities, [MIDDLE])

    assert judged(way) == []
    jump = way.copy()
    jump[3:, 0] += 0.3
    assert any("velocity" in text for text in judged(jump))
    hasty = way.copy()
    hasty[1:, 0] += 0.1
    assert any("acceleration" in text for text in judged(hasty))
    far = way.copy()
    far[:, 0] += 0.5
    assert any("from the arm" in text for text in judged(far))
    assert any("at rest" in text for text in judged(way, velocities=np.full((5, 7), 0.1)))
    assert judged(np.where(way == way[4, 0], 4.0, way)), "beyond its limit"
