"""What is seen: layers by the identity of their weights, activations wherever they are called, attention, gates, blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from nets import quiet  # noqa: F401 a fixture
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune, weight_norm

import weightinit_cuda as wi
from weightinit_cuda.diagnosis.attention import sharp_of_scores, sharp_of_sdpa
from weightinit_cuda.diagnosis.measures import cells, rms, twins
from weightinit_cuda.diagnosis.recurrent import FLAT, gates_of_cell, gates_of_sequence

X = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))


def names(report: wi.ProbeReport, *kinds: str) -> list[str]:
    return [row.name for row in report.rows if row.kind in (kinds or ("weight", "table"))]


class Called(nn.Module):
    """A module whose forward is a function of it and the input."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **members: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, member in members.items():
            setattr(self, name, member)
        self.run = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def matrix(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, columns) / math.sqrt(columns))


PRODUCTS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "linear": lambda m, x: F.linear(x, m.w),
    "matmul": lambda m, x: x @ m.w.T,
    "mm": lambda m, x: torch.mm(x, m.w.t()),
    "transposed": lambda m, x: x @ m.w.transpose(0, 1),
    "left": lambda m, x: (m.w @ x.T).T,
    "addmm": lambda m, x: torch.addmm(torch.zeros(8), x, m.w.mT),
    "einsum": lambda m, x: torch.einsum("bi,oi->bo", x, m.w),
    "scaled": lambda m, x: F.linear(x, m.w * 0.5),
    "cast": lambda m, x: F.linear(x.double(), m.w.double()),
    "chunks": lambda m, x: torch.cat([F.linear(x, part) for part in m.w.chunk(2)], -1),
    "standardised": lambda m, x: F.linear(x, (m.w - m.w.mean(1, keepdim=True)) / m.w.std(1, keepdim=True)),
}


@pytest.mark.parametrize("how", PRODUCTS)
def test_functional_calls_are_layers_of_their_weights(how: str) -> None:
    """However a weight is multiplied, its figures are those of nn.Linear, and a twin is one by its outputs."""
    net = Called(PRODUCTS[how], w=matrix(8, 16))
    rows = wi.probe(net, X).rows
    assert {row.name.partition("#")[0] for row in rows} == {"w"}
    assert all(row.kind == "weight" and row.weight > 0 and row.weight_gradient > 0 for row in rows)
    assert {row.twins for row in rows} == {0.0}
    with torch.no_grad():
        net.w[3] = net.w[1]
    doubled = Called(lambda m, x: m.out(PRODUCTS[how](net, x).float()), net=net, out=nn.Linear(8, 2))
    nn.init.ones_(doubled.out.weight)
    [*rows, _] = wi.probe(doubled, X).rows
    expected = [0.5, 0.0] if how == "chunks" else [0.25]
    assert sorted((row.twins for row in rows), reverse=True) == expected


def test_tied_parametrised_and_reused_weights() -> None:
    tied = Called(lambda m, ids: F.linear(m.table(ids), m.table.weight), table=nn.Embedding(20, 16))
    report = wi.probe(tied, torch.arange(20).view(4, 5))
    assert [(row.name, row.kind) for row in report.rows] == [("table.weight", "table"), ("table.weight", "weight")]

    pruned = partial(prune.random_unstructured, name="weight", amount=0.3)
    norms = parametrizations.weight_norm, parametrizations.orthogonal, parametrizations.spectral_norm
    for wrap in (weight_norm, pruned, *norms):
        with pytest.warns(FutureWarning) if wrap is weight_norm else torch.enable_grad():
            net = nn.Sequential(wrap(nn.Linear(16, 16)), nn.Tanh())
        net[0].register_buffer("unrelated", torch.ones(3))
        [row] = [row for row in wi.probe(net, X).rows if row.kind == "weight"]
        assert row.name.startswith("0."), row.name
        assert row.weight == pytest.approx(rms(net[0].weight), rel=0.3)
        assert row.weight_gradient > 0

    reused = Called(lambda m, x: m.layer(torch.tanh(m.layer(x))), layer=nn.Linear(16, 16))
    report = wi.probe(reused, X)
    assert names(report) == ["layer.weight", "layer.weight#2"]
    assert report.rows[0].weight_gradient == report.rows[2].weight_gradient, "of the weight, not of the call"


