"""The demo's verdict: one table on the terminal, one HTML page, and the same numbers in summary.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from como_core.evaluation.page import Page
from como_ros.demo import pictures
from como_ros.demo.plan import DemoPlan
from como_ros.demo.stages import Result, write_json
from como_ros.demo.summary import Row, summarise

HEADER = ("policy", "how", "success", "k / n", "95 % Wilson")


def report(plan: DemoPlan, results: dict[str, Result], out: Path, console: Console) -> dict[str, Any]:
    """Print the table and write report.html and summary.json below `out`; returns the summary."""
    summary = summarise(plan, results, out)
    write_json(out / "summary.json", summary)
    _print(summary, console)
    page = _page(summary)
    pictures.add(page, results, out)
    _close(page, summary)
    page.write(out / "report.html")
    console.print(f"\nreport   {out / 'report.html'}\nnumbers  {out / 'summary.json'}", soft_wrap=True)
    return summary


def headline(summary: dict[str, Any]) -> str:
    """The result in one sentence."""
    before, after = (row for row in _overall(summary) if row["how"] == "direct")
    gain = summary["gain"]
    return (
        f"With {summary['labels_per_task']} labelled demonstrations per task, pseudo-labelled video takes success "
        f"from {before['success']:.0%} to {after['success']:.0%}: {gain['points']:+.1f} points "
        f"[{gain['low']:+.1f}, {gain['high']:+.1f}] over {gain['n']} start states "
        f"(McNemar p = {gain['mcnemar_p']:.2g})."
    )


def _print(summary: dict[str, Any], console: Console) -> None:
    table = Table(title="Success", title_justify="left")
    for column in HEADER:
        table.add_column(column, justify="left" if column in ("policy", "how") else "right")
    for row in _overall(summary):
        table.add_row(*_cells(row))
    probe = Table(title="Linear probe of the motion, R2 of executed xyz", title_justify="left")
    for column in ("input", "dimensions", "R2", "95 %"):
        probe.add_column(column, justify="left" if column == "input" else "right")
    for row in summary["probe"]:
        probe.add_row(*_probe_cells(row))
    console.print()
    console.print(table)
    console.print(headline(summary), soft_wrap=True)
    console.print()
    console.print(probe)
    for line in (*_agreement_lines(summary), *_timing_lines(summary)):
        console.print(line, soft_wrap=True)


def _page(summary: dict[str, Any]) -> Page:
    page = Page("From video to a moving arm")
    page.text(headline(summary), "lead")
    machine = summary["machine"]
    minutes = sum(summary["seconds"].values()) / 60
    page.text(
        f"{len(summary['tasks'])} Meta-World tasks, {summary['labels_per_task']} labelled demonstrations and "
        f"{summary['videos_per_task']} videos without actions per task, {minutes:.1f} minutes on {machine['cpu']}, "
        f"{machine['threads']} threads. Tasks, number of labels and seeds were fixed before the trials.",
        "quiet",
    )
    page.heading("Success")
    page.table(HEADER, [_cells(row) for row in _overall(summary)], strong=(1,))
    for line in _agreement_lines(summary):
        page.text(line)
    page.heading("Per task, stepped directly")
    tasks = [row for row in summary["success"] if row["task"] != "all"]
    page.table(("task", "policy", *HEADER[2:]), [(row["task"], row["policy"], *_cells(row)[2:]) for row in tasks])
    page.heading("What the latent motion knows")
    page.text(
        "Ridge regression from the latent motion of two frames to the actions executed between them. The probe is "
        "fitted on some episodes and judged on others; no action was used to learn the motion."
    )
    page.table(("input", "dimensions", "R2", "95 %"), [_probe_cells(row) for row in summary["probe"]],
               strong=(len(summary["probe"]) - 1,))
    return page


def _close(page: Page, summary: dict[str, Any]) -> None:
    page.heading("Loop timing")
    for line in _timing_lines(summary):
        page.text(line)
    page.heading("Where things lie")
    page.table(("what", "where"), list(summary["places"].items()))
    page.table(("stage", "seconds"), [(name, f"{seconds:.0f}") for name, seconds in summary["seconds"].items()])


def _overall(summary: dict[str, Any]) -> list[Row]:
    return [row for row in summary["success"] if row["task"] == "all"]


def _cells(row: Row) -> tuple[str, ...]:
    interval = f"{row['low']:.1%} to {row['high']:.1%}"
    return row["policy"], row["how"], f"{row['success']:.1%}", f"{row['k']} / {row['n']}", interval


def _probe_cells(row: Row) -> tuple[str, ...]:
    return row["input"], str(row["dimensions"]), f"{row['r2']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}"


def _agreement_lines(summary: dict[str, Any]) -> list[str]:
    return [
        f"{row['policy']}: over ROS 2 {row['k_ros']} / {row['n']}, stepped directly from the same start states "
        f"{row['k_direct']} / {row['n']}; difference {row['points']:+.0f} points "
        f"[{row['low']:+.0f}, {row['high']:+.0f}], {'they agree' if row['agree'] else 'THEY DO NOT AGREE'}."
        for row in summary["agreement"]
    ]


def _timing_lines(summary: dict[str, Any]) -> list[str]:
    lines = []
    for name, timing in summary["timing"].items():
        delay, moved = timing["arrival_to_command_ms"], summary["moved"][name]
        lines.append(
            f"{name}: camera image to command p50 {delay['p50']:.1f} ms, p99 {delay['p99']:.1f} ms over {delay['n']} "
            f"images; inference p50 {timing['inference_ms']['p50']:.1f} ms; {moved['commands']} commands received, "
            f"the arm travelled {moved['travel_m']:.1f} m."
        )
    return lines
