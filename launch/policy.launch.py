"""ros2 launch como_ros policy.launch.py policy:=runs/policy interface:=config/interfaces/metaworld.yaml"""

from como_ros.bringup import launch_description
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Called by launch; `--show-args` lists the arguments."""
    return launch_description("policy")
