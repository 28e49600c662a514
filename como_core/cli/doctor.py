"""`como doctor`: the findings as a table, or as JSON."""

from __future__ import annotations

import dataclasses
import json as json_format
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from como_core.preflight import Finding

_COLOURS = {"ok": "green", "warn": "yellow", "missing": "red"}


def doctor(json: bool = False) -> int:
    """Show what this machine has, and how to mend what it lacks.

    Looks at Python, torch and its device, ROS 2 (a node must hear its own message), OpenGL (a context must be made),
    the simulator (a frame must be rendered), video codecs and free disk. The exit code is 1 where something is missing.

    Examples:

        como doctor
        como doctor --json > machine.json

    Args:
        json: Print a JSON list of {name, status, found, mend} instead of the table.
    """
    from como_core.doctor import examine
    from como_core.preflight import MISSING

    findings = examine()
    if json:
        print(json_format.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        _print_table(findings)
    return int(any(finding.status == MISSING for finding in findings))


def _print_table(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("", "", "found"):
        table.add_column(title, overflow="fold")
    for finding in findings:
        status = Text(finding.status, style=_COLOURS[finding.status])
        table.add_row(finding.name, status, Text(finding.found))
    console = Console()
    console.print(table)
    # Unbroken, so that a command can be copied.
    for finding in findings:
        if finding.mend:
            console.print(Text(f"\n{finding.name}: mend it with\n  {finding.mend}"), soft_wrap=True)
