"""Page 4: ten hidden layers on digits: rule sets against activations, as ``wi.probe`` judges them before training."""

from __future__ import annotations

import math

from figure import Figure, axes, run
from images import digits
from torch import nn
from train import mlp

import weightinit_cuda as wi
from weightinit_cuda.diagnosis import Candidate

ACTIVATIONS = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "SELU": nn.SELU,
}
NAMED = {"auto, sigmoid_gain=8": wi.rules.auto(sigmoid_gain=8)}
SETS: dict[str, wi.rules.Rules] = {**{name: name for name in ("torch", "xavier", "lecun", "kaiming", "auto")}, **NAMED}
DEPTH = 10

Found = dict[str, dict[str, Candidate]]


def measure(quick: bool = False) -> Found:
    """By activation and set."""
    (images, classes), _ = digits()
    found: Found = {}
    for name, activation in list(ACTIVATIONS.items())[: 2 if quick else None]:
        report = wi.probe(mlp(DEPTH, 128, activation), images[:256], target=classes[:256])
        found[name] = {label: report.compare([rules]).best for label, rules in SETS.items()}
    return found


def change(one: Candidate) -> float:
    """Of the gradient's variance over all layers, in nats."""
    return 2 * one.backward


def show(found: Found) -> None:
    print(f"{'':9}" + "".join(f"{label:>22}" for label in SETS))
    for name, by_set in found.items():
        print(f"{name:9}" + "".join(f"{change(one):15.1f} {one.verdict!s:6}" for one in by_set.values()))


def draw(found: Found) -> Figure:
    figure, [plot] = axes(1, 2.8)
    values = [[change(one) for one in by_set.values()] for by_set in found.values()]
    plot.imshow(
        [[min(abs(v), 12) if math.isfinite(v) else 12 for v in row] for row in values],
        cmap="RdYlGn_r",
        alpha=0.6,
        aspect="auto",
    )
    for y, by_set in enumerate(found.values()):
        for x, one in enumerate(by_set.values()):
            plot.text(x, y, f"{change(one):+.1f}  {one.verdict}", ha="center", va="center", fontsize=8, color="#24292f")
    plot.grid(False)
    plot.set(
        xticks=range(len(SETS)),
        yticks=range(len(found)),
        xticklabels=[label.replace(", ", ",\n") for label in SETS],
        yticklabels=list(found),
    )
    plot.set_title("change of the gradient's variance over ten hidden layers, in nats, and the verdict")
    return figure


if __name__ == "__main__":
    run("04_activations", measure, draw, show)
