"""What this machine has and how to mend what it lacks: findings as data, for `como doctor` and for tests.

Adds to preflight.py, which knows only the system, what is installed: torch, ROS 2, the simulator, codecs. ROS 2 and
the simulator are asked in processes of their own: como_core never imports ROS, and a broken driver or library must
not end the doctor.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from como_core import preflight
from como_core.preflight import MISSING, OK, WARN, Finding
from como_core.resources import resource

_PIP = "pip install -c constraints.txt -e"
_TIMEOUT_S = 60.0

# A node that hears its own message: library paths, middleware and message packages all had to work for that.
_ROS_PROBE = """
import importlib.util, json, time
import rclpy
from std_msgs.msg import String
packages = ("diagnostic_msgs", "geometry_msgs", "lifecycle_msgs", "rosgraph_msgs", "sensor_msgs", "std_srvs",
            "trajectory_msgs")
absent = [name for name in packages if importlib.util.find_spec(name) is None]
rclpy.init()
node = rclpy.create_node("como_doctor")
heard = []
node.create_subscription(String, "~/echo", lambda message: heard.append(message.data), 1)
publisher = node.create_publisher(String, "~/echo", 1)
end = time.monotonic() + 10.0
while not heard and time.monotonic() < end:
    publisher.publish(String(data="heard"))
    rclpy.spin_once(node, timeout_sec=0.1)
print(json.dumps({"middleware": rclpy.get_rmw_implementation_identifier(), "absent": absent, "heard": bool(heard),
                  "launch_ros": importlib.util.find_spec("launch_ros") is not None}))
rclpy.shutdown()
"""

_SEGMENT_LOCK = re.compile(r"fast(dds|rtps)_[0-9a-f]{16}_el")

_SIMULATION_PROBE = """
import json
from como_core.simulation.metaworld import MetaWorld
env = MetaWorld("reach-v3")
env.reset(0)
print(json.dumps({"pixels": int(env.render().max())}))
"""


def examine() -> list[Finding]:
    """All findings, in the order in which they are worth mending. Takes some seconds; raises nothing."""
    checks: tuple[Callable[[], Finding], ...] = (
        preflight.python, torch, ros, large_images, shared_memory, preflight.opengl, simulation, video, torchcodec,
        lambda: preflight.disk(Path.cwd(), preflight.WORKING_GB), files)
    return [check() for check in checks]


def torch() -> Finding:
    """torch can be imported, and what it computes on."""
    try:
        import torch as library
    except (ImportError, OSError) as error:
        return Finding("torch", MISSING, str(error).splitlines()[0], f"{_PIP} .")
    if library.cuda.is_available():
        gpus = [library.cuda.get_device_properties(i) for i in range(library.cuda.device_count())]
        devices = ", ".join(f"cuda:{i} {gpu.name}, {gpu.total_memory / 1e9:.0f} GB" for i, gpu in enumerate(gpus))
        return Finding("torch", OK, f"torch {library.__version__}, {devices}")
    from como_core.training.precision import resolved

    numbers = {"bf16": "bfloat16", "no": "float32"}[resolved("auto", library.device("cpu"))]
    return Finding("torch", OK, f"torch {library.__version__}, no GPU, {os.cpu_count()} CPU cores, trains in {numbers}")


def ros() -> Finding:
    """rclpy works: a node hears its own message. Names the distribution or the wheels, and the middleware."""
    answer, failure = _ask(_ROS_PROBE)
    if answer is None:
        return Finding("ROS 2", MISSING, failure, f"source a distribution's setup.bash, or {_PIP} '.[ros]'")
    found = f"{_ros_source()}, {answer['middleware']}, domain {os.environ.get('ROS_DOMAIN_ID', '0')}"
    if answer["absent"]:
        lacking = ", ".join(answer["absent"])
        return Finding("ROS 2", MISSING, f"{found}; no {lacking}",
                       f"rosdep install --from-paths . -y, or {_PIP} '.[ros]'")
    if not answer["heard"]:
        return Finding("ROS 2", MISSING, f"{found}; a node does not hear its own messages",
                       "check ROS_AUTOMATIC_DISCOVERY_RANGE, the firewall and free space in /dev/shm")
    if not answer["launch_ros"]:
        return Finding("ROS 2", OK, f"{found}; no launch_ros: `como launch` starts the same nodes")
    return Finding("ROS 2", OK, found)


def large_images() -> Finding:
    """Whether raw images of megabytes get through Fast DDS whole: its default shared memory is too small for them."""
    rmw, profile = os.environ.get("RMW_IMPLEMENTATION", ""), os.environ.get("FASTDDS_DEFAULT_PROFILES_FILE", "")
    if rmw and "fastrtps" not in rmw:
        return Finding("large images", OK, f"{rmw}: the profile for Fast DDS is not needed")
    if profile and Path(profile).is_file():
        return Finding("large images", OK, f"Fast DDS uses {profile}")
    found = f"{profile}: no such file" if profile else "Fast DDS has no profile: raw images from 640x480 on are lost"
    return Finding("large images", WARN, found, "for raw cameras, in every terminal: export "
                   f"FASTDDS_DEFAULT_PROFILES_FILE={resource('config/fastdds/large_images.xml')}")


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """What killed processes left in Fast DDS' shared memory: it takes room, and a node that follows may stay deaf."""
    name, left = "shared memory", [path for path in sorted(folder.glob("fast*_el")) if _abandoned(path)]
    if not left:
        return Finding(name, OK, "nothing was left behind by killed nodes")
    segments = [path.with_name(path.name.removesuffix("_el")) for path in left]
    megabytes = sum(path.stat().st_size for path in segments if path.is_file()) / 1e6
    return Finding(name, WARN, f"killed nodes left {len(left)} segments of Fast DDS behind, {megabytes:.0f} MB",
                   f"with no node running: fastdds shm clean, or rm -f {folder}/fastdds_* {folder}/fastrtps_*")


