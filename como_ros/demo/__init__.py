"""The whole way in one command: record, watch video, learn motion, relabel, co-train, deploy over ROS 2, report."""
