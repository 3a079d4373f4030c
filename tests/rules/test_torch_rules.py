"""The rule set ``torch`` against torch: every module of torch.nn with parameters is made, and its fills are watched."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import weightinit_cuda as wi
from weightinit_cuda.numerics.distributions import Constant, Distribution, Normal, Uniform
from weightinit_cuda.tensors.boxes import Box

Made = Callable[[], nn.Module]
Seen = list[tuple[Distribution, Box | None]]

NEW = hasattr(nn, "LinearCrossEntropyLoss")  # torch 2.13
# Every class of torch.nn that has parameters, in the variants whose code differs.
CASES: dict[str, list[Made]] = {
    "Linear": [lambda: nn.Linear(3, 5), lambda: nn.Linear(3, 5, bias=False), lambda: nn.Linear(0, 3)],
    "Bilinear": [lambda: nn.Bilinear(3, 4, 5), lambda: nn.Bilinear(3, 4, 5, bias=False)],
    "Conv1d": [lambda: nn.Conv1d(4, 6, 3), lambda: nn.Conv1d(4, 6, 3, groups=2, bias=False)],
    "Conv2d": [lambda: nn.Conv2d(4, 6, (3, 2)), lambda: nn.Conv2d(4, 8, 3, groups=4)],
    "Conv3d": [lambda: nn.Conv3d(4, 6, 3)],
    "ConvTranspose1d": [lambda: nn.ConvTranspose1d(4, 6, 3)],
    "ConvTranspose2d": [lambda: nn.ConvTranspose2d(4, 6, 3, groups=2)],
    "ConvTranspose3d": [lambda: nn.ConvTranspose3d(4, 6, 3, bias=False)],
    "Embedding": [
        lambda: nn.Embedding(7, 3),
        lambda: nn.Embedding(7, 3, padding_idx=2),
        lambda: nn.Embedding(7, 3, padding_idx=-1),
    ],
    "EmbeddingBag": [lambda: nn.EmbeddingBag(7, 3), lambda: nn.EmbeddingBag(7, 3, padding_idx=0)],
    "RNNBase": [lambda: nn.RNNBase("RNN_TANH", 3, 5)],
    "RNN": [lambda: nn.RNN(3, 5, 2, bidirectional=True)],
    "LSTM": [lambda: nn.LSTM(3, 5, 2), lambda: nn.LSTM(3, 5, proj_size=2, bias=False)],
    "GRU": [lambda: nn.GRU(3, 5)],
    "RNNCellBase": [lambda: nn.RNNCellBase(3, 5, True, 2)],
    "RNNCell": [lambda: nn.RNNCell(3, 5)],
    "LSTMCell": [lambda: nn.LSTMCell(3, 5, bias=False)],
    "GRUCell": [lambda: nn.GRUCell(3, 5)],
    "MultiheadAttention": [
        lambda: nn.MultiheadAttention(4, 2),
        lambda: nn.MultiheadAttention(4, 2, bias=False),
        lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5, add_bias_kv=True),
    ],
    "BatchNorm1d": [
        lambda: nn.BatchNorm1d(3),
        lambda: nn.BatchNorm1d(3, affine=False),
        lambda: nn.BatchNorm1d(3, track_running_stats=False),
    ],
    "BatchNorm2d": [lambda: nn.BatchNorm2d(3)],
    "BatchNorm3d": [lambda: nn.BatchNorm3d(3)],
    "SyncBatchNorm": [lambda: nn.SyncBatchNorm(3)],
    "InstanceNorm1d": [
        lambda: nn.InstanceNorm1d(3, affine=True, track_running_stats=True),
        lambda: nn.InstanceNorm1d(3),
    ],
    "InstanceNorm2d": [lambda: nn.InstanceNorm2d(3, affine=True)],
    "InstanceNorm3d": [lambda: nn.InstanceNorm3d(3, affine=True)],
    "GroupNorm": [lambda: nn.GroupNorm(2, 4), lambda: nn.GroupNorm(2, 4, affine=False)],
    "LayerNorm": [lambda: nn.LayerNorm((3, 4)), lambda: nn.LayerNorm(3, bias=False)],
    "RMSNorm": [lambda: nn.RMSNorm((3, 4))],
    "PReLU": [lambda: nn.PReLU(), lambda: nn.PReLU(3, init=0.1)],
    "AdaptiveLogSoftmaxWithLoss": [lambda: nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10], div_value=2.0, head_bias=True)],
    "Transformer": [lambda: nn.Transformer(8, 2, 1, 2, 12), lambda: nn.Transformer(8, 2, 1, 1, 12, bias=False)],
    "TransformerEncoderLayer": [lambda: nn.TransformerEncoderLayer(8, 2, 12)],
    "TransformerDecoderLayer": [lambda: nn.TransformerDecoderLayer(8, 2, 12)],
    "TransformerEncoder": [lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12), 2)],
    "TransformerDecoder": [lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 12), 2)],
    **({"LinearCrossEntropyLoss": [lambda: nn.LinearCrossEntropyLoss(3, 5, bias=True)]} if NEW else {}),
    **{
        f"Lazy{kind}{dims}d": [lambda kind=kind, dims=dims: lazy(kind, dims)]  # type: ignore[misc]
        for kind in ("Conv", "ConvTranspose", "BatchNorm", "InstanceNorm")
        for dims in (1, 2, 3)
    },
    "LazyLinear": [lambda: run(nn.LazyLinear(5), 3, 2)],
}
HOLDS_WHAT_IT_IS_GIVEN = {"ParameterList", "ParameterDict"}


def run(module: nn.Module, *shape: int) -> nn.Module:
    module(torch.zeros(shape))
    return module


def lazy(kind: str, dims: int) -> nn.Module:
    module = getattr(nn, f"Lazy{kind}{dims}d")
    made = module(4, 3) if "Conv" in kind else module(affine=True, track_running_stats=True)
    return run(made, 2, 3, *[5] * dims)


class Watch(TorchDispatchMode):
    """Remembers each write of numbers into memory: where it begins, how much it is, what it was."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[tuple[int, torch.Tensor, Distribution]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        numbers = [arg for arg in args[1:] if not isinstance(arg, torch.Tensor)]
        numbers += [float(arg) for arg in args[1:] if isinstance(arg, torch.Tensor) and arg.dim() == 0]
        match name, [*numbers, *(kwargs or {}).values()]:
            case "uniform_", numbers:
                self.note(args[0], Uniform(*or_default(numbers)))
            case "normal_", numbers:
                self.note(args[0], Normal(*or_default(numbers)))
            case "fill_", [value, *_]:
                self.note(args[0], Constant(float(value)))
            case "zero_", _:
                self.note(args[0], Constant(0.0))
            case "detach" | "empty" | "zeros" | "ones" | "_to_copy" | "clone" | "copy_", _ if isinstance(out, torch.Tensor):
                self.copy(out, args[-1] if name == "copy_" else args[0] if args else None)
        return out

    def note(self, tensor: torch.Tensor, made: Distribution) -> None:
        self.writes.append((tensor.data_ptr(), tensor, made))

    def copy(self, out: torch.Tensor, source: object) -> None:
        if isinstance(source, torch.Tensor):
            last = self.of(source)
            for made, box in last:
                assert box is None
                self.note(out, made)

    def of(self, tensor: torch.Tensor) -> Seen:
        """The last fill of the whole tensor, and what was written into rows of it since."""
        begin, size = tensor.data_ptr(), tensor.numel() * tensor.element_size()
        seen: Seen = []
        for at, part, made in self.writes:
            if at == begin and part.numel() == tensor.numel():
                seen = [(made, None)]
            elif begin <= at < begin + size and part.numel():
                row = (at - begin) // tensor.element_size() // tensor.shape[1]
                seen.append((made, Box((row, 0), (1, tensor.shape[1]))))
        return seen


