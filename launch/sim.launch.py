"""ros2 launch como_ros sim.launch.py env:=metaworld:drawer-open-v3"""

from como_ros.bringup import launch_description
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Called by launch; `--show-args` lists the arguments."""
    return launch_description("sim")
