"""``deferred()``: what code does to its tensors is recorded, folded into distributions, and happens at materialisation.

``SAME`` compares with eager code bit for bit where nothing is random; ``FOLDED`` says which distribution a piece of code means;
``RELATED`` says what must hold between tensors that share draws. The clients are in ``test_deferred_clients``.
"""

from __future__ import annotations

import copy
import math
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda import engine, patching
from weightinit_cuda.boxes import Box
from weightinit_cuda.distributions import Computed, Constant, Normal, OneHot, Orthogonal, SparseNormal, TruncNormal, Uniform
from weightinit_cuda.streams import stream_of


class Holder(nn.Module):
    """A module of what a function makes: one tensor, or several by name."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        made = make()
        for name, tensor in (made if isinstance(made, dict) else {"w": made}).items():
            self.register_buffer(name, tensor)


def recorded(make: Callable[[], Any]) -> tuple[wi.Recording, Any]:
    with wi.deferred() as recording:
        holder = Holder(make)
    return recording, holder


def lines(make: Callable[[], Any], name: str = "w") -> list[Any]:
    recording, holder = recorded(make)
    return [(line.distribution, line.box) for line in recording.plan(holder)[name]]


def made(make: Callable[[], Any], seed: int = 0, **rest: Any) -> Any:
    recording, holder = recorded(make)
    recording.materialize_(holder, seed=seed, **rest)
    assert not any(b.is_meta for b in holder.buffers())
    return holder


def drawn(distribution: Any, shape: Any, name: str = "w", dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """What the plan's line alone gives."""
    tensor = torch.empty(shape, dtype=dtype)
    engine.fill([wi.FillJob(tensor, distribution, seed, stream_of(name))])
    return tensor


@pytest.fixture(autouse=True)
def nothing_left() -> Any:
    before = (
        list(vars(Tensor)),
        dict(vars(nn.init)),
        patching._users,
        patching._tapes,
        len(nn.modules.module._global_parameter_registration_hooks),
    )
    yield
    assert before == (
        list(vars(Tensor)),
        dict(vars(nn.init)),
        patching._users,
        patching._tapes,
        len(nn.modules.module._global_parameter_registration_hooks),
    )
    assert torch._C._len_torch_dispatch_stack() == 0


# ---- what is not random is what eager code makes ----------------------------------------------------------------------


def embed(tensor: Tensor) -> Tensor:
    """A sinusoidal table, as many models write it."""
    position = torch.arange(tensor.shape[0])[:, None]
    rate = torch.exp(torch.arange(0, tensor.shape[1], 2) * (-math.log(10000.0) / tensor.shape[1]))
    tensor[:, 0::2] = torch.sin(position * rate)
    tensor[:, 1::2] = torch.cos(position * rate)
    return tensor


def asked() -> Tensor:
    """Code that wants values."""
    x = torch.linspace(0, 1, 5)
    rates = [v.item() for v in x]
    answers = [bool((x >= 0).all()), float(x[1]) == 0.25, x.tolist() == rates, len(torch.nonzero(x)) == 4, 0.5 in x]
    answers += [torch.equal(x, x.clone()), torch.allclose(x, x + 1e-9), int(x.sum()) == 2, np.asarray(x)[2] == 0.5]
    answers += [x[x > 0.3].shape == (3,), x.cpu().numpy().sum() == 2.5, round(x[1].item(), 1) == 0.2]
    assert all(answers)
    return torch.tensor(rates) * torch.unique(torch.tensor([2, 2, 3])).shape[0]


def masked() -> Tensor:
    x = torch.zeros(3, 4)
    x[torch.eye(3, 4, dtype=torch.bool)] = 2.0
    x.masked_fill_(x == 0, -1)
    return x


def from_numpy() -> Tensor:
    x = torch.from_numpy(np.arange(6.0, dtype=np.float32).reshape(2, 3))
    y = torch.zeros(2, 3)
    y += x
    y.copy_(x[:, :1] + y)
    return torch.cat([y, x], 1)


OUTSIDE = torch.tensor([3, 4])