def test_weights_that_are_products_of_weights() -> None:
    """LoRA, merged: one layer, whose operand is the sum."""
    net = Called(lambda m, x: x @ (m.w + m.b @ m.a).T, w=matrix(8, 16), a=matrix(2, 16), b=nn.Parameter(torch.zeros(8, 2)))
    [row] = wi.probe(net, X).rows
    assert (row.name, row.kind) == ("w", "weight")
    assert row.weight == pytest.approx(rms(net.w), rel=1e-5)


def test_a_cell_that_is_called_at_every_step_is_not_measured_for_ever() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        for _ in range(100):
            x = m.cell(x)
        return x

    assert len(wi.probe(Called(run, cell=nn.Linear(16, 16)), X).rows) == 64


def test_weights_that_a_network_makes_have_a_row_without_weight() -> None:
    net = Called(lambda m, x: F.linear(x, m.make(x).mean(0).view(4, 16)), make=nn.Linear(16, 64))
    report = wi.probe(net, X)
    assert [(row.name, math.isnan(row.weight)) for row in report.rows] == [("make.weight", False), ("", True)]


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu in place": lambda y: F.relu_(y.clone()),
    "relu as a method": lambda y: y.relu(),
    "sigmoid": torch.sigmoid,
    "tanh": lambda y: y.tanh_(),
    "gelu": F.gelu,
    "silu": nn.SiLU(inplace=True),
    "hardtanh": F.hardtanh,
    "leaky_relu": F.leaky_relu,
}


@pytest.mark.parametrize("how", ACTIVATIONS)
def test_activations_are_seen_wherever_they_are_called(how: str) -> None:
    net = Called(lambda m, x: m.out(ACTIVATIONS[how](m.layer(x))), layer=nn.Linear(16, 8), out=nn.Linear(8, 2))
    report = wi.probe(net, X)
    kinds = [row.kind for row in report.rows]
    assert kinds == ["weight", how.split()[0], "weight"]
    before, act, _ = report.rows
    assert before.gradient > 0
    assert act.gradient > 0
    assert before.rms == pytest.approx(net.layer(X).square().mean().sqrt().item()), "in place or not, before it was overwritten"
    assert math.isnan(act.dead) is not (kinds[1] == "relu")


def test_a_gelu_made_of_tanh_is_no_saturating_tanh() -> None:
    class NewGELU(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    net = nn.Sequential(nn.Linear(16, 32), NewGELU(), nn.Linear(32, 2))
    nn.init.normal_(net[0].weight, std=5)
    report = wi.probe(net, X)
    assert [row.kind for row in report.rows] == ["weight", "gelu", "weight"]
    assert report.verdict == "ok"


def test_shares_are_shares() -> None:
    values = torch.linspace(-6, 6, 4001, dtype=torch.float64, requires_grad=True)
    for name, function in {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "softsign": F.softsign}.items():
        [slope] = torch.autograd.grad(function(values).sum(), values)
        assert torch.equal(FLAT[name](function(values.detach())), slope < 0.05 * slope.max()), name
    net = nn.Sequential(nn.Linear(16, 50, bias=False), nn.ReLU())
    nn.init.constant_(net[0].weight[:20].data, 0).sub_(1)
    report = wi.probe(net, X.abs())
    assert report.rows[1].dead == pytest.approx(0.4, abs=0.03)


def test_the_gradient_of_a_table_may_be_sparse() -> None:
    ids, rows = torch.arange(40).view(8, 5) % 7, []
    for sparse in (False, True):
        torch.manual_seed(0)
        net = Called(lambda m, ids: m.out(m.table(ids)), table=nn.Embedding(100, 16, sparse=sparse), out=nn.Linear(16, 4))
        rows.append(wi.probe(net, ids).rows[0])
    assert rows[0].weight_gradient > 0
    assert rows[1].weight_gradient == pytest.approx(rows[0].weight_gradient)


def test_gradients_inside_a_forward_pass() -> None:
    """A network whose output is its own derivative: the figures are those of the last backward pass."""

    def run(m: Any, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        return torch.autograd.grad(m.net(x).sum(), x, create_graph=True)[0]

    net = Called(run, net=nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1)))
    first = wi.probe(net, X, loss=lambda out: out.square().mean()).rows[0]
    [gradient] = torch.autograd.grad(net(X).square().mean(), net.net[0].weight)
    assert first.weight_gradient == pytest.approx(rms(gradient), rel=1e-5)


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_figures_are_what_they_say() -> None:
    """Against formulas written once more, on an output that is small enough to be looked at whole."""
    net = nn.Linear(16, 24)
    row = wi.probe(net, X, loss=lambda out: (out * 3).sum()).rows[0]
    y = net(X).double().detach()
    assert (row.samples, row.units) == (32, 24)
    assert row.rms == pytest.approx(y.square().mean().sqrt().item())
    assert row.signal == pytest.approx(y.var(0).mean().sqrt().item())
    assert row.shared == pytest.approx(1 - (y.var(0).mean() / y.square().mean()).item())
    eigenvalues = torch.linalg.eigvalsh(torch.cov(y.T))
    assert row.rank == pytest.approx((eigenvalues.sum() ** 2 / eigenvalues.square().sum()).item(), rel=1e-4)
    assert row.gradient == pytest.approx(3.0)
    assert row.weight == pytest.approx(net.weight.square().mean().sqrt().item())
    assert row.relative_gradient == pytest.approx(rms(3 * X.sum(0).expand(24, 16)) / row.weight, rel=1e-5)


