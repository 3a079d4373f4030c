"""Page 5: how deep torch's default carries: the change of the gradient by depth, measured and computed."""

from __future__ import annotations

import math

from figure import Figure, axes, run
from images import digits
from torch import nn
from train import mlp

import weightinit_cuda as wi

DEPTHS = (2, 3, 4, 5, 7, 10, 15, 20, 30, 50)
ACTIVATIONS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}
STD = 1 / math.sqrt(3)  # of U(-1, 1): times 1 / sqrt(fan_in), torch's weights and biases

Found = dict[str, list[tuple[int, float, float, str]]]


def measure(quick: bool = False) -> Found:
    """By activation: depth, change of the gradient's variance in nats, what the integral says, verdict."""
    (images, classes), _ = digits()
    found: Found = {name: [] for name in ACTIVATIONS}
    for name, activation in ACTIVATIONS.items():
        chi = wi.rules.mean_field(name, gain=STD, bias_std=STD / math.sqrt(128)).chi
        for depth in DEPTHS[: 4 if quick else None]:
            net = wi.initialize_(mlp(depth, 128, activation), rules="torch", seed=0)
            report = wi.probe(net, images[:256], target=classes[:256])
            hidden = [row.gradient for row in report.rows if row.kind == "weight"][:-1]
            measured = 2 * math.log(hidden[0] / hidden[-1]) if hidden[0] > 0 else -math.inf
            found[name].append((depth, measured, (depth - 1) * math.log(chi), report.verdict))
    return found


def show(found: Found) -> None:
    for name, rows in found.items():
        print(name)
        for depth, measured, computed, verdict in rows:
            print(f"  {depth:3} layers: {measured:8.1f} nats, computed {computed:8.1f}  {verdict}")


def draw(found: Found) -> Figure:
    figure, [plot] = axes(1)
    for number, (name, rows) in enumerate(found.items()):
        depths = [row[0] for row in rows]
        plot.loglog(depths, [max(-row[1], 1e-2) for row in rows], "o", color=f"C{number}", label=f"{name}, measured")
        plot.loglog(depths, [-row[2] for row in rows], "-", color=f"C{number}", linewidth=1)
    plot.axhline(6, color="#808a94", linestyle=":")
    plot.axhline(12, color="#808a94", linestyle="--")
    plot.text(20, 6.6, "six depth scales: WARN", fontsize=8)
    plot.text(30, 13.2, "twelve: FAIL", fontsize=8)
    plot.set(xlabel="hidden layers", ylabel="nats lost by the gradient's variance", ylim=(0.3, 300))
    plot.set_xticks(DEPTHS, [str(depth) for depth in DEPTHS])
    plot.minorticks_off()
    plot.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    run("05_default", measure, draw, show)
