"""record_keys: a recorder's services on the keys of a terminal.

    ros2 run como_ros record_keys            ros2 run como_ros record_keys --ros-args -r __ns:=/left

    r record   s stop and keep   d discard   y success   n failure   q quit
"""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from rclpy.node import Node
from std_srvs.srv import Trigger

from como_core.errors import ComoError
from como_ros.running import run_node

KEYS = {"r": "start", "s": "stop", "d": "discard", "y": "success", "n": "failure"}
QUIT = ("q", "\x03", "\x04", "")
HELP = "r record   s stop and keep   d discard   y success   n failure   q quit"
POLL_S = 0.1
DISCOVERY_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 60.0


class RecordKeys(Node):
    """Calls a service for each key and says what it answered."""

    def __init__(self) -> None:
        super().__init__("record_keys")
        self._verbs: dict[str, Any] = {key: self.create_client(Trigger, f"record/{verb}") for key, verb in KEYS.items()}

    def press(self, key: str) -> str:
        """The answer of the service of `key`, as a line."""
        client = self._verbs[key]
        if not client.wait_for_service(DISCOVERY_TIMEOUT_S):
            return f"{KEYS[key]}: no service {client.srv_name}; start recorder_node, or give its namespace"
        future = client.call_async(Trigger.Request())
        rclpy.spin_until_future_complete(self, future, timeout_sec=ANSWER_TIMEOUT_S)
        answer = future.result()
        if answer is None:
            return f"{KEYS[key]}: no answer within {ANSWER_TIMEOUT_S:g} s"
        return f"{KEYS[key]}{'' if answer.success else ' refused'}: {answer.message}"


def read_keys(node: RecordKeys) -> None:
    """Serve keys until q, Ctrl-C or the end of the input. Raises ComoError where there is no terminal."""
    if not sys.stdin.isatty():
        raise ComoError("record_keys reads the keys of a terminal, and its input is none; start it in a terminal of "
                        "its own (not by ros2 launch), or call the services record/start, record/stop, ...")
    with _single_keys():  # which drops what was typed before
        print(HELP, flush=True)
        while rclpy.ok():
            if not select.select([sys.stdin], [], [], POLL_S)[0]:
                continue
            # sys.stdin.read(1) would take all that was typed, and show the first key only.
            key = os.read(sys.stdin.fileno(), 1).decode("ascii", "replace")
            if key in QUIT:
                return
            print(node.press(key) if key in KEYS else HELP, flush=True)


@contextmanager
def _single_keys() -> Iterator[None]:
    """Keys come at once and are not shown; Ctrl-C stays a signal."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def main(args: list[str] | None = None) -> int:
    """Entry point of `ros2 run como_ros record_keys`."""
    return run_node(RecordKeys, read_keys, None, args)


if __name__ == "__main__":
    sys.exit(main())
