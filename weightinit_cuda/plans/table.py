"""A plan as people read it: a table in which entries that differ only in the numbers of their names are one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from io import StringIO

from .entry import Entry, dtype_name

__all__ = ["starred", "table", "visible"]


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
        row = (name if count else alike[0][0], count, *cells, source if count else alike[0][1])
        made.add_row(*map(visible, row))
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


def visible(text: str) -> str:
    """The text without characters that steer a terminal or turn lines around: names come from files of others.

    >>> visible("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


# C0 and C1 but the end of a line and tabs; marks of direction, as in https://www.unicode.org/reports/tr36/; lone surrogates.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def starred(text: str) -> str:
    """Numbers of modules as stars, in a name and in a sentence with names: ``(0.up -> 1.act ReLU)``, but not in 0.02."""
    return re.sub(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)|(?<![\w.])\d+(?=\.[^\W\d])", "*", text)
