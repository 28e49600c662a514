"""rosbag2 episodes, written and read without ROS."""

from como_core.formats.bag_writer import BagError, BagWriter

__all__ = ["BagError", "BagWriter"]
