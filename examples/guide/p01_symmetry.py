"""Page 1: equal weights stay equal. Losses on digits, and how many hidden units remain different from each other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from figure import Figure, axes, run
from images import digits
from torch import Tensor, nn
from train import one_thread, sgd

import weightinit_cuda as wi

UNITS = 32
STARTS: dict[str, wi.rules.Rules] = {
    "all weights 0.1": [wi.Rule("*.weight", "constant_", val=0.1), wi.Rule("*.bias", "zeros_")],
    "all weights 0": wi.Rule("*", "zeros_"),
    "equal rows, then Kaiming": [wi.Rule("0.weight", "constant_", val=0.1), "kaiming"],
    "Kaiming": "kaiming",
}


class Start(NamedTuple):
    verdict: str
    twins: float  # share of hidden units, before training
    losses: list[float]
    different: int  # hidden units, after training


def measure(quick: bool = False) -> dict[str, Start]:
    training, _ = digits()
    found = {}
    for name, rules in STARTS.items():
        net = wi.initialize_(nn.Sequential(nn.Linear(64, UNITS), nn.ReLU(), nn.Linear(UNITS, 10)), rules, seed=0)
        report = wi.probe(net, training[0][:256], target=training[1][:256])
        twins = max(row.twins for row in report.rows if row.name == "0.weight")
        with one_thread():
            losses = sgd(net, training, 3 if quick else 20, rate=0.1)
        found[name] = Start(report.verdict, twins, losses, different(net[0].weight))
    return found


def different(weight: Tensor) -> int:
    """Rows that differ from all earlier ones by more than rounding."""
    return len(torch.unique((weight.detach() * 1e4).round(), dim=0))


def show(found: dict[str, Start]) -> None:
    for name, one in found.items():
        print(f"{name:26} {one.verdict:5} twins {one.twins:.2f}  loss {one.losses[-1]:.3f}  different {one.different}")


def draw(found: dict[str, Start]) -> Figure:
    figure, [left, right] = axes(2)
    for name, one in found.items():
        left.plot(one.losses, label=name)
    left.set(xlabel="epoch", ylabel="training loss")
    left.legend()
    right.barh(list(found), [one.different for one in found.values()], color="#2f81f7", height=0.5)
    right.invert_yaxis()
    right.set(xlabel=f"different hidden units of {UNITS} after training")
    return figure


if __name__ == "__main__":
    run("01_symmetry", measure, draw, show)