def or_default(numbers: list[Any]) -> tuple[float, float]:
    """Arguments that equal their defaults, 0 and 1 in both draws, do not come through dispatch."""
    given = [number for number in numbers if isinstance(number, int | float)]
    first, second = [*given, *(0.0, 1.0)[len(given) :]]
    return first, second


def classes() -> dict[str, type[nn.Module]]:
    return {name: kind for name, kind in vars(nn).items() if inspect.isclass(kind) and issubclass(kind, nn.Module)}


def test_every_module_with_parameters_is_a_case() -> None:
    """A class that torch adds is noticed: it makes parameters, or resets them."""
    own = re.compile(r"\bParameter\(|def _?reset_parameters\b")
    found = {
        name
        for name, kind in classes().items()
        for base in kind.__mro__[: -kind.__mro__[::-1].index(nn.Module) - 1]
        if own.search(inspect.getsource(base))
    }
    assert found - HOLDS_WHAT_IT_IS_GIVEN <= set(CASES)
    assert set(CASES) <= set(classes())


@pytest.mark.parametrize(
    ("name", "make"),
    [(name, make) for name, makes in CASES.items() for make in makes],
    ids=lambda case: case if isinstance(case, str) else "",
)
@pytest.mark.filterwarnings("ignore")
def test_set_torch_is_what_torch_does(name: str, make: Made) -> None:
    with Watch() as watch:
        module = make()
    plan = wi.plan(module, rules="torch")
    for key, tensor in [*module.named_parameters(), *module.named_buffers()]:
        planned = [(line.distribution, line.box) for line in plan[key]]
        assert plan[key][0].source.startswith("torch: ")
        if tensor.numel():
            assert planned == watch.of(tensor), key


