"""The gripper's command: on its topic, and to its action server where it has one. On change only."""

from __future__ import annotations

import importlib
from typing import Any

from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Float64

from como_core.errors import ComoError
from como_core.interface import Gripper
from como_ros import qos

_REPEAT_S = 5.0


class GripperOutput:
    """Sends closings in [0, 1].

    Raises ComoError where the gripper has an action server and control_msgs is not installed.
    """

    def __init__(self, node: LifecycleNode, gripper: Gripper) -> None:
        kind = None if gripper.action is None else _action_class(gripper)
        self._node, self._gripper = node, gripper
        self._topic = qos.publish(node, Float64, gripper.topic, qos.command())
        self._client: Any = None
        if gripper.action is not None and kind is not None:
            from rclpy.action import ActionClient

            self._goal = kind.Goal
            self._client = ActionClient(node, kind, gripper.action)

    def send(self, closing: float) -> None:
        """Publish, and ask the action server for it where it is there."""
        self._topic.publish(Float64(data=closing))
        if self._client is None:
            return
        if not self._client.server_is_ready():
            self._node.get_logger().error(
                f"gripper: no action server {self._gripper.action!r} of type {self._gripper.action_type}; start its "
                "controller, or mend action.gripper.action in the interface", throttle_duration_sec=_REPEAT_S)
            return
        # A newer goal replaces the one before; its result says nothing that the joint state does not say.
        self._client.send_goal_async(self._make_goal(closing))

    def close(self) -> None:
        self._node.destroy_publisher(self._topic)
        if self._client is not None:
            self._client.destroy()

    def _make_goal(self, closing: float) -> Any:
        goal, gripper = self._goal(), self._gripper
        if gripper.action_type == "ParallelGripperCommand":
            goal.command.position = [gripper.position(closing)]
            goal.command.effort = [gripper.max_effort] if gripper.max_effort else []
        else:
            goal.command.position = gripper.position(closing)
            goal.command.max_effort = gripper.max_effort
        return goal


def _action_class(gripper: Gripper) -> Any:
    try:
        return getattr(importlib.import_module("control_msgs.action"), gripper.action_type)
    except (ImportError, AttributeError) as error:
        raise ComoError(f"action.gripper.action: {gripper.action!r} speaks control_msgs/action/{gripper.action_type}, "
                        "which is not installed; install ros-<distribution>-control-msgs, or remove the key and drive "
                        f"the gripper from its topic {gripper.topic!r}") from error
