"""`como interface check`."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from como_core.bounds import ABOVE_0

if TYPE_CHECKING:
    from como_core.interface import Interface


def check(file: tyro.conf.Positional[Path], live: bool = False, seconds: Annotated[float, ABOVE_0] = 3.0,
          namespace: str = "", use_sim_time: bool = False) -> int:
    """Check an interface file, alone or beside the running robot.

    An interface file says what a robot sends and is sent: topics, message types, joint names, rates, ages, limits.
    Recorder, training and policy_node all go by it. Alone, the file is read as they read it: a misspelt key is named
    with its line and the nearest valid one, and a limit that needs a state which no stream holds is refused. With
    --live the robot's graph is compared with it: publishers and subscribers, types, QoS, measured rates and ages, image
    size and encoding, joint names, the gripper's action server.

    The exit code is 0 where everything fits, 1 where the graph differs, 2 where the file cannot be used. Files of known
    robots are in config/interfaces/; docs/interface.md explains every key.

    Examples:

        como interface check config/interfaces/ur5e.yaml
        como interface check my_robot.yaml --live
        como interface check my_robot.yaml --live --namespace /left --seconds 10

    Args:
        file: The interface YAML.
        live: Compare it with the running graph (ROS_DOMAIN_ID and discovery as for any node).
        seconds: How long to listen for rates.
        namespace: Where the robot's relative topics are, such as /left.
        use_sim_time: Take the time from /clock, as with a simulation or a played bag.
    """
    from como_core.control.controller import Controller
    from como_core.errors import ComoError
    from como_core.interface import load_interface

    interface = load_interface(file)
    Controller(interface)
    if not live:
        _print_table(("stream", "topic", "type", "holds"), _summary(interface))
        print(f"{file}: fits together; --live compares it with the running graph")
        return 0
    if importlib.util.find_spec("rclpy") is None:
        raise ComoError("ROS 2 is not here: source a distribution, or `pip install -c constraints.txt -e .[ros]`")
    from como_ros.graph_check import FAIL, check_graph

    rows = check_graph(interface, seconds, namespace, use_sim_time)
    _print_table(("", "topic", "what", "found"), [(row.status, row.topic, row.what, row.found) for row in rows])
    failed = sum(row.status == FAIL for row in rows)
    print(f"{file}: {failed} of {len(rows)} do not fit" if failed else f"{file}: all {len(rows)} fit")
    return int(failed > 0)


def _summary(interface: Interface) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    for name, c in interface.cameras.items():
        rows.append((name, c.topic, c.type, f"{c.width} x {c.height} {c.encoding} at {c.rate_hz:g} Hz, "
                     f"{c.max_age_s:g} s at most"))
    for name, s in interface.state.items():
        field = f"{s.field} of " if s.type.endswith("JointState") else ""
        rows.append((name, s.topic, s.type, f"{field}{', '.join(s.names)} at {s.rate_hz:g} Hz, "
                     f"{s.max_age_s:g} s at most"))
    action = interface.action
    rows.append(("action", action.topic, action.type, f"{action.kind} of {', '.join(action.names)} at "
                 f"{action.rate_hz:g} Hz in {action.frame!r}"))
    if action.gripper:
        through = action.gripper.action or action.gripper.joint
        rows.append(("gripper", action.gripper.topic, "std_msgs/msg/Float64", f"0 open, 1 closed"
                     f"{f', drives {through}' if through else ''}"))
    return rows


def _print_table(titles: Sequence[str], rows: Sequence[tuple[str, str, str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        style = {"ok": "green", "fail": "red"}.get(row[0], "")
        table.add_row(Text(row[0], style=style), *map(Text, row[1:]))
    console = Console()
    Console(width=None if console.is_terminal else 160).print(table)
