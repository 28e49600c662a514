"""The library of como_ros: latent motion from video, co-trained policies, control and evaluation. It knows no ROS."""

__version__ = "0.1.0"
