"""Page 7: ten sigmoid layers on digits, started by rules, by LSUV and by data for each unit."""

from __future__ import annotations

from typing import NamedTuple

from figure import Figure, axes, run
from images import digits
from torch import nn
from train import mlp, one_thread, sgd

import weightinit_cuda as wi

EPOCHS, RATE = 40, 0.5
STARTS = ("Xavier", "auto, sigmoid_gain=8", "LSUV", "by unit")


class Start(NamedTuple):
    verdict: str
    signals: list[float]
    losses: list[float]


def measure(quick: bool = False) -> dict[str, Start]:
    training, _ = digits()
    found = {}
    for name in STARTS:
        net = mlp(10, 100, nn.Sigmoid)
        if name in ("LSUV", "by unit"):
            wi.data_dependent_(net, training[0][:256], seed=0, per_unit=name == "by unit")
        else:
            wi.initialize_(net, "xavier" if name == "Xavier" else wi.rules.auto(sigmoid_gain=8), seed=0)
        report = wi.probe(net, training[0][:256], target=training[1][:256])
        signals = [row.signal for row in report.rows if row.kind == "weight"]
        with one_thread():
            found[name] = Start(report.verdict, signals, sgd(net, training, 2 if quick else EPOCHS, RATE))
    return found


def show(found: dict[str, Start]) -> None:
    for name, one in found.items():
        print(f"{name:22} {one.verdict:4} signal {one.signals[0]:.3g} -> {one.signals[-2]:.3g}, loss {one.losses[-1]:.3f}")


def draw(found: dict[str, Start]) -> Figure:
    figure, [left, right] = axes(2)
    for name, one in found.items():
        left.semilogy(range(1, 12), one.signals, "o-", label=name)
        right.plot(one.losses, label=name)
    left.set(xlabel="layer", title="signal of pre-activations before training")
    right.set(xlabel="epoch", title="training loss, SGD")
    right.legend()
    return figure


if __name__ == "__main__":
    run("07_data_dependent", measure, draw, show)
