"""A bright square that moves over a fixed background, as episodes, and a motion model small enough to learn it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import bag_messages
import numpy as np

from como_core.episode import Episode
from como_core.formats.rosbag import BagWriter
from como_core.interface import load_interface
from como_core.motion.config import MotionConfig, load_preset
from como_core.resources import resource

FPS = 20
GAP_S = 0.1


def moving_square(seed: int, steps: int = 30) -> Episode:
    """A bright square on a fixed random background; the action is its velocity in pixels per step."""
    rng = np.random.default_rng(seed)
    background = np.random.default_rng(0).integers(0, 120, (32, 32, 3), dtype=np.uint8)
    action = np.repeat(rng.uniform(-3, 3, (steps // 5, 2)), 5, axis=0).astype(np.float32)
    place, pictures = rng.uniform(6, 18, 2), []
    for t in range(steps):
        picture = background.copy()
        y, x = np.round(place).astype(int)
        picture[y:y + 8, x:x + 8] = 255
        pictures.append(picture)
        moved = np.clip(place + action[t], 0, 24)
        action[t] = moved - place
        place = moved
    return Episode(np.arange(steps) / FPS, {"top": np.stack(pictures)}, f"square#{seed}", action=action)


def tiny(preset: str = "como", steps: int = 150) -> MotionConfig:
    base = load_preset(preset)
    loop = dataclasses.replace(base.loop, steps=steps, batch_size=32, learning_rate=3e-3, precision="no",
                               save_every=50)
    inverse = dataclasses.replace(base.inverse, width=32, hidden=64)
    forward = dataclasses.replace(base.forward, width=32, coarse_width=32)
    return dataclasses.replace(base, loop=loop, inverse=inverse, forward=forward, gap_s=GAP_S, image_size=32,
                               latent_size=8)


def write_bag(path: Path, episode: Episode) -> None:
    """Record an episode as a bag at 40 Hz; the arm is the moving square."""
    robot = load_interface(resource("config/interfaces/metaworld.yaml"))
    period_ns = 25_000_000
    assert episode.action is not None
    with BagWriter(path, robot, "push") as bag:
        bag.write("/gripper_command", "std_msgs/msg/Float64", period_ns, bag_messages.number(0))
        for t, (picture, action) in enumerate(zip(episode.images["top"], episode.action, strict=True), start=1):
            at = t * period_ns
            pixels = picture.repeat(2, axis=0).repeat(2, axis=1)
            bag.write("/camera/image_raw", "sensor_msgs/msg/Image", at, bag_messages.image(at, pixels))
            bag.write("/ee_pose", "geometry_msgs/msg/PoseStamped", at, bag_messages.pose(at, (0, 0, 0)))
            bag.write("/joint_states", "sensor_msgs/msg/JointState", at, bag_messages.joints(at, {"gripper": 0.0}))
            bag.write("/servo/delta_twist_cmds", "geometry_msgs/msg/TwistStamped", at,
                      bag_messages.twist(at, (*action, action.sum())))
