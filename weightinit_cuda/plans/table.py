"""A plan as people read it: a table in which entries that differ only in the numbers of their names are one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from io import StringIO

from .entry import Entry, dtype_name

__all__ = ["grouped", "html_of", "html_table", "label", "starred", "table", "visible"]

HEADERS = ("tensor", "", "shape", "dtype", "distribution", "source")


def table(entries: Iterable[Entry], title: str) -> str:
    """The entries as a table. Those that differ only in the numbers of their names (``layers.0`` to ``layers.31``) are one."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for header in HEADERS:
        made.add_column(header, no_wrap=True)
    for row in _rows(entries):
        made.add_row(*row)
    text = StringIO()
    Console(file=text, width=1000, color_system=None, markup=False, highlight=False, emoji=False).print(made, soft_wrap=True)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n")


def html_of(entries: Iterable[Entry], title: str) -> str:
    """The same table for a notebook."""
    return html_table(title, HEADERS, list(_rows(entries)))


def html_table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]], most: int = 200) -> str:
    """A table as HTML, of ``most`` rows; the title says how many are left out."""
    left_out = f" ({len(rows) - most} rows are left out)" if len(rows) > most else ""
    head = "".join(f'<th style="text-align:left;padding:2px 8px">{escape(header)}</th>' for header in headers)
    cell = '<td style="text-align:left;padding:1px 8px">{}</td>'
    body = "".join(f"<tr>{''.join(cell.format(escape(visible(text))) for text in row)}</tr>" for row in rows[:most])
    caption = f'<caption style="text-align:left">{escape(visible(title) + left_out)}</caption>'
    return f'<table style="font-family:monospace">{caption}<tr>{head}</tr>{body}</table>'


def _rows(entries: Iterable[Entry]) -> Iterator[tuple[str, ...]]:
    """The cells of each row, without characters that a terminal obeys."""
    for (name, *cells, source), alike in grouped(entries).items():
        count = f"x{len(alike)}" if len(alike) > 1 else ""
        row = (name, count, *cells, source) if count else (label(alike[0]), count, *cells, alike[0].source)
        yield tuple(map(visible, row))


def grouped(entries: Iterable[Entry]) -> dict[tuple[str, ...], list[Entry]]:
    """The entries of each row by its cells but the count."""
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        cells = (str(tuple(entry.shape)), dtype_name(entry.dtype), entry.distribution.describe())
        groups.setdefault((starred(label(entry)), *cells, starred(entry.source)), []).append(entry)
    return groups


def label(entry: Entry, aliases: bool = True) -> str:
    """The names of a tensor, or of the part that the entry fills."""
    if entry.box is None:
        return " = ".join((entry.name, *entry.aliases)) if aliases else entry.name
    return f"{entry.name}[{', '.join(f'{s.start}:{s.stop}' for s in entry.box.slices())}]"


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
