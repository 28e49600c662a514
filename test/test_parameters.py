"""One table declares the parameters, checks them and prints itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node

from como_core.errors import ComoError
from como_ros import expert_node, policy_node, recorder_node, sim_node
from como_ros.parameters import INTERFACE, Parameter, declare, interface_of, markdown

TABLE = (
    Parameter("speed", 1.0, "How fast", unit="m/s", low=0.0, high=2.0),
    Parameter("count", 3, "How many", low=1, high=9, read_only=True),
    Parameter("label", "", "What it is called"),
)


@pytest.fixture
def make_node(ros_domain: dict[str, str]) -> Iterator[object]:
    context = Context()
    rclpy.init(context=context)

    def make(*overrides: str) -> Node:
        arguments = ["--ros-args", *(word for override in overrides for word in ("-p", override))]
        return Node("tested", context=context, cli_args=arguments, start_parameter_services=False)

    yield make
    context.try_shutdown()


def test_values_come_from_the_table_and_the_command_line(make_node) -> None:
    node = make_node("count:=5")
    assert declare(node, TABLE) == {"speed": 1.0, "count": 5, "label": ""}
    speed = node.describe_parameter("speed")
    assert speed.description == "How fast" and speed.additional_constraints == "unit: m/s"
    assert speed.floating_point_range[0].to_value == 2.0
    count = node.describe_parameter("count")
    assert count.read_only and count.integer_range[0].from_value == 1
    assert not node.set_parameters([rclpy.Parameter("speed", value=2.5)])[0].successful
    assert not node.set_parameters([rclpy.Parameter("count", value=6)])[0].successful


@pytest.mark.parametrize(("override", "words"), [("speed:=9.0", "'speed'.*from 0 to 2 m/s"),
                                                 ("count:=many", "'count'.*a whole number"),
                                                 ("speed:=1", "'speed'.*such as 1.0")])
def test_wrong_values_are_named(make_node, override: str, words: str) -> None:
    with pytest.raises(ComoError, match=words):
        declare(make_node(override), TABLE)


def test_the_packaged_interface_is_the_default() -> None:
    assert interface_of({INTERFACE.name: ""}).name == "metaworld"
    with pytest.raises(ComoError, match="nowhere.yaml"):
        interface_of({INTERFACE.name: "nowhere.yaml"})


NODES = (policy_node, recorder_node, sim_node, expert_node)


@pytest.mark.parametrize("module", NODES)
def test_every_parameter_of_a_node_stands_in_its_table(module) -> None:
    lines = markdown(module.PARAMETERS).splitlines()
    assert len(lines) == 2 + len(module.PARAMETERS)
    assert all(line.count("|") == 7 for line in lines)
    assert all(row.description and f"| `{row.name}` |" in line
               for row, line in zip(module.PARAMETERS, lines[2:], strict=True))


@pytest.mark.parametrize("module", NODES)
def test_the_documentation_holds_the_same_rows(module) -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "nodes.md"
    assert markdown(module.PARAMETERS) in page.read_text(), f"{page} differs from PARAMETERS of {module.__name__}"
