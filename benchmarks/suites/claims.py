"""Suite ``claims``: what papers say about initialisation, measured again. Not times: each claim with its source, what should
come out, what does here, and whether that agrees.

Small nets, fixed seeds, one thread, plain SGD unless a line says otherwise. Digits are scikit-learn's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import weightinit_cuda as wi

__all__ = ["CLAIMS", "Claim", "Measured", "measure"]

Measured = tuple[str, bool]  # in words, and whether it is what was expected
Data = tuple[Tensor, Tensor]


class Claim(NamedTuple):
    """What a paper says.

    Args:
        says: the claim.
        source: the paper.
        expected: what should come out.
        check: measures it.
    """

    says: str
    source: str
    expected: str
    check: Callable[[], Measured]


def measure(claims: Sequence[Claim]) -> Iterator[dict[str, Any]]:
    """Each claim with what was measured and the seconds of CPU that it took."""
    for claim in claims:
        with _one_thread():
            before = time.process_time()
            words, holds = claim.check()
            seconds = time.process_time() - before
        yield {
            "claim": claim.says,
            "source": claim.source,
            "expected": claim.expected,
            "measured": words,
            "holds": holds,
            "seconds": round(seconds, 1),
        }


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            yield
    finally:
        torch.set_num_threads(threads)


# ---- nets and data -----------------------------------------------------------------------------------------------------


def _mlp(depth: int, width: int, activation: Callable[[], nn.Module], inputs: int = 64, outputs: int = 10) -> nn.Sequential:
    sizes = [inputs] + [width] * depth
    layers = [module for a, b in pairwise(sizes) for module in (nn.Linear(a, b), activation())]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def _digits() -> Data:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped,import-not-found,unused-ignore]

    found = load_digits()
    return torch.tensor(found.data, dtype=torch.float32) / 16, torch.tensor(found.target)


def _loss_after(net: nn.Module, steps: int, rate: float, batch: int = 64) -> float:
    """Of all digits, after steps of SGD."""
    images, classes = _digits()
    optimizer, generator = torch.optim.SGD(net.parameters(), rate), torch.Generator().manual_seed(0)
    for _ in range(steps):
        some = torch.randint(len(images), (batch,), generator=generator)
        loss = F.cross_entropy(net(images[some]), classes[some])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    with torch.no_grad():
        return float(F.cross_entropy(net(images), classes))


def _filled(net: nn.Module, function: str, **params: float) -> nn.Module:
    return wi.initialize_(net, [wi.Rule("*.weight", function, **params), wi.Rule("*.bias", "zeros_")], seed=0)


def _normal(*shape: int, seed: int = 1) -> Tensor:
    return wi.init.normal_(torch.empty(shape), seed=seed)


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of ln y against ln x."""
    a, b = (torch.tensor(values, dtype=torch.float64).log() for values in (x, y))
    return float(((a - a.mean()) * (b - b.mean())).sum() / (a - a.mean()).square().sum())


# ---- variance ----------------------------------------------------------------------------------------------------------


def _glorot() -> Measured:
    """Tanh nets in their linear part, 5 layers of 1000."""
    found = []
    for function, params in (("variance_scaling_", {"scale": 1 / 3, "distribution": "uniform"}), ("xavier_uniform_", {})):
        net = wi.initialize_(
            nn.Sequential(*(nn.Linear(1000, 1000, bias=False) for _ in range(5))), wi.Rule("*", function, **params), seed=0
        )
        x, at = 0.01 * _normal(64, 1000), list[Tensor]()
        for layer in net:
            x = torch.tanh(layer(x.detach().requires_grad_() if not at else x))
            x.retain_grad()
            at.append(x)
        torch.autograd.backward((x * _normal(64, 1000, seed=2)).sum())
        forward = float(at[-1].detach().var() / at[0].detach().var()) ** 0.25
        back = float(_gradient(at[0]) / _gradient(at[-1])) ** 0.25
        found.append((forward, back))
    (forward, back), (kept, kept_back) = found
    holds = all(abs(value - 1 / 3) < 0.02 for value in (forward, back)) and all(abs(v - 1) < 0.06 for v in (kept, kept_back))
    return f"{forward:.3f} forward, {back:.3f} back; normalised {kept:.3f}, {kept_back:.3f}", holds


def _gradient(x: Tensor) -> Tensor:
    assert x.grad is not None
    return x.grad.var()


def _cut_normal() -> Measured:
    w = torch.empty(4_000_000)
    plain, full = (float(wi.init.trunc_normal_(w, seed=0, compensate=way).std()) for way in (False, True))
    return f"{plain:.4f}; compensated {full:.4f}", abs(plain - 0.8796) < 1e-3 and abs(full - 1) < 1e-3


