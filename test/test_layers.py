"""The walls of the house: como_core never imports ROS, and imports look down only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MODULES = sorted(path for package in ("como_core", "como_ros") for path in (REPOSITORY / package).rglob("*.py"))

# Lower numbers are lower layers; a room may import itself and lower layers. What is not named here is the base.
LAYER = {
    "como_core.training": 1, "como_core.formats": 1,
    "como_core.motion": 2, "como_core.policy": 2, "como_core.control": 2, "como_core.simulation": 2,
    "como_core.evaluation": 2,
    "como_core.doctor": 3, "como_core.bench": 3,
    "como_core.cli": 4, "como_ros": 4,
}
ROS = ("rclpy", "rcl_interfaces", "rosidl_runtime_py", "rosgraph_msgs", "builtin_interfaces", "launch", "launch_ros",
       "ament_index_python", "std_srvs", "rosbag2_py", "cv_bridge", "tf2_ros")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute name) of everything a file imports, inside functions too."""
    package = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[:len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def room(name: str) -> str:
    """The room of a module: "como_core.motion" for como_core.motion.train, "como_ros" for every node."""
    parts = name.split(".")
    return "como_ros" if parts[0] == "como_ros" else ".".join(parts[:2])


def is_ros(name: str) -> bool:
    top = name.partition(".")[0]
    return top in ROS or top.endswith("_msgs")


def violation(importer: str, imported: str) -> str | None:
    """Why `importer` may not import `imported`, both as dotted names; None where it may."""
    here, there = room(importer), room(imported)
    if here.startswith("como_core") and is_ros(imported):
        return "como_core never imports ROS"
    if not imported.startswith(("como_core", "como_ros")) or here == there:
        return None
    if {here, there} == {"como_core.cli", "como_ros"}:
        return None if here == "como_core.cli" else "nodes do not need the command line"
    above, below = LAYER.get(here, 0), LAYER.get(there, 0)
    if below > above:
        return f"{here} is below {there}"
    return f"{here} and {there} stand side by side" if above == below > 0 else None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_imports_look_down_only(path: Path) -> None:
    name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    found = [f"{path.relative_to(REPOSITORY)}:{line}: imports {imported}: {why}"
             for line, imported in imports(path) if (why := violation(name, imported))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("importer", "imported"), [
    ("como_core.motion.train", "rclpy.node"), ("como_core.cli.launch", "sensor_msgs.msg.Image"),
    ("como_core.motion.train", "como_core.policy.train"), ("como_core.formats.video", "como_core.motion.model"),
    ("como_core.episode", "como_core.formats.video"), ("como_core.control.latch", "como_ros.qos"),
    ("como_ros.sim_node", "como_core.cli.main"), ("como_core.training.loop", "como_core.formats.cache"),
])
def test_the_rule_refuses(importer: str, imported: str) -> None:
    assert violation(importer, imported)


@pytest.mark.parametrize(("importer", "imported"), [
    ("como_core.motion.train", "como_core.training.loop"), ("como_core.cli.launch", "como_ros.bringup"),
    ("como_ros.policy_node", "rclpy.node"), ("como_core.formats.video", "como_core.episode"),
    ("como_core.simulation.dataset", "como_core.formats.video"), ("como_core.motion.model", "torch.nn"),
])
def test_the_rule_allows(importer: str, imported: str) -> None:
    assert violation(importer, imported) is None


def test_no_pickle_is_read_and_no_socket_is_listened_on() -> None:
    """LIBERO's start states lie in pickles: torch reads them with weights_only, and lets nothing but arrays in."""
    refused = ("pickle.load", "pickle.Unpickler", "joblib", "dill", "socketserver", "zmq", "grpc")
    for path in MODULES:
        for line, name in imports(path):
            assert not name.startswith(refused), f"{path}:{line}: {name}"
        text = path.read_text(encoding="utf-8")
        assert "pickle.load" not in text and "weights_only=False" not in text and "allow_pickle=True" not in text, path
        assert ".listen(" not in text, path