def test_a_large_output_is_sampled_all_over() -> None:
    """Not by a stride, which would meet the same place of each sequence or image."""
    places = torch.arange(64.0).repeat(1024)[:, None].expand(-1, 4096)  # 1024 sequences of 64 places
    assert len(cells(places, image=False).unique()) > 40
    columns = torch.arange(64.0).repeat(128).expand(8, -1)
    assert len(cells(columns, image=False).unique()) == 64
    assert cells(places, image=False).shape == (256, 2048)


def test_layout_of_images_and_sequences() -> None:
    """Of a convolution and what follows it an image is a sample; of a linear layer each token is."""

    def run(m: Any, x: Tensor) -> Tensor:
        y = F.relu(m.norm(m.conv(x)))
        return m.head(torch.tanh(m.mix(y.transpose(1, 2))))

    net = Called(run, conv=nn.Conv1d(4, 8, 3, padding=1), norm=nn.BatchNorm1d(8), mix=nn.Linear(8, 6), head=nn.Linear(6, 2))
    rows = wi.probe(net, torch.randn(10, 4, 20)).rows
    assert [(row.kind, row.samples, row.units) for row in rows] == [
        ("weight", 10, 160), ("relu", 10, 160), ("weight", 200, 6), ("tanh", 200, 6), ("weight", 200, 2),
    ]  # fmt: skip


