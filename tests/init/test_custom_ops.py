"""The fills as operators: what torch.compile, export, make_fx, FakeTensor and vmap make of them; bits as in ordinary code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from bitwise import differing
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import weightinit_cuda as wi
from weightinit_cuda import init
from weightinit_cuda.init.catalog import CATALOG
from weightinit_cuda.numerics.distributions import Normal, Uniform

ops = torch.ops.weightinit_cuda
SHAPE = (6, 4)
# Every function that is an operator, with every kind of argument.
CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform_": lambda t: init.uniform_(t, -1, 1, seed=1),
    "normal_, names": lambda t: init.normal_(t, std=0.02, seed=2**64 - 1, stream="a.b"),
    "normal_, numbers": lambda t: init.normal_(t, 1, seed=-1, stream=2**63 + 1),
    "normal_, region": lambda t: init.normal_(t, seed=1, global_shape=(12, 4), offset=(6, 0)),
    "trunc_normal_": lambda t: init.trunc_normal_(t, std=0.5, bounds="sigma", compensate=True, seed=3),
    "xavier_uniform_": lambda t: init.xavier_uniform_(t, 2.0, in_axes=0, out_axes=(1,), seed=1),
    "xavier_normal_": lambda t: init.xavier_normal_(t, seed=1),
    "kaiming_uniform_": lambda t: init.kaiming_uniform_(t, a=5**0.5, seed=1),
    "kaiming_normal_": lambda t: init.kaiming_normal_(t, mode="fan_out", nonlinearity="relu", seed=1),
    "variance_scaling_": lambda t: init.variance_scaling_(t, 2.0, "fan_avg", "uniform", seed=1),
    "lecun_normal_": lambda t: init.lecun_normal_(t, seed=1),
    "orthogonal_": lambda t: init.orthogonal_(t, 0.5, seed=1),
    "sparse_": lambda t: init.sparse_(t, 0.3, seed=1),
    "eye_": init.eye_,
    "dirac_": lambda t: init.dirac_(t.view(6, 2, 2), 2).view(SHAPE),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_every_operator_is_called() -> None:
    assert {name.partition(",")[0] for name in CALLS} - {"lecun_normal_"} == {
        row.name for row in CATALOG.values() if row.is_operator
    }


# ---- compiled and traced --------------------------------------------------------------------------------------------


@each_call
def test_compiled(call: Callable[[Tensor], Tensor]) -> None:
    def made(x: Tensor) -> Tensor:
        return x + call(torch.empty(SHAPE))

    compiled = torch.compile(made, fullgraph=True, backend="aot_eager")
    assert differing(compiled(torch.zeros(SHAPE)), made(torch.zeros(SHAPE))) == 0


@each_call
def test_graphs_show_the_operator(call: Callable[[Tensor], Tensor]) -> None:
    graph = make_fx(lambda x: call(torch.empty(SHAPE)) + x)(torch.zeros(SHAPE))
    assert graph.code.count("torch.ops.weightinit_cuda.") == 1
    assert differing(graph(torch.zeros(SHAPE)), call(torch.empty(SHAPE))) == 0


def test_inductor() -> None:
    def made(x: Tensor) -> Tensor:
        return (x + init.normal_(torch.empty(64), seed=1)) * 2

    assert differing(torch.compile(made, fullgraph=True)(torch.zeros(64)), made(torch.zeros(64))) == 0


def test_parameters_are_filled_in_place_under_the_default_generator() -> None:
    """Every call draws anew, ``torch.manual_seed`` decides what, and parameters stay leaves."""

    def reset(module: nn.Linear) -> Tensor:
        init.kaiming_uniform_(module.weight, a=5**0.5)
        init.normal_(module.bias, std=0.1)
        return module.weight.sum()

    compiled, net, values = torch.compile(reset, fullgraph=True, backend="aot_eager"), nn.Linear(8, 8), []
    for function in (compiled, reset):
        torch.manual_seed(5)
        for _ in range(2):
            function(net)
            values.append([p.detach().clone() for p in net.parameters()])
    for a, b in zip((*values[0], *values[1]), (*values[2], *values[3]), strict=True):
        assert differing(a, b) == 0
    assert differing(values[0][0], values[1][0]) > 60
    assert all(p.is_leaf and p.requires_grad for p in net.parameters())


def test_gradients_of_what_follows() -> None:
    def loss(x: Tensor) -> Tensor:
        return (x * init.normal_(torch.empty(4), seed=1)).sum()

    x = torch.zeros(4, requires_grad=True)
    torch.compile(loss, fullgraph=True, backend="aot_eager")(x).backward()
    assert x.grad is not None
    assert differing(x.grad, init.normal_(torch.empty(4), seed=1)) == 0


def test_dynamic_shapes() -> None:
    @torch.compile(fullgraph=True, backend="aot_eager", dynamic=True)
    def made(x: Tensor) -> Tensor:
        return init.eye_(torch.empty_like(x)) + init.xavier_normal_(torch.empty_like(x), seed=2)

    for n in (3, 5, 9):
        expected = torch.eye(n, 4) + init.xavier_normal_(torch.empty(n, 4), seed=2)
        assert differing(made(torch.zeros(n, 4)), expected) == 0


def test_exported() -> None:
    class Noise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + init.normal_(torch.empty(4), seed=1)

    exported = torch.export.export(Noise(), (torch.zeros(4),))
    assert "weightinit_cuda.normal_" in str(exported)
    assert differing(exported.module()(torch.zeros(4)), init.normal_(torch.empty(4), seed=1)) == 0


def test_errors_are_seen_while_tracing() -> None:
    with pytest.raises(Exception, match="std"):
        torch.compile(lambda x: x + init.normal_(torch.empty(4), std=-1.0, seed=1), fullgraph=True, backend="aot_eager")(
            torch.zeros(4)
        )


# ---- faked ----------------------------------------------------------------------------------------------------------


@each_call
def test_fake_tensors(call: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    with FakeTensorMode():
        assert call(torch.empty(SHAPE)).shape == SHAPE
        with pytest.raises(ValueError, match="2"):
            init.xavier_normal_(torch.empty(4))
    assert torch.equal(torch.get_rng_state(), state)


OPCHECKS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("uniform_", (-1.0, 1.0), {"seed": 1}),
    ("normal_", (), {}),
    ("normal_", (0.0, 2.0), {"seed": 1, "name": "w", "global_shape": [12, 4], "offset": [6, 0]}),
    ("trunc_normal_", (), {"seed": 1, "stream": 3}),
    ("xavier_uniform_", (1.0, [0], [1]), {"seed": 1}),
    ("xavier_normal_", (), {"seed": 1}),
    ("kaiming_uniform_", (0.5,), {"seed": 1}),
    ("kaiming_normal_", (0.0, "fan_out", "relu"), {"seed": 1}),
    ("variance_scaling_", (), {"seed": 1}),
    ("orthogonal_", (), {"seed": 1}),
    ("sparse_", (0.5,), {"seed": 1}),
    ("eye_", (), {}),
]


@pytest.mark.parametrize(("name", "args", "kwargs"), OPCHECKS, ids=str)
def test_opcheck(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """torch's own battery: schema, autograd, fake tensors, dynamic shapes."""
    torch.library.opcheck(getattr(ops, name).default, (torch.empty(SHAPE), *args), kwargs)


