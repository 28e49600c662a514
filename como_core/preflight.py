"""What the system must bring before anything is installed: `python3 -m como_core.preflight [folder of .venv]`.

Standard library only, and it parses on older Pythons, so that it can say that they are too old. `make` runs it before
the long installation, `como doctor` shows the same findings later.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

OK, WARN, MISSING = "ok", "warn", "missing"

OLDEST_PYTHON = (3, 11)
NEWEST_WHEEL_PYTHON = (3, 14)  # the ROS 2 wheels are made for cp310 to cp314

INSTALLED_GB = 4.0  # a fresh .venv takes 2.1 GB with torch for CPU, and pip unpacks beside it
WORKING_GB = 2.0    # the demo's videos, bags, frame cache and checkpoints

# MuJoCo's name of an off-screen backend -> the Debian and Ubuntu packages it needs, in the order of trying.
_GL_PACKAGES = {"egl": ("libegl1", "libgl1", "libgl1-mesa-dri"), "osmesa": ("libosmesa6",)}
_PROBE_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    status  "ok", "warn" (works, or is not needed by everybody) or "missing" (something will not work)
    found   what there is
    mend    what to do about it; empty where there is nothing to do
    """

    name: str
    status: str
    found: str
    mend: str = ""


def examine(venv: Path) -> list[Finding]:
    """Look for everything that an installation into `venv` and a run need from the system."""
    return [python(), *([] if (venv / "bin" / "pip").exists() else [venv_module()]), ros_wheels(), opengl(),
            disk(venv.parent, WORKING_GB if (venv / ".installed").exists() else INSTALLED_GB + WORKING_GB)]


def python() -> Finding:
    """Python is new enough."""
    found = f"Python {platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return Finding("Python", OK, found)
    return Finding("Python", MISSING, found, "install Python 3.11 or later and name it: make PYTHON=python3.11 ...")


def venv_module() -> Finding:
    """Python can make virtual environments; Debian and Ubuntu package that part apart."""
    if all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        return Finding("venv", OK, "python3 -m venv works")
    package = "python{}.{}-venv".format(*sys.version_info[:2])
    return Finding("venv", MISSING, "python3 cannot make virtual environments (no ensurepip)", apt_install(package))


def ros_wheels() -> Finding:
    """A ROS 2 distribution is sourced, or the wheels from PyPI fit this machine."""
    distribution = os.environ.get("ROS_DISTRO")
    if distribution:
        return Finding("ROS 2 source", OK, f"distribution {distribution} is sourced")
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    if platform.system() == "Linux" and platform.machine() == "x86_64" and sys.version_info[:2] <= NEWEST_WHEEL_PYTHON:
        return Finding("ROS 2 source", OK, f"wheels from PyPI fit {machine}")
    return Finding("ROS 2 source", MISSING, f"no ROS 2 sourced, and no wheels for {machine}",
                   "install ROS 2 (docs.ros.org) and source its setup.bash, or use Linux x86-64 with Python up to 3.14")


def opengl() -> Finding:
    """A context for rendering without a screen can be made, as MuJoCo makes it; EGL first, then OSMesa.

    MUJOCO_GL, where it is set, is the only one tried.
    """
    wanted = os.environ.get("MUJOCO_GL", "").strip().lower()
    if wanted and wanted not in _GL_PACKAGES:
        return Finding("OpenGL", WARN, f"MUJOCO_GL={wanted} renders to a screen; not tried", "unset MUJOCO_GL")
    failures = []
    for backend in [wanted] if wanted else _GL_PACKAGES:
        renderer, failure = _probe_gl(backend)
        if renderer:
            return Finding("OpenGL", OK, f"{backend}: {renderer}")
        failures.append(f"{backend}: {failure}")
    return Finding("OpenGL", MISSING, "; ".join(failures), apt_install(*_GL_PACKAGES[wanted or "egl"]))


def disk(folder: Path, needed_gb: float) -> Finding:
    """Space left where the work is done, in units of 10^9 bytes."""
    existing = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    found = f"{free_gb:.1f} GB free in {existing}"
    if free_gb >= needed_gb:
        return Finding("disk", OK, found)
    return Finding("disk", MISSING, found, f"free {needed_gb - free_gb:.1f} GB there, or work in another folder")


def apt_install(*packages: str) -> str:
    """The command that installs system packages on Debian and Ubuntu."""
    return f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install -y {' '.join(packages)}"


def _probe_gl(backend: str) -> tuple[str, str]:
    """(renderer, "") or ("", why not)."""
    command = [sys.executable, "-I", str(Path(__file__).with_name("gl_probe.py")), backend]
    try:
        probe = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return "", f"no answer in {_PROBE_TIMEOUT_S:.0f} s"
    if probe.returncode == 0:
        return probe.stdout.strip(), ""
    lines = probe.stderr.strip().splitlines()
    return "", lines[-1] if lines else f"the driver ended the process ({probe.returncode})"


def main() -> int:
    """Print what is missing and how to mend it; 0 where nothing is."""
    venv = Path(sys.argv[1] if len(sys.argv) > 1 else ".venv")
    lacking = [finding for finding in examine(venv) if finding.status == MISSING]
    for finding in lacking:
        print(f"como_ros: {finding.name}: {finding.found}\n    mend it with: {finding.mend}", file=sys.stderr)
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
