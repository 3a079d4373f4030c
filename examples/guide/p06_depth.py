"""Page 6: which depths a gain can bear: tanh nets on digits, trained, beside six depth scales as the integral has them."""

from __future__ import annotations

import math

from figure import Figure, axes, run
from images import Data, digits
from torch import nn
from train import accuracy, mlp, one_thread, sgd

import weightinit_cuda as wi

GAINS = (0.7, 0.85, 1.0, 1.3, 1.6, 2.0, 2.5)
DEPTHS = (5, 10, 20, 40)
EPOCHS, RATES = 6, (0.2, 0.05, 0.0125)

Found = dict[tuple[int, float], float]


def measure(quick: bool = False) -> Found:
    """Share of the training images that are told apart, by depth and gain: the best of three learning rates."""
    training, _ = digits()
    found: Found = {}
    with one_thread():
        for depth in DEPTHS[:1] if quick else DEPTHS:
            for gain in (0.7, 1.3) if quick else GAINS:
                found[depth, gain] = max(
                    _accuracy(depth, gain, rate, training, quick) for rate in RATES[: 1 if quick else None]
                )
    return found


def _accuracy(depth: int, gain: float, rate: float, training: Data, quick: bool) -> float:
    net = mlp(depth, 64, nn.Tanh)
    wi.initialize_(net, [wi.Rule("*.weight", "variance_scaling_", scale=gain**2), wi.Rule("*.bias", "zeros_")], seed=0)
    sgd(net, training, 2 if quick else EPOCHS, rate)
    return accuracy(net, training)


def show(found: Found) -> None:
    gains = sorted({gain for _, gain in found})
    print("depth " + "".join(f"{gain:7}" for gain in gains))
    for depth in sorted({depth for depth, _ in found}):
        print(f"{depth:5} " + "".join(f"{found[depth, gain]:7.2f}" for gain in gains))
    for gain in gains:
        q, chi = wi.rules.mean_field("tanh", gain)
        print(
            f"gain {gain}: q {q:.3f}, chi {chi:.3f}, six depth scales {6 * wi.rules.mean_field('tanh', gain).depth_scale:.1f}"
        )


def draw(found: Found) -> Figure:
    gains, depths = sorted({gain for _, gain in found}), sorted({depth for depth, _ in found})
    figure, [plot] = axes(1)
    for y, depth in enumerate(depths):
        for x, gain in enumerate(gains):
            plot.text(x, y, f"{found[depth, gain]:.2f}", ha="center", va="center", fontsize=8, color="#24292f")
    plot.imshow([[found[d, g] for g in gains] for d in depths], cmap="RdYlGn", alpha=0.6, aspect="auto", vmin=0.1, vmax=1)
    reach = [6 * wi.rules.mean_field("tanh", gain).depth_scale for gain in gains]
    place = [_place(depths, depth) for depth in reach]
    plot.plot(range(len(gains)), place, "k--", linewidth=1.5)
    plot.grid(False)
    plot.set(xticks=range(len(gains)), yticks=range(len(depths)), ylim=(-0.5, len(depths) - 0.5))
    plot.set_xticklabels([f"{gain:g}" for gain in gains])
    plot.set_yticklabels([str(depth) for depth in depths])
    plot.set(xlabel="gain of the weights", ylabel="hidden layers")
    plot.set_title(f"training accuracy after {EPOCHS} epochs; dashed: six depth scales")
    return figure


def _place(depths: list[int], depth: float) -> float:
    """On an axis whose ticks are these depths, evenly apart; logarithmic between them."""
    step = math.log(depths[-1] / depths[0]) / (len(depths) - 1) if len(depths) > 1 else 1.0
    return min(math.log(max(depth, 1e-3) / depths[0]) / step, len(depths))


if __name__ == "__main__":
    run("06_depth", measure, draw, show)
