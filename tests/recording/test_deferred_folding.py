"""Which distribution a piece of a model's code means, and what must hold between tensors that share draws.

``FOLDED`` says what code folds into, ``NOT_FOLDED`` what must be replayed. Values are compared with the line alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from recorded import drawn, lines, made
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda.numerics.distributions import (
    Computed,
    Constant,
    Normal,
    OneHot,
    Orthogonal,
    SparseNormal,
    TruncNormal,
    Uniform,
)
from weightinit_cuda.tensors.boxes import Box

# ---- which distribution a piece of code means -------------------------------------------------------------------------


def timm_trunc_normal(w: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Tensor:
    """timm's chain (timm/layers/weight_init.py), which truncated normals were before torch had its own."""

    def cdf(x: float) -> float:
        return (1.0 + math.erf(x / math.sqrt(2.0))) / 2.0

    low, high = cdf((a - mean) / std), cdf((b - mean) / std)
    return w.uniform_(2 * low - 1, 2 * high - 1).erfinv_().mul_(std * math.sqrt(2.0)).add_(mean).clamp_(min=a, max=b)


def orthogonal_slices() -> Tensor:
    w = torch.empty(8, 4)
    for part in w.chunk(2):
        nn.init.orthogonal_(part)
    return w


def fused() -> Tensor:
    w = torch.empty(12, 4)
    q, k, v = w.chunk(3)
    nn.init.normal_(q, std=0.1)
    nn.init.zeros_(k)
    v.copy_(torch.rand(4, 4) - 0.5)
    return w


def experts() -> Tensor:
    w = torch.empty(5, 4, 2)
    for expert in w:
        nn.init.trunc_normal_(expert, std=0.1)
    return w


