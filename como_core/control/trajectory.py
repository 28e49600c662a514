"""Trajectories: the form in which ros2_control's joint_trajectory_controller takes a chunk.

The controller goes by header.stamp: it begins where the trajectory should be at present, drops what is past, and holds
the last point when nothing follows. So a slow policy is compensated, and a dead one ends in a hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Trajectory:
    """What to send to a trajectory controller.

    stamp_s     when the times count from, on the node's clock
    times_s     float64 [K], seconds from stamp_s, increasing, 0 or more
    positions   float64 [K, J]
    velocities  float64 [K, J], zero at the last point
    """

    stamp_s: float
    times_s: np.ndarray
    positions: np.ndarray
    velocities: np.ndarray


def spline_velocities(times_s: np.ndarray, positions: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Velocities of the cubic spline through `positions` [K, J] at `times_s` [K]: float64 [K, J].

    It begins with the velocity `start` [J] and ends at rest. K is 2 or more, times increase.
    """
    times, values = np.asarray(times_s, np.float64), np.asarray(positions, np.float64)
    velocities = np.zeros_like(values)
    velocities[0] = start
    if len(times) == 2:
        return velocities
    gaps = np.diff(times)[:, None]
    slopes = np.diff(values, axis=0) / gaps
    # Continuous second derivatives at each inner knot, with both ends given.
    matrix = np.diag(2 * (1 / gaps[:-1, 0] + 1 / gaps[1:, 0]))
    inner = np.arange(len(times) - 3)
    matrix[inner, inner + 1] = matrix[inner + 1, inner] = 1 / gaps[1:-1, 0]
    right = 3 * (slopes[:-1] / gaps[:-1] + slopes[1:] / gaps[1:])
    right[0] -= velocities[0] / gaps[0]
    velocities[1:-1] = np.linalg.solve(matrix, right)
    return velocities


def velocity_at(times_s: np.ndarray, positions: np.ndarray, velocities: np.ndarray, at_s: float) -> np.ndarray:
    """Velocity [J] at `at_s` of the cubic pieces between points; zero before the first point and after the last."""
    index = int(np.searchsorted(times_s, at_s, side="right")) - 1
    if index < 0 or index + 1 >= len(times_s):
        return np.zeros(positions.shape[1])
    gap = times_s[index + 1] - times_s[index]
    way = (at_s - times_s[index]) / gap
    slope = (positions[index + 1] - positions[index]) / gap
    before, after = velocities[index], velocities[index + 1]
    return np.asarray(before * (1 - way) * (1 - 3 * way) + after * way * (3 * way - 2) + 6 * slope * way * (1 - way))
