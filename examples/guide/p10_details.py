"""Page 10: how much narrower a cut normal is than it says, by where it is cut."""

from __future__ import annotations

import math

import torch
from figure import Figure, axes, run

import weightinit_cuda as wi

CUTS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)

Found = dict[float, tuple[float, float, float]]


def computed(cut: float) -> float:
    r"""sqrt(1 - 2 c phi(c) / (2 Phi(c) - 1)), the standard deviation of N(0, 1) cut at +-c."""
    return math.sqrt(1 - 2 * cut * math.exp(-cut * cut / 2) / math.sqrt(2 * math.pi) / math.erf(cut / math.sqrt(2)))


def measure(quick: bool = False) -> Found:
    """By cut: standard deviation of four million values, the same compensated, and the formula."""
    found, values = {}, torch.empty(100_000 if quick else 4_000_000)
    for cut in CUTS:
        cuts = {"a": -cut, "b": cut, "bounds": "sigma", "seed": 0}
        plain = float(wi.init.trunc_normal_(values, **cuts).std())
        full = float(wi.init.trunc_normal_(values, **cuts, compensate=True).std())
        found[cut] = plain, full, computed(cut)
    return found


def show(found: Found) -> None:
    for cut, (plain, full, exact) in found.items():
        print(f"cut at {cut} sigma: std {plain:.4f} (exact {exact:.4f}), compensated {full:.4f}")


def draw(found: Found) -> Figure:
    figure, [plot] = axes(1, 2.4)
    fine = [0.3 + 0.05 * n for n in range(80)]
    plot.plot(fine, [computed(cut) for cut in fine], "-", label="formula")
    plot.plot(list(found), [one[0] for one in found.values()], "o", color="C0", label="trunc_normal_, measured")
    plot.plot(list(found), [one[1] for one in found.values()], "s", color="C2", label="with compensate=True")
    plot.set(xlabel="cut at so many sigma", ylabel="standard deviation / std", ylim=(0, 1.1))
    plot.legend()
    return figure


if __name__ == "__main__":
    run("10_details", measure, draw, show)
