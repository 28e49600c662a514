"""`como doctor` and the preflight: what is there is tried; what lacks is named with the command that mends it."""

from __future__ import annotations

import ctypes.util
import fcntl
import importlib.util
import json
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from como_core import doctor, gl_probe, preflight
from como_core.cli import main as cli
from como_core.preflight import MISSING, OK, WARN, Finding

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def findings() -> dict[str, Finding]:
    """The doctor's findings on this machine, by name."""
    return {finding.name: finding for finding in doctor.examine()}


def test_this_machine_can_do_everything(findings: dict[str, Finding]) -> None:
    """What the other tests need; a red line here explains theirs."""
    assert not [finding for finding in findings.values() if finding.status == MISSING]
    assert {"Python", "torch", "ROS 2", "OpenGL", "simulation", "video", "disk"} <= findings.keys()


def test_findings_name_what_was_found(findings: dict[str, Finding]) -> None:
    assert findings["OpenGL"].found.startswith(("egl: ", "osmesa: "))
    assert "rmw_" in findings["ROS 2"].found
    assert findings["torch"].found.startswith("torch 2.")
    assert "h264" in findings["video"].found or "mpeg4" in findings["video"].found


def test_table_and_json_say_the_same(
    findings: dict[str, Finding], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lack = Finding("venv", MISSING, "no ensurepip", "apt-get install -y python3.11-venv python3.11-dev build-essential")
    monkeypatch.setattr(doctor, "examine", lambda: [*findings.values(), lack])
    monkeypatch.setenv("COLUMNS", "60")
    assert cli.main(["doctor"]) == 1
    table = capsys.readouterr().out
    assert lack.mend in table, "a command is not broken, however narrow the terminal"
    assert cli.main(["doctor", "--json"]) == 1
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == [*findings, "venv"]


def test_ros_finding_without_ros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_ROS_PROBE", "import no_such_rclpy")
    finding = doctor.ros()
    assert finding.status == MISSING
    assert "no_such_rclpy" in finding.found
    assert "setup.bash" in finding.mend


def test_a_crash_of_a_driver_does_not_end_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_SIMULATION_PROBE", "import os; os.abort()")
    finding = doctor.simulation()
    assert finding.status == MISSING
    assert "-6" in finding.found


def test_old_python_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "OLDEST_PYTHON", (9, 9))
    finding = preflight.python()
    assert finding.status == MISSING
    assert "make PYTHON=" in finding.mend


def test_missing_venv_names_the_debian_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else object())
    lacking = {finding.name: finding for finding in preflight.examine(tmp_path / ".venv")}
    major, minor = sys.version_info[:2]
    assert lacking["venv"].mend.endswith(f"apt-get install -y python{major}.{minor}-venv")


def test_venv_is_not_asked_for_where_one_stands(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pip").touch()
    assert "venv" not in {finding.name for finding in preflight.examine(tmp_path)}


def test_opengl_without_a_driver_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real probe and the real libEGL, kept from finding any driver."""
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", "/no/such/vendor.json")
    monkeypatch.setenv("MUJOCO_GL", "egl")
    finding = preflight.opengl()
    assert finding.status == MISSING
    assert "driver is missing" in finding.found
    assert finding.mend.endswith("apt-get install -y libegl1 libgl1 libgl1-mesa-dri")


def test_opengl_without_a_library_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(OSError, match="^libEGL not found$"):
        gl_probe.egl_renderer()
    with pytest.raises(OSError, match="^libOSMesa not found$"):
        gl_probe.osmesa_renderer()


def test_a_backend_that_needs_a_screen_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    assert preflight.opengl().status == WARN


def test_a_full_disk_says_how_much_to_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda folder: usage(free=1.5e9))
    finding = preflight.disk(tmp_path / "not" / "yet", needed_gb=4.0)
    assert finding.status == MISSING
    assert str(tmp_path) in finding.found
    assert finding.mend.startswith("free 2.5 GB")


@pytest.mark.parametrize(("distribution", "machine", "status"), [
    ("jazzy", "aarch64", OK), ("", "x86_64", OK), ("", "aarch64", MISSING),
])
def test_where_ros_can_come_from(
    distribution: str, machine: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DISTRO", distribution)
    monkeypatch.setattr(preflight.platform, "machine", lambda: machine)
    assert preflight.ros_wheels().status == status


def test_preflight_runs_with_the_standard_library_alone() -> None:
    """As `make` runs it before anything is installed: no site packages at all."""
    done = subprocess.run([sys.executable, "-S", "-m", "como_core.preflight", "no_venv_here"], cwd=REPOSITORY,
                          env={**os.environ, "MUJOCO_GL": ""}, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("environment", "message"), [
    ({"PYTHON": "no-such-python"}, "no no-such-python; mend it with: apt-get install"),
    ({"MUJOCO_GL": "egl", "__EGL_VENDOR_LIBRARY_FILENAMES": "/no/such/vendor.json"}, "apt-get install -y libegl1"),
])
def test_make_names_what_lacks_before_it_installs(environment: dict[str, str], message: str) -> None:
    done = subprocess.run(["make", "-e", "install", "VENV=no_venv_here"], cwd=REPOSITORY,
                          env={**os.environ, "PYTHON": sys.executable, **environment}, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode != 0
    assert message in done.stderr
    assert "-m venv" not in done.stdout
    assert not (REPOSITORY / "no_venv_here").exists()


def test_what_killed_nodes_left_in_shared_memory_is_counted(tmp_path: Path) -> None:
    """Locks as Fast DDS leaves them: of an ended process, of a living one, and of a port, which is left alone."""
    for name in ("fastdds_00000000000000aa", "fastdds_00000000000000bb", "fastdds_port7413"):
        (tmp_path / name).write_bytes(bytes(1_500_000))
        (tmp_path / f"{name}_el").touch()
    with (tmp_path / "fastdds_00000000000000bb_el").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = doctor.shared_memory(tmp_path)
    assert found.status == WARN and "left 1 segments of Fast DDS behind, 2 MB" in found.found
    assert "fastdds shm clean" in found.mend
    assert doctor.shared_memory(tmp_path / "none").status == OK
