"""`como launch`: what `ros2 launch como_ros <name>.launch.py` starts, where launch_ros is not installed."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import time
from collections.abc import Sequence
from types import FrameType

from como_core.errors import ComoError
from como_ros import bringup

# A node may have to finish a bag or a prediction before it ends.
_STOP_TIMEOUT_S = 10.0
_POLL_S = 0.2

_USAGE = """usage: como launch <name> [argument:=value ...]
       como launch <name> --show-args

Starts a node of como_ros and stays with it until Ctrl-C, as `ros2 launch como_ros <name>.launch.py` does, with the same
arguments and without launch_ros. Other terminals see its topics, parameters and services as those of any ROS 2 node.

{launches}

Examples:
  como launch sim env:=metaworld:drawer-open-v3
  como launch record output:=bags/ use_sim_time:=true
  como launch policy policy:=runs/policy interface:=config/interfaces/metaworld.yaml use_sim_time:=true \\
      enable_output:=true instruction:="drawer open"
"""


def launch(argv: Sequence[str]) -> int:
    """Run one launch in the foreground; returns its node's exit code, 0 after Ctrl-C.

    Raises ComoError for arguments that the launch does not take, and where ROS 2 is not installed.
    """
    words = list(argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    name, rest = words[0], words[1:]
    if any(word in ("-h", "--help", "-s", "--show-args") for word in rest):
        print(show_args(name))
        return 0
    run = bringup.resolve(name, given_arguments(rest))
    if importlib.util.find_spec("rclpy") is None:
        raise ComoError("ROS 2 is not here: source a distribution, or `pip install -c constraints.txt -e .[ros]`")
    return _attend(run.command())


def usage() -> str:
    """What `como launch --help` prints."""
    width = max(map(len, bringup.LAUNCHES))
    return _USAGE.format(launches="\n".join(f"  {name:<{width}}  {item.summary}"
                                            for name, item in bringup.LAUNCHES.items()))


def show_args(name: str) -> str:
    """The arguments of a launch, a line each: name, default and meaning."""
    launch = bringup.find(name)
    lines = [f"como launch {name}: {launch.summary}", ""]
    for argument in launch.arguments:
        default = "required" if argument.required else f"default: {argument.default_text or 'empty'}"
        choices = f"; one of {', '.join(argument.choices)}" if argument.choices else ""
        lines.append(f"  {argument.name + ':=':<18}{argument.description}{choices} ({default})")
    return "\n".join(lines)


def given_arguments(words: Sequence[str]) -> dict[str, str]:
    """name -> text of `name:=value` words. Raises ComoError for a word of another form or a name given twice."""
    given: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition(":=")
        if not sign or not name:
            raise ComoError(f"launch argument {word!r}: expected name:=value, as --show-args lists them")
        if name in given:
            raise ComoError(f"launch argument {name!r} is given twice")
        given[name] = value
    return given


def _attend(command: Sequence[str]) -> int:
    """Run a process, hand SIGINT and SIGTERM on to it, and end it where it does not listen."""
    # A session of its own: Ctrl-C in the terminal would otherwise reach the node twice.
    process = subprocess.Popen(command, start_new_session=True)
    deadline_s = float("inf")

    def hand_on(number: int, frame: FrameType | None) -> None:
        nonlocal deadline_s
        deadline_s = min(deadline_s, time.monotonic() + _STOP_TIMEOUT_S)
        process.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while True:
            try:
                return process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline_s:
                    process.kill()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