def of_outside() -> Tensor:
    """What was there before goes where the parameters are."""
    w = torch.zeros(2)
    return OUTSIDE.to(w.device) * 2 + torch.ones(2, device=w.device)


def forward_pass() -> dict[str, Tensor]:
    """Models run themselves once to learn their sizes; batch norms count that."""
    norm = nn.BatchNorm1d(3)
    width = nn.Flatten()(norm(torch.arange(12.0).view(4, 3))).shape[1]
    return {**dict(norm.named_buffers()), "width": torch.zeros(width)}


def rewritten() -> Tensor:
    x = torch.ones(4)
    y = x * 2
    x.fill_(7)  # y has seen the ones
    y[1:] += x[1:]
    return y


SAME: dict[str, Callable[[], Any]] = {
    "sinusoids": lambda: embed(torch.zeros(6, 8)),
    "sinusoids in empty": lambda: embed(torch.empty(6, 8)),
    "causal mask": lambda: torch.full((5, 5), float("-inf")).triu(1),
    "tril bool": lambda: torch.tril(torch.ones(5, 5, dtype=torch.bool)).view(1, 1, 5, 5),
    "arange": lambda: torch.arange(5).expand((1, -1)),
    "eye": lambda: torch.eye(3, 4),
    "data": lambda: torch.tensor([[1, 2], [3, 4]]),
    "scalar": lambda: torch.tensor(2.6592),
    "int scalar": lambda: torch.tensor(7, dtype=torch.int64),
    "bool": lambda: torch.zeros(3, dtype=torch.bool).logical_not(),
    "asked": asked,
    "masked": masked,
    "numpy": from_numpy,
    "rewritten": rewritten,
    "of outside": of_outside,
    "forward pass": forward_pass,
    "sparse": lambda: torch.sparse_coo_tensor(torch.tensor([[0, 1], [1, 0]]), torch.tensor([1.0, 2.0]), (2, 2)).to_dense(),
    "rows": lambda: numbered_rows(400),
    "legacy": lambda: torch.Tensor([1.0, 2.0]).mul(3),
    "out": lambda: torch.add(torch.ones(3), 2, out=torch.empty(3)),
    "foreach": lambda: torch._foreach_add([torch.ones(3), torch.ones(2)], 1.5)[0],
    "half": lambda: torch.full((3,), 0.1).half() * 3,
    "complex": lambda: torch.polar(torch.ones(4), torch.arange(4.0)),
    "conj": lambda: torch.polar(torch.ones(4), torch.arange(4.0)).conj(),
    "chunks": lambda: dict(zip("abc", torch.arange(12.0).chunk(3), strict=True)),
    "transposed": lambda: torch.arange(6.0).view(2, 3).t(),
    "channels last": lambda: torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last),
    "resized": lambda: torch.arange(6.0).resize_(2, 2),
    "set": lambda: torch.empty(3).set_(torch.arange(4.0)),
    "linalg": lambda: torch.linalg.qr(torch.arange(9.0).view(3, 3) + torch.eye(3)).Q,
    "cholesky": lambda: torch.linalg.cholesky(torch.eye(3) * 2 + 0.5),
    "constants": lambda: torch.ones(3).mul(0.3).add_(torch.full((3,), 0.1)).exp().div(3),
    "integers": lambda: torch.full((3,), 2**60),
    "nan": lambda: torch.full((3,), float("nan")).nan_to_num(5.0),
    "empty": lambda: torch.empty(0, 3),
    "concatenated": lambda: torch.cat([torch.zeros(2), torch.ones(0), torch.ones(2)]),
    "default dtype": lambda: torch.arange(3) / 7,
    "repeat": lambda: torch.arange(3).repeat_interleave(torch.tensor([1, 2, 3])),
    "bits": lambda: torch.tensor([1.5, 2.5]).view(torch.int32) + 1,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SAME)
