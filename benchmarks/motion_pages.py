"""The tables of docs/motion.md, as Markdown, from the rows of results/motion_table.json."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from benchmarks.results import Row, cell

_METRICS = {"lp_mse": "LP-MSE", "r2": "R2, linear", "mlp_r2": "R2, MLP", "s_pcfc": "S-PCFC",
            "s_pcfc_centred": "centred"}
_AUDIT = {"gain_in_pixels": "reconstruction gain", "shuffle_gap": "shuffle gap", "transfer": "transfer",
          "composition": "composition error", "static_pairs": "z of a still picture", "reversal": "reversal",
          "appearance": "appearance"}
_TRUE = "true motion"

Found = dict[tuple[Any, ...], Row]


def pages(rows: list[Row], groups: Mapping[str, Sequence[str]], splits: Sequence[str], whole: Collection[str]) -> str:
    """Every group: those of `whole` on the test split, on what training never saw, and their audit; a table of others.
    """
    found = {(row["preset"], row["split"], row["features"], row["metric"]): row for row in rows}
    parts = []
    for group, names in groups.items():
        there = [name for name in names if (name, "test", "z", "r2") in found]
        if there and group in whole:
            there.sort(key=lambda name: -found[name, "test", "z", "r2"]["mean"])
            parts += [group, _main(found, there), _zero_shot(found, there, splits), _audit(found, there)]
        elif there:
            parts += [group, _group(found, there, splits)]
    return "\n\n".join(parts)


def _main(found: Found, names: Sequence[str]) -> str:
    lines = [_head(["z of", "seeds", *_METRICS.values()])]
    for name in names:
        cells = [cell(found.get((name, "test", "z", metric))) for metric in _METRICS]
        lines.append(_line([name, str(found[name, "test", "z", "r2"]["seeds"]), *cells]))
    best = names[0]
    for features in _references(found, best, "test"):
        cells = [cell(found.get((best, "test", features, metric))) for metric in _METRICS]
        lines.append(_line([features, "", *cells]))
    return "\n".join(lines)


def _zero_shot(found: Found, names: Sequence[str], splits: Sequence[str]) -> str:
    others = [split for split in splits if split != "test"]
    lines = [_head(["R2, linear", *others])]
    lines += [_line([name, *(cell(found.get((name, split, "z", "r2"))) for split in others)]) for name in names]
    best = names[0]
    lines += [_line([features, *(cell(found.get((best, split, features, "r2"))) for split in others)])
              for features in _references(found, best, "test")]
    return "\n".join(lines)


def _audit(found: Found, names: Sequence[str]) -> str:
    lines = [_head(["leakage audit", *_AUDIT.values()])]
    for name in names:
        rows = [found.get((name, "test", "z", metric)) for metric in _AUDIT]
        lines.append(_line([name, *(_with_verdict(row) for row in rows)]))
    return "\n".join(lines)


def _group(found: Found, names: Sequence[str], splits: Sequence[str]) -> str:
    there = [split for split in splits if all((name, split, "z", "r2") in found for name in names)]
    lines = [_head(["R2, linear", "seeds", *there, "true motion", "S-PCFC centred"])]
    for name in names:
        cells = [cell(found.get((name, split, "z", "r2"))) for split in there]
        truth = cell(found.get((name, "test", _TRUE, "r2")))
        lines.append(_line([name, str(found[name, "test", "z", "r2"]["seeds"]), *cells, truth,
                            cell(found.get((name, "test", "z", "s_pcfc_centred")))]))
    return "\n".join(lines)


def _references(found: Found, name: str, split: str) -> list[str]:
    """What stands beside z, best first."""
    there = {features: row["mean"] for (preset, where, features, metric), row in found.items()
             if (preset, where, metric) == (name, split, "r2") and features != "z"}
    return sorted(there, key=lambda features: -there[features])


def _with_verdict(row: Row | None) -> str:
    return "" if row is None else f"{row['mean']:.2f}{', ' + row['verdict'] if row['verdict'] else ''}"


def _head(titles: Sequence[str]) -> str:
    return _line(titles) + "\n|" + "---|" * len(titles)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
