"""The share of the oracle gap that video closes, (with - without) / (oracle - without), and its interval.

    rows = table(runs)      # flat rows of trials per task, and of gap_closed
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from como_core.evaluation.statistics import wilson

Row = dict[str, Any]

ALONE, ORACLE = "no video", "oracle"
RESAMPLES = 5000


def table(runs: list[Row]) -> list[Row]:
    """Flat rows: success of every run by task and overall, pooled over seeds, and gap_closed."""
    rows = [row for run in runs for row in _by_task(run)]
    for key in _keys(runs):
        same = [run for run in runs if _whole_key(run) == key]
        pooled = "".join(text for run in same for text in run["successes"].values())
        rows.append({**_head(same[0]), "task": "all", **_rate(pooled), "seed": "all", "seeds": len(same)})
    rows += [row for key in _keys(runs) if (row := _gap(runs, key)) is not None]
    return rows


def markdown(rows: list[Row]) -> str:
    """Pooled success and gap closed, a line per method."""
    names = ("tasks", "starts", "family", "labels", "method", "mode", "seeds")
    lines = ["| " + " | ".join(names) + " | success | gap closed |", "|" + "---|" * (len(names) + 2)]
    gaps = {_key(r) + (r["tasks"], r["starts"]): r for r in rows if "gap_closed" in r}
    for r in rows:
        if r.get("task") == "all":
            gap = gaps.get(_key(r) + (r["tasks"], r["starts"]))
            closed = "" if gap is None else f"{gap['gap_closed']:.0%} [{gap['low']:.0%}, {gap['high']:.0%}]"
            what = " | ".join(str(r[name]) for name in names)
            rate = f"{r['k']}/{r['n']} = {r['success']:.1%} [{r['low']:.1%}, {r['high']:.1%}]"
            lines.append(f"| {what} | {rate} | {closed} |")
    return "\n".join(lines)


def markdown_by_task(rows: list[Row], tasks: int, starts: int, methods: Sequence[str]) -> str:
    """Successes of each seed, in the order of seeds: for each family and number of labels a table, a line per task."""
    wanted = [r for r in rows if (r.get("tasks"), r.get("starts")) == (tasks, starts) and r.get("task", "all") != "all"]
    lines: list[str] = []
    for family, labels in sorted({(r["family"], r["labels"]) for r in wanted if r["method"] != ORACLE}):
        mine = [r for r in wanted if r["family"] == family and (r["labels"] == labels or r["method"] == ORACLE)]
        shown = [method for method in methods if any(r["method"] == method for r in mine)]
        lines += ["", f"| {family}, {labels} labels | " + " | ".join(shown) + " |", "|" + "---|" * (1 + len(shown))]
        for task in dict.fromkeys(r["task"] for r in mine):
            cells = [", ".join(str(r["k"]) for r in sorted(mine, key=lambda r: r["seed"])
                               if (r["task"], r["method"]) == (task, method)) for method in shown]
            lines.append(f"| {task.removesuffix('-v3')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _key(run: Row) -> tuple[Any, ...]:
    return run["family"], run["method"], run["labels"]


def _whole_key(run: Row) -> tuple[Any, ...]:
    """With the tasks and how many start states of each, since a method may stand in several tables."""
    return *_key(run), _tried(run)


def _tried(run: Row) -> tuple[tuple[str, int], ...]:
    return tuple((task, len(text)) for task, text in run["successes"].items())


def _keys(runs: Iterable[Row]) -> list[tuple[Any, ...]]:
    return list(dict.fromkeys(map(_whole_key, runs)))


def _head(run: Row) -> Row:
    return {"family": run["family"], "mode": run["mode"], "labels": run["labels"], "method": run["method"],
            "tasks": len(run["successes"]), "starts": len(next(iter(run["successes"].values())))}


def _rate(text: str) -> Row:
    k, n = text.count("1"), len(text)
    low, high = wilson(k, n)
    return {"success": k / n, "low": low, "high": high, "k": k, "n": n}


def _by_task(run: Row) -> list[Row]:
    return [{**_head(run), "task": task, **_rate(text), "seed": run["seed"], "command": run["command"]}
            for task, text in run["successes"].items()]


def _gap(runs: list[Row], key: tuple[Any, ...]) -> Row | None:
    """Row of gap_closed; None for what it is measured against, and where that is not there for the same seeds."""
    family, method, labels, tried = key
    if method in (ALONE, ORACLE):
        return None
    mine = _successes(runs, family, method, labels, tried)
    alone = _successes(runs, family, ALONE, labels, tried)
    oracle = _successes(runs, family, ORACLE, None, tried)
    seeds = sorted(mine.keys() & alone.keys() & oracle.keys())
    if not seeds:
        return None
    three = np.stack([[found[seed] for seed in seeds] for found in (mine, alone, oracle)])  # [3, seeds, tasks, starts]
    rng = np.random.default_rng(0)
    closed = []
    for _ in range(RESAMPLES):
        # Seeds and start states are drawn anew; the same ones for all three, since they are paired.
        drawn = three[:, rng.integers(0, len(seeds), len(seeds))]
        starts = rng.integers(0, three.shape[3], (three.shape[2], three.shape[3]))
        means = np.take_along_axis(drawn, starts[None, None], axis=3).mean(axis=(1, 2, 3))
        closed.append((means[0] - means[1]) / (means[2] - means[1]) if means[2] > means[1] else np.nan)
    low, high = np.nanpercentile(closed, [2.5, 97.5])
    with_video, without, best = three.mean(axis=(1, 2, 3))
    share = (with_video - without) / (best - without) if best > without else float("nan")
    same = next(run for run in runs if _whole_key(run) == key)
    return {**_head(same), "gap_closed": float(share), "mean": float(share), "low": float(low), "high": float(high),
            "n": int(three[0].size), "seeds": len(seeds)}


def _successes(runs: list[Row], family: str, method: str, labels: int | None, tried: tuple[tuple[str, int], ...]
               ) -> dict[int, np.ndarray]:
    """Seed -> successes [tasks, starts] of a method."""
    return {run["seed"]: np.array([[float(c) for c in run["successes"][task]] for task, _ in tried]) for run in runs
            if (run["family"], run["method"], _tried(run)) == (family, method, tried)
            and labels in (None, run["labels"])}