def test_what_is_not_random_is_eagers(name: str, dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    try:
        if dtype == torch.bfloat16 and name in ("asked", "numpy", "complex", "conj", "linalg", "cholesky", "bits"):
            pytest.skip("torch has none of it in bfloat16")
        expected = SAME[name]()
        recording, holder = recorded(SAME[name])
    finally:
        torch.set_default_dtype(torch.float32)
    recording.materialize_(holder)
    for key, tensor in (expected if isinstance(expected, dict) else {"w": expected}).items():
        ours = getattr(holder, key)
        assert ours.dtype == tensor.dtype
        assert ours.stride() == tensor.stride()
        torch.testing.assert_close(ours, tensor, rtol=0, atol=0, equal_nan=True)


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


def numbered_rows(n: int) -> Tensor:
    w = torch.empty(n, 2)
    for number in range(n):
        w[number] = number
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
    "a generator": (lambda: torch.randn(4, generator=torch.Generator()), [(Normal(0.0, 1.0), None)]),
    "a generator of init": (
        lambda: nn.init.uniform_(torch.empty(4), generator=torch.Generator()),
        [(Uniform(0.0, 1.0), None)],
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


# ---- what stays of a tensor -------------------------------------------------------------------------------------------


class Tagged(nn.Parameter):
    pass


def test_parameters_stay_themselves() -> None:
    with wi.deferred() as recording:
        net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3, bias=False))
        net[1].weight = net[0].weight
        net[0].bias = Tagged(torch.zeros(3), requires_grad=False)
        net[0].weight.tag = "kept"
        net[0].register_buffer("view", net[0].weight.data.view(-1), persistent=False)
        net[0].plain = [net[0].weight.data, {"x": torch.arange(3)}]
    weight, bias = net[0].weight, net[0].bias
    calls: list[str] = []
    weight.register_hook(lambda grad: calls.append("hook"))
    handle = weight.register_post_accumulate_grad_hook(lambda tensor: calls.append("accumulated"))
    node = weight.expand_as(weight).grad_fn.next_functions[0][0]  # an AccumulateGrad that somebody holds
    reference = weakref.ref(weight)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    assert recording.plan(net)["1.weight"] == recording.plan(net)["0.weight"]
    assert recording.materialize_(net) is net
    assert node is not None
    assert net[0].weight is net[1].weight is weight is reference()
    assert net[0].bias is bias
    assert type(bias) is Tagged
    assert not bias.requires_grad
    assert weight.tag == "kept"
    assert weight.is_leaf
    assert not weight._is_view()
    assert net[0].view.data_ptr() == net[0].plain[0].data_ptr() == weight.data_ptr()
    assert net[0].plain[1]["x"].tolist() == [0, 1, 2]
    before = weight.detach().clone()
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert calls == ["hook", "accumulated"]
    assert not torch.equal(before, weight)
    handle.remove()
    net(torch.ones(1, 3)).sum().backward()
    assert calls == ["hook", "accumulated", "hook"]


def test_tensors_on_one_memory_stay_on_it() -> None:
    with wi.deferred() as recording:
        a, b = nn.Linear(3, 3), nn.Linear(3, 3)
        b.weight.data = a.weight.data
        net = nn.Sequential(a, b)
    assert recording.plan(net)["0.weight"][0].aliases == ("1.weight",)
    recording.materialize_(net)
    assert a.weight is not b.weight
    assert a.weight.data_ptr() == b.weight.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_dtype(dtype: torch.dtype) -> None:
    with wi.deferred() as recording:
        net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        net[0].register_buffer("rate", torch.arange(3.0) / 3)
    recording.materialize_(net, dtype=dtype)
    assert net[0].weight.dtype == net[1].running_var.dtype == net[0].rate.dtype == dtype
    assert net[1].num_batches_tracked.dtype == torch.int64
    bound = 1 / math.sqrt(3)
    assert torch.equal(net[0].bias, drawn(Uniform(-bound, bound), 3, "0.bias", dtype))


def test_code_that_casts() -> None:
    with wi.deferred() as recording:
        net = nn.Linear(3, 3).to(torch.bfloat16).requires_grad_(False)
    assert recording.plan(net)["bias"][0].dtype == torch.bfloat16
    recording.materialize_(net)
    assert net.bias.dtype == torch.bfloat16


