"""The numbers of a demo, from what its stages returned: plain values, each rate with its k, n and interval."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from como_core import __version__
from como_core.evaluation.statistics import mcnemar_exact, newcombe, paired_bootstrap, wilson
from como_ros.demo.plan import DemoPlan
from como_ros.demo.stages import Result

Row = dict[str, Any]

PLACES = {
    "bags": "bags",
    "videos": "videos",
    "motion model": "motion",
    "labels": "relabeled",
    "policies": "policies",
    "films of the trials": "trials",
    "node logs": "logs",
}


def summarise(plan: DemoPlan, results: dict[str, Result], out: Path) -> dict[str, Any]:
    """What summary.json holds. `results` maps a stage's name to what it returned."""
    direct, ros = results["trials"], results["deploy"]
    names = [name for name in direct if name != "seconds"]
    return {
        "version": __version__,
        "machine": _machine(),
        "tasks": list(plan.tasks),
        "labels_per_task": plan.labels_per_task,
        "videos_per_task": plan.videos_per_task,
        "seconds": {name: result["seconds"] for name, result in results.items()},
        "success": [
            *(_rate(name, "direct", direct[name]["trials"]) for name in names),
            *(_rate(name, "over ROS 2", ros[name]["trials"]) for name in names),
            *(_rate(name, "direct", direct[name]["trials"], task) for task in plan.tasks for name in names),
        ],
        "gain": gain(*(direct[name]["trials"] for name in names)),
        "agreement": [agreement(name, direct[name]["trials"], ros[name]["trials"]) for name in names],
        "probe": results["motion"]["probe"],
        "timing": {name: ros[name]["timing"] for name in names},
        "moved": {name: _moved(ros[name]["trials"]) for name in names},
        "recorded": {"episodes": len(results["record"]["episodes"]), "messages": results["record"]["messages"]},
        "relabelled": {key: value for key, value in results["relabel"].items() if key != "seconds"},
        "places": {name: str(out / folder) for name, folder in PLACES.items()},
    }


def gain(before: Sequence[Row], after: Sequence[Row]) -> Row:
    """Difference in success of two policies over the same start states, in points, with a paired interval."""
    first, second = _by_start(before), _by_start(after)
    starts = sorted(first)
    a, b = [first[s] for s in starts], [second[s] for s in starts]
    interval = paired_bootstrap(a, b, [task for task, _ in starts])
    points = 100 * (sum(b) - sum(a)) / len(starts)
    return {
        "points": points, "low": 100 * interval.low, "high": 100 * interval.high,
        "n": len(starts), "mcnemar_p": mcnemar_exact(a, b),
    }


def agreement(policy: str, direct: Sequence[Row], ros: Sequence[Row]) -> Row:
    """Whether a policy does the same over ROS 2 as stepped directly, on the start states that both ran.

    `agree` is false where Newcombe's interval of the difference leaves zero out.
    """
    over_ros, stepped = _by_start(ros), _by_start(direct)
    starts = [start for start in over_ros if start in stepped]
    k_direct, k_ros, n = sum(stepped[s] for s in starts), sum(over_ros[s] for s in starts), len(starts)
    interval = newcombe(k_direct, n, k_ros, n)
    return {
        "policy": policy, "n": n, "k_direct": k_direct, "k_ros": k_ros,
        "same_outcome": sum(stepped[s] == over_ros[s] for s in starts),
        "points": 100 * (k_ros - k_direct) / n, "low": 100 * interval.low, "high": 100 * interval.high,
        "agree": 0.0 in interval,
    }


def _rate(policy: str, how: str, trials: Sequence[Row], task: str = "all") -> Row:
    chosen = [t for t in trials if task in ("all", t["task"])]
    k, n = sum(bool(t["success"]) for t in chosen), len(chosen)
    interval = wilson(k, n)
    return {
        "policy": policy, "how": how, "task": task, "k": k, "n": n,
        "success": k / n, "low": interval.low, "high": interval.high,
    }


def _moved(trials: Sequence[Row]) -> Row:
    return {"commands": sum(t["commands"] for t in trials), "travel_m": sum(t["travel_m"] for t in trials)}


def _by_start(trials: Sequence[Row]) -> dict[tuple[str, int], bool]:
    return {(t["task"], t["seed"]): bool(t["success"]) for t in trials}


def _machine() -> Row:
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    return {
        "cpu": cpu, "threads": torch.get_num_threads(), "gpu": torch.cuda.is_available(),
        "python": platform.python_version(), "torch": torch.__version__,
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []
