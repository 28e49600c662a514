"""Thin ROS 2 nodes over como_core."""
