"""What the tests share: a ROS domain of their own, nodes in their own processes, and the example data."""

from __future__ import annotations

import fcntl
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from como_ros.processes import NodeProcess

# Two workers share two cores; without this every torch process would take both.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell without job control starts background jobs with SIGINT ignored, and their children inherit it: the processes
# that the tests interrupt would not notice.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[1]

# Domain 0 is everybody's. Above 101 the UDP ports of DDS reach into the range that Linux gives to other programs.
_DOMAINS = range(1, 102)


@contextmanager
def _own_domain() -> Iterator[int]:
    """A ROS domain id that no other test process on this machine holds: each id is a locked file."""
    folder = Path(tempfile.gettempdir()) / f"como_ros_domains_{os.getuid()}"
    folder.mkdir(exist_ok=True)
    start = os.getpid()
    for offset in range(len(_DOMAINS)):
        domain = _DOMAINS[(start + offset) % len(_DOMAINS)]
        with (folder / str(domain)).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield domain
            return
    raise RuntimeError(f"all ROS domains are taken; end other test runs or remove {folder}")


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment of a ROS domain that only this test uses; set here too, for rclpy within the test."""
    with _own_domain() as domain:
        environment = {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield environment


@pytest.fixture(scope="module")
def module_ros_domain() -> Iterator[dict[str, str]]:
    """As `ros_domain`, for a whole file whose tests look at one run; handed on to child processes by the test."""
    with _own_domain() as domain:
        yield {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


@pytest.fixture
def start_node(ros_domain: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """Start nodes as a user does: start_node("sim_node", {"env": "metaworld:reach-v3"}, remap={"__ns": "/left"}).

    Each runs in its own process and domain and logs to tmp_path/logs; all are ended when the test ends, the last
    started first: by SIGINT, then SIGKILL.
    """
    from como_ros.processes import NodeProcess, stop_all

    started: list[NodeProcess] = []

    def start(
        module: str, parameters: dict[str, object] | None = None, remap: dict[str, str] | None = None
    ) -> NodeProcess:
        log = tmp_path / "logs" / f"{len(started)}_{module}.log"
        started.append(NodeProcess(module, parameters or {}, log, ros_domain, remap))
        return started[-1]

    yield start
    stop_all(started)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of example recordings beside the checkout; tests that need it are skipped where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no example recordings at {folder}")
    return folder