def test_twins_of_convolutions() -> None:
    for conv, axis in ((nn.Conv2d(3, 8, 3), 0), (nn.ConvTranspose2d(3, 8, 3), 1)):
        nn.init.ones_(conv.weight)
        nn.init.zeros_(conv.bias)
        net = nn.Sequential(conv, nn.ReLU(), nn.Conv2d(8, 4, 1))
        nn.init.ones_(net[2].weight)
        first, _, last = wi.probe(net, torch.rand(8, 3, 8, 8)).rows
        assert (first.twins, last.input_twins) == (1.0, 1.0), axis
        assert last.twins == 0.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_twins_are_counted(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    w, g = (torch.randn(600, 40, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    assert twins(w, g, 0) == 0.0
    for tensor in (w, g):
        tensor[100:200] = tensor[0:100]
        tensor[300] = tensor[0]
    assert twins(w, g, 0) == pytest.approx(201 / 600)
    g[100:200] *= 2
    assert twins(w, g, 0) == pytest.approx(2 / 600), "equal weights with other gradients part"
    assert twins(torch.zeros(9, 4), torch.zeros(9, 4), 0) == 0.0, "asleep"
    assert math.isnan(twins(torch.zeros(1, 4), torch.zeros(1, 4), 0))


# ---- attention -------------------------------------------------------------------------------------------------------


def reference(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool, scale: float | None) -> float:
    """The share of queries with one weight above .99, among those that see two keys."""
    scores = q @ k.mT * (scale or q.shape[-1] ** -0.5)
    visible = torch.ones_like(scores, dtype=torch.bool)
    if causal:
        visible &= torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        visible &= mask if mask.dtype == torch.bool else mask > -1e4
    weights = scores.masked_fill(~visible, -math.inf).softmax(-1)
    return float((weights.amax(-1) > 0.99)[visible.sum(-1) > 1].double().mean())


@pytest.mark.parametrize("how", ["plain", "causal", "bool", "float", "scale", "grouped"])
def test_sharp_attention_is_computed_again(how: str) -> None:
    q, k = torch.randn(2, 4, 12, 8) * 3, torch.randn(2, 2 if how == "grouped" else 4, 12, 8) * 3
    mask = torch.rand(2, 1, 12, 12) > 0.5
    kwargs: dict[str, Any] = {
        "plain": {}, "causal": {"is_causal": True}, "bool": {"attn_mask": mask}, "scale": {"scale": 2.0},
        "float": {"attn_mask": torch.zeros(2, 1, 12, 12).masked_fill(~mask, -math.inf)}, "grouped": {"enable_gqa": True},
    }[how]  # fmt: skip
    keys = k.repeat_interleave(2, 1) if how == "grouped" else k
    expected = reference(q, keys, mask if how in ("bool", "float") else None, how == "causal", kwargs.get("scale"))
    assert 0.05 < expected < 0.99
    assert sharp_of_sdpa((q, k, k), kwargs) == pytest.approx(expected)
    positional = (q, k, k, kwargs.get("attn_mask"), 0.0, how == "causal")
    if how not in ("scale", "grouped"):
        assert sharp_of_sdpa(positional, {}) == pytest.approx(expected)


def test_a_softmax_of_ones_own_counts_what_is_visible() -> None:
    scores = torch.tensor([[[9.0, 0.0], [1.0, 0.0], [4.0, torch.finfo(torch.float32).min]]])
    assert sharp_of_scores(scores, scores.softmax(-1)) == 0.5


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("kind", ["self", "cross", "separate"])
def test_attention_inside_one_function(kind: str, weights: bool) -> None:
    """nn.MultiheadAttention is one function to a mode: its projections, its attention, and a wide start that must FAIL."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = {"kdim": 24, "vdim": 40} if kind == "separate" else {}
            self.attention = nn.MultiheadAttention(32, 4, batch_first=True, dropout=0.5, **sizes)

        def forward(self, x: Tensor, *others: Tensor) -> Tensor:
            return self.attention(x, *(others or (x, x)), need_weights=weights)[0]

    x, other = torch.randn(4, 6, 32), torch.randn(4, 5, 32)
    inputs = {"self": (x,), "cross": (x, other, other), "separate": (x, torch.randn(4, 5, 24), torch.randn(4, 5, 40))}[kind]
    net = Net()
    report = wi.probe(net, *inputs)
    projections = {
        "self": ["attention.in_proj_weight"],
        "cross": ["attention.in_proj_weight", "attention.in_proj_weight#2"],
        "separate": [f"attention.{x}_proj_weight" for x in "qkv"],
    }
    assert names(report) == [*projections[kind], "attention.out_proj.weight"]
    assert all(row.gradient > 0 for row in report.rows)
    assert [row.saturated for row in report.rows if row.kind == "attention"] == [0.0]
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=2.0)
    found = {finding.code for finding in wi.probe(net, *inputs).findings}
    assert "attention_one_hot" in found


def test_attention_written_by_hand() -> None:
    """A softmax of three dimensions is attention if it multiplies something; with a cast in between, too."""

    def run(m: Any, x: Tensor) -> Tensor:
        q, k = m.q(x), m.k(x)
        weights = F.dropout((q @ k.mT).softmax(-1).to(torch.float64), 0.5)
        return F.softmax(m.out((weights @ x.double()).float()), dim=-1)

    net = Called(run, q=nn.Linear(16, 16), k=nn.Linear(16, 16), out=nn.Linear(16, 4))
    report = wi.probe(net, torch.randn(4, 6, 16))
    assert [row.kind for row in report.rows] == ["weight", "weight", "attention", "weight"]
    assert report.rows[2].saturated < 0.1


# ---- recurrent nets --------------------------------------------------------------------------------------------------

RECURRENT = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN}


@pytest.mark.parametrize("function", RECURRENT)
@pytest.mark.parametrize(
    "settings", [{}, {"bidirectional": True, "batch_first": True}, {"bias": False, "num_layers": 1}], ids=str
)
def test_gates_are_those_of_torch(function: str, settings: dict[str, Any]) -> None:
    """Computed again from the arguments, layers end where torch's end; packed sequences of equal length likewise."""
    net = RECURRENT[function](8, 12, **{"num_layers": 2, **settings})
    x = torch.randn(5, 5, 8)
    seen: list[tuple[Any, ...]] = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "__name__", "") == function:
                seen.append(args)
            return func(*args, **(kwargs or {}))

    packed = nn.utils.rnn.pack_padded_sequence(x, torch.full((5,), 5), batch_first=settings.get("batch_first", False))
    with Mode():
        expected = net(x)[0]
        net(packed)
    expected = expected.transpose(0, 1) if settings.get("batch_first") else expected
    directions = 2 if settings.get("bidirectional") else 1
    for args in seen:
        made = list(gates_of_sequence(function, args))
        assert len(made) == net.num_layers * directions
        torch.testing.assert_close(torch.cat([gates.output for gates in made[-directions:]], -1), expected)


def test_cells_and_projections() -> None:
    x = torch.randn(6, 8)
    for cell, function in (
        (nn.LSTMCell(8, 12), "lstm_cell"),
        (nn.GRUCell(8, 12), "gru_cell"),
        (nn.RNNCell(8, 12), "rnn_tanh_cell"),
    ):
        state = torch.randn(6, 12)
        hx = (state, torch.randn(6, 12)) if function == "lstm_cell" else state
        made = gates_of_cell(function, (x, hx, *cell.parameters()))
        out = cell(x, hx)
        torch.testing.assert_close(made.output[0], out[0] if isinstance(out, tuple) else out)
        first = Called(lambda m, x: m.cell(x)[0] if isinstance(m.cell, nn.LSTMCell) else m.cell(x), cell=cell)
        report = wi.probe(first, x)
        assert [row.kind for row in report.rows] == ["gates", "weight"], function
    rows = wi.probe(nn.LSTM(8, 12, 2, proj_size=4), torch.randn(5, 6, 8)).rows
    assert [(row.name, row.kind) for row in rows] == [("weight_ih_l0", "gates"), ("weight_ih_l1", "gates"), ("", "weight")]
    assert rows[1].signal == pytest.approx(rows[2].signal, rel=1e-4)


def test_packed_sequences_of_different_lengths() -> None:
    x = nn.utils.rnn.pack_sequence([torch.randn(n, 8) for n in (9, 6, 2)])
    net = nn.LSTM(8, 12, 2)
    report = wi.probe(Called(lambda m, x: m.rnn(x)[0].data, rnn=net), x)
    assert names(report, "gates") == ["rnn.weight_ih_l0", "rnn.weight_ih_l1"]


# ---- residual blocks -------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, branches: int, scale: float) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(16, 16, bias=False) for _ in range(branches))
        for part in self.parts:
            nn.init.orthogonal_(part.weight, gain=scale)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = x + part(x)
        return x


@pytest.mark.parametrize("branches", [1, 2])
def test_a_stream_of_known_growth(branches: int) -> None:
    """Orthogonal branches of gain g: each sum multiplies the mean square by about 1 + g²."""
    net = nn.Sequential(*(Residual(branches, 0.5) for _ in range(6)), nn.Linear(16, 2))
    blocks = [row for row in wi.probe(net, X).rows if row.kind == "block"]
    assert [(row.name, row.branches) for row in blocks] == [(f"{i}", branches) for i in range(6)]
    assert blocks[-1].rms / blocks[0].entering == pytest.approx(1.25 ** (6 * branches / 2), rel=0.25)
    if branches == 1:
        assert [row.branch for row in blocks] == [pytest.approx(0.5)] * 6


def test_what_is_no_residual_block_has_no_row() -> None:
    """A sum inside, but not with the block's own input; and a bias that is added."""
    block = [
        nn.Sequential(nn.Linear(16, 16), Called(lambda m, x: x.tanh() + m.b, b=nn.Parameter(torch.ones(16)))) for _ in range(3)
    ]
    assert names(wi.probe(nn.Sequential(*block), X), "block") == []


def test_a_block_that_is_used_again_and_again() -> None:
    """ALBERT: one block, called as often as there are layers; from the second call on it is seen as one."""

    def run(m: Any, x: Tensor) -> Tensor:
        for _ in range(4):
            x = m.block(x)
        return x

    assert names(wi.probe(Called(run, block=Residual(1, 0.5)), X), "block") == ["block", "block#2", "block#3"]


def test_vmapped_parts_are_left_alone() -> None:
    net = Called(lambda m, x: torch.func.vmap(m.inner)(x), inner=nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 2)))
    with pytest.raises(ValueError, match="got none that torch's functions show"):
        wi.probe(net, X)
    net = Called(lambda m, x: m.out(torch.func.vmap(m.inner)(x)), inner=nn.Linear(16, 8), out=nn.Linear(8, 2))
    assert names(wi.probe(net, X)) == ["out.weight"]
