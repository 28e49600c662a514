"""Three ways for a new chunk to take over, and the prefix that a policy is told for real-time chunking."""

from dataclasses import replace

import numpy as np
import pytest

from como_core.action_chunk import ActionChunk
from como_core.control.blending import BLENDS, Blend, Blender
from como_core.control.limits import Guard
from como_core.control.motion import Motion
from como_core.control.plan import Plan, chunk_plan
from como_core.interface import Action, StateStream, load_interface
from como_core.interface.names import POSE_FIELDS
from como_core.resources import resource

PERIOD_S = 0.025


def plan(value: float, stamp_s: float, steps: int = 12) -> Plan:
    chunk = ActionChunk(np.arange(steps) * PERIOD_S, np.full((steps, 1), value, np.float32))
    return chunk_plan(chunk, stamp_s, PERIOD_S, "hold")


def values(made: Plan | None, *times_s: float) -> list[float]:
    assert made is not None
    found = [made.at(time_s) for time_s in times_s]
    return [float("nan") if value is None else float(value[0]) for value in found]


@pytest.mark.parametrize("blend", BLENDS)
def test_the_first_chunk_counts_whole(blend: str) -> None:
    made = Blender(blend, 0.05, 0.01, PERIOD_S).take(None, plan(3, 100.0), 100.0, 100.0)  # type: ignore[arg-type]
    assert values(made, 100.0, 100.1, 100.29) == [3, 3, 3]


def test_an_ensemble_is_the_mean_of_every_chunk_that_covers_the_time() -> None:
    blender, made = Blender("temporal_ensemble", 0.0, 0.5, PERIOD_S), None
    for number in range(3):
        stamp_s = 100 + 0.1 * number
        made = blender.take(made, plan(number, stamp_s), stamp_s, stamp_s)
    weights = np.exp(-0.5 * np.arange(3))
    all_three = float(np.average([0, 1, 2], weights=weights))
    last_two = float(np.average([1, 2], weights=weights[:2]))
    assert values(made, 100.25, 100.35, 100.45) == pytest.approx([all_three, last_two, 2], abs=1e-6)


def test_an_ensemble_forgets_the_chunks_of_an_earlier_motion() -> None:
    blender = Blender("temporal_ensemble", 0.0, 0.0, PERIOD_S)
    blender.take(None, plan(5, 100.0), 100.0, 100.0)
    blender.forget()
    assert values(blender.take(None, plan(1, 100.1), 100.1, 100.1), 100.2) == [1]


def test_real_time_chunking_keeps_what_was_decided_and_falls_off_after_it() -> None:
    blender = Blender("real_time_chunking", 0.0, 0.0, PERIOD_S)
    old = blender.take(None, plan(0, 100.0, 20), 100.0, 100.0)
    made = blender.take(old, plan(1, 100.05, 20), 100.05, 100.15)
    found = values(made, *(100.15 + PERIOD_S * k for k in range(16)))
    assert found[0] == 0 and found[-1] == 1, "continuous at the seam, the new chunk's own in the end"
    assert np.all(np.diff(found) >= 0) and np.diff(found).max() < 0.25


def test_what_the_slowest_inference_of_late_would_miss_is_decided_too() -> None:
    blender = Blender("real_time_chunking", 0.0, 0.0, PERIOD_S)
    old = blender.take(None, plan(0, 100.0, 20), 100.0, 100.2)
    made = blender.take(old, plan(1, 100.15, 20), 100.15, 100.25)
    assert values(made, 100.25, 100.3, 100.34) == [0, 0, 0] and values(made, 100.45)[0] > 0.5


def test_the_prefix_is_as_long_as_inference_takes_and_padded_with_the_last_action() -> None:
    blender = Blender("real_time_chunking", 0.0, 0.0, PERIOD_S)
    assert blender.prefix(None, None, 100.0) is None, "nothing was commanded yet: there is nothing to continue"
    made = blender.take(None, plan(7, 100.0, 8), 100.0, 100.1)
    prefix = blender.prefix(made, np.array([7], np.float32), 100.15)
    assert prefix is not None and prefix.tolist() == [[7.0]] * 5
    ended = blender.prefix(None, np.array([4], np.float32), 100.15)
    assert ended is not None and ended.tolist() == [[4.0]] * 5, "never zeros"


def test_other_blends_tell_no_prefix() -> None:
    for blend in ("cross_fade", "temporal_ensemble"):
        blender = Blender(blend, 0.0, 0.0, PERIOD_S)  # type: ignore[arg-type]
        assert blender.prefix(plan(1, 100.0), np.ones(1, np.float32), 100.0) is None


@pytest.mark.parametrize("blend", BLENDS)
def test_a_rotation_that_is_written_the_other_way_is_no_other_rotation(blend: Blend) -> None:
    robot = load_interface(resource("config/interfaces/metaworld.yaml"))
    state = StateStream("ee_pose", "geometry_msgs/msg/PoseStamped", POSE_FIELDS, 40.0, 0.3)
    robot = replace(robot, state={"ee_pose": state},
                    action=Action("ee_pose", "pose", "target_pose", POSE_FIELDS, 1 / PERIOD_S))
    motion = Motion(robot.action, Guard(robot), Blender(blend, 3 * PERIOD_S, 0.01, PERIOD_S))
    down = np.array([0.0, 0.6, 0.2, 0.0, 1.0, 0.0, 0.0], np.float32)  # a hand that points down: w is 0
    there = {"ee_pose": down}
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (4, 8))
    for k, row in enumerate(signs):
        written = np.tile(down, (8, 1)) * np.where(np.arange(7) < 3, 1.0, row[:, None])
        start_s = 100.0 + 2 * k * PERIOD_S
        motion.take(Plan(start_s + PERIOD_S * np.arange(8), start_s + PERIOD_S * np.arange(1, 9),
                         written.astype(np.float32), "linear"), start_s, start_s)
        for step in (0.0, 0.5, 1.0, 1.5):
            sent = motion.command(start_s + step * PERIOD_S, there, 0.0)
            assert sent is not None
            assert abs(float(sent.values[3:] @ down[3:])) > 0.9999, (k, step, sent.values)
