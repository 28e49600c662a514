"""The package as colcon and pip see it: what is declared, what is installed, and that its files are found again."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

import como_core
from como_core.errors import ComoError
from como_core.resources import resource, resources

REPOSITORY = Path(__file__).resolve().parents[1]
NODES = ("sim_node", "expert_node", "recorder_node", "policy_node")
# Import name -> the distribution that brings it, where the two differ.
_DISTRIBUTION = {"cv2": "opencv-python-headless", "yaml": "pyyaml", "backports": "backports.zstd",
                 "compression": "backports.zstd", "libero": "hf-libero"}
_ROS_PACKAGE = re.compile(r"rclpy|launch\w*|cv_bridge|\w+_(msgs|srvs|interfaces)")
FIND = "from como_core.resources import resource; print(resource('config/interfaces/metaworld.yaml'))"


@pytest.fixture(scope="module")
def manifest() -> ElementTree.Element:
    return ElementTree.parse(REPOSITORY / "package.xml").getroot()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packaged, so that a build leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp("workspace") / "src" / "como_ros"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("como_core", "como_ros", "config", "launch", "resource"):
        shutil.copytree(REPOSITORY / folder, copy / folder, ignore=ignore)
    for file in ("setup.py", "setup.cfg", "pyproject.toml", "package.xml"):
        shutil.copy(REPOSITORY / file, copy)
    return copy


def test_manifest_is_an_ament_python_package(manifest: ElementTree.Element) -> None:
    assert manifest.get("format") == "3"
    assert manifest.findtext("name") == "como_ros"
    assert manifest.findtext("version") == como_core.__version__
    assert manifest.findtext("export/build_type") == "ament_python"
    assert manifest.findtext("license") == "Apache-2.0"


def test_torch_is_no_hard_dependency(manifest: ElementTree.Element) -> None:
    keys = [element.text or "" for element in manifest if element.tag.endswith("depend")]
    assert "rclpy" in keys
    assert not [key for key in keys if "torch" in key]


def test_every_ros_package_used_is_declared(manifest: ElementTree.Element) -> None:
    declared = {element.text for element in manifest if element.tag.endswith("depend")}
    used = {name for name in _imported("como_ros") if _ROS_PACKAGE.fullmatch(name)}
    assert {"rclpy", "sensor_msgs"} <= used <= declared


def test_every_library_used_is_declared() -> None:
    """Also what comes with another library anyway: that one may drop it. Or it is installed by the Makefile alone.

    LeRobot is used by a script of `como bench policy` which the Python of another environment runs.
    """
    declared = {_normalised(re.split(r"[\[<>=!~;]", name)[0]) for name in _requirements()}
    declared |= set(re.findall(r"--no-deps (\S+)", (REPOSITORY / "Makefile").read_text()))
    used = {name for name in _imported("como_core") | _imported("como_ros")
            if name not in sys.stdlib_module_names and not name.startswith("como_")}
    libraries = {name for name in used if not _ROS_PACKAGE.fullmatch(name)}
    names = {_normalised(_DISTRIBUTION.get(name, name)) for name in libraries}
    assert "torch" in names
    assert names - declared <= {"lerobot"}, f"imported, but not in setup.py: {sorted(names - declared)}"


def test_scripts_go_where_ros2_run_looks() -> None:
    settings = configparser.ConfigParser()
    settings.read(REPOSITORY / "setup.cfg")
    assert settings["install"]["install_scripts"] == settings["develop"]["script_dir"] == "$base/lib/como_ros"


def test_constraints_pin_every_direct_dependency() -> None:
    pinned = {_normalised(line.partition("==")[0]) for line in _constraints()}
    needed = {_normalised(re.split(r"[\[<>=!~;]", name)[0]) for name in _requirements()}
    assert needed <= pinned, f"not pinned: {sorted(needed - pinned)}"


def test_constraints_are_exact_and_name_no_host() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._]+", line) for line in _constraints())
    assert "torch==2.13.0" in _constraints()


def test_every_folder_of_code_is_a_package() -> None:
    """find_packages leaves out a folder without __init__.py, and then only an installed copy lacks it."""
    folders = {path.parent for name in ("como_core", "como_ros") for path in (REPOSITORY / name).rglob("*.py")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]


def test_resources_of_the_checkout() -> None:
    assert resource("config/interfaces/metaworld.yaml") == REPOSITORY / "config/interfaces/metaworld.yaml"
    assert resources("config/interfaces")["metaworld"].is_file()
    with pytest.raises(ComoError, match=r"config/none\.yaml.*looked in .*install the package again"):
        resource("config/none.yaml")


def test_a_wheel_brings_its_files(sources: Path, tmp_path: Path) -> None:
    _run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path),
          str(sources)])
    wheel = next(tmp_path.glob("como_ros-*.whl"))
    prefix = tmp_path / "prefix"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
    packages = prefix / "lib" / "python3" / "site-packages"
    shutil.copytree(tmp_path / "unpacked", packages)
    shutil.copytree(next(packages.glob("*.data")) / "data", prefix, dirs_exist_ok=True)
    found = _run([sys.executable, "-S", "-c", FIND], cwd=tmp_path, environment={"PYTHONPATH": str(packages)})
    assert found.strip() == str(prefix / "share/como_ros/config/interfaces/metaworld.yaml")
    entry_points = next(packages.glob("*.dist-info")) / "entry_points.txt"
    assert "como = como_core.cli.main:main" in entry_points.read_text()


@pytest.mark.skipif(shutil.which("colcon", path=Path(sys.executable).parent) is None, reason="colcon is not installed")
def test_colcon_builds_and_installs(sources: Path) -> None:
    workspace = sources.parents[1]
    colcon = str(Path(sys.executable).with_name("colcon"))
    _run([colcon, "build"], cwd=workspace)
    prefix = workspace / "install" / "como_ros"
    assert (prefix / "share/ament_index/resource_index/packages/como_ros").is_file()
    assert (prefix / "share/como_ros/package.xml").is_file()
    for node in NODES:
        assert os.access(prefix / "lib/como_ros" / node, os.X_OK)
    launch_files = {path.name for path in (REPOSITORY / "launch").glob("*.launch.py")}
    assert {path.name for path in (prefix / "share/como_ros/launch").iterdir()} == launch_files != set()

    # As a user does: source the workspace, then run what it installed.
    script = f'. install/local_setup.sh && python3 -c "{FIND}" && install/como_ros/lib/como_ros/como --version'
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    lines = _run(["sh", "-c", script], cwd=workspace, environment={"PATH": path}).splitlines()
    assert lines[-2] == str(prefix / "share/como_ros/config/interfaces/metaworld.yaml")
    assert lines[-1] == f"como {como_core.__version__}"


def _run(command: list[str], cwd: Path | None = None, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **(environment or {})}, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _constraints() -> list[str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _requirements() -> list[str]:
    """Every requirement that setup.py declares, extras included."""
    program = ("import setuptools; setuptools.setup = lambda **a: print(*a['install_requires'], "
               "*(r for extra in a['extras_require'].values() for r in extra), sep='\\n'); "
               "exec(compile(open('setup.py').read(), 'setup.py', 'exec'))")
    return _run([sys.executable, "-c", program], cwd=REPOSITORY).splitlines()


def _imported(folder: str) -> set[str]:
    """The top-level names that the code of a folder imports, inside functions too."""
    names = set()
    for path in (REPOSITORY / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names
