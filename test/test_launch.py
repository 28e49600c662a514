"""`como launch` and the launch files: one description, arguments that are checked, processes that end."""

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from policy_bench import REPOSITORY, Bench

from como_core.cli import launch as cli
from como_core.config import ConfigError
from como_core.errors import ComoError
from como_core.interface import load_interface
from como_core.resources import resource
from como_ros import bringup
from como_ros.processes import wait_until

INTERFACE = resource("config/interfaces/metaworld.yaml")
POLICY = {"policy": "runs/policy", "interface": str(INTERFACE)}


def test_bringup_and_help_need_no_ros() -> None:
    program = ("import sys; from como_core.cli.launch import launch; code = launch(['policy', '--show-args']);"
               "assert not [m for m in sys.modules if m.split('.')[0] in ('rclpy', 'launch')]; sys.exit(code)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    assert "enable_output:=" in done.stdout and "(default: false)" in done.stdout


@pytest.mark.parametrize("name", list(bringup.LAUNCHES))
def test_every_argument_is_a_parameter_of_its_node_with_the_same_default(name: str) -> None:
    launch = bringup.LAUNCHES[name]
    table = {row.name: row for row in importlib.import_module(f"como_ros.{launch.node}").PARAMETERS}
    for argument in launch.parameters:
        if argument.name == "use_sim_time":
            continue
        assert type(argument.default) is type(table[argument.name].default)
        if argument.name != "autostart":  # a launched node starts by itself, `ros2 run` leaves that to its operator
            assert argument.default == table[argument.name].default


def test_arguments_are_typed_and_become_the_command_line() -> None:
    run = bringup.resolve("policy", {**POLICY, "enable_output": "true", "replan_hz": "5", "namespace": "left"})
    assert run.parameters["replan_hz"] == 5.0 and run.parameters["enable_output"] is True
    words = run.command()
    assert words[:3] == [sys.executable, "-m", "como_ros.policy_node"]
    assert {"enable_output:=true", "replan_hz:=5.0", "__ns:=/left", "autostart:=true"} <= set(words)


def test_a_parameter_file_keeps_what_no_argument_changes() -> None:
    run = bringup.resolve("policy", {**POLICY, "params_file": "mine.yaml", "replan_hz": "5.0"})
    words = run.command()
    assert run.parameters == {**POLICY, "replan_hz": 5.0}
    assert words.index("--params-file") < words.index("-p"), "what is typed wins over the file"


@pytest.mark.parametrize(("name", "given", "text"), [
    ("polciy", {}, "did you mean 'policy'"), ("sim", {"evn": "x"}, "did you mean 'env'"),
    ("sim", {"seed": "one"}, "seed:=one: expected a whole number"), ("policy", {}, "needs policy:="),
    ("policy", {**POLICY, "enable_output": "yes"}, "expected true or false"),
    ("policy", {**POLICY, "replan_hz": "fast"}, "expected a number"),
    ("record", {"storage": "db3"}, "expected mcap, sqlite3"),
])
def test_wrong_arguments_are_named(name: str, given: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        bringup.resolve(name, given)


@pytest.mark.parametrize("words", [["env"], [":=x"], ["env:=a", "env:=b"]])
def test_words_that_are_no_arguments_are_refused(words: list[str]) -> None:
    with pytest.raises(ComoError, match="launch argument"):
        cli.given_arguments(words)


@pytest.mark.parametrize("name", list(bringup.LAUNCHES))
def test_launch_files_compile_and_describe_what_bringup_says(name: str) -> None:
    path = REPOSITORY / "launch" / f"{name}.launch.py"
    code = compile(path.read_text(), str(path), "exec")
    if importlib.util.find_spec("launch_ros") is None:
        pytest.skip("launch_ros is not installed (it is not on PyPI); the file compiles")
    scope: dict[str, object] = {}
    exec(code, scope)
    description = scope["generate_launch_description"]()  # type: ignore[operator]
    declared = [argument.name for argument in description.get_launch_arguments()]
    assert declared == [argument.name for argument in bringup.LAUNCHES[name].arguments]


def como_launch(log: Path, domain: dict[str, str], *words: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **domain, "PYTHONPATH": str(REPOSITORY)}
    with log.open("wb") as output:
        return subprocess.Popen([sys.executable, "-m", "como_core.cli.main", "launch", *words], stdout=output,
                                stderr=subprocess.STDOUT, env=environment, cwd=REPOSITORY)


def test_como_launch_sim_runs_until_ctrl_c(ros_domain: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "sim.log"
    process = como_launch(log, ros_domain, "sim", "env:=metaworld:drawer-open-v3", "namespace:=left")
    try:
        with Bench(load_interface(INTERFACE), ros_domain) as bench:
            assert wait_until(lambda: bench.node.count_publishers("/left/camera/image_raw") == 1, 30.0), log.read_text()
            process.send_signal(signal.SIGINT)
            assert process.wait(10.0) == 0, log.read_text()
            assert wait_until(lambda: bench.node.count_publishers("/left/camera/image_raw") == 0, 10.0)
    finally:
        process.kill()
    assert "Traceback" not in log.read_text()


def test_como_launch_policy_starts_the_node_with_its_arguments(ros_domain: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "policy.log"
    process = como_launch(log, ros_domain, "policy", f"policy:={tmp_path / 'none'}", f"interface:={INTERFACE}")
    try:
        assert wait_until(lambda: "configure refused: policy " in log.read_text(), 15.0), log.read_text()
        with Bench(load_interface(INTERFACE), ros_domain) as bench:
            assert bench.state() == "unconfigured", "autostart tried, and the node lives"
        process.terminate()
        assert process.wait(10.0) == 0
    finally:
        process.kill()
