"""How figures of the guide look: small, readable on a white and on a dark page, and the same bytes from the same numbers."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

INK = "#808a94"
COLOURS = ("#2f81f7", "#e5534b", "#3fb950", "#d29922", "#a371f7", "#db61a2", "#808a94", "#39c5cf")
STYLE = {
    "svg.hashsalt": "weightinit_cuda",
    "svg.fonttype": "path",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": mpl.cycler(color=COLOURS),
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
}


def axes(number: int = 1, height: float = 2.9) -> tuple[Figure, list[Any]]:
    """A row of plots, each with a light grid."""
    mpl.rcParams.update(STYLE)
    figure, found = plt.subplots(1, number, figsize=(7.2, height), squeeze=False, layout="constrained")
    for one in found[0]:
        one.grid(color=INK, alpha=0.25, linewidth=0.5)
    return figure, list(found[0])


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    lines = (line.rstrip() for line in path.read_text(encoding="utf-8").splitlines())
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(page: str, measure: Callable[[bool], Any], draw: Callable[[Any], Figure], show: Callable[[Any], None]) -> None:
    """The command line of each page's script: measures, prints, draws."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a short form, for tests")
    parser.add_argument("--svg", type=Path, default=Path(__file__).parents[2] / "docs" / "images" / "guide" / f"{page}.svg")
    options = parser.parse_args()
    found = measure(options.quick)
    show(found)
    save(draw(found), options.svg)