def test_the_watch_watches() -> None:
    """Power of the test above."""
    with Watch() as watch:
        module = nn.Embedding(7, 3, padding_idx=2)
        nn.init.uniform_(module.weight, -1, 1)
        nn.init.zeros_(module.weight[4])
    assert watch.of(module.weight) == [(Uniform(-1, 1), None), (Constant(0.0), Box((4, 0), (1, 3)))]


class Sublinear(nn.Linear):
    pass


class Noisy(nn.Linear):
    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight)
        nn.init.normal_(self.bias)


def test_subclasses() -> None:
    plan = wi.plan(nn.Sequential(Sublinear(4, 2)), rules="torch")
    assert plan["0.weight"][0].source == "torch: Sublinear as Linear"
    assert plan["0.bias"][0].distribution == Uniform(-0.5, 0.5)
    with pytest.raises(ValueError, match=r"0\.weight \(2, 4\) of Noisy: no rule covers it\.\n  0\.bias \(2,\) of Noisy"):
        wi.plan(nn.Sequential(Noisy(4, 2)), rules="torch")


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("make", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_weight_norm_asks_for_its_norms_only(make: Callable[[nn.Module], nn.Module]) -> None:
    """They follow from values; the direction is the layer's weight, and the bias has the layer's fan."""
    module = nn.Sequential(make(nn.Linear(4, 2)))
    with pytest.raises(
        ValueError, match=r"got 1 without.*\n.*no rule covers it; the norms of weight_norm follow from"
    ) as error:
        wi.plan(module, rules="torch")
    (line,) = re.findall(r"wi\.Rule\(.*\)", str(error.value))
    plan = wi.plan(module, rules=[eval(line), "torch"])
    plain = wi.plan(nn.Sequential(nn.Linear(4, 2)), rules="torch")
    assert {entry.distribution for entry in plan} == {Constant(1.0), *(entry.distribution for entry in plain)}
    assert [entry.source for entry in plan if entry.source.endswith("Linear, as 0.weight")]


def test_weight_norm_of_recurrent_layers() -> None:
    """Their parts are no gates."""
    with pytest.warns(FutureWarning):
        module = nn.utils.weight_norm(nn.LSTM(4, 4), "weight_hh_l0")
    for rules in ("torch", "xavier"):
        with pytest.raises(ValueError, match=r"got 1 without.*\n  weight_hh_l0_g"):
            wi.plan(module, rules=rules)


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


@pytest.mark.parametrize("rules", ["torch", "kaiming", "auto", "gpt2", "llama", "vit"])
def test_weights_that_torch_keeps_as_they_are(rules: str) -> None:
    """spectral_norm, old and new, and a parametrization without a right inverse hold the layer's own weight."""
    plain = wi.plan(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), rules)
    for make in (
        nn.utils.parametrizations.spectral_norm,
        nn.utils.spectral_norm,
        lambda layer: nn.utils.parametrize.register_parametrization(layer, "weight", Doubled()),
    ):
        model = nn.Sequential(make(nn.Linear(4, 2)), nn.ReLU())
        plan = wi.plan(model, rules)
        assert {e.distribution for e in plan} == {e.distribution for e in plain}
        assert [e.source.removesuffix(", as 0.weight") for e in plan if e.source.endswith(", as 0.weight")]


def test_orthogonal_parametrizations_are_refused() -> None:
    model = nn.utils.parametrizations.orthogonal(nn.Linear(4, 2))
    with pytest.raises(ValueError, match="no rule covers it; _Orthogonal computes it from the layer's weight"):
        wi.plan(model, rules="torch")


def test_transformer_fills_what_is_inside_it_only() -> None:
    model = nn.ModuleDict({"head": nn.Linear(8, 8), "body": nn.Transformer(8, 2, 1, 1, 12, batch_first=True)})
    plan = wi.plan(model, rules="torch")
    assert plan["head.weight"][0].source == "torch: Linear"
    assert plan["body.encoder.layers.0.linear1.weight"][0].source == "torch: Rule(in_transformer, xavier_uniform_)"


def test_recorded_code_says_the_same() -> None:
    with wi.deferred() as recorded:
        model = nn.ModuleList([nn.Transformer(8, 2, 1, 1, 12, batch_first=True), nn.Embedding(5, 3, 1), nn.LSTM(3, 4)])
    assert recorded.plan(model, seed=0).diff(wi.plan(model, "torch", seed=0)) == []


def test_a_reset_that_is_replaced_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules remember what they gave, but classes may be patched between two plans."""
    attention = nn.MultiheadAttention(4, 2)
    for model, name in ((nn.Linear(2, 2), "reset_parameters"), (attention, "_reset_parameters")):
        wi.plan(model)
        with monkeypatch.context() as patch:
            patch.setattr(type(model), name, lambda self: None)
            with pytest.raises(ValueError, match="no rule covers it"):
                wi.plan(model)
        wi.plan(model)
