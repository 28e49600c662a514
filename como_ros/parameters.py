"""One table of parameters makes a node's declarations and the documentation's table.

    PARAMETERS = (Parameter("rate_factor", 1.0, "Speed of simulated time", unit="x real time", low=0.01, high=100.0),)
    values = declare(node, PARAMETERS)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

from como_core.errors import ComoError
from como_core.interface import Interface, load_interface
from como_core.resources import resource

_TYPE_WORDS = {bool: "true or false", int: "a whole number", float: "a number with a point, such as 1.0", str: "text"}


@dataclass(frozen=True)
class Parameter:
    """One row of the table. The default's type is the parameter's type; `low` and `high` include their ends."""

    name: str
    default: bool | int | float | str
    description: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    read_only: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """The row as ROS knows it."""
        descriptor = ParameterDescriptor(description=self.description, read_only=self.read_only)
        if self.unit:
            descriptor.additional_constraints = f"unit: {self.unit}"
        if self.low is None or self.high is None:
            return descriptor
        if isinstance(self.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=self.low, to_value=self.high)]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high))]
        return descriptor


INTERFACE = Parameter("interface", "", "Interface YAML; empty: the packaged config/interfaces/metaworld.yaml",
                      read_only=True)


def interface_of(values: Mapping[str, Any]) -> Interface:
    """The interface that the start value of INTERFACE names. Raises ComoError with file, line and key."""
    return load_interface(values[INTERFACE.name] or resource("config/interfaces/metaworld.yaml"))


def declare(node: Node, table: Sequence[Parameter]) -> Mapping[str, Any]:
    """Declare every row and return the start values by name.

    Raises ComoError, naming the parameter, where the command line or a parameter file gives a wrong type or range.
    """
    values: dict[str, Any] = {}
    for row in table:
        try:
            values[row.name] = node.declare_parameter(row.name, row.default, row.descriptor()).value
        except InvalidParameterTypeException as error:
            raise ComoError(f"parameter {row.name!r} of {node.get_name()}: expected {_TYPE_WORDS[type(row.default)]} "
                            f"({row.description}), got something else: {error}") from error
        except InvalidParameterValueException as error:
            raise ComoError(f"parameter {row.name!r} of {node.get_name()}: expected a value from {row.low:.10g} to "
                            f"{row.high:.10g} {row.unit} ({row.description}): {error}") from error
    return values


def markdown(table: Sequence[Parameter]) -> str:
    """The table as the documentation shows it."""
    lines = ["| parameter | default | unit | range | read-only | meaning |", "|---|---|---|---|---|---|"]
    for row in table:
        bounds = "" if row.low is None or row.high is None else f"{row.low:.10g} to {row.high:.10g}"
        default = f"`{row.default}`" if row.default != "" else "(empty)"
        lines.append(f"| `{row.name}` | {default} | {row.unit} | {bounds} | {'yes' if row.read_only else ''} "
                     f"| {row.description} |")
    return "\n".join(lines)
