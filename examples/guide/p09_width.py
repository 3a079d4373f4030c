"""Page 9: by how much three steps of Adam change each layer's output, for nets from narrow to wide: muP and without."""

from __future__ import annotations

import torch
from figure import Figure, axes, run
from images import digits
from torch import nn

import weightinit_cuda as wi
from weightinit_cuda import CoordinateCheck

WIDTHS, BASE, RATE = (64, 128, 256, 512, 1024), 64, 0.01


def net(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(64, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, 10),
    )


def standard(width: int) -> nn.Module:
    return wi.initialize_(net(width), rules="lecun")


def mup(width: int) -> nn.Module:
    return wi.initialize_(net(width), rules=wi.rules.mup(base=net(BASE), rules="lecun"))


def measure(quick: bool = False) -> dict[str, CoordinateCheck]:
    (images, classes), _ = digits()
    widths, seeds = (WIDTHS, (0,)) if quick else (WIDTHS, (0, 1, 2))
    ways = {
        "standard": (standard, lambda made: torch.optim.Adam(made.parameters(), lr=RATE)),
        "muP": (mup, lambda made: torch.optim.Adam(wi.rules.mup_groups(made, net(BASE), lr=RATE))),
    }
    return {
        name: wi.coordinate_check(make, widths, images[:64], target=classes[:64], optimizer=adam, seeds=seeds)
        for name, (make, adam) in ways.items()
    }


def show(found: dict[str, CoordinateCheck]) -> None:
    for name, check in found.items():
        print(name, {layer: round(exponent, 2) for layer, exponent in check.exponents.items()})


def draw(found: dict[str, CoordinateCheck]) -> Figure:
    figure, plots = axes(2)
    for plot, (name, check) in zip(plots, found.items(), strict=True):
        for layer, changes in check.changes.items():
            plot.loglog(check.widths, changes, "o-", label=f"{layer.partition('.')[0]} ({check.exponents[layer]:+.2f})")
        plot.set(xlabel="width", title=f"{name}: change of each layer's output", ylim=(0.05, 30))
        plot.set_xticks(check.widths, [str(width) for width in check.widths])
        plot.minorticks_off()
        plot.legend(title="layer (exponent)", title_fontsize=8)
    return figure


if __name__ == "__main__":
    run("09_width", measure, draw, show)
