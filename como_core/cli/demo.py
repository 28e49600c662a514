"""`como demo`: the whole way in simulation over real ROS 2."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from como_core.errors import ComoError


def demo(
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("runs/demo"),
    plan: str = "demo",
) -> int:
    """Record, watch video, learn motion, relabel, co-train, deploy over ROS 2 and report, in one go.

    Interrupt it with Ctrl-C and run it again: it goes on where it was. While it runs, a second terminal sees the
    graph under the namespace /como_demo on ROS domain 77 (or ROS_DOMAIN_ID), on this machine only.

    Examples:
      como demo
      como demo --plan smoke -o runs/smoke

    Args:
        out: Folder for bags, videos, checkpoints, report.html and summary.json.
        plan: A plan of config/demo by name (demo, smoke) or the path of a YAML like them.
    """
    try:
        from como_ros.demo.pipeline import run_demo
    except ImportError as error:
        raise ComoError(f"the demo needs ROS 2 and the simulator, and {error.name!r} is not installed: "
                        "run `make demo`, or pip install -e .[ros,sim]; `como doctor` says more") from error
    return run_demo(plan, out)
