"""Tables and progress on a terminal, and what becomes of them in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ..diagnosis.doctor import Symptom
from ..plans.table import starred, visible

__all__ = ["progress", "rendered", "symptoms_table"]


def rendered(table: Any, markup: bool = False) -> str:
    """A ``rich`` table, in colours on a terminal."""
    text, is_terminal = StringIO(), sys.stdout.isatty()
    width = Console().width if is_terminal else 160
    Console(file=text, width=width, force_terminal=is_terminal, markup=markup, highlight=False, emoji=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, if that is a terminal; yields the function that moves it."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda amount: bar.advance(task, amount)


def symptoms_table(found: Sequence[Symptom], title: str) -> Table:
    """Symptoms that differ only in the numbers of their tensors' names are one row."""
    groups: dict[tuple[str, str, str], list[Symptom]] = {}
    for symptom in found:
        groups.setdefault((starred(symptom.name), symptom.kind, starred(symptom.what)), []).append(symptom)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for header in ("tensor", "", "symptom", "what"):
        table.add_column(header, overflow="fold")
    for (name, kind, what), symptoms in groups.items():
        count, first = len(symptoms), symptoms[0]
        about = (name, f"x{count}", kind, what) if count > 1 else (first.name, "", kind, first.what)
        table.add_row(*map(visible, about), style="red" if first.is_error else None)
    return table