def _selu() -> Measured:
    net = _filled(_mlp(100, 256, nn.SELU, 256), "lecun_normal_")
    with torch.no_grad():
        variance = float(net[:-1](_normal(256, 256)).var())  # type: ignore[index]
    return f"{variance:.3f}", abs(variance - 1) < 0.15


def _mean_field() -> Measured:
    """A tanh layer of width 2000 at the fixed point of its variance."""
    q, chi = wi.rules.mean_field("tanh", gain=2.0)
    x = math.sqrt(q) * _normal(32, 2000)
    qs, chis = [], []
    for layer in range(5):
        w = wi.init.normal_(torch.empty(2000, 2000), std=2 / math.sqrt(2000), seed=layer)
        x = x.detach().requires_grad_()
        y = torch.tanh(x) @ w.T
        [g] = torch.autograd.grad(y, x, _normal(32, 2000, seed=layer + 10))
        qs.append(float(y.detach().square().mean()))
        chis.append(float(g.square().mean()))
        x = y
    mean_q, mean_chi = sum(qs) / 5, sum(chis) / 5
    holds = abs(mean_q / q - 1) < 0.03 and abs(mean_chi / chi - 1) < 0.03
    return f"q* {mean_q:.3f} ({q:.3f}), chi {mean_chi:.3f} ({chi:.3f})", holds


def _jacobian() -> Measured:
    product = torch.eye(800)
    for layer in range(8):
        product = wi.init.normal_(torch.empty(800, 800), std=800**-0.5, seed=layer) @ product
    largest = float(torch.linalg.matrix_norm(product, 2)) ** 2
    return f"largest squared singular value {largest:.1f}", abs(largest / (9**9 / 8**8) - 1) < 0.1


# ---- residual nets and width -------------------------------------------------------------------------------------------


class _Branch(nn.Module):
    def __init__(self, width: int, normed: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False) if normed else nn.Identity()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.down(F.relu(self.up(self.norm(x))))
        return x + added


def _gpt2() -> Measured:
    """Growth of a stream with pre-norm branches, by their number n: its exponent."""
    depths = (2, 4, 8, 16, 32, 64)
    exponents = []
    for by_depth in (False, True):
        grown = []
        for depth in depths:
            net = nn.Sequential(*(_Branch(64, normed=True) for _ in range(depth)))
            wi.initialize_(net, wi.rules.gpt2(std=0.1, layers=None if by_depth else 1), seed=0)
            if not by_depth:
                wi.initialize_(net, [wi.Rule("*.weight", "normal_", std=0.1), wi.Rule("*.bias", "zeros_")], seed=0)
            x = _normal(64, 64)
            with torch.no_grad():
                grown.append(float((net(x) - x).square().mean().sqrt()))
        exponents.append(_slope(depths, grown))
    plain, scaled = exponents
    return f"{plain:.3f}, with 1/sqrt(n) {scaled:.3f}", abs(plain - 0.5) < 0.05 and abs(scaled) < 0.05


def _he_residual() -> Measured:
    x, factors = _normal(256, 256), list[float]()
    with torch.no_grad():
        for block in range(10):
            branch = _Branch(256, normed=False)
            rules: list[wi.rules.Rules] = [wi.Rule("up.weight", "kaiming_normal_"), "lecun"]
            after = wi.initialize_(branch, rules, seed=block)(x)
            factors.append(float(after.square().mean() / x.square().mean()))
            x = after
    mean = math.exp(sum(map(math.log, factors)) / len(factors))
    return f"x {min(factors):.2f} to {max(factors):.2f} a block, x {mean:.2f} in the mean", abs(mean - 2) < 0.2


