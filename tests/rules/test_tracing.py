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


class Broken(nn.Module):
    """Its forward has a fault of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) * self.absent


@pytest.mark.parametrize(("example", "how"), [((), "torch.fx cannot trace it"), ((torch.zeros(2, 4),), "does not run on this")])
def test_auto_says_what_the_model_raised(example: tuple[Tensor, ...], how: str) -> None:
    with pytest.warns(UserWarning, match=rf"1 weights \(a\.weight\).*{how}.*: AttributeError: .*'Broken'.*'absent'"):
        wi.plan(Broken(), auto(*example))


def deep(layers: int, act: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(*(m for _ in range(layers) for m in (nn.Linear(16, 16), act())), nn.Linear(16, 4))


def gain_of(model: nn.Module, name: str, **options: float) -> float:
    """Of a square weight of width 16 under Xavier."""
    return wi.plan(model, auto(**options))[name][0].distribution.numbers()["b"] / math.sqrt(6 / 32)


def test_auto_sigmoid_gain() -> None:
    net = deep(3, nn.Sigmoid)
    assert gain_of(net, "2.weight") == pytest.approx(1)
    assert gain_of(net, "2.weight", sigmoid_gain=4) == pytest.approx(4)
    last = nn.Sequential(nn.Linear(16, 16), nn.Sigmoid(), nn.Linear(16, 16), nn.Sigmoid())
    assert gain_of(last, "0.weight", sigmoid_gain=4) == pytest.approx(4)
    assert gain_of(last, "2.weight", sigmoid_gain=4) == pytest.approx(1)  # an output says a probability
    lstm = wi.plan(nn.LSTM(16, 16), auto(sigmoid_gain=4)).diff(wi.plan(nn.LSTM(16, 16), "auto"))
    assert not [line for line in lstm if not line.startswith("seed")]
    for wrong in (0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="sigmoid_gain must be positive and finite"):
            auto(sigmoid_gain=wrong)


def test_auto_tanh_by_depth() -> None:
    assert gain_of(deep(15, nn.Tanh), "0.weight") == pytest.approx(5 / 3)
    assert gain_of(deep(50, nn.Tanh), "0.weight") == pytest.approx(1.292)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(100, 16, padding_idx=0), nn.Embedding(8, 16)
        self.other, self.out = nn.Embedding(5, 4), nn.Linear(16, 100, bias=False)
        self.out.weight = self.words.weight


@pytest.mark.filterwarnings("ignore:auto")
def test_auto_tied_embeddings() -> None:
    made = wi.plan(Tied(), "auto")
    table, padding = made["words.weight"]
    assert (table.distribution, padding.distribution) == (Normal(0, 0.25), Constant(0.0))
    assert table.source == "auto: normal_(std=0.25), 16 ** -0.5: tied to the output"
    assert made["places.weight"][0].distribution == Normal(0, 0.25)  # added to the other
    assert made["other.weight"][0].distribution == Normal(0, 1)
    net = Tied()
    net.out.weight = nn.Parameter(torch.empty(100, 16))
    assert wi.plan(net, "auto")["words.weight"][0].distribution == Normal(0, 1)


# ---- chosen by measurement ---------------------------------------------------------------------------------------------


def test_auto_by_measurement() -> None:
    net, x = deep(5, nn.Sigmoid), torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    before = [parameter.detach().clone() for parameter in net.parameters()]
    made = wi.plan(net, auto(x, measure=True), seed=0)
    assert made["0.weight"][0].source.startswith(
        "auto, measured: sigmoid_gain 4 (sigmoid_gain 1: WARN, sigmoid_gain 4: ok): xavier"
    )
    assert made.rules == "auto"
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert wi.Plan.from_json(made.to_json()) == made
    assert wi.probe(made.apply_(net), x).verdict == "ok"


def test_what_cannot_be_measured() -> None:
    net = deep(2, nn.ReLU)
    with pytest.raises(ValueError, match="auto: an example is required with measure=True, got none"):
        wi.plan(net, auto(measure=True))
    with pytest.raises(ValueError, match=r"auto: parameters with memory are required .* got some on meta"):
        wi.plan(deep(2, nn.ReLU).to("meta"), auto(torch.zeros(2, 16), measure=True))
    with pytest.warns(UserWarning, match=r"auto: the best of what was measured is a FAIL \(sigmoid_gain 1: FAIL, "):
        wi.plan(deep(200, nn.Sigmoid), auto(torch.randn(16, 16), measure=True))