def test_later_casts_and_memory() -> None:
    """After the block the model may be cast, or given memory: names in their modules still tell what it gets."""
    with wi.deferred() as recording:
        net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    recording.materialize_(copy_of := net.bfloat16().to_empty(device="cpu"))
    assert copy_of[0].weight.dtype == torch.bfloat16
    plan = recording.plan(net)
    weight = net[0].weight.clone()
    net[0].weight.data.zero_()
    plan.apply_(net)
    assert torch.equal(net[0].weight, weight)
    net[0].weight.data.zero_()
    assert torch.equal(recording.materialize_(net)[0].weight, weight)


def test_parts_of_a_model() -> None:
    with wi.deferred() as recording:
        net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    recording.materialize_(net[0])
    assert net[1].weight.is_meta
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        net(torch.ones(3)).tolist()


# ---- errors -----------------------------------------------------------------------------------------------------------


class Unwritten(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, 3))
        self.partly = nn.Parameter(torch.empty(4, 3))
        self.strided = nn.Parameter(torch.empty(6))
        self.whole = nn.Parameter(torch.empty(4))
        with torch.no_grad():
            self.partly[:3].normal_()
            self.strided[::2] = 1
            self.whole[:2], self.whole[2:] = 1, 2


def test_unwritten_tensors_are_named() -> None:
    with wi.deferred() as recording:
        net = Unwritten()
    with pytest.raises(ValueError, match=r"got 3 that it only allocates \(weight, partly, strided\).*rules="):
        recording.materialize_(net)
    assert net.weight.is_meta
    recording.materialize_(net, rules=[wi.Rule("*", "constant_", val=5.0)])
    assert net.weight.tolist() == [[5.0] * 3] * 3
    assert net.whole.tolist() == [1, 1, 2, 2]


def test_strangers_are_named() -> None:
    with wi.deferred() as recording:
        nn.Linear(2, 2)
    with pytest.raises(ValueError, match="plan: tensors on meta must have been made in the block, got weight, bias"):
        recording.plan(nn.Linear(2, 2, device="meta"))


def test_misuse() -> None:
    with wi.deferred() as recording:
        net = nn.Linear(2, 2)
        with pytest.raises(RuntimeError, match="must not be nested"):
            wi.deferred().__enter__()
        with pytest.raises(RuntimeError, match="materialize_: must be called after the block"):
            recording.materialize_(net)
        inner = nn.Linear(2, 2)
    recording.materialize_(nn.ModuleList([net, inner]))
    assert nn.Linear(2, 2).weight.is_cpu


def failing(made: list[nn.Module]) -> wi.Recording:
    with wi.deferred() as recording:
        made += [nn.Linear(2, 2), recording]
        raise ZeroDivisionError


def test_an_error_in_the_block_ends_it() -> None:
    found: list[Any] = []
    with pytest.raises(ZeroDivisionError):
        failing(found)
    net, recording = found
    assert recording.materialize_(net).weight.is_cpu
    assert nn.Linear(2, 2).weight.is_cpu


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: nn.init.orthogonal_(torch.empty(3)), ValueError),
        (lambda: nn.init.eye_(torch.empty(3)), ValueError),
        (lambda: nn.init.dirac_(torch.empty(3, 3)), ValueError),
        (lambda: nn.init.normal_(torch.empty(3), std=-1.0), RuntimeError),
        (lambda: nn.init.uniform_(torch.empty(3), 1.0, 0.0), RuntimeError),
        (lambda: nn.init.xavier_normal_(torch.empty(3)), ValueError),
        (lambda: torch.zeros(3) + torch.zeros(4), RuntimeError),
    ],
)
def test_errors_of_the_code_are_torchs(call: Callable[[], Any], error: type[Exception]) -> None:
    with pytest.raises(error) as ours, wi.deferred():
        call()
    with pytest.raises(error) as torchs:
        call()
    assert str(ours.value).split("\n")[0] == str(torchs.value).split("\n")[0]


# ---- where it is used -------------------------------------------------------------------------------------------------


def same(build: Callable[[], nn.Module] = lambda: nn.Linear(3, 3)) -> Tensor:
    with wi.deferred() as recording:
        net = build()
    return recording.materialize_(net, seed=0).weight


