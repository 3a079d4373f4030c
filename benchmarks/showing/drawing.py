"""matplotlib's SVG as part of a page: its colours become the page's CSS variables, its size the column's.

Plots are drawn about as wide as a phone, so that text has its natural size everywhere. Nothing here knows what is plotted.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

__all__ = ["COLOURS", "INK", "QUIET", "figure", "svg"]

# Colours that occur nowhere else -> variables of style.css.
INK, QUIET, GRID = "#010203", "#010204", "#010205"
COLOURS = {
    "ours": "#010210",
    "nn.init": "#010211",
    "store": "#010212",
    "other": "#010213",
    "second": "#010214",
    "third": "#010215",
}
VARIABLES = {INK: "ink", QUIET: "quiet", GRID: "grid"} | {
    colour: f"series-{name.replace('.', '-')}" for name, colour in COLOURS.items()
}
WIDTH = 4.6  # inches
STYLE: Any = {  # of keys that matplotlib types one by one
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.edgecolor": QUIET,
    "axes.labelcolor": QUIET,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "text.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
}


@contextmanager
def figure(height: float) -> Iterator[tuple[Figure, Any]]:
    """A figure of that many inches and its axes, in the page's style."""
    with mpl.rc_context(STYLE):
        made = Figure(figsize=(WIDTH, height), layout="constrained")
        yield made, made.subplots()


def svg(made: Figure, name: str, alt: str) -> str:
    """The figure as an element of the page.

    Args:
        name: unique on the page; ids inside are made from it.
        alt: what it shows, for readers who do not see it.
    """
    buffer = io.StringIO()
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
        made.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1)
    text = re.sub(r' id="([\w.-]+)"', rf' id="{name}-\1"', text)
    text = re.sub(r'(href="|url\()#([\w.-]+)', rf"\1#{name}-\2", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return text.replace("<svg", f'<svg role="img" aria-label="{alt}"', 1)