def test_opcheck_dirac() -> None:
    torch.library.opcheck(ops.dirac_.default, (torch.empty(4, 2, 3), 2))


# ---- batched --------------------------------------------------------------------------------------------------------


@each_call
@pytest.mark.parametrize("dim", [0, 2])
def test_vmap_with_a_seed(call: Callable[[Tensor], Tensor], dim: int) -> None:
    """The same numbers for each example, whatever ``randomness`` says."""
    batch = torch.zeros(3, *SHAPE).movedim(0, dim).contiguous()
    made = torch.vmap(lambda t: call(t.clone()), in_dims=dim)(batch)
    for example in made:
        assert differing(example.contiguous(), call(torch.empty(SHAPE))) == 0


def test_vmap_without_a_seed() -> None:
    batch = torch.zeros(3, 5)
    with pytest.raises(RuntimeError, match='randomness "error" mode'):
        torch.vmap(lambda t: init.normal_(t.clone()))(batch)
    torch.manual_seed(0)
    same = torch.vmap(lambda t: init.normal_(t.clone()), randomness="same")(batch)
    different = torch.vmap(lambda t: init.normal_(t.clone()), randomness="different")(batch)
    assert torch.equal(same[0], same[1])
    assert len({tuple(row) for row in different.tolist()}) == 3
    torch.manual_seed(0)
    assert torch.equal(same[2], init.normal_(torch.empty(5)))


# ---- recorded -------------------------------------------------------------------------------------------------------


def test_deferred_sees_them() -> None:
    """Without a seed of its own a fill is a line of the plan; with one its values stay what the code says."""
    with wi.deferred() as recorded:
        net = nn.Linear(4, 3)
        init.uniform_(net.bias, -2, 2)
        net.other = nn.Parameter(torch.empty(4, 4))
        init.kaiming_normal_(net.other, nonlinearity="relu", mode="fan_out")
        init.normal_(net.weight, std=0.3, seed=5, stream="own")
        net.placed = nn.Parameter(torch.empty(4, 4))
        init.eye_(net.placed)
    plan = recorded.plan(net, seed=1)
    assert plan["bias"][0].distribution == Uniform(-2.0, 2.0)
    assert plan["other"][0].distribution == Normal(0.0, 0.5**0.5)
    recorded.materialize_(net, seed=1)
    assert differing(net.weight, init.normal_(torch.empty(3, 4), std=0.3, seed=5, stream="own")) == 0
    assert differing(net.bias, init.uniform_(torch.empty(3), -2, 2, seed=1, stream="bias")) == 0
    assert torch.equal(net.placed, torch.eye(4))
    with pytest.raises(NotImplementedError, match="needs a seed= of its own"), wi.deferred():
        init.normal_(torch.empty(4), global_shape=(8,), offset=(4,))