def _abandoned(lock: Path) -> bool:
    """Whether nobody holds the lock of a segment any more. Ports are left alone."""
    if not _SEGMENT_LOCK.fullmatch(lock.name):
        return False
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False


def simulation() -> Finding:
    """Meta-World renders one frame of one task."""
    answer, failure = _ask(_SIMULATION_PROBE)
    if answer is None:
        return Finding("simulation", MISSING, failure, f"mend OpenGL if it is missing above, or {_PIP} '.[sim]'")
    if not answer["pixels"]:
        return Finding("simulation", MISSING, "Meta-World renders black frames", "MUJOCO_GL=osmesa como doctor")
    return Finding("simulation", OK, f"metaworld {_version('metaworld')}, mujoco {_version('mujoco')}: renders")


def video() -> Finding:
    """PyAV can decode H.264 and encode a video that the demo writes."""
    try:
        import av
    except ImportError as error:
        return Finding("video", MISSING, str(error), f"{_PIP} .")
    encoders = [name for name in ("libx264", "mpeg4") if _has_codec(av, name, "w")]
    found = f"PyAV {av.__version__}, encoders: {', '.join(encoders) or 'none'}"
    if not encoders or not _has_codec(av, "h264", "r"):
        return Finding("video", MISSING, f"{found}; H.264 cannot be decoded or nothing encoded",
                       "pip install --force-reinstall -c constraints.txt av")
    return Finding("video", OK, found)


def torchcodec() -> Finding:
    """torchcodec is optional: PyAV decodes where it is absent."""
    version = _version("torchcodec")
    found = f"torchcodec {version}" if version else "torchcodec is not installed; PyAV decodes"
    return Finding("torchcodec", OK if version else WARN, found, "" if version else "optional: pip install torchcodec")


def files() -> Finding:
    """The package's own files are where they are looked for."""
    folder = resource("package.xml").parent
    return Finding("como_ros", OK, f"version {_version('como_ros') or 'not installed'}, files in {folder}")


def _ask(program: str) -> tuple[dict[str, Any] | None, str]:
    """Run a Python program that prints one JSON object: (answer, "") or (None, why there is none)."""
    try:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return None, f"no answer in {_TIMEOUT_S:.0f} s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1]), ""
    return None, lines[-1] if lines else f"the process ended with {done.returncode}"


def _ros_source() -> str:
    distribution = os.environ.get("ROS_DISTRO")
    if distribution:
        return f"distribution {distribution}"
    wheels = [name for name in ("kilted", "jazzy") if _version(f"ros-{name}-rclpy")]
    return f"wheels {wheels[0]} {_version(f'ros-{wheels[0]}-rclpy')}" if wheels else "rclpy of unknown origin"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _has_codec(av: Any, name: str, mode: str) -> bool:
    try:
        av.codec.Codec(name, mode)
    except ValueError:  # av.codec.codec.UnknownCodecError
        return False
    return True