def test_surroundings() -> None:
    """patched(), no_grad, inference_mode and a default device change no value."""
    expected = same()
    with wi.patched():
        assert torch.equal(same(), expected)
    with torch.no_grad():
        weight = same()
        assert torch.equal(weight, expected)
        assert weight.requires_grad
    with torch.inference_mode():
        assert torch.equal(same(), expected)
    with torch.device("meta"):
        weight = same()
    assert weight.is_cpu
    assert torch.equal(weight, expected)
    with wi.deferred() as recording, wi.patched(), torch.device("meta"):
        net = nn.Linear(3, 3)
    assert torch.equal(recording.materialize_(net).weight, expected)
    assert torch.get_default_device() == torch.device("cpu")


def test_values_asked_for_in_inference_mode() -> None:
    with torch.inference_mode():
        recording, holder = recorded(asked)
    recording.materialize_(holder)
    assert torch.equal(holder.w, asked())


def test_default_dtype_of_the_block() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with wi.deferred() as recording:
            net = nn.Linear(3, 3)
            net.register_buffer("rate", torch.arange(3) / 7)
    finally:
        torch.set_default_dtype(torch.float32)
    recording.materialize_(net)
    assert net.weight.dtype == torch.float64
    assert torch.equal(net.rate, torch.arange(3, dtype=torch.float64) / 7)


def test_threads_record_apart() -> None:
    results: dict[int, Tensor] = {}
    barrier = threading.Barrier(3)

    def work(number: int) -> None:
        with wi.deferred() as recording:
            barrier.wait()
            net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(20)))
            barrier.wait()
        results[number] = recording.materialize_(net, seed=number)[number].weight.detach()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    barrier.wait()
    eager = nn.Linear(3, 3)
    barrier.wait()
    for thread in threads:
        thread.join()
    assert eager.weight.is_cpu
    for number, tensor in results.items():
        bound = 1 / math.sqrt(3)
        assert tensor.abs().max() <= bound
        assert not torch.equal(tensor, results[1 - number])


def test_modules_from_outside() -> None:
    """A model on meta that was there before: what the block does to it is recorded; real tensors stay real."""
    net, real = nn.Linear(3, 3, device="meta"), nn.Linear(3, 3)
    before = real.weight.detach().clone()
    with wi.deferred() as recording:
        net.reset_parameters()
        net.bias.data.copy_(real.bias.data)
        real.bias.data.copy_(net.bias.data * 2)
        both = nn.Sequential(net, real)
    bias = real.bias.detach().clone()
    recording.materialize_(both)
    assert torch.equal(real.weight, before)
    assert torch.equal(net.bias * 2, bias)
    assert torch.equal(real.bias, bias)


def test_the_plan_is_a_plan() -> None:
    with wi.deferred() as recording:
        net = nn.Sequential(nn.Linear(3, 3), nn.Embedding(4, 3, padding_idx=0))
    plan = recording.plan(net, seed=7)
    assert plan.rules == "deferred"
    assert wi.Plan.from_json(plan.to_json()) == plan
    assert all(line.source.startswith("test_deferred.py:") for line in plan)
    eager = plan.apply_(nn.Sequential(nn.Linear(3, 3), nn.Embedding(4, 3)))
    recording.materialize_(net, seed=7)
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, eager.state_dict()[key])


def test_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    with wi.deferred() as recording:
        net = nn.Transformer(8, 2, 1, 1, 16)
    calls: list[int] = []
    fill = engine.fill
    monkeypatch.setattr(engine, "fill", lambda jobs: (calls.append(len(jobs)), fill(jobs)))
    recording.materialize_(net)
    assert calls == [sum(1 for _ in net.parameters())]


def test_huge_pages_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from weightinit_cuda import materializing

    asked: list[int] = []
    monkeypatch.setattr(materializing, "_madvise", lambda: lambda begin, size, advice: asked.append(size.value))
    with wi.deferred() as recording:
        net = nn.Linear(2048, 1024)
    recording.materialize_(net)
    assert len(asked) == 1
    assert 0 <= 2048 * 1024 * 4 - asked[0] < 2 * 4096
