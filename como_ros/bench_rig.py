"""The processes of `como bench node`: cameras and joints, the node under test, and the least node beside it.

    python -m como_ros.bench_rig rig FOLDER FRAMES     # FOLDER holds interface.yaml
    python -m como_ros.bench_rig policy FOLDER --ros-args ...
    python -m como_ros.bench_rig echo FOLDER
"""

from __future__ import annotations

import array
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image, JointState
from trajectory_msgs.msg import JointTrajectory

from como_core.action_chunk import ActionChunk, Observation
from como_core.errors import ComoError
from como_core.interface import Camera, Interface, load_interface
from como_ros import qos
from como_ros.images import image_message
from como_ros.messages import message_class, stamp_ns, to_stamp

RATE_HZ = 30.0
STATE_HZ = 100.0
COMMAND_HZ = 50.0
JOINTS = tuple(f"joint_{i}" for i in range(6))
WARM_UP_FRAMES = 60
GO = "go"  # a file of this name, once answers come: from then on frames count


class _Free:
    """A policy that costs nothing: it stays where it is."""

    uses_state = False

    def __init__(self, folder: Path) -> None:
        self.interface = load_interface(folder / "interface.yaml")
        self._slow_s = float(json.loads((folder / "slow.json").read_text()))
        self._times_s = np.arange(40) / COMMAND_HZ
        self._values = np.zeros((40, len(JOINTS)), np.float32)

    def warm_up(self) -> None:
        """There is nothing to warm up."""

    def predict(self, observation: Observation) -> ActionChunk:
        for name, camera in self.interface.cameras.items():
            if observation.images[name].shape != (camera.height, camera.width, 3):
                raise ComoError(f"{name}: a picture of {observation.images[name].shape}")
        time.sleep(self._slow_s)
        return ActionChunk(self._times_s, self._values, "free")


def _rig(folder: Path, frames: int) -> None:
    """Cameras at RATE_HZ and joints at STATE_HZ, all stamped when they are sent; sent.json at the end."""
    interface = load_interface(folder / "interface.yaml")
    node = rclpy.create_node("rig")
    joints = node.create_publisher(JointState, "joint_states", qos.stream())
    still = JointState(name=list(JOINTS), position=[0.0] * len(JOINTS))
    node.create_timer(1 / STATE_HZ, lambda: _stamped(still, joints))
    publishers: dict[str, Any] = {name: node.create_publisher(message_class(camera.type), camera.topic, qos.stream())
                  for name, camera in interface.cameras.items()}
    messages = {name: _picture(camera) for name, camera in interface.cameras.items()}
    sent: list[int] = []
    counting = False

    def shoot() -> None:
        nonlocal counting
        stamp = time.time_ns()
        for name, message in messages.items():
            message.header.stamp = to_stamp(stamp)
            publishers[name].publish(message)
        counting = counting or (folder / GO).exists()
        if counting:
            sent.append(stamp)
        if len(sent) == frames + WARM_UP_FRAMES:
            part = folder / "sent.part"
            part.write_text(json.dumps(sent[WARM_UP_FRAMES:]))
            time.sleep(0.2)
            part.rename(folder / "sent.json")

    node.create_timer(1 / RATE_HZ, shoot)
    rclpy.spin(node)


def _stamped(message: JointState, publisher: Any) -> None:
    message.header.stamp = to_stamp(time.time_ns())
    publisher.publish(message)


def _picture(camera: Camera) -> Image | CompressedImage:
    """Smooth noise, as large when compressed as a photograph of a room."""
    coarse = np.random.default_rng(0).integers(0, 256, (camera.height // 8, camera.width // 8, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (camera.width, camera.height), interpolation=cv2.INTER_CUBIC)
    if camera.type == "sensor_msgs/msg/Image":
        return image_message(picture, 0, "camera")
    done, jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert done
    return CompressedImage(format="rgb8; jpeg compressed bgr8", data=array.array("B", jpeg.tobytes()))


class _Echo(Node):
    """Answers each frame, once all cameras have sent it, with an empty trajectory of its stamp."""

    def __init__(self, interface: Interface) -> None:
        super().__init__("policy_node")
        self._answers = self.create_publisher(JointTrajectory, interface.action.topic, qos.command())
        self._missing: dict[int, int] = {}
        for camera in interface.cameras.values():
            self.create_subscription(message_class(camera.type), camera.topic, self._on_image, qos.stream())
        self._cameras = len(interface.cameras)

    def _on_image(self, message: Any) -> None:
        stamp = stamp_ns(message.header.stamp)
        left = self._missing.pop(stamp, self._cameras) - 1
        if left:
            self._missing[stamp] = left
            return
        answer = JointTrajectory()
        answer.header.stamp = message.header.stamp
        self._answers.publish(answer)


def _main(words: Sequence[str]) -> int:
    role, folder, *rest = words
    if role == "policy":
        from como_ros.policy_node import PolicyNode, run

        return run(lambda: PolicyNode(lambda place, device: _Free(place)))
    rclpy.init(args=list(words))
    with suppress(KeyboardInterrupt, ExternalShutdownException):  # so whoever started it ends it
        if role == "rig":
            _rig(Path(folder), int(rest[0]))
        else:
            rclpy.spin(_Echo(load_interface(Path(folder) / "interface.yaml")))
    return 0


if __name__ == "__main__":
    sys.exit(_main([word for word in sys.argv[1:] if word]))
