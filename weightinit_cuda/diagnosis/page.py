"""A report as HTML: one page without scripts or links, and a fragment of it for notebooks. Its figures are small SVGs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import Environment  # comes with torch
from markupsafe import Markup  # comes with jinja2

from .row import Row
from .text import COLUMNS, shown
from .verdict import Finding

__all__ = ["curves", "document", "fragment", "page", "table"]

WIDTH, HEIGHT, LEFT, EDGE = 430, 190, 46, 22  # of a figure and its margins, in pixels


class Line(NamedTuple):
    """One curve: its label, its colour, its points in pixels."""

    label: str
    colour: str
    points: str


class Figure(NamedTuple):
    """One panel: its title, its curves, and the heights and labels of its grid."""

    title: str
    lines: list[Line]
    grid: list[tuple[float, str]]


_TEMPLATES = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
_TABLE = """<table style="border-collapse:collapse;font:12px monospace">
<tr>
{% for header in headers %}
<th style="text-align:left;padding:2px 8px;border-bottom:1px solid #888">{{ header }}</th>
{% endfor %}
</tr>
{% for cells in lines %}
<tr>{% for cell in cells %}<td style="padding:1px 8px">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table>
"""
_SVG = """{% for figure in figures %}
<svg width="{{ width }}" height="{{ height }}" style="background:#fff;border:1px solid #ccc;margin:3px" role="img">
<title>{{ figure.title }}</title>
<text x="{{ left }}" y="14" font-size="12" font-weight="bold">{{ figure.title }}</text>
{% for y, label in figure.grid %}
<line x1="{{ left }}" x2="{{ width - 8 }}" y1="{{ y }}" y2="{{ y }}" stroke="#ddd"/>
<text x="{{ left - 4 }}" y="{{ y + 4 }}" font-size="10" text-anchor="end">{{ label }}</text>
{% endfor %}
{% for line in figure.lines %}
<polyline fill="none" stroke="{{ line.colour }}" stroke-width="2" points="{{ line.points }}"/>
<text x="{{ width - 10 }}" y="{{ 14 + 12 * loop.index0 }}" font-size="11" fill="{{ line.colour }}" text-anchor="end">
{{ line.label }}</text>
{% endfor %}
</svg>
{% endfor %}
"""
_FRAGMENT = """<div style="font:14px sans-serif;color:#222">
<p><b style="color:{{ colours[verdict] }}">{{ verdict }}</b> {{ model }}
{%- if loss is not none %}, first loss {{ "%.4g" % loss }}{% endif %}</p>
<ul>
{% for finding in findings %}
<li><b style="color:{{ colours[finding.level] }}">{{ finding.level }}</b> <code>{{ finding.code }}</code>
{{ finding.text }}</li>
{% endfor %}
{% if note %}<li>{{ note }}</li>{% endif %}
</ul>
{{ figures }}
{{ table }}
</div>
"""
_DOCUMENT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title></head>
<body style="background:#fafafa;margin:24px"><h2 style="font-family:sans-serif">{{ title }}</h2>
{{ body }}
</body></html>
"""
_COLOURS = {"FAIL": "#c00", "WARN": "#b60", "ok": "#080"}


def table(headers: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table; all text is escaped.

    >>> "<td" in table(["a"], [["1 < 2"]]), "1 &lt; 2" in table(["a"], [["1 < 2"]])
    (True, True)
    """
    return _TEMPLATES.from_string(_TABLE).render(headers=headers, lines=list(lines))


def fragment(
    model: str, findings: Sequence[Finding], rows: Sequence[Row], loss: float | None, note: str, everything: bool = False
) -> str:
    """A report without a page around it; of many rows the first and the last ones, or everything."""
    lines = [
        ["..."] if row is None else [cell(row) for cell in COLUMNS.values()] for row in (rows if everything else shown(rows))
    ]
    return _TEMPLATES.from_string(_FRAGMENT).render(
        model=model,
        verdict=findings[0].level if findings else "ok",
        findings=findings,
        loss=loss,
        note=note,
        figures=_drawn(_figures(rows)),
        table=Markup(table(list(COLUMNS), lines)),
        colours=_COLOURS,
    )


def document(model: str, findings: Sequence[Finding], rows: Sequence[Row], loss: float | None, note: str) -> str:
    """The whole page, with every row."""
    return page(f"Probe of {model}", fragment(model, findings, rows, loss, note, everything=True))


def page(title: str, body: str) -> str:
    """HTML with a title around it."""
    return _TEMPLATES.from_string(_DOCUMENT).render(title=title, body=Markup(body))


def curves(title: str, named: Mapping[str, Sequence[float]]) -> str:
    """One panel with a curve for each name, on a log scale."""
    colours = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22")
    figure = _figure(title, [(name, colours[i % len(colours)], values) for i, (name, values) in enumerate(named.items())])
    return str(_drawn([] if figure is None else [figure]))


def _drawn(figures: Sequence[Figure]) -> Markup:
    return Markup(_TEMPLATES.from_string(_SVG).render(figures=figures, width=WIDTH, height=HEIGHT, left=LEFT))


def _figures(rows: Sequence[Row]) -> list[Figure]:
    layers = [row for row in rows if row.kind == "weight"]
    shares = [row for row in rows if not math.isnan(row.saturated) or not math.isnan(row.dead)]
    made = [
        _figure(
            "forward, by layer", [("signal", "#1f77b4", [r.signal for r in layers]), ("rms", "#999", [r.rms for r in layers])]
        ),
        _figure("gradient at the output of a layer", [("gradient", "#d62728", [r.gradient for r in layers])]),
        _figure("effective rank of the samples", [("rank", "#2ca02c", [r.rank for r in layers])]),
        _figure(
            "share saturated, or dead",
            [("share", "#9467bd", [r.dead if math.isnan(r.saturated) else r.saturated for r in shares])],
            logarithmic=False,
        ),
    ]
    return [figure for figure in made if figure is not None]


def _figure(title: str, curves: Sequence[tuple[str, str, Sequence[float]]], logarithmic: bool = True) -> Figure | None:
    """A panel; None where fewer than two points are known. Points that a log scale cannot show are left out."""
    known = {}
    for label, colour, values in curves:
        pairs = [(i, v) for i, v in enumerate(values) if math.isfinite(v) and (v > 0 or not logarithmic)]
        if len(pairs) > 1:
            known[label, colour] = [(i / (len(values) - 1), math.log10(v) if logarithmic else v) for i, v in pairs]
    if not known:
        return None
    heights = [v for points in known.values() for _, v in points]
    low, high = (math.floor(min(heights)), math.ceil(max(heights))) if logarithmic else (0, 1)
    high = max(high, low + 1)

    def y(value: float) -> float:
        return round(HEIGHT - EDGE - (HEIGHT - 2.5 * EDGE) * (value - low) / (high - low), 1)

    def x(place: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 10) * place, 1)

    lines = [Line(label, colour, " ".join(f"{x(i)},{y(v)}" for i, v in points)) for (label, colour), points in known.items()]
    ticks: Iterable[Any] = range(low, high + 1, max(1, (high - low) // 5)) if logarithmic else (0, 0.5, 1)
    return Figure(title, lines, [(y(tick), f"1e{tick}" if logarithmic else f"{tick:g}") for tick in ticks])
