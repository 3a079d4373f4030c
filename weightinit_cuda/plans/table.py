"""A plan as people read it: a table in which entries that differ only in the numbers of their names are one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from io import StringIO

from .entry import Entry, dtype_name

__all__ = ["starred", "table"]


def table(entries: Iterable[Entry], title: str) -> str:
    """The entries as a table. Those that differ only in the numbers of their names (``layers.0`` to ``layers.31``) are one."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for header in ("tensor", "", "shape", "dtype", "distribution", "source"):
        made.add_column(header, no_wrap=True)
    for (name, *cells, source), alike in _grouped(entries).items():
        count = f"x{len(alike)}" if len(alike) > 1 else ""
        made.add_row(name if count else alike[0][0], count, *cells, source if count else alike[0][1])
    text = StringIO()
    Console(file=text, width=1000, color_system=None, markup=False, highlight=False, emoji=False).print(made, soft_wrap=True)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n")


def _grouped(entries: Iterable[Entry]) -> dict[tuple[str, ...], list[tuple[str, str]]]:
    """The cells of each row, with the names and sources, numbers and all, that it stands for."""
    groups: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for entry in entries:
        part = "" if entry.box is None else f"[{', '.join(f'{s.start}:{s.stop}' for s in entry.box.slices())}]"
        name = entry.name + part if part else " = ".join((entry.name, *entry.aliases))
        cells = (str(tuple(entry.shape)), dtype_name(entry.dtype), entry.distribution.describe())
        groups.setdefault((starred(name), *cells, starred(entry.source)), []).append((name, entry.source))
    return groups


def starred(text: str) -> str:
    """Numbers of modules as stars, in a name and in a sentence with names: ``(0.up -> 1.act ReLU)``, but not in 0.02."""
    return re.sub(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)|(?<![\w.])\d+(?=\.[^\W\d])", "*", text)