def _mup() -> Measured:
    images, classes = _digits()

    def net(width: int) -> nn.Module:
        return _mlp(3, width, nn.ReLU)

    def standard(width: int) -> nn.Module:
        return wi.initialize_(net(width), "lecun")

    def scaled(width: int) -> nn.Module:
        return wi.initialize_(net(width), wi.rules.mup(net(64), "lecun"))

    def adam(made: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(made.parameters(), 0.01)

    def adam_by_width(made: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(wi.rules.mup_groups(made, net(64), 0.01))

    found = []
    for make, optimizer in ((standard, adam), (scaled, adam_by_width)):
        check = wi.coordinate_check(make, (64, 128, 256, 512, 1024), images[:64], target=classes[:64], optimizer=optimizer)
        found.append(list(check.exponents.values())[-1])
    return f"{found[0]:.2f}, with muP {found[1]:.2f}", found[0] > 0.5 and abs(found[1]) < 0.15


# ---- training ----------------------------------------------------------------------------------------------------------


def _he() -> Measured:
    losses = [_loss_after(wi.initialize_(_mlp(30, 64, nn.ReLU), rules, seed=0), 600, 0.01) for rules in ("xavier", "kaiming")]
    return f"Xavier {losses[0]:.3f}, Kaiming {losses[1]:.3f}", losses[0] > 2.2 and losses[1] < 1.5


def _kumar() -> Measured:
    losses = [
        _loss_after(_filled(_mlp(10, 100, nn.Sigmoid), "variance_scaling_", scale=gain**2), 1000, 0.5) for gain in (1, 3.6, 8)
    ]
    words = ", ".join(f"{gain:g}/sqrt n {loss:.3f}" for gain, loss in zip((1, 3.6, 8), losses, strict=True))
    return words, losses[0] > 2.2 and losses[2] < losses[1] + 1e-3 < losses[0] and losses[2] < 1


def _saxe() -> Measured:
    """Deep linear nets on digits: steps to half of the first loss, at the best of four rates; - is none of 200."""
    images, classes = _digits()
    x, y = images[:256] - images[:256].mean(0), F.one_hot(classes[:256], 64).float()
    found = {}
    for function in ("orthogonal_", "lecun_normal_"):
        found[function] = [
            min(_linear_steps(depth, function, rate, x, y) for rate in (0.3, 1.0, 3.0, 10.0)) for depth in (4, 16, 64)
        ]
    shown = {name: ", ".join("-" if n > 200 else str(n) for n in steps) for name, steps in found.items()}
    orthogonal, gaussian = found.values()
    holds = max(orthogonal) < 5 * min(orthogonal) and gaussian[2] > 200
    return f"orthogonal {shown['orthogonal_']}; Gaussian {shown['lecun_normal_']}", holds


def _linear_steps(depth: int, function: str, rate: float, x: Tensor, y: Tensor) -> int:
    net = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(depth)))
    wi.initialize_(net, wi.Rule("*", function), seed=0)
    goal = 0.0
    for step in range(201):
        loss = (net(x) - y).square().sum(1).mean()
        goal = goal or float(y.square().sum(1).mean()) / 2
        if loss.item() < goal:
            return step
        if not math.isfinite(loss.item()):
            break
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter.sub_(gradient, alpha=rate / depth)
    return 201


def _lsuv() -> Measured:
    images, _ = _digits()
    losses = {}
    for name, activation, per_unit in (
        ("ReLU", nn.ReLU, False),
        ("tanh", nn.Tanh, False),
        ("sigmoid", nn.Sigmoid, False),
        ("sigmoid, by unit", nn.Sigmoid, True),
    ):
        net = _mlp(10, 64, activation)
        wi.data_dependent_(net, images[:256], seed=0, per_unit=per_unit)
        losses[name] = _loss_after(net, 600, 0.1)
    holds = max(losses["ReLU"], losses["tanh"], losses["sigmoid, by unit"]) < 1 and losses["sigmoid"] > 2.2
    return ", ".join(f"{name} {loss:.2f}" for name, loss in losses.items()), holds


CLAIMS = (
    Claim(
        "weights U(±1/√n) divide the variance by 3 in each layer, the normalised ones keep it",
        "Glorot and Bengio (2010)",
        "1/3; 1",
        _glorot,
    ),
    Claim("a normal cut at two sigma has a standard deviation of", "Burkardt (2014)", "0.8796; 1", _cut_normal),
    Claim(
        "a ReLU net of 30 layers trains from Kaiming's weights and not from Xavier's", "He et al. (2015)", "2.30; falls", _he
    ),
    Claim("deep sigmoid nets want weights of 3.6/√n, not 1/√n", "Kumar (2017)", "2.30; falls; falls more", _kumar),
    Claim(
        "deep linear nets of orthogonal matrices train in steps that hardly depend on depth (4, 16, 64)",
        "Saxe et al. (2013)",
        "nearly the same; never when deep",
        _saxe,
    ),
    Claim(
        "one factor for each layer, from data, is enough",
        "Mishkin and Matas (2016)",
        "all train; here not behind sigmoids",
        _lsuv,
    ),
    Claim(
        "variance and gradient of tanh nets at gain 2",
        "Poole et al. (2016), Schoenholz et al. (2017)",
        "as computed, in brackets",
        _mean_field,
    ),
    Claim("SELU nets of 100 layers keep a variance of 1", "Klambauer et al. (2017)", "1", _selu),
    Claim(
        "the product of 8 Gaussian matrices: its largest squared singular value tends to 9⁹/8⁸",
        "Penson and Życzkowski (2011)",
        "23.1",
        _jacobian,
    ),
    Claim(
        "a residual stream grows with the root of the number of branches, and not if they are scaled",
        "Radford et al. (2019)",
        "0.5, 0",
        _gpt2,
    ),
    Claim(
        "residual branches that keep their input's variance, without norms, double the variance in each block",
        "Zhang et al. (2019)",
        "x 2",
        _he_residual,
    ),
    Claim(
        "the change of logits grows with the width under one rate for all, and not under muP: its exponent",
        "Yang et al. (2022)",
        "> 0, 0",
        _mup,
    ),
)
