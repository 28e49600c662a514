"""The share of the oracle gap that video closes, (with - without) / (oracle - without), and its interval.

    rows = table(runs)      # flat rows of trials per task, of gap_closed, and of differences to other methods
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from como_core.evaluation.statistics import wilson

Row = dict[str, Any]

ALONE, SUPERVISED, ORACLE = "no video", "supervised IDM", "oracle"
RESAMPLES = 5000


def table(runs: list[Row]) -> list[Row]:
    """Flat rows: success of every run by task and overall, pooled over seeds; gap_closed; differences of success."""
    rows = [row for run in runs for row in _by_task(run)]
    for key in _keys(runs):
        same = [run for run in runs if _whole_key(run) == key]
        pooled = "".join(text for run in same for text in run["successes"].values())
        rows.append({**_head(same[0]), "task": "all", **_rate(pooled), "seed": "all", "seeds": len(same)})
    rows += [row for key in _keys(runs) if (row := _gap(runs, key)) is not None]
    rows += [row for key in _keys(runs) for base in (ALONE, SUPERVISED) if (row := _minus(runs, key, base)) is not None]
    return rows


def markdown(rows: list[Row]) -> str:
    """Pooled success, gap closed and points of success more than others, a line per method."""
    names = ("tasks", "starts", "family", "labels", "method", "mode", "seeds")
    lines = ["| " + " | ".join(names) + f" | success | gap closed | minus {ALONE} | minus {SUPERVISED} |",
             "|" + "---|" * (len(names) + 4)]
    gaps = {(*_key(r), r["tasks"], r["starts"]): r for r in rows if "gap_closed" in r}
    more = {(*_key(r), r["tasks"], r["starts"], r["minus"]): r for r in rows if "minus" in r}
    for r in rows:
        if r.get("task") == "all":
            key = *_key(r), r["tasks"], r["starts"]
            gap = gaps.get(key)
            closed = "" if gap is None else f"{gap['gap_closed']:.0%} [{_bound(gap['low'])}, {_bound(gap['high'])}]"
            what = " | ".join(str(r[name]) for name in names)
            rate = f"{r['k']}/{r['n']} = {r['success']:.1%} [{r['low']:.1%}, {r['high']:.1%}]"
            points = " | ".join("" if r is None else
                                f"{100 * r['difference']:+.1f} [{100 * r['low']:+.1f}, {100 * r['high']:+.1f}]"
                                for r in (more.get((*key, base)) for base in (ALONE, SUPERVISED)))
            lines.append(f"| {what} | {rate} | {closed} | {points} |")
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


def _known(bound: float) -> float | None:
    return float(bound) if np.isfinite(bound) else None


def _bound(value: float | None) -> str:
    return "unbounded" if value is None else f"{value:.0%}"


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
    """Row of gap_closed; None for what it is measured against, and where that is not there for the same seeds.

    Where seeds and start states are drawn so that the oracle is not ahead of no video, there is no gap, and the share
    has no bound on the side on which the method is. `low` or `high` is None where that is so of the interval's end.
    """
    family, method, labels, tried = key
    if method in (ALONE, ORACLE):
        return None
    three, seeds = _paired(runs, family, ((method, labels), (ALONE, labels), (ORACLE, None)), tried)
    if not seeds:
        return None
    drawn = _resampled(three)
    closed = [(with_video - without) / (best - without) if best > without else np.copysign(np.inf, with_video - without)
              for with_video, without, best in drawn]
    low, high = np.percentile(closed, [2.5, 97.5], method="nearest")  # none lies between a share and an unbounded one
    with_video, without, best = three.mean(axis=(1, 2, 3))
    share = (with_video - without) / (best - without) if best > without else float("nan")
    same = next(run for run in runs if _whole_key(run) == key)
    return {**_head(same), "gap_closed": float(share), "mean": float(share), "low": _known(low), "high": _known(high),
            "n": int(three[0].size), "seeds": len(seeds)}


def _minus(runs: list[Row], key: tuple[Any, ...], base: str) -> Row | None:
    """Row of how much more often a method succeeds than `base` does; None where they have no seed in common."""
    family, method, labels, tried = key
    if method in (base, ALONE, ORACLE):
        return None
    two, seeds = _paired(runs, family, ((method, labels), (base, labels)), tried)
    if not seeds:
        return None
    low, high = np.percentile([ours - theirs for ours, theirs in _resampled(two)], [2.5, 97.5])
    ours, theirs = two.mean(axis=(1, 2, 3))
    same = next(run for run in runs if _whole_key(run) == key)
    return {**_head(same), "minus": base, "difference": float(ours - theirs), "low": float(low), "high": float(high),
            "n": int(two[0].size), "seeds": len(seeds)}


def _paired(runs: list[Row], family: str, methods: Sequence[tuple[str, int | None]], tried: tuple[tuple[str, int], ...]
            ) -> tuple[np.ndarray, list[int]]:
    """Successes [methods, seeds, tasks, starts] for the seeds that all methods have, and these seeds."""
    found = [_successes(runs, family, method, labels, tried) for method, labels in methods]
    seeds = sorted(set.intersection(*(set(of_method) for of_method in found)))
    return np.array([[of_method[seed] for seed in seeds] for of_method in found]), seeds


def _resampled(paired: np.ndarray) -> np.ndarray:
    """Means of each method [RESAMPLES, methods] with seeds and start states drawn anew, the same ones for all."""
    seeds, starts = _draws(*paired.shape[1:])
    return np.einsum("mstn,rs,rtn->rm", paired, seeds, starts, optimize=True) / paired[0].size


@lru_cache
def _draws(seeds: int, tasks: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each seed [RESAMPLES, seeds], and each start state of each task [RESAMPLES, tasks, count], is drawn."""
    rng = np.random.default_rng(0)
    drawn = [(rng.integers(0, seeds, seeds), rng.integers(0, count, (tasks, count))) for _ in range(RESAMPLES)]
    of_starts = np.stack([starts for _, starts in drawn]) + count * np.arange(tasks)[:, None]
    of_starts += tasks * count * np.arange(RESAMPLES)[:, None, None]
    times = np.bincount(of_starts.ravel(), minlength=RESAMPLES * tasks * count)
    return (np.stack([np.bincount(chosen, minlength=seeds) for chosen, _ in drawn]).astype(float),
            times.reshape(RESAMPLES, tasks, count).astype(float))


def _successes(runs: list[Row], family: str, method: str, labels: int | None, tried: tuple[tuple[str, int], ...]
               ) -> dict[int, np.ndarray]:
    """Seed -> successes [tasks, starts] of a method."""
    return {run["seed"]: np.array([[float(c) for c in run["successes"][task]] for task, _ in tried]) for run in runs
            if (run["family"], run["method"], _tried(run)) == (family, method, tried)
            and labels in (None, run["labels"])}
