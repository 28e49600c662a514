"""Trajectories without ROS: velocities of the spline, limits on every waypoint, the end of a motion."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline

from como_core.action_chunk import ActionChunk
from como_core.control.blending import Blender
from como_core.control.limits import Guard
from como_core.control.motion import LimitFault
from como_core.control.plan import chunk_plan
from como_core.control.trajectory import Trajectory, spline_velocities, velocity_at
from como_core.control.trajectory_motion import BRAKE_S, TrajectoryMotion
from como_core.interface import Action, Interface, Limits, StateStream, load_interface
from como_core.resources import resource

PERIOD_S = 0.05
JOINTS = StateStream("joint_states", "sensor_msgs/msg/JointState", ("a", "b"), 40.0, 0.3)
LIMITS = Limits(lower=(-1.0, -1.0), upper=(1.0, 1.0), max_velocity_per_s=(1.0, 2.0), max_acceleration_per_s2=(4.0, 8.0))
AT_REST = {"joints": np.zeros(2, np.float32)}


def arm(limits: Limits = LIMITS) -> Interface:
    action = Action("joint_position", "joint_trajectory", "arm/joint_trajectory", ("a", "b"), 20.0, limits=limits)
    return replace(load_interface(resource("config/interfaces/metaworld.yaml")), state={"joints": JOINTS},
                   action=action)


class Rig:
    """A motion whose clock is told with every call."""

    def __init__(self, interface: Interface | None = None) -> None:
        interface = interface or arm()
        self.motion = TrajectoryMotion(interface.action, Guard(interface), Blender("cross_fade", 0.0, 0.0, PERIOD_S))

    def send(self, values: object, stamp_s: float, now_s: float) -> Trajectory:
        rows = np.array(values, np.float32)
        chunk = ActionChunk(np.arange(len(rows)) * PERIOD_S, rows)
        self.motion.take(chunk_plan(chunk, stamp_s, PERIOD_S, "linear"), stamp_s, now_s)
        command = self.motion.command(now_s, AT_REST, 0.0)
        assert command is not None and command.trajectory is not None and command.values is None
        return command.trajectory


@given(st.lists(st.tuples(st.floats(0.01, 1.0), st.floats(-3, 3), st.floats(-3, 3)), min_size=2, max_size=20),
       st.tuples(st.floats(-2, 2), st.floats(-2, 2)))
def test_velocities_are_those_of_the_cubic_spline_that_ends_at_rest(points: list[tuple[float, ...]],
                                                                    start: tuple[float, ...]) -> None:
    times = np.cumsum([point[0] for point in points])
    positions = np.array([point[1:] for point in points])
    spline = CubicSpline(times, positions, bc_type=((1, np.array(start)), (1, np.zeros(2))))
    velocities = spline_velocities(times, positions, np.array(start))
    scale = np.abs(spline(times, 1)).max() + 1
    np.testing.assert_allclose(velocities, spline(times, 1), atol=1e-8 * scale)
    between = np.linspace(times[0], times[-1], 7)[:-1]
    found = [velocity_at(times, positions, velocities, at_s) for at_s in between]
    np.testing.assert_allclose(found, spline(between, 1), atol=1e-6 * scale)


def test_a_chunk_keeps_its_stamp_and_its_past_points_and_adds_where_the_arm_is() -> None:
    rig = Rig()
    sent = rig.send([(0.01 * k, 0.0) for k in range(8)], 100.0, 100.12)
    assert sent.stamp_s == 100.0
    assert sent.times_s == pytest.approx([0, 0.05, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.35])
    assert sent.positions[3] == pytest.approx([0, 0]), "the first motion begins where the arm is measured"
    assert not sent.velocities[-1].any() and sent.velocities[4:-1].any()


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=3, max_size=12))
def test_every_waypoint_ahead_keeps_the_limits(tail: list[tuple[float, float]]) -> None:
    rig = Rig()
    sent = rig.send([(0.0, 0.0), (0.0, 0.0), *tail], 100.0, 100.0)
    steps, times = np.diff(sent.positions, axis=0), np.diff(sent.times_s)[:, None]
    speeds = steps / times
    assert np.all(np.abs(sent.positions) <= 1 + 1e-5) and np.all(np.abs(speeds) <= np.array([1, 2]) + 1e-3)
    assert np.all(np.abs(np.diff(speeds, axis=0)) <= np.array([4, 8]) * PERIOD_S + 1e-3)
    assert np.all(np.abs(sent.velocities) <= np.array([1, 2]) + 1e-9)


def test_the_second_trajectory_goes_on_from_the_first() -> None:
    rig = Rig()
    line = [(0.02 * k, 0.0) for k in range(12)]
    first = rig.send(line, 100.0, 100.0)
    second = rig.send([(p[0] + 0.08, 0.0) for p in line], 100.2, 100.26)
    planned = np.interp(0.26, first.times_s, first.positions[:, 0])
    here = int(np.argmin(np.abs(second.times_s - 0.06)))
    assert second.positions[here, 0] == pytest.approx(planned, abs=1e-4)
    assert second.velocities[here, 0] == pytest.approx(velocity_at(first.times_s, first.positions, first.velocities,
                                                                   0.26)[0], abs=1e-6)


@pytest.mark.parametrize(("limits", "words"), [
    (LIMITS, "the waypoint due in 0.050 s for 'a' is 0.400"),
    (replace(LIMITS, max_velocity_per_s=None, jump=(0.3, 0.3)), "the first command for 'a' is 0.400"),
])
def test_a_first_waypoint_out_of_reach_is_refused(limits: Limits, words: str) -> None:
    with pytest.raises(LimitFault, match=words):
        Rig(arm(limits)).send([(0.4, 0.0)] * 4, 100.0, 100.0)


def test_a_trajectory_past_stamped_and_far_is_refused_and_a_near_one_is_not() -> None:
    Rig().send([(0.1, 0.0)] * 8, 100.0, 100.3)
    with pytest.raises(LimitFault, match="jump"):
        Rig().send([(0.6, 0.0)] * 8, 100.0, 100.3)


def test_the_end_of_a_motion_is_one_point_at_rest_that_braking_reaches() -> None:
    rig = Rig()
    sent = rig.send([(0.04 * k, 0.0) for k in range(20)], 100.0, 100.0)
    assert rig.motion.halt(100.5) is None, "not while it moves"
    rig.motion.end(AT_REST)
    command = rig.motion.halt(100.5)
    assert command is not None and command.trajectory is not None
    end, speed = command.trajectory, velocity_at(sent.times_s, sent.positions, sent.velocities, 0.5)
    place = np.interp(0.5, sent.times_s, sent.positions[:, 0])
    assert end.stamp_s == 100.5 and end.times_s == pytest.approx([speed[0] / 4.0], abs=1e-6)
    assert end.positions[0, 0] == pytest.approx(place + speed[0] ** 2 / 8, abs=1e-3) and not end.velocities.any()
    assert rig.motion.halt(100.6) is None, "once"


def test_an_arm_that_has_arrived_is_left_alone_and_a_lost_clock_ends_where_it_is_measured() -> None:
    rig = Rig(arm(replace(LIMITS, max_acceleration_per_s2=None)))
    rig.send([(0.01 * k, 0.0) for k in range(4)], 100.0, 100.0)
    rig.motion.end(AT_REST)
    assert rig.motion.halt(101.0) is None
    rig.send([(0.01 * k, 0.0) for k in range(4)], 102.0, 102.0)
    rig.motion.end({"joints": np.array([0.02, 0.01], np.float32)})
    command = rig.motion.halt(7.0)
    assert command is not None and command.trajectory is not None
    assert command.trajectory.positions[0] == pytest.approx([0.02, 0.01]) and command.trajectory.times_s == [BRAKE_S]
