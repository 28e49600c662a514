"""Readers and writers of episodes: images, video, rosbag2, motion labels, frame cache, and folders of all of them."""