ROWS = lambda n, m=4, at=0: Box((at, 0), (n, m))  # noqa: E731
FOLDED: dict[str, tuple[Callable[[], Tensor], list[Any]]] = {
    "normal_": (lambda: torch.empty(4, 4).normal_(0.5, 0.2), [(Normal(0.5, 0.2), None)]),
    "randn scaled": (lambda: torch.randn(4, 4) * 0.02, [(Normal(0.0, 0.02), None)]),
    "scaled by a tensor": (lambda: torch.tensor(0.5) * torch.randn(4), [(Normal(0.0, 0.5), None)]),
    "divided": (lambda: torch.randn(4, 4).div_(math.sqrt(16.0)), [(Normal(0.0, 0.25), None)]),
    "rand on an interval": (lambda: torch.rand(4) * 0.2 - 0.1, [(Uniform(-0.1, 0.1), None)]),
    "rand, dead first": (lambda: nn.init.normal_(nn.init.uniform_(torch.ones(4)), std=3.0), [(Normal(0.0, 3.0), None)]),
    "rand_like, cast": (lambda: torch.rand_like(torch.ones(4)).to(torch.bfloat16), [(Uniform(0.0, 1.0), None)]),
    "drawn over what is computed": (lambda: torch.arange(4.0).cos().normal_() * 2, [(Normal(0.0, 2.0), None)]),
    "torch.normal": (lambda: torch.normal(1.0, 2.0, (4,)), [(Normal(1.0, 2.0), None)]),
    "clone of a transpose": (lambda: torch.randn(4, 2).t().contiguous(), [(Normal(0.0, 1.0), None)]),
    "flat": (lambda: torch.empty(4, 4).view(-1).normal_().view(4, 4), [(Normal(0.0, 1.0), None)]),
    "trunc_normal_": (
        lambda: nn.init.trunc_normal_(torch.empty(4), std=0.02, a=-0.04, b=0.04),
        [(TruncNormal(0.0, 0.02, -0.04, 0.04), None)],
    ),
    "truncated in sigmas": (
        lambda: nn.init.trunc_normal_(torch.empty(4)).mul_(0.02).add_(1.0),
        [(TruncNormal(1.0, 0.02, 0.96, 1.04), None)],
    ),
    "timm": (lambda: timm_trunc_normal(torch.empty(4)), [(TruncNormal(0.0, 1.0, -2.0, 2.0), None)]),
    "timm, 100 sigmas": (lambda: timm_trunc_normal(torch.empty(4), std=0.02), [(TruncNormal(0.0, 0.02, -2.0, 2.0), None)]),
    "timm, skew": (
        lambda: timm_trunc_normal(torch.empty(4), 0.1, 0.5, -0.3, 1.5),
        [(TruncNormal(0.1, 0.5, -0.3, 1.5), None)],
    ),
    "timm, rescaled": (
        lambda: timm_trunc_normal(torch.empty(4), std=0.02).div_(math.sqrt(2.0 * 8)),
        [(TruncNormal(0.0, 0.005, -0.5, 0.5), None)],
    ),
    "timm, odd numbers": (
        lambda: timm_trunc_normal(torch.empty(4), 0.3, 0.07, -0.1, 0.41),
        [(TruncNormal(0.3, 0.07, -0.1, 0.41), None)],
    ),
    "timm, one tail": (
        lambda: timm_trunc_normal(torch.empty(4), 0.0, 0.013, 0.011, 0.017),
        [(TruncNormal(0.0, 0.013, 0.011, 0.017), None)],
    ),
    "views in place": (lambda: torch.randn(4).unsqueeze_(0).t_().squeeze_(), [(Normal(0.0, 1.0), None)]),
    "clamp that cuts nothing": (lambda: torch.rand(4).clamp_(0, 1), [(Uniform(0.0, 1.0), None)]),
    "a row": (
        lambda: torch.randn(4, 4).index_fill(0, torch.tensor([], dtype=torch.long), 0),
        [(Computed("index_fill"), None)],
    ),
    "padding row": (
        lambda: nn.Embedding(5, 4, padding_idx=3).weight.data,
        [(Normal(0.0, 1.0), None), (Constant(0.0), ROWS(1, at=3))],
    ),
    "first rows scaled": (
        lambda: scaled_rows(),
        [(Normal(0.0, 1.0), None), (Normal(0.0, 0.5), ROWS(2))],
    ),
    "fused": (fused, [(Normal(0.0, 0.1), ROWS(4)), (Constant(0.0), ROWS(4, at=4)), (Uniform(-0.5, 0.5), ROWS(4, at=8))]),
    "experts": (experts, [(TruncNormal(0.0, 0.1, -2.0, 2.0), None)]),
    "a generator": (lambda: torch.randn(4, generator=torch.Generator()), [(Computed("given values"), None)]),
    "a generator of init": (
        lambda: nn.init.uniform_(torch.empty(4), generator=torch.Generator()),
        [(Computed("given values"), None)],
    ),
    "orthogonal_": (lambda: nn.init.orthogonal_(torch.empty(4, 4), gain=2.0), [(Orthogonal(2.0), None)]),
    "orthogonal_ scaled": (lambda: nn.init.orthogonal_(torch.empty(4, 4)) * 0.5, [(Orthogonal(0.5), None)]),
    "eye_": (lambda: nn.init.eye_(torch.empty(3, 4)), [(OneHot(1.0, 4, 3, 3, 0, 1), None)]),
    "dirac_": (lambda: nn.init.dirac_(torch.empty(2, 2, 3)), [(OneHot(1.0, 6, 2, 2, 1, 3), None)]),
    "sparse_": (lambda: nn.init.sparse_(torch.empty(10, 4), 0.3), [(SparseNormal(10, 3, 0.01), None)]),
    "constants": (lambda: torch.ones(4).mul(0.5), [(Constant(0.5), None)]),
    "zeros where nothing is left": (lambda: torch.randn(4).mul_(0), [(Constant(0.0), None)]),
    "parameter of data": (lambda: torch.zeros(4).copy_(torch.randn(4)), [(Normal(0.0, 1.0), None)]),
    "xavier": (
        lambda: nn.init.xavier_uniform_(torch.empty(2, 4)),
        [(Uniform(*(s * math.sqrt(3.0) * math.sqrt(2.0 / 6.0) for s in (-1, 1))), None)],
    ),
}


def scaled_rows() -> Tensor:
    w = torch.randn(4, 4)
    w[:2] *= 0.5
    return w


@pytest.mark.parametrize("name", FOLDED)
def test_code_folds_into_a_distribution(name: str) -> None:
    make, expected = FOLDED[name]
    assert lines(make) == expected


