"""How every node of the package starts and ends: one plain sentence for a wrong setting, no traceback on Ctrl-C."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node

from como_core.errors import ComoError

NodeT = TypeVar("NodeT", bound=Node)


def run_node(make: Callable[[], NodeT], run: Callable[[NodeT], None], close: Callable[[NodeT], None] | None = None,
             args: Sequence[str] | None = None) -> int:
    """Initialise ROS, make a node, `run` it until shutdown or Ctrl-C, then `close` it. Returns the exit code.

    0 after SIGINT or SIGTERM; 2, with the message on stderr, where a ComoError says what the user can mend, or ROS
    does not take the arguments.
    """
    try:
        rclpy.init(args=list(args) if args is not None else None)
    except rclpy_implementation.RCLError as error:  # such as a parameter file that is not there
        print(f"como: the ROS arguments cannot be used: {error}", file=sys.stderr)
        return 2
    node: NodeT | None = None
    try:
        node = make()
        run(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except ctypes.ArgumentError as error:
        # Ctrl-C while an argument of a C function (OpenGL's) is converted comes out as this.
        if "KeyboardInterrupt" not in str(error):
            raise
        return 0
    except rclpy_implementation.RCLError:
        # A signal ends the context between any two lines; what was being published then is of no more interest.
        if rclpy.ok():
            raise
        return 0
    except ComoError as error:
        print(f"como: {error}", file=sys.stderr)
        return 2
    finally:
        if node is not None:
            if close is not None:
                close(node)
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def spin(node: Node) -> None:
    """Serve the node's callbacks in this thread until shutdown."""
    rclpy.spin(node)
