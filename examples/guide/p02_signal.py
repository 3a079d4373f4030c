"""Page 2: the five-layer sigmoid net, seen layer by layer: what the root mean square hides and the spread shows."""

from __future__ import annotations

from figure import Figure, axes, run
from images import digits
from torch import nn
from train import mlp

import weightinit_cuda as wi
from weightinit_cuda.diagnosis import Row

STARTS: dict[str, wi.rules.Rules] = {
    "torch": "torch",
    "xavier": "xavier",
    "auto, sigmoid_gain=4": wi.rules.auto(sigmoid_gain=4),
}


def measure(quick: bool = False) -> dict[str, tuple[str, list[Row], list[Row]]]:
    """Verdict, rows of the layers, rows of the sigmoids."""
    (images, classes), _ = digits()
    found = {}
    for name, rules in STARTS.items():
        net = wi.initialize_(mlp(5, 100, nn.Sigmoid), rules, seed=0)
        report = wi.probe(net, images[:256], target=classes[:256])
        layers = [row for row in report.rows if row.kind == "weight"][:-1]
        found[name] = report.verdict, layers, [row for row in report.rows if row.kind == "sigmoid"]
    return found


def show(found: dict[str, tuple[str, list[Row], list[Row]]]) -> None:
    for name, (verdict, layers, sigmoids) in found.items():
        print(f"{name}: {verdict}")
        for layer, sigmoid in zip(layers, sigmoids, strict=True):
            print(f"  {layer.name:9} rms {sigmoid.rms:.3f} signal {sigmoid.signal:.2e} gradient {layer.gradient:.2e}")


def draw(found: dict[str, tuple[str, list[Row], list[Row]]]) -> Figure:
    figure, [left, right] = axes(2)
    for number, (name, (_, layers, sigmoids)) in enumerate(found.items()):
        place = range(1, len(layers) + 1)
        left.semilogy(place, [row.rms for row in sigmoids], "--", color=f"C{number}")
        left.semilogy(place, [row.signal for row in sigmoids], "o-", color=f"C{number}", label=name)
        right.semilogy(place, [row.gradient for row in layers], "o-", color=f"C{number}", label=name)
    left.set(xlabel="hidden layer", title="its output: rms (dashed), signal (solid)", xticks=range(1, 6))
    right.set(xlabel="hidden layer", title="gradient that arrives there", xticks=range(1, 6))
    right.legend()
    return figure


if __name__ == "__main__":
    run("02_signal", measure, draw, show)