WHOLE = {name: found[0][0] for name, (_, found) in FOLDED.items() if len(found) == 1 and found[0][1] is None}
DRAWN = [name for name, distribution in WHOLE.items() if not isinstance(distribution, Computed | Orthogonal)]


@pytest.mark.parametrize("name", DRAWN)
def test_values_are_the_lines(name: str) -> None:
    """Folded or not: what is materialised is what the distribution gives under the name's stream."""
    make, [(distribution, _)] = FOLDED[name]
    w = made(make).w
    assert torch.equal(w, drawn(distribution, w.shape, dtype=w.dtype))


NOT_FOLDED: dict[str, Callable[[], Tensor]] = {
    "negated": lambda: -torch.rand(50),
    "clamped within": lambda: torch.randn(50).clamp_(-1, 1),
    "exp": lambda: torch.randn(50).exp_(),
    "sum of draws": lambda: torch.randn(50) + torch.randn(50),
    "masked": lambda: torch.randn(50) * (torch.arange(50) > 20),
    "product": lambda: torch.randn(5, 5) @ torch.randn(5, 10),
    "every second": lambda: torch.zeros(50)[::2].normal_(),
    "diagonal": lambda: torch.randn(7, 7).fill_diagonal_(0),
    "weight norm": lambda: torch.nn.functional.normalize(torch.randn(5, 10)),
    "exponential_": lambda: torch.empty(50).exponential_(),
    "bernoulli": lambda: torch.bernoulli(torch.full((50,), 0.5)),
    "randperm": lambda: torch.randperm(50),
    "randint": lambda: torch.randint(0, 9, (50,)),
    "dropout": lambda: torch.nn.functional.dropout(torch.ones(50)),
    "orthogonal slices": orthogonal_slices,
    "turned matrix": lambda: nn.init.dirac_(torch.empty(4, 4, 3)).permute(2, 0, 1).contiguous(),
    "sorted": lambda: torch.randn(50).sort().values,
    "double of ints": lambda: torch.rand(50).mul(10).to(torch.int64),
}


@pytest.mark.parametrize("name", NOT_FOLDED)
def test_the_rest_is_replayed_from_the_seed(name: str) -> None:
    assert all(isinstance(distribution, Computed) for distribution, _ in lines(NOT_FOLDED[name]))
    torch.manual_seed(1)
    one = made(NOT_FOLDED[name], seed=5).w
    torch.manual_seed(2)
    assert torch.equal(one, made(NOT_FOLDED[name], seed=5).w)
    if name != "turned matrix":
        assert not torch.equal(one, made(NOT_FOLDED[name], seed=6).w)


def test_orthogonal_slices_are_orthogonal() -> None:
    w = made(orthogonal_slices).w
    for part in w.chunk(2):
        torch.testing.assert_close(part @ part.T, torch.eye(4), rtol=0, atol=1e-5)
    assert not torch.equal(*w.chunk(2))


def test_a_draw_that_is_replayed_has_the_plans_numbers() -> None:
    """b is computed from the values that a has."""

    def make() -> dict[str, Tensor]:
        a = torch.randn(6, 4)
        fused = torch.zeros(8, 6)
        fused[2:, 1:5] = a
        return {"a": a, "b": a.exp(), "c": a[1:3].clone(), "d": a.clone(), "e": a * 0.5, "f": a.t().clone(), "g": fused}

    holder = made(make, seed=9)
    assert torch.equal(holder.a, drawn(Normal(0.0, 1.0), (6, 4), "a", seed=9))
    assert torch.equal(holder.g[2:, 1:5], holder.a)
    assert holder.g.count_nonzero() == 24
    assert torch.equal(holder.b, holder.a.exp())
    assert torch.equal(holder.c, holder.a[1:3])
    assert torch.equal(holder.d, holder.a)
    torch.testing.assert_close(holder.e, holder.a * 0.5)
    assert torch.equal(holder.f, holder.a.t())


