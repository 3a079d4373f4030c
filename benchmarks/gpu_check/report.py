"""The one table at the end: by rich where it is installed, as plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from .check import Check, Outcome
from .stages import State

__all__ = ["show"]

HEADER = ("stage", "result", "s", "limit", "file", "what it found")
COLOURS = {State.FINE: "green", State.LEFT_OUT: "yellow", State.CUT_SHORT: "yellow"}
WIDTH = 150  # of the table in a pipe or a file


def show(check: Check) -> None:
    """Prints the table, and what it comes to."""
    try:
        _rich(check)
    except ImportError:
        _plain([HEADER, *(_cells(outcome, check.out) for outcome in check.outcomes)])
        print("\n(plain text, since rich is not installed)")
    print(_verdict(check))


def _cells(outcome: Outcome, out: Path) -> tuple[str, ...]:
    stage = outcome.stage
    written = stage.file if (out / stage.file).is_file() else ""
    return (stage.name, outcome.state.value, f"{outcome.seconds:.1f}", f"{outcome.limit:.0f}", written, outcome.said)


def _rich(check: Check) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="GPU check, emulated: no figure here is a GPU's" if check.emulated else "GPU check")
    for name in HEADER:
        table.add_column(name, justify="right" if name in ("s", "limit") else "left", overflow="fold")
    for outcome in check.outcomes:
        name, state, *rest = _cells(outcome, check.out)
        table.add_row(name, f"[{COLOURS.get(outcome.state, 'red')}]{state}[/]", *map(escape, rest))
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)


def _plain(lines: Sequence[Sequence[str]]) -> None:
    widths = [max(len(cells[i]) for cells in lines) for i in range(len(HEADER) - 1)]
    for cells in lines:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=False)), cells[-1]]).rstrip())


def _verdict(check: Check) -> str:
    files = sorted(path.name for path in check.out.iterdir())
    written = f"{check.out}: {', '.join(files)}"
    who = "gpu_check, emulated" if check.emulated else "gpu_check"
    if check.passed:
        return f"{who}: passed. {written}"
    others = [outcome for outcome in check.outcomes if outcome.state not in (State.FINE, State.LEFT_OUT)]
    why = ", ".join(f"{outcome.stage.name} {outcome.state.value}" for outcome in others)
    return f"{who}: NOT passed: {why}. {written}"
