"""The numbers of a demo, from what its stages returned: plain values, each rate with its k, n and interval."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from como_core import __version__
from como_core.evaluation.statistics import newcombe
from como_core.evaluation.trials import compare, rate
from como_core.formats.trials import Trial
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
    found = compare(_trials(before), _trials(after))
    return {
        "points": 100 * found.difference, "low": 100 * found.interval.low, "high": 100 * found.interval.high,
        "n": found.base.trials, "mcnemar_p": found.p_value,
    }


def agreement(policy: str, direct: Sequence[Row], ros: Sequence[Row]) -> Row:
    """Whether a policy does the same over ROS 2 as stepped directly, on the start states that both ran.

    `agree` is false where Newcombe's interval of the difference leaves zero out.
    """
    over_ros = {trial.start: trial.success for trial in _trials(ros)}
    stepped = {trial.start: trial.success for trial in _trials(direct) if trial.start in over_ros}
    k_direct, k_ros, n = sum(stepped.values()), sum(over_ros.values()), len(over_ros)
    low, high = newcombe(k_direct, n, k_ros, n)
    return {
        "policy": policy, "n": n, "k_direct": k_direct, "k_ros": k_ros,
        "same_outcome": sum(stepped[start] == over_ros[start] for start in over_ros),
        "points": 100 * (k_ros - k_direct) / n, "low": 100 * low, "high": 100 * high,
        "agree": low <= 0 <= high,
    }


def _rate(policy: str, how: str, trials: Sequence[Row], task: str = "all") -> Row:
    found = rate(_trials([trial for trial in trials if task in ("all", trial["task"])]))
    return {
        "policy": policy, "how": how, "task": task, "k": found.successes, "n": found.trials,
        "success": found.share, "low": found.interval.low, "high": found.interval.high,
    }


def _moved(trials: Sequence[Row]) -> Row:
    return {"commands": sum(t["commands"] for t in trials), "travel_m": sum(t["travel_m"] for t in trials)}


def _trials(rows: Sequence[Row]) -> list[Trial]:
    return [Trial(row["task"], row["seed"], row["success"], row["duration_s"]) for row in rows]


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
