"""Rules matched with many tensors: the kernels' function against the one in Python, what is shared, and what is refused."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import weightinit_cuda as wi
from weightinit_cuda.numerics.distributions import Constant, Normal
from weightinit_cuda.rules import Rule, buffer, first_match, flattened, keys, matching
from weightinit_cuda.rules.matching import Matching, fills_or_raise
from weightinit_cuda.rules.torch_reset import torch_reset
from weightinit_cuda.tensors.named import PLAIN_TYPES, Named, named_tensors

WAYS = list(dict.fromkeys([matching.first_fills, matching.fastest]))


class Layers(nn.Module):
    """Of several kinds, of equal and of different shapes, with buffers, a norm without weight, and a weight made from parts."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(3, 4), nn.Linear(4, 3, dtype=torch.float64)])
        self.convolution = nn.Conv2d(2, 3, 2)
        self.turned = nn.ConvTranspose2d(2, 3, 2)
        self.norms = nn.ModuleList([nn.BatchNorm1d(4), nn.LayerNorm(4), nn.BatchNorm1d(3, affine=False)])
        self.rows = nn.Embedding(5, 4, padding_idx=1)
        self.parts = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))


def as_first_match(rules: wi.rules.Rules, tensors: list[Named], model: nn.Module) -> list[Any]:
    flat = list(flattened(model, rules))
    return [first_match(flat, named) for named in tensors]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: type(way).__name__)
@pytest.mark.parametrize(
    "rules", ["torch", "kaiming", "auto", [Rule("*.bias", "zeros_"), Rule((buffer, "*"), "ones_"), "xavier"]], ids=str
)
def test_many_get_what_each_gets_alone(way: Any, rules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "fastest", way)
    model: nn.Module = Layers() if rules != "auto" else nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    tensors = named_tensors(model)
    together = Matching(flattened(model, rules)).firsts(tensors)
    assert together == as_first_match(rules, tensors, model)
    assert any(together)


def test_layers_that_differ_in_what_decides_get_their_own() -> None:
    """A bias follows from the weight beside it, in as far as its shape says so."""
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(9, 2), nn.Linear(4, 2), nn.Conv1d(9, 2, 4))
    bounds = {entry.name: entry.distribution.numbers()["b"] for entry in wi.plan(model, "torch", 0) if "bias" in entry.name}
    assert bounds == {"0.bias": 1 / 2, "1.bias": 1 / 3, "2.bias": 1 / 2, "3.bias": 1 / 6}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: type(way).__name__)
def test_a_function_is_asked_for_each_tensor(way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "fastest", way)
    asked = []

    def by_name(named: Named) -> Normal:
        asked.append(named.name)
        return Normal(0.0, 1.0 + len(asked))

    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    plan = wi.plan(model, by_name, seed=0)
    assert asked == plan.names()
    assert [entry.distribution.numbers()["std"] for entry in plan] == [2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: type(way).__name__)
def test_what_is_the_same_is_one_list(way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "fastest", way)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2, dtype=torch.float64), nn.Linear(3, 2))
    zeros = Constant(0.0)
    for rules in ("torch", [Rule("*", "normal_")], [zeros], [lambda named: zeros]):
        found = Matching(flattened(model, [Rule("*", rules[0])] if rules == [zeros] else rules)).firsts(named_tensors(model))
        weights, biases = found[::2], found[1::2]
        assert weights[0] is weights[1]
        assert len({id(each) for each in weights}) == 3  # dtypes and shapes
        assert biases[0] is biases[1] is not biases[2]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: type(way).__name__)
def test_what_a_rule_refuses_is_told_of_that_tensor(way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "fastest", way)

    def picky(named: Named) -> Constant:
        if named.name == "1.weight":
            raise ArithmeticError("not this one")
        return Constant(1.0)

    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    flat = list(flattened(model, [Rule("*.bias", "zeros_"), picky]))
    found = Matching(flat).firsts(named_tensors(model))
    assert [isinstance(each, list) for each in found] == [True, True, False, True]
    with pytest.raises(ValueError, match=r"^not this one \(custom: Rule\('\*', picky\)\)$") as caught:
        fills_or_raise(found[2])
    assert isinstance(caught.value.__cause__, ArithmeticError)
    assert traceback.extract_tb(caught.value.__cause__.__traceback__)[-1].name == "picky"
    with pytest.raises(ValueError, match=r"1 without.*\n.*1\.weight \(2, 2\) of Linear: not this one \(custom"):
        wi.plan(model, [Rule("*.bias", "zeros_"), picky])


@pytest.mark.parametrize("way", WAYS, ids=lambda way: type(way).__name__)
def test_other_exceptions_go_through(way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "fastest", way)

    def lost(named: Named) -> bool:
        raise KeyError(named.name)

    for rule in (Rule(lost, "zeros_"), Rule("*", lost)):
        with pytest.raises(KeyError, match=r"^'weight'$"):
            wi.plan(nn.Linear(2, 2), [rule])


