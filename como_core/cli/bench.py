"""`como bench`."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

BENCHES = ("motion", "node", "policy")


def bench(
    name: tyro.conf.Positional[str],
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o", "--json"])] = None,
    quick: bool = False,
    peer: Path | None = None,
) -> None:
    """Measure speed and memory on this machine, as ratios to limits that are measured in the same run.

    `motion`: training of a motion model in pairs/s, against the machine's matrix products and the time it waits for
    data; relabelling against decoding alone, encoding alone and encoding both frames of every pair; peak memory with
    100 and with 10,000 clips. It takes about four minutes on two cores, and needs neither data nor internet.

    `node`: policy_node with a policy that costs nothing, between processes over DDS: from a camera's stamp to the
    command made of it, for one and two cameras, raw and compressed, at three sizes; how even its commands are beside a
    policy of 300 ms; processor share; frames that came to nothing. Beside it, in the same run, the least node that
    receives the same and answers. It takes about eleven minutes and needs ROS 2.

    `policy`: training samples/s and time per chunk of the presets, and of networks with as many parameters as LeRobot's
    diffusion policy and ACT beside these, in turns, where --peer names a Python that has LeRobot. It takes about a
    minute alone, half an hour with LeRobot on two cores.

    What is compared is measured in turns; give it a quiet machine all the same.

    Example: como bench motion -o bench_motion.json

    Args:
        name: What to measure: motion, node or policy.
        output: File for the numbers, NAME.json; an earlier result there is replaced, any other file refused. Only a
            table where not given.
        quick: Only show that everything runs, within a minute; the numbers mean nothing.
        peer: Python of an environment with LeRobot (pip install lerobot), for `policy`.
    """
    from rich.console import Console

    from como_core.errors import ComoError
    from como_core.formats.output_folder import writable_folder
    from como_core.formats.result_file import require_replaceable

    if name not in BENCHES:
        raise ComoError(f"no benchmark {name!r}; there {'is' if len(BENCHES) == 1 else 'are'}: {', '.join(BENCHES)}")
    if peer is not None and name != "policy":
        raise ComoError(f"--peer belongs to `como bench policy`, not to {name!r}")
    if output is not None:
        require_replaceable(output, "bench", ("bench", "machine", "rows"))
        writable_folder(output.parent)
    if name == "node":
        if importlib.util.find_spec("rclpy") is None:
            raise ComoError("ROS 2 is not here: source a distribution, or `pip install -c constraints.txt -e .[ros]`")
        from como_ros.bench_node import bench_node as run
    elif name == "policy":
        from como_core.bench.policy import bench_policy

        run = partial(bench_policy, peer=peer)
    else:
        from como_core.bench.motion import bench_motion as run
    report = run(quick)
    console = Console()
    Console(width=None if console.is_terminal else 130).print(report.table())
    if output is not None:
        report.write(output)
        print(f"the same numbers: {output}")
