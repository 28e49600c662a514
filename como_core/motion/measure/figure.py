"""An evaluation as one figure: what probes read, how consistent z is, and the audit's verdicts."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from como_core.intervals import Score
from como_core.motion.measure.report import Evaluation

# Okabe and Ito's colours: told apart by the colour-blind, and each verdict has a sign and a word as well.
_BLUE, _SKY, _GREEN, _ORANGE, _RED, _GREY = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#8a93a0"
_VERDICTS = {"ok": (_GREEN, "ok"), "warn": (_ORANGE, "warn"), "leak": (_RED, "LEAK"), "not applicable": (_GREY, "n/a")}
_QUIET = "#505a66"

# Inches.
_WIDE, _MARGIN, _LABELS, _ABOVE, _BETWEEN, _UNDER = 11.0, 0.25, 2.5, 0.35, 0.85, 0.4

_LOWEST = -0.3  # R2 lower than this is cut off


def draw(report: Evaluation, title: str) -> Figure:
    """The figure of a report; panels without data are left out."""
    panels = [(_probes, 0.3 + 0.44 * len(report.rows), bool(report.rows)),
              (_consistency, 0.3 + 0.5 * len(report.consistency), bool(report.consistency)),
              (_audit, 0.36 * len(report.audit), bool(report.audit))]
    kept = [(panel, height) for panel, height, wanted in panels if wanted]
    foot = [f"{report.episodes} recordings, {report.pairs} pairs of frames {report.gap_s:g} s apart. z has "
            f"{report.latent_size} numbers. Thin lines are 95 % intervals over recordings.",
            *(f"Note: {note}." for note in report.notes)]
    below = 0.2 + 0.2 * len(foot)
    tall = _ABOVE + below + sum(height + _BETWEEN for _, height in kept)
    figure = Figure(figsize=(_WIDE, tall))
    figure.text(_MARGIN / _WIDE, 1 - 0.3 / tall, title, fontsize=14, fontweight="bold", va="center")
    figure.text(_MARGIN / _WIDE, (below - 0.2) / tall, "\n".join(foot), fontsize=8.5, color=_QUIET, va="top")
    top = tall - _ABOVE
    for panel, height in kept:
        left = _MARGIN if panel is _audit else _LABELS
        top -= height + _BETWEEN
        box = (left / _WIDE, (top + _UNDER) / tall, (_WIDE - left - _MARGIN) / _WIDE, height / tall)
        panel(figure.add_axes(box), report)
    return figure


def save(report: Evaluation, title: str, path: Path) -> None:
    """Write the figure as PNG."""
    draw(report, title).savefig(path, dpi=120, facecolor="white")


def _probes(axes: Axes, report: Evaluation) -> None:
    with_mlp = any(row.mlp_r2 for row in report.rows)
    size = 0.36 if with_mlp else 0.6  # of a bar
    for place, row in enumerate(report.rows):
        main = _BLUE if row.features == "z" else _GREY
        _bar(axes, place - size / 2 if with_mlp else place, row.r2, size, main, None)
        if row.mlp_r2 is not None:
            _bar(axes, place + size / 2, row.mlp_r2, size, "white", main)
    labels = [f"z ({row.size} numbers)" if row.features == "z" else
              "true motion (measured state)" if row.features == "true motion" else row.features for row in report.rows]
    axes.set_yticks(range(len(labels)), labels)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.set_xlim(max(min(0.0, *(row.r2.mean for row in report.rows)), _LOWEST) - 0.02, 1.1)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.axvline(0, color="black", linewidth=0.8)
    _title(axes, "Probes", f"how well the {report.target} can be read from it in held-out recordings, R² (1 is all)")
    if with_mlp:
        axes.legend(handles=[Patch(color=_GREY, label="linear probe"),
                             Patch(facecolor="white", edgecolor=_GREY, label="two-layer MLP")],
                    loc="lower right", frameon=False, fontsize=9)
    _plain(axes)


def _bar(axes: Axes, place: float, score: Score, size: float, face: str, edge: str | None) -> None:
    axes.barh(place, score.mean, size, color=face, edgecolor=edge or face, linewidth=1.2)
    if math.isfinite(score.low):
        axes.plot([score.low, score.high], [place, place], color="black", linewidth=1.2, solid_capstyle="butt")
    end = max(score.high if math.isfinite(score.high) else score.mean, 0)
    axes.text(end + 0.012, place, f"{score.mean:.2f}", va="center", fontsize=8.5)


def _consistency(axes: Axes, report: Evaluation) -> None:
    for place, line in enumerate(report.consistency):
        colour = _BLUE if line.features == "z" else _GREY
        for score, shape, face, shift in ((line.raw, "o", colour, -0.13), (line.centred, "D", "white", 0.13)):
            if math.isfinite(score.low):
                axes.plot([score.low, score.high], [place + shift] * 2, color=colour, linewidth=1.4)
            axes.plot(score.mean, place + shift, shape, color=colour, markerfacecolor=face, markersize=7)
        axes.plot([line.floor.mean] * 2, [place - 0.32, place + 0.32], color=_ORANGE, linewidth=2.5)
    axes.set_yticks(range(len(report.consistency)), [line.features for line in report.consistency])
    axes.set_ylim(len(report.consistency) - 0.45, -0.55)
    axes.set_xlim(-1.05, 1.05)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_xticks([-1, -0.5, 0, 0.5, 1], ["-1: opposite, as in steady motion", "", "0: unrelated", "",
                                            "1: the same, it describes the frame"])
    ends = axes.get_xticklabels()
    ends[0].set_horizontalalignment("left")
    ends[-1].set_horizontalalignment("right")
    handles = [axes.plot([], [], "o", color=_GREY, label="as it is")[0],
               axes.plot([], [], "D", color=_GREY, markerfacecolor="white", label="less the mean")[0],
               axes.plot([], [], color=_ORANGE, linewidth=2.5, label="floor: shuffled")[0]]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, frameon=False, fontsize=9)
    _title(axes, "S-PCFC", "cosine of z(past, now) and z(future, now); right where true motion is")
    _plain(axes)


def _audit(axes: Axes, report: Evaluation) -> None:
    _title(axes, "Leakage audit", f"does z say what moved, or what it looks like? Forward dynamics removes "
           f"{report.reconstruction_gain.mean:.0%} of the error of copying frame t ({report.predicts})", left=0)
    axes.set_xlim(0, 10)
    axes.set_ylim(len(report.audit) - 0.5, -0.5)
    axes.axis("off")
    for place, line in enumerate(report.audit):
        colour, word = _VERDICTS[line.verdict]
        box = {"facecolor": colour, "edgecolor": "none", "boxstyle": "round,pad=0.25"}
        axes.text(0.32, place, word, va="center", ha="center", fontsize=9, color="white", fontweight="bold", bbox=box)
        axes.text(0.75, place, line.name, va="center", fontsize=10, fontweight="bold")
        if line.value:
            axes.text(2.4, place, f"{line.value.mean:.2f}", va="center", ha="right", fontsize=10)
            axes.text(2.55, place, line.threshold, va="center", fontsize=8.5, color=_QUIET)
        axes.text(4.35, place, "\n".join(textwrap.wrap(line.meaning, 84)), va="center", fontsize=9)


def _title(axes: Axes, name: str, says: str, left: float = _LABELS - _MARGIN) -> None:
    """A heading at the left edge of the figure, `left` inches from the axes."""
    offset = (-left * 72, 10)
    name_text = axes.annotate(name, (0, 1), offset, "axes fraction", "offset points", fontsize=11.5, fontweight="bold")
    axes.annotate(f"  {says}", (1, 0), (0, 0), name_text, "offset points", fontsize=9.5, color=_QUIET)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e3e7ec", linewidth=0.8)
    axes.set_axisbelow(True)
