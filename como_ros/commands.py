"""Commands as messages: what each target of an interface is sent."""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import PoseStamped
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from como_core.control.trajectory import Trajectory
from como_core.interface import Action
from como_ros.messages import NS_PER_S, header, set_field


def trajectory_message(trajectory: Trajectory, action: Action) -> JointTrajectory:
    """What joint_trajectory_controller takes, stamped with the time from which its points count."""
    message = JointTrajectory(header=header(round(trajectory.stamp_s * NS_PER_S), action.frame))
    message.joint_names = list(action.names)
    if action.gripper is not None and action.gripper.joint is not None:
        message.joint_names.append(action.gripper.joint)
    for time_s, positions, velocities in zip(trajectory.times_s, trajectory.positions, trajectory.velocities,
                                             strict=True):
        ns = round(float(time_s) * NS_PER_S)
        message.points.append(JointTrajectoryPoint(
            positions=positions.tolist(), velocities=velocities.tolist(),
            time_from_start=Duration(sec=ns // NS_PER_S, nanosec=ns % NS_PER_S)))
    return message


def forward_message(values: np.ndarray, action: Action, ns: int) -> Float64MultiArray:
    """What forward_command_controller takes: the values in the order of Action.names. It has no stamp."""
    return Float64MultiArray(data=[float(value) for value in values])


def pose_message(values: np.ndarray, action: Action, ns: int) -> PoseStamped:
    """A target pose in Action.frame, stamped `ns`."""
    message = PoseStamped(header=header(ns, action.frame))
    for name, value in zip(action.names, values, strict=True):
        set_field(message.pose, name, float(value), action.topic)
    return message
