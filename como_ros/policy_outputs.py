"""What a policy node sends: commands of a Controller as messages of the interface's target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode

from como_core.control.status import Command
from como_core.interface import Action
from como_ros import qos
from como_ros.commands import forward_message, pose_message, trajectory_message
from como_ros.gripper import GripperOutput
from como_ros.messages import message_class, twist_message

_MESSAGES: dict[str, Callable[[np.ndarray, Action, int], Any]] = {
    "servo_twist": twist_message,
    "forward_command": forward_message,
    "pose": pose_message,
}


class Outputs:
    """Publishers of the command topics.

    Raises ComoError where the gripper cannot be driven from here.
    """

    def __init__(self, node: LifecycleNode, action: Action) -> None:
        self._node, self._action = node, action
        self._gripper = GripperOutput(node, action.gripper) if action.gripper else None
        self._commands = qos.publish(node, message_class(action.type), action.topic, qos.command())

    def send(self, command: Command) -> None:
        """Publish what the command holds: values stamped with the time of publishing, a trajectory with its own."""
        if command.trajectory is not None:
            self._commands.publish(trajectory_message(command.trajectory, self._action))
        if command.values is not None:
            now_ns = self._node.get_clock().now().nanoseconds
            self._commands.publish(_MESSAGES[self._action.target](command.values, self._action, now_ns))
        if self._gripper is not None and command.gripper is not None:
            self._gripper.send(command.gripper)

    def close(self) -> None:
        self._node.destroy_publisher(self._commands)
        if self._gripper is not None:
            self._gripper.close()
