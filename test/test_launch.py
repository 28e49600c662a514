"""`como launch` and the launch files: one description, arguments that are checked, processes that end."""

import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from policy_bench import REPOSITORY, Bench, robot
from policy_data import untrained
from std_msgs.msg import Bool

from como_core.cli import launch as cli
from como_core.config import ConfigError
from como_core.errors import ComoError
from como_core.interface import load_interface
from como_core.policy.config import PolicyConfig
from como_core.policy.network import NetworkConfig
from como_core.policy.normaliser import Affine
from como_core.policy.observation import ObservationConfig
from como_core.resources import resource
from como_core.training.loop import LoopConfig
from como_ros import bringup, qos
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
        if argument.name == "use_sim_time" and not argument.parameter:
            continue
        row = table[argument.parameter or argument.name]
        assert type(argument.default) is type(row.default)
        if argument.name != "autostart":  # a launched node starts by itself, `ros2 run` leaves that to its operator
            assert argument.default == row.default


def test_arguments_are_typed_and_become_the_command_line() -> None:
    run = bringup.resolve("policy", {**POLICY, "enable_output": "true", "replan_hz": "5", "namespace": "left"})
    assert run.parameters["replan_hz"] == 5.0 and run.parameters["enable_output"] is True
    words = run.command()
    assert words[:3] == [sys.executable, "-m", "como_ros.policy_node"]
    assert {"enable_output:=true", "replan_hz:=5.0", "__ns:=/left", "autostart:=true"} <= set(words)


def test_a_simulation_without_simulated_time_publishes_no_clock() -> None:
    assert bringup.resolve("sim", {}).parameters["publish_clock"] is True
    run = bringup.resolve("sim", {"use_sim_time": "false", "autostart": "false"})
    assert run.parameters["publish_clock"] is False and "use_sim_time" not in run.parameters
    assert {"publish_clock:=false", "autostart:=false"} <= set(run.command())


@pytest.mark.parametrize("name", ["policy", "sim"])
def test_the_customary_arguments_are_all_there(name: str) -> None:
    names = {argument.name for argument in bringup.LAUNCHES[name].arguments}
    assert {"namespace", "use_sim_time", "params_file", "log_level", "autostart"} <= names


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


def end(*processes: subprocess.Popen[bytes]) -> None:
    """End launches with their nodes, which a killed launch would leave behind on the domain of the tests to come."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(20.0)
        except subprocess.TimeoutExpired:
            process.kill()


def small_policy(folder: Path) -> Path:
    """A checkpoint of the smallest diffusion policy, untrained: it drives the arm somewhere."""
    encoder = ObservationConfig(channels=(8, 8, 8), map_channels=4, width=16)
    policy = PolicyConfig(LoopConfig(steps=1), observation=encoder, network=NetworkConfig(width=16, depth=1))
    action = Affine(np.array([0, 0.1, 0, 0.5], np.float32), np.full(4, 0.01, np.float32))
    return untrained(folder, load_interface(INTERFACE), ("drawer open",), policy, action)


def test_a_checkpoint_drives_the_simulated_arm_through_two_launches(ros_domain: dict[str, str], tmp_path: Path) -> None:
    timing = tmp_path / "timing.json"
    logs = tmp_path / "sim.log", tmp_path / "policy.log"
    given = ["use_sim_time:=true", "enable_output:=true", "instruction:=drawer open", f"timing_file:={timing}"]
    folder = small_policy(tmp_path / "policy")
    sim = como_launch(logs[0], ros_domain, "sim", "env:=metaworld:drawer-open-v3")
    policy = como_launch(logs[1], ros_domain, "policy", f"policy:={folder}", f"interface:={INTERFACE}", *given)
    poses: list[float] = []
    try:
        with Bench(load_interface(INTERFACE), ros_domain) as bench:
            bench.node.create_subscription(PoseStamped, "ee_pose", lambda m: poses.append(m.pose.position.y),
                                           qos.stream())
            bench.wait_commands(40)
            assert wait_until(lambda: poses[-1] - poses[0] > 0.02, 10.0), "the arm obeys"
            policy.send_signal(signal.SIGINT)
            assert policy.wait(15.0) == 0, logs[1].read_text()
            sim.send_signal(signal.SIGINT)
            assert sim.wait(15.0) == 0, logs[0].read_text()
    finally:
        end(policy, sim)
    assert "Traceback" not in logs[0].read_text() + logs[1].read_text()
    figures = json.loads(timing.read_text())
    assert figures["arrival_to_command_ms"]["n"] > 5 and figures["policy"] == str(folder)


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
        end(process)


def test_a_parameter_file_that_is_not_there_is_one_sentence(ros_domain: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "record.log"
    process = como_launch(log, ros_domain, "record", f"params_file:={tmp_path / 'none.yaml'}")
    try:
        assert process.wait(20.0) == 2
    finally:
        end(process)
    text = log.read_text()
    assert "como: the ROS arguments cannot be used" in text and "none.yaml" in text and "Traceback" not in text


def test_two_arms_run_side_by_side_under_namespaces(ros_domain: dict[str, str], tmp_path: Path) -> None:
    """Each hears its own robot and its own e-stop, and nothing crosses."""
    interface, folder = load_interface(INTERFACE), small_policy(tmp_path / "policy")
    logs = {side: tmp_path / f"{side}.log" for side in ("left", "right")}
    processes = [como_launch(log, ros_domain, "policy", f"policy:={folder}", f"interface:={INTERFACE}",
                             "enable_output:=true", "instruction:=drawer open", f"namespace:={side}")
                 for side, log in logs.items()]
    try:
        with (Bench(interface, ros_domain, "/left") as left, Bench(interface, ros_domain, "/right") as right,
              robot(left)):
            left.wait_commands(10)
            right.wait_report("latch", "waiting for: stream 'front'", 30.0)
            assert not right.sent, "the right arm does not move by what the left one's camera sees"
            with robot(right):
                right.wait_commands(10)
                right.node.create_publisher(Bool, "e_stop", qos.latched()).publish(Bool(data=True))
                right.wait_report("latch", "closed: the e-stop is pressed")
                assert right.commands_within(0.3) == 0
                left.wait_commands(10)
                assert "open" in left.report("latch").message
    finally:
        for process in processes:
            process.terminate()
        codes = [process.wait(20.0) for process in processes]
    assert codes == [0, 0] and not any("Traceback" in log.read_text() for log in logs.values())
