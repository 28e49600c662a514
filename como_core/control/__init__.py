"""From chunk to command, without ROS: timing, blending, stream ages, limits, latch. Nodes only carry messages."""
