"""What an evaluation found: for people as tables, for programs as rows, all with intervals over recordings."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from como_core.intervals import Score
from como_core.motion.measure.audit import AuditLine
from como_core.motion.measure.metrics import Consistency
from como_core.motion.targets import Target

COLOURS = {"ok": "green", "warn": "yellow", "leak": "red", "not applicable": "dim"}
SHORT = {"not applicable": "n/a"}


@dataclass(frozen=True)
class ProbeRow:
    """A line of the probe table.

    r2, mse          of the linear probe; MSE in units of the targets' variance (LP-MSE)
    mlp_r2, mlp_mse  of the two-layer MLP, where it was asked for
    seed_spread      standard deviation of r2 over the seeds
    """

    features: str
    size: int
    r2: Score
    mse: Score
    r2_by_action: dict[str, float]
    seed_spread: float = 0.0
    mlp_r2: Score | None = None
    mlp_mse: Score | None = None


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    rows                 probes, z last; empty where no recording has actions
    gain                 R2 of z less R2 of the PCA of the RGB difference, on the same recordings
    reconstruction_gain  1 - error of the forward dynamics over the error of copying frame t
    predicts             what that error is of: "pixels" or "features"
    consistency          S-PCFC of z and, where the state is known, of the true motion
    audit                lines of the leakage audit
    episodes, pairs      that were measured; `labelled` and `labelled_pairs` are those with actions
    notes                what was left out, and why
    """

    rows: list[ProbeRow]
    gain: Score | None
    reconstruction_gain: Score
    predicts: str
    consistency: list[Consistency]
    audit: list[AuditLine]
    episodes: int
    pairs: int
    labelled: int
    labelled_pairs: int
    gap_s: float
    latent_size: int
    actions: list[str]
    target: Target
    seeds: int
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; what is not a number is None."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def flat_rows(self, preset: str = "", split: str = "", command: str = "") -> list[dict[str, Any]]:
        """A row for each number, ready for JSON: `mean`, `low`, `high` over the `n` recordings that have a part in it
        and `seeds` probe seeds.

        Every row has the keys preset, split, section (probe, consistency, reconstruction or audit), features, metric,
        mean, low, high, n, seeds, verdict, command; what does not apply is None.
        """
        found: list[tuple[str, str, str, Score | None, str | None]] = []
        for row in self.rows:
            scores = {"r2": row.r2, "lp_mse": row.mse, "mlp_r2": row.mlp_r2, "mlp_mse": row.mlp_mse}
            found += [("probe", row.features, name, score, None)
                      for name, score in scores.items() if score is not None]
        if self.gain is not None:
            found.append(("probe", "z", "r2_gain_over_rgb_difference", self.gain, None))
        for line in self.consistency:
            scores = {"s_pcfc": line.raw, "s_pcfc_centred": line.centred, "s_pcfc_floor": line.floor}
            found += [("consistency", line.features, name, score, None) for name, score in scores.items()]
        found.append(("reconstruction", "z", f"gain_in_{self.predicts}", self.reconstruction_gain, None))
        found += [("audit", "z", line.name.replace(" ", "_"), line.value, line.verdict)
                  for line in self.audit]
        keys = ("section", "features", "metric", "mean", "low", "high", "n", "seeds", "verdict")
        rows = []
        for section, features, metric, score, verdict in found:
            numbers = (None, None, None, 0) if score is None else (score.mean, score.low, score.high, score.recordings)
            values = (section, features, metric, *numbers, self.seeds if section == "probe" else 1, verdict)
            rows.append({"preset": preset, "split": split, **dict(zip(keys, values, strict=True)), "command": command})
        plain: list[dict[str, Any]] = _plain(rows)
        return plain


def tables(report: Evaluation) -> Group:
    """The whole report for a terminal."""
    parts = [_probe_table(report)] if report.rows else []
    parts += [_consistency_table(report)] + ([_audit_table(report)] if report.audit else [])
    return Group(*parts, *(Text(f"note: {note}", style="yellow") for note in report.notes))


def _probe_table(report: Evaluation) -> Table:
    last = report.rows[-1]
    by_action = ", ".join(f"{name} {value:.2f}" for name, value in last.r2_by_action.items())
    ahead = f"z is ahead of the PCA of the RGB difference by {report.gain}. " if report.gain else ""
    table = _table(
        f"Probes: {report.target}",
        f"{report.labelled} recordings, {report.labelled_pairs} pairs {report.gap_s:g} s apart, {report.seeds} seeds; "
        f"95 % intervals over recordings. z and the PCAs have {report.latent_size} numbers. {ahead}"
        f"R2 of z by action: {by_action}.",
        ("features",), ("R2", "LP-MSE", "MLP R2"))
    for row in report.rows:
        table.add_row(row.features, str(row.r2), f"{row.mse.mean:.3f}",
                      f"{row.mlp_r2.mean:.3f}" if row.mlp_r2 else "", style="bold" if row is last else None)
    return table


def _consistency_table(report: Evaluation) -> Table:
    table = _table(
        "S-PCFC: cos(z(t-n, t), z(t+n, t))",
        f"{report.episodes} recordings, {report.pairs} pairs. The forward dynamics removes "
        f"{report.reconstruction_gain.mean:.1%} {_percent(report.reconstruction_gain)} of the error of copying frame t "
        f"in {report.predicts}. S-PCFC is no score: near the true motion's is right, 1 is a z of the frame.",
        ("of",), ("as it is", "less the mean", "floor"))
    for line in report.consistency:
        table.add_row(line.features, str(line.raw), str(line.centred), f"{line.floor.mean:.3f}")
    return table


def _audit_table(report: Evaluation) -> Table:
    table = _table("Leakage audit: what moved, or what it looks like?", None, ("line", "verdict"), ("value",))
    table.add_column("meaning", overflow="fold")
    for line in report.audit:
        value = f"{line.value.mean:.2f} [{line.value.low:.2f}, {line.value.high:.2f}]" if line.value else ""
        meaning = f"{line.meaning} ({line.threshold})" if line.value else line.meaning
        word = Text(SHORT.get(line.verdict, line.verdict), style=COLOURS[line.verdict])
        table.add_row(line.name, word, value, meaning)
    return table


def _table(title: str, caption: str | None, words: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for heading in words:
        table.add_column(heading, no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _percent(score: Score) -> str:
    return f"[{score.low:.1%}, {score.high:.1%}]" if math.isfinite(score.low) else score.interval


def _plain(value: Any) -> Any:
    """`value` with what JSON has no number for as None."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
