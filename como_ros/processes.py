"""Nodes as processes of their own, started and ended by whoever owns them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from como_core.errors import ComoError

STOP_TIMEOUT_S = 8.0


class NodeProcess:
    """One node of this package in its own process, its output in a log file.

    parameters  name -> value, handed over as ROS parameters
    remap       from -> to, such as {"__ns": "/left"}
    program     what is run instead of the module, with the same arguments
    """

    def __init__(
        self,
        module: str,
        parameters: Mapping[str, object],
        log: Path,
        environment: Mapping[str, str],
        remap: Mapping[str, str] | None = None,
        program: Sequence[str] = (),
    ) -> None:
        self.module, self.log = module, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                node_command(module, parameters, remap, program),
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                # A process group of its own: Ctrl-C reaches the owner, which then ends its nodes in order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def require_alive(self) -> None:
        """Raise ComoError with the end of the log where the node has ended by itself."""
        if self._process.poll() is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise ComoError(f"{self.module} ended with {self._process.returncode}; the end of {self.log}:\n{tail}")

    def stop(self) -> int:
        """End the node: interrupt, then kill where it does not listen. Returns its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def node_command(module: str, parameters: Mapping[str, object], remap: Mapping[str, str] | None = None,
                 program: Sequence[str] = ()) -> list[str]:
    """The command line of a node: `python -m como_ros.<module> --ros-args -p name:=value -r from:=to`."""
    command = [*(program or (sys.executable, "-m", f"como_ros.{module}")), "--ros-args"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={_yaml_scalar(value)}"]
    for source, target in (remap or {}).items():
        command += ["-r", f"{source}:={target}"]
    return command


def _yaml_scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(str(value)) if isinstance(value, (str, Path)) else str(value)


def stop_all(processes: Sequence[NodeProcess]) -> None:
    """End several nodes, last started first."""
    for process in reversed(processes):
        process.stop()


def wait_until(condition: Callable[[], bool], timeout_s: float, poll_s: float = 0.01) -> bool:
    """Wait until `condition` holds; False where it did not within `timeout_s` of wall time."""
    pause = threading.Event()
    remaining = timeout_s
    while not condition():
        if remaining <= 0:
            return False
        pause.wait(poll_s)
        remaining -= poll_s
    return True
