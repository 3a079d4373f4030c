"""Page 11: the lecture's net of five sigmoid layers, its three starts, on digits."""

from __future__ import annotations

from itertools import pairwise

import torch
from figure import Figure, axes, run
from images import digits
from torch import Tensor, nn
from train import one_thread, sgd

import weightinit_cuda as wi

EPOCHS, RATE, BATCH = 150, 1.0, 16


class SigmoidModel(nn.Module):
    """As the lecture has it: its own ``reset_parameters`` gives Xavier's weights and zeros."""

    def __init__(self, inputs: int = 64, width: int = 100, depth: int = 5) -> None:
        super().__init__()
        sizes = [inputs] + [width] * depth
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.output = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = torch.sigmoid(layer(x))
        return self.output(x)

    @torch.inference_mode()
    def reset_parameters(self) -> None:
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)


def measure(quick: bool = False) -> dict[str, tuple[str, list[float]]]:
    """Verdict before training, and losses."""
    training, _ = digits()
    found = {}
    for name in ("torch's default", "the lecture's Xavier", "auto, sigmoid_gain=4"):
        torch.manual_seed(0)
        net = SigmoidModel()
        if name.startswith("the"):
            with wi.patched():
                net.reset_parameters()
        elif name.startswith("auto"):
            wi.initialize_(net, wi.rules.auto(sigmoid_gain=4), seed=0)
        verdict = wi.probe(net, training[0][:256], target=training[1][:256]).verdict
        with one_thread():
            found[name] = verdict, sgd(net, training, 3 if quick else EPOCHS, RATE, BATCH)
    return found


def show(found: dict[str, tuple[str, list[float]]]) -> None:
    for name, (verdict, losses) in found.items():
        at = " / ".join(f"{losses[n]:.3g}" for n in (0, 10, 50, 100, 150) if n < len(losses))
        print(f"{name:22} {verdict:4} {at}")


def draw(found: dict[str, tuple[str, list[float]]]) -> Figure:
    figure, [plot] = axes(1, 2.6)
    for name, (verdict, losses) in found.items():
        plot.plot(losses, label=f"{name}: {verdict}")
    plot.set(xlabel="epoch", ylabel="training loss", title="five sigmoid layers on 1500 digits, SGD")
    plot.legend()
    return figure


if __name__ == "__main__":
    run("11_tutorials", measure, draw, show)
