"""What follows a layer, as the three ways see it, and what the rule set ``auto`` makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda.numerics.distributions import Constant, Normal, Uniform
from weightinit_cuda.rules import auto
from weightinit_cuda.rules.tracing import following


class Straight(nn.Module):
    """fx traces it: modules, functions, methods, branches, weights used by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.gate, self.up = (nn.Linear(4, 4) for _ in range(5))
        self.norm, self.act = nn.LayerNorm(4), nn.LeakyReLU(0.2)
        self.own_weight = nn.Parameter(torch.empty(4, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.a(x).reshape(-1, 4)))
        x = x + self.b(x).tanh()
        x = F.silu(self.gate(x)) * self.up(x)
        x = torch.sigmoid(F.linear(x, self.own_weight))
        return self.head(F.relu(self.c(x) + x))


class Branching(nn.Module):
    """fx does not: its way depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = (nn.Linear(4, 4) for _ in range(3))
        self.act, self.body = nn.GELU(), nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.ReLU(), nn.Linear(4, 4))
        self.block = Straight()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            x = self.act(self.a(x))
        self.last = x
        return self.head(torch.tanh(self.b(self.body(x))))


def kinds(model: nn.Module, *example: Tensor) -> dict[str, str]:
    return {name: after.nonlinearity for name, after in following(model, example).items()}


def test_by_graph() -> None:
    assert kinds(Straight()) == {
        "": "sigmoid",
        "a": "leaky_relu",
        "b": "tanh",
        "gate": "silu",
        "up": "linear",
        "c": "relu",
        "head": "linear",
    }
    seen = following(Straight())
    assert seen["a"] == ("leaky_relu", 0.2, "leaky_relu follows (a -> act LeakyReLU)")
    assert seen["head"].seen == "no nonlinearity follows (head -> the output of the model)"


def test_by_parts() -> None:
    """Inside of what can be traced, and between the children of a Sequential; what lies outside of a part is unseen."""
    assert kinds(Branching()) == {
        "body.0": "relu",
        **{f"block.{name}".rstrip("."): kind for name, kind in kinds(Straight()).items() if name != "head"},
    }


def test_by_calls() -> None:
    seen = kinds(Branching(), torch.zeros(2, 4))
    assert {name: seen[name] for name in ("a", "body.0", "body.3", "b", "head")} == {
        "a": "gelu",
        "body.0": "relu",
        "body.3": "linear",
        "b": "tanh",
        "head": "linear",
    }


def test_looking_leaves_no_trace() -> None:
    """No stand-in in an attribute, no hook, no change of values or statistics, whether the look succeeds or not."""
    model = nn.Sequential(Branching(), nn.BatchNorm1d(4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for example in ((), (torch.ones(2, 4),), ("no input",)):
        following(model, example)
    assert not hasattr(model[0], "last")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_order_in_a_sequential_around_what_cannot_be_traced() -> None:
    class Switch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    model = nn.Sequential(nn.Linear(2, 2), Switch(), nn.Tanh(), nn.Linear(2, 2), nn.Linear(2, 2), Switch())
    assert kinds(model) == {"0": "tanh", "3": "linear"}  # nobody saw what follows 4


@pytest.mark.parametrize(
    ("act", "kind", "slope"),
    [
        (nn.ReLU6(), "relu", None),
        (nn.PReLU(init=0.1), "leaky_relu", 0.1),
        (nn.RReLU(0.1, 0.3), "leaky_relu", 0.2),
        (nn.ELU(), "relu", None),
        (nn.SELU(), "selu", None),
        (nn.Hardswish(), "silu", None),
        (nn.Mish(), "mish", None),
        (nn.GLU(), "sigmoid", None),
        (nn.Hardtanh(), "tanh", None),
        (type("QuickGELUActivation", (nn.Identity,), {})(), "gelu", None),
    ],
    ids=lambda case: type(case).__name__ if isinstance(case, nn.Module) else "",
)
def test_names_of_nonlinearities(act: nn.Module, kind: str, slope: float | None) -> None:
    after = following(nn.Sequential(nn.Linear(2, 2), act))["0"]
    assert after.nonlinearity == kind
    assert after.slope == (None if slope is None else pytest.approx(slope))


def test_modules_with_a_nonlinearity_inside() -> None:
    model = nn.ModuleDict({"rnn": nn.GRU(4, 4), "layer": nn.TransformerEncoderLayer(4, 2, 8, activation="gelu")})
    seen = kinds(model)
    assert seen["rnn"] == "sigmoid"
    assert (seen["layer.linear1"], seen["layer.linear2"], seen["layer.self_attn"]) == ("gelu", "linear", "linear")


# ---- the rule set ------------------------------------------------------------------------------------------------------


def test_auto_gives_what_it_saw() -> None:
    made = wi.plan(Straight(), "auto")
    lines = {name: (made[name][0].distribution, made[name][0].source) for name in made.names()}
    assert lines["a.weight"] == (
        Normal(0, math.sqrt(2 / 1.04) / 2),
        "auto: kaiming_normal_(a=0.2), fan_in 4, fan_out 4; leaky_relu follows (a -> act LeakyReLU)",
    )
    assert lines["b.weight"][0].numbers()["b"] == pytest.approx(5 / 3 * math.sqrt(6 / 8))
    assert lines["c.weight"][0] == Normal(0, math.sqrt(2) / 2)
    assert lines["own_weight"][0] == lines["up.weight"][0] == Uniform(-math.sqrt(3) * 0.5, math.sqrt(3) * 0.5)
    assert lines["own_weight"][1].endswith("; sigmoid follows (weight -> sigmoid)")
    assert lines["a.bias"][0] == Constant(0.0)


@pytest.mark.parametrize("kind", [nn.ReLU, nn.LeakyReLU, lambda: nn.LeakyReLU(0.5)])
def test_auto_keeps_the_second_moment(kind: Callable[[], nn.Module]) -> None:
    """Deep in a stack activations are neither lost nor blown up: the gain is that of the nonlinearity that follows. (Exact for
    homogeneous functions; in a deep stack of gelu or silu the second moment drifts, whatever the gain.)"""
    layers = [layer for _ in range(20) for layer in (nn.Linear(256, 256), kind())]
    net = wi.initialize_(nn.Sequential(*layers, nn.Linear(256, 256)), rules="auto", seed=1)
    with torch.no_grad():
        x = torch.randn(128, 256, generator=torch.Generator().manual_seed(0))
        first, last = net[:3](x).square().mean(), net[:-1](x).square().mean()
    assert 0.2 < last / first < 5


def test_auto_says_what_it_could_not_see() -> None:
    with pytest.warns(
        UserWarning, match=r"could not see what follows 5 weights \(a\.weight, b\.weight, head\.weight, \.\.\.\)"
    ):
        made = wi.plan(Branching(), "auto")
    assert made["a.weight"][0].source == "auto: xavier_uniform_, fan_in 4, fan_out 4; could not see what follows"


@pytest.mark.filterwarnings("error")
def test_auto_with_an_example() -> None:
    model = Branching()
    del model.block
    made = wi.plan(model, auto(torch.zeros(2, 4)))
    assert made["a.weight"][0].source.endswith("gelu follows (a -> act GELU, in order of calls)")
    assert made.rules == "auto"