class OfBoth(Rule):
    """Speaks of buffers, too, by a way of its own."""

    def matches(self, named: Named) -> bool:
        return named.name in ("1.weight", "1.running_mean")


class ByName(Rule):
    def fills(self, named: Named) -> list[Any]:
        return [(Constant(float(len(named.name))), None, "")] if self.matches(named) else []


class GivenByName(Rule):
    def given(self, named: Named) -> list[Any]:
        return [(Constant(float(len(named.name))), None, "")]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: type(way).__name__)
def test_rules_of_other_classes_are_asked_themselves(way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "fastest", way)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    names = [named.name for named in named_tensors(model)]

    def made(rule: Rule) -> dict[str, float]:
        found = Matching(flattened(model, [rule])).firsts(named_tensors(model))
        return {name: fills_or_raise(each)[0][0].numbers()["value"] for name, each in zip(names, found, strict=True) if each}

    assert made(OfBoth("*", "ones_")) == {"1.weight": 1.0, "1.running_mean": 1.0}
    for kind in (ByName, GivenByName):
        assert made(kind("*.weight", "ones_")) == {name: float(len(name)) for name in names if name.endswith(".weight")}
        assert made(kind((buffer, "*.running_*"), "ones_")) == {n: float(len(n)) for n in names if ".running_" in n}


# ---- keys ------------------------------------------------------------------------------------------------------------

KINDS = frozenset((nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm1d, nn.LayerNorm))


@pytest.mark.parametrize("kinds", [None, KINDS], ids=["all", "some"])
def test_keys_are_those_of_python(kinds: Any) -> None:
    model = Layers()
    odd = nn.Linear(2, 2)
    odd.weight = nn.Parameter(torch.empty(0))  # as ZeRO-3 leaves one
    tensors = [*named_tensors(model), *named_tensors(odd), Named("alone", torch.ones(2))]
    here, there = keys.ShapeKey(kinds, tuple(PLAIN_TYPES)), keys.shape_key(kinds)
    found = [here(named) for named in tensors]
    assert found == [there(named) for named in tensors]
    known = {named.name: key for named, key in zip(tensors, found, strict=True)}
    if kinds is None:
        assert known["alone"] == (torch.float32, torch.Size([2]))
    else:
        assert known["alone"] is known["rows.weight"] is known["bias"] is known["norms.2.running_mean"] is None
        assert known["layers.2.bias"] == (nn.Linear, "bias", torch.float32, torch.Size([4]), torch.Size([4, 3]))


def test_the_reset_of_torch_has_a_key_for_what_it_decides_by_shapes() -> None:
    """Each module whose class is known by its shapes, asked with and without its key."""
    model = Layers()
    key: Callable[[Named], Any] = keys.key_of_function(torch_reset)
    known: dict[Any, Any] = {}
    for named in named_tensors(model):
        if (of := key(named)) is not None:
            assert known.setdefault(of, torch_reset(named)) == torch_reset(named)
    assert len(known) > 10


def test_no_key_is_taken_for_functions_of_others() -> None:
    assert Rule("*", lambda named: Constant(0.0)).key is keys.no_key
    assert keys.no_key(Named("w", torch.ones(1))) is None
    assert Rule("*", "sparse_", sparsity=torch.tensor(0.5)).key is keys.no_key  # a tensor may change
    assert Rule("*", "normal_").key is Rule("*", Constant(1.0)).key is keys.DTYPE_AND_SHAPE


def test_what_is_no_row_is_refused() -> None:
    if matching.fastest is matching.first_fills:
        pytest.skip("no native module")
    named = Named("w", torch.ones(1))
    for rules in (((), (), ()), (((1, 2),), ()), (((1, 2, [], 3, {}),), ())):
        with pytest.raises(TypeError):
            matching.fastest([named], rules, None, ValueError)
    with pytest.raises(TypeError, match="Named"):
        matching.fastest([3], ((), ()), None, ValueError)
    with pytest.raises(TypeError, match="Named"):
        keys.shape_key(None)((1, 2))  # type: ignore[arg-type]


def test_a_scheme_tells_layers_apart_that_differ() -> None:
    """Linear layers of one shape get the same; convolutions have groups."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 4), nn.Conv1d(4, 8, 1), nn.Conv1d(4, 8, 1, groups=2))
    weights = [entry for entry in wi.plan(model, "kaiming", 0) if "weight" in entry.name]
    fans = [int(entry.source.partition("fan_in ")[2].partition(",")[0]) for entry in weights]
    assert fans == [4, 4, 8, 4, 2]
    assert weights[0].distribution is weights[1].distribution
    spreads = [entry.distribution.standard_deviation() for entry in weights]
    assert spreads == pytest.approx([(2 / fan) ** 0.5 for fan in fans])


def test_functions_of_schemes_are_forgotten() -> None:
    gc.collect()
    before = len(keys._OF_FUNCTIONS)
    for _ in range(10):
        wi.plan(nn.Linear(2, 2), wi.rules.scheme("xavier_normal_"), 0)
    gc.collect()
    assert len(keys._OF_FUNCTIONS) == before
