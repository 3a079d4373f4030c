"""Rows as text: which columns a table has, which rows it shows, how a number is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any

from .row import Row

__all__ = ["COLUMNS", "left_out", "number", "printed", "shown"]

SHOWN = 24  # rows that are printed; of more the first and the last ones
COLUMNS: dict[str, Callable[[Row], str]] = {
    "layer": lambda row: row.name if row.name[:1] not in ("", "#") else f"(model){row.name}",
    "kind": lambda row: row.kind,
    "signal": lambda row: number(row.signal, ".2g"),
    "step": lambda row: number(row.step, ".2g"),
    "shared": lambda row: number(row.shared, ".3f"),
    "rank": lambda row: number(row.rank, ".1f"),
    "flat": lambda row: number(row.saturated, ".2f"),
    "dead": lambda row: number(row.dead, ".2f"),
    "gradient": lambda row: number(row.gradient, ".2g"),
    "grad/weight": lambda row: number(row.relative_gradient, ".1g"),
    "twins": lambda row: number(row.twins or math.nan, ".2f"),
}


def number(value: float, spec: str) -> str:
    """A cell; empty if the figure does not apply."""
    return "" if math.isnan(value) else format(value, spec)


def shown(rows: Sequence[Row]) -> list[Row | None]:
    """The rows that a page has space for; None stands for those left out."""
    if len(rows) <= SHOWN:
        return list(rows)
    half = (SHOWN - 4) // 2
    return [*rows[:half], None, *rows[-half:]]


def left_out(rows: Sequence[Row]) -> int:
    """How many rows a page has no space for."""
    return len(rows) - SHOWN + 4 if len(rows) > SHOWN else 0


def printed(table: Any) -> str:
    """A ``rich`` table as plain text."""
    from rich.console import Console

    text = StringIO()
    Console(file=text, width=160, color_system=None, markup=False, highlight=False, emoji=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip())
