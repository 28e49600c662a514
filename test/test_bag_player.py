"""A played bag over DDS: stored bytes with their stamps, the bag's clock, raw pictures of a compressed camera."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from bag_messages import image, joints, number, pose, twist
from geometry_msgs.msg import PoseStamped
from rclpy.qos import QoSProfile
from ros_client import TIMEOUT_S, RosClient
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from como_core.formats.bag_compress import COMPRESSED_SUFFIX, COMPRESSED_TYPE, ImageCompression
from como_core.formats.bag_reader import BagReader
from como_core.formats.rosbag import BagWriter
from como_core.interface import load_interface
from como_core.resources import resource
from como_ros.bag_player import BagPlayer
from como_ros.images import rgb_image
from como_ros.messages import stamp_ns
from como_ros.processes import wait_until

ROBOT = load_interface(resource("config/interfaces/metaworld.yaml"))
STEPS, PERIOD_NS, START_NS, DELAY_NS = 6, 25_000_000, 1_700_000_000_123_456_789, 3_000_000
RGB = np.random.default_rng(0).integers(0, 256, (STEPS, 64, 64, 3), np.uint8)


def write(path: Path, compressed: bool) -> None:
    """Under a namespace, logged a little after the stamps."""
    with BagWriter(path, ROBOT, "open") as bag:
        bag.write("/left/gripper_command", "std_msgs/msg/Float64", START_NS, number(0))
        for step in range(STEPS):
            ns = START_NS + step * PERIOD_NS
            picture, topic, type = image(ns, RGB[step]), "/left/camera/image_raw", "sensor_msgs/msg/Image"
            if compressed:
                picture = ImageCompression("png").compress(topic, picture)
                topic, type = topic + COMPRESSED_SUFFIX, COMPRESSED_TYPE
            bag.write(topic, type, ns + DELAY_NS, picture)
            bag.write("/left/ee_pose", "geometry_msgs/msg/PoseStamped", ns + DELAY_NS, pose(ns, (step, 0, 0)))
            bag.write("/left/joint_states", "sensor_msgs/msg/JointState", ns + DELAY_NS, joints(ns, {"gripper": 0}))
            bag.write("/left/servo/delta_twist_cmds", "geometry_msgs/msg/TwistStamped", ns + DELAY_NS,
                      twist(ns, (0, 0, 0)))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_bag_is_played_as_it_was_recorded(ros_domain: dict[str, str], tmp_path: Path, compressed: bool) -> None:
    write(tmp_path / "bag", compressed)
    with BagReader(tmp_path / "bag") as bag, RosClient() as player_side, RosClient() as client:
        player = BagPlayer(player_side.node, ROBOT, bag)
        assert "/clock" in player.unheard()
        deep = QoSProfile(depth=50, reliability=2)
        pictures, poses = client.listen(Image, "camera/image_raw", deep), client.listen(PoseStamped, "ee_pose", deep)
        clocks = client.listen(Clock, "/clock", deep)
        assert wait_until(lambda: player.unheard() == ["/joint_states"], TIMEOUT_S) and not player.heard()
        time.sleep(0.5)  # a reader learns of its writer a little later than the writer of it
        frames = []
        for number_of_frames, frame in enumerate(player.frames(), start=1):
            frames.append(frame)
            # The next picture waits for us; what was sent with this one is there.
            assert wait_until(lambda n=number_of_frames: len(pictures) == len(poses) == n, TIMEOUT_S)
    assert frames == [START_NS + step * PERIOD_NS for step in range(STEPS)]
    assert [stamp_ns(m.header.stamp) for _, m in pictures] == [stamp_ns(m.header.stamp) for _, m in poses] == frames
    assert [m.pose.position.x for _, m in poses] == list(range(STEPS))
    for step, (_, message) in enumerate(pictures):
        np.testing.assert_array_equal(rgb_image(message, ROBOT.cameras["front"]), RGB[step])
    assert [stamp_ns(m.clock) for _, m in clocks][-1] == frames[-1] + DELAY_NS