def test_draws_that_lie_in_a_larger_tensor() -> None:
    """Who replays them finds them by their place in it, also where they were drawn elsewhere, or in another order."""

    def make() -> dict[str, Tensor]:
        q, w = torch.randn(4, 3), torch.zeros(9, 3)
        w[4:8] = q
        direct = torch.zeros(6, 4)
        direct[1:4].normal_()
        square = torch.randn(4, 4)
        turned = square.t().clone()
        return {"w": w, "q": q.exp(), "x": direct, "y": direct[1:4].exp(), "s": square, "t": turned, "p": square.exp()}

    holder = made(make)
    assert torch.equal(holder.w[4:8], drawn(Normal(0.0, 1.0), (9, 3))[4:8])
    assert torch.equal(holder.q, holder.w[4:8].exp())
    assert torch.equal(holder.x[1:4], drawn(Normal(0.0, 1.0), (6, 4), "x")[1:4])
    assert torch.equal(holder.y, holder.x[1:4].exp())
    assert torch.equal(holder.t, holder.s.t())
    assert torch.equal(holder.p, holder.s.exp())


def test_a_norm_is_the_norm_of_its_weight() -> None:
    with wi.deferred() as recording:
        net = nn.utils.parametrizations.weight_norm(nn.Linear(6, 5))
    recording.materialize_(net)
    g, v = net.parametrizations.weight.original0, net.parametrizations.weight.original1
    torch.testing.assert_close(g, v.norm(dim=1, keepdim=True))


def test_chunks_of_one_draw() -> None:
    """Each has its own name's stream, unless somebody else knows the whole draw."""
    alone = made(lambda: dict(zip("ab", torch.randn(8, 4).chunk(2), strict=True)))
    assert torch.equal(alone.b, drawn(Normal(0.0, 1.0), (4, 4), "b"))

    def make() -> dict[str, Tensor]:
        whole = torch.randn(8, 4)
        a, b = whole.chunk(2)
        return {"a": a, "b": b, "norm": whole.norm()}

    known = made(make)
    torch.testing.assert_close(known.norm, torch.cat([known.a, known.b]).norm())


def test_parts_keep_the_words_of_their_indices() -> None:
    """A row that is scaled keeps its random numbers; one that is drawn again shares none with another row."""
    w = made(scaled_rows).w
    assert torch.equal(w[2:], drawn(Normal(0.0, 1.0), (4, 4))[2:])
    assert torch.equal(w[:2], drawn(Normal(0.0, 0.5), (4, 4))[:2])
    w = made(fused).w
    assert torch.equal(w[8:], drawn(Uniform(-0.5, 0.5), (12, 4))[8:])
    assert len(set(w[w != 0].tolist())) == 32


def test_deep_copies_are_equal() -> None:
    with wi.deferred() as recording:
        layer = nn.Embedding(6, 4, padding_idx=1)
        net = nn.ModuleList(copy.deepcopy(layer) for _ in range(3))
        net.append(nn.Embedding(6, 4, padding_idx=1))
    recording.materialize_(net)
    assert torch.equal(net[0].weight, net[2].weight)
    assert not net[0].weight[1].any()
    assert net[0].weight[0].any()
    assert not torch.equal(net[0].weight, net[3].weight)


def test_asked_values_stay() -> None:
    """What Python has seen of a random tensor is what it will hold; it comes from torch's generator."""
    seen: list[float] = []

    def make() -> dict[str, Tensor]:
        w = torch.randn(5)
        seen[:] = w.tolist()
        return {"w": w, "twice": w * 2}

    torch.manual_seed(0)
    holder = made(make, seed=1)
    assert holder.w.tolist() == seen
    assert torch.equal(holder.twice, holder.w * 2)
    first = list(seen)
    torch.manual_seed(0)
    assert made(make, seed=2).w.tolist() == first


def test_asking_for_constants_changes_nothing() -> None:
    def make() -> Tensor:
        w = torch.ones(4)
        assert w.sum().item() == 4
        return w.mul_(0.5)

    assert lines(make) == [(Constant(0.5), None)]


def test_other_parameters_do_not_matter() -> None:
    """Names decide: a layer more changes nothing else, folded or replayed."""

    def make(more: bool) -> dict[str, Tensor]:
        first = {"z": torch.randn(3).exp(), "y": torch.randn(4)} if more else {}
        return {**first, "a": torch.randn(5).exp(), "b": torch.rand(5)}

    one, two = made(lambda: make(False)), made(lambda: make(True))
    assert torch.equal(one.a, two.a)
    assert torch.equal(one.b, two.b)
    assert not torch.equal(two.z, two.a[:3])
