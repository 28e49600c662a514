"""ament_python package: `colcon build` where ROS 2 is sourced, `pip install -e .[ros,sim,test]` elsewhere.

torch is pinned in constraints.txt and installed by pip; it is no rosdep key, because no distribution carries it.
"""

from itertools import groupby
from pathlib import Path

from setuptools import find_packages, setup

NAME = "como_ros"


def shared(folder: str, pattern: str = "*") -> list[tuple[str, list[str]]]:
    """Every file of a folder, to be installed under share/como_ros with its subfolders kept."""
    files = sorted(path for path in Path(folder).rglob(pattern) if path.is_file())
    return [(f"share/{NAME}/{parent}", [str(file) for file in group])
            for parent, group in groupby(files, key=lambda file: file.parent)]


setup(
    name=NAME,
    version="0.1.0",
    description="From raw video to a moving arm: latent motion, pseudo-actions and co-trained policies on ROS 2",
    long_description="Learn motion from video that has no action labels, turn any video into pseudo-actions, co-train "
                     "a policy with a few labelled demonstrations, run it on an arm, and measure it honestly.",
    author="como_ros maintainers",
    author_email="maintainers@como-ros.example",
    maintainer="como_ros maintainers",
    maintainer_email="maintainers@como-ros.example",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["como_core", "como_core.*", "como_ros", "como_ros.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        *shared("launch", "*.launch.py"),
        *shared("config"),
    ],
    install_requires=[
        "accelerate", "apsw", "av", "backports.zstd; python_version < '3.14'", "diffusers", "h5py", "huggingface-hub",
        "loguru", "lz4", "matplotlib", "mcap", "numpy", "opencv-python-headless", "pyarrow", "pyyaml", "rich",
        "rosbags", "safetensors", "setuptools", "tensorboard", "torch", "transformers", "transforms3d", "tyro",
        "vector-quantize-pytorch",
    ],
    extras_require={
        "ros": [
            "ros-kilted-rclpy[fastrtps]", "ros-kilted-diagnostic-msgs", "ros-kilted-geometry-msgs",
            "ros-kilted-lifecycle-msgs", "ros-kilted-sensor-msgs", "ros-kilted-std-msgs", "ros-kilted-std-srvs",
            "ros-kilted-trajectory-msgs",
        ],
        "bench": ["gymnasium-robotics"],
        # packaging: metaworld imports it and does not declare it.
        "sim": ["metaworld", "mujoco", "packaging"],
        "libero": ["hf-libero"],
        # benchmarks/fuzz_decoders.py
        "fuzz": ["atheris"],
        # What gym-pusht needs; itself it comes with --no-deps, since it asks for another build of OpenCV.
        "pusht": ["pygame", "pymunk<7", "shapely"],
        "test": [
            "colcon-core", "colcon-ros", "hypothesis", "mcap-ros2-support", "mypy", "pytest", "pytest-cov",
            "pytest-timeout", "pytest-xdist", "ruff", "scipy", "types-pyyaml",
        ],
    },
    entry_points={
        "console_scripts": [
            "como = como_core.cli.main:main",
            "sim_node = como_ros.sim_node:main",
            "expert_node = como_ros.expert_node:main",
            "recorder_node = como_ros.recorder_node:main",
            "record_keys = como_ros.record_keys:main",
            "replay = como_ros.replay:main",
            "policy_node = como_ros.policy_node:main",
        ],
    },
    zip_safe=False,
)
