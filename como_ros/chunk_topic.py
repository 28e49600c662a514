"""`~/chunk` of a policy node: every chunk as the policy gave it, for plots and for `replay`; nobody is to act on it."""

from __future__ import annotations

import numpy as np
from builtin_interfaces.msg import Duration
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from como_core.action_chunk import ActionChunk
from como_core.control.plan import chunk_fault
from como_core.control.worker import Inference
from como_core.interface import Action
from como_ros import qos
from como_ros.messages import NS_PER_S, header, stamp_ns

GRIPPER = "gripper"
DEPTH = 50


class ChunkTopic:
    """Publishes chunks as trajectory_msgs/JointTrajectory where somebody listens.

    header.stamp is the observation's, joint_names are the action's names with "gripper" last, each point has its
    values in `positions`, whatever their kind, and is due `time_from_start` after the stamp.
    """

    def __init__(self, node: Node, action: Action) -> None:
        self._node, self._frame = node, action.frame
        self._names = [*action.names, *([GRIPPER] if action.gripper else [])]
        self._publisher = qos.publish(node, JointTrajectory, "~/chunk", qos.command(DEPTH))

    def publish(self, inference: Inference) -> None:
        """Publish what a prediction gave; nothing where that is no usable chunk. May be called in any thread."""
        chunk = inference.chunk
        if chunk is None or not self._publisher.get_subscription_count() or chunk_fault(chunk, len(self._names)):
            return
        ns = round(inference.snapshot.stamp_s * NS_PER_S)
        self._publisher.publish(chunk_message(chunk, self._names, ns, self._frame))

    def close(self) -> None:
        self._node.destroy_publisher(self._publisher)


def chunk_message(chunk: ActionChunk, names: list[str], ns: int, frame: str = "") -> JointTrajectory:
    """A chunk, observed at `ns`, as a message; values float32 [K, A] are exact in its float64."""
    points = [JointTrajectoryPoint(positions=[float(value) for value in row],
                                   time_from_start=_duration(float(time_s)))
              for time_s, row in zip(chunk.times_s, np.asarray(chunk.values), strict=False)]
    return JointTrajectory(header=header(ns, frame), joint_names=names, points=points)


def chunk_of(message: JointTrajectory) -> tuple[int, ActionChunk]:
    """The observation's stamp in nanoseconds and the chunk of a message of `~/chunk`."""
    times_s = np.array([stamp_ns(point.time_from_start) / NS_PER_S for point in message.points])
    values = np.array([point.positions for point in message.points], np.float32)
    return stamp_ns(message.header.stamp), ActionChunk(times_s, values)


def _duration(seconds: float) -> Duration:
    ns = round(seconds * NS_PER_S)
    return Duration(sec=ns // NS_PER_S, nanosec=ns % NS_PER_S)
