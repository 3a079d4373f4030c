"""Buffers that no plan has: what is said of them before ``to_empty()``, and how they are computed again after it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from meshes import rank_of
from torch import Tensor, nn
from torch.distributed.tensor import distribute_module

import weightinit_cuda as wi
from weightinit_cuda.numerics.distributions import Computed, Constant
from weightinit_cuda.plans.entry import Entry
from weightinit_cuda.tensors.boxes import Box

GARBAGE = 1.1e14


def emptied(model: nn.Module) -> nn.Module:
    """As ``to_empty()``, where the memory happened to hold something."""
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(GARBAGE if tensor.is_floating_point() or tensor.is_complex() else 77)
    return model


def on_meta(kind: str, **sizes: Any) -> tuple[nn.Module, nn.Module]:
    """A model of transformers on meta, and the same in memory."""
    transformers = pytest.importorskip("transformers", "5")

    def made() -> nn.Module:
        model: nn.Module = getattr(transformers, kind)(getattr(transformers, kind.partition("For")[0] + "Config")(**sizes))
        return model

    with torch.device("meta"):
        model = made()
    return model, made()


LLAMA = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 32}
SCALED = {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [("LlamaForCausalLM", LLAMA), ("LlamaForCausalLM", {**LLAMA, "rope_parameters": SCALED}), ("BertForMaskedLM", LLAMA)],
)
@pytest.mark.parametrize("rules", ["xavier", [wi.Rule("*", "zeros_")]])
def test_transformers_buffers_are_computed_again(kind: str, sizes: dict[str, Any], rules: Any) -> None:
    model, eager = on_meta(kind, **sizes)
    wi.initialize_(emptied(model), rules, seed=0, buffers="recompute")
    own = dict(eager.named_buffers())
    assert own
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, own[name]), name
    made = dict(model.named_parameters())  # more than there were: to_empty() unties
    for name, parameter in wi.initialize_(eager, rules, seed=0).named_parameters():
        assert torch.equal(parameter, made[name]), name


def test_by_default_buffers_are_left_alone() -> None:
    model, _ = on_meta("LlamaForCausalLM", **LLAMA)
    wi.initialize_(emptied(model), "xavier", seed=0)
    assert all(bool((buffer == GARBAGE).all()) for buffer in model.buffers())


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.register_buffer("steps", torch.arange(3.0), persistent=False)


class Resets(Holder):
    def reset_parameters(self) -> None:
        torch.arange(3.0, out=self.steps)
        nn.init.ones_(self.fc.weight)
        torch.rand(3)


class Replaces(Holder):
    def rope_init(self) -> None:
        self.register_buffer("steps", torch.arange(3.0), persistent=False)


class AsTimm(Holder):
    def init_non_persistent_buffers(self) -> None:
        self.steps.copy_(torch.arange(3.0, device=self.steps.device))


class WritesPart(Holder):
    def reset_parameters(self) -> None:
        self.steps[0] = 0


class Raises(Holder):
    def reset_buffers(self) -> None:
        raise OSError("no table")


@pytest.mark.parametrize("recorded", [False, True])
def test_a_plan_is_applied_with_buffers(recorded: bool) -> None:
    model, eager = on_meta("LlamaForCausalLM", **LLAMA)
    plan = recorded_plan(type(eager), eager.config) if recorded else wi.plan(eager, "xavier", seed=2)
    assert plan.apply_(emptied(model), seed=5, buffers="recompute") is model
    for name, buffer in eager.named_buffers():
        assert torch.equal(model.get_buffer(name), buffer), name
    made = dict(model.named_parameters())
    for name, parameter in plan.apply_(eager, seed=5).named_parameters():
        assert torch.equal(parameter, made[name]), name


def recorded_plan(kind: Any, config: Any) -> wi.Plan:
    """Of which the lines of ``inv_freq`` are no fills."""
    with wi.deferred() as recording:
        model = kind(config)
    plan = recording.plan(model, seed=2)
    assert any(not entry.distribution.is_fill for entry in plan)
    return plan


def test_what_a_plan_says_of_a_part_lies_over_the_modules_own_code() -> None:
    steps = ("steps", (3,), torch.float32)
    entries = wi.plan(Resets(), "xavier", seed=0).entries
    computed = Entry(*steps, Computed("arange"), 7, "", None, (), True)
    plan = wi.Plan((*entries, computed, Entry(*steps, Constant(9.0), 7, "", Box((1,), (1,)), (), True)))
    assert plan.apply_(emptied(Resets()), buffers="recompute").get_buffer("steps").tolist() == [0, 9, 2]
    assert plan.apply_(emptied(Resets())).get_buffer("steps").tolist() == [torch.tensor(GARBAGE), 9, torch.tensor(GARBAGE)]


def planned(kind: type[Holder], *more: Entry) -> wi.Plan:
    return wi.Plan((*wi.plan(kind(), "xavier", seed=0).entries, *more))


def nines(box: Box | None, name: str = "steps") -> Entry:
    return Entry(name, (3,), torch.float32, Constant(9.0), 7, "", box, (), True)


def test_a_plan_that_says_nothing_of_the_rest_of_a_buffer_does_not_fill_it() -> None:
    plan = planned(Resets, nines(Box((1,), (1,))))
    assert plan.apply_(emptied(Resets()), buffers="recompute").get_buffer("steps").tolist() == [0, 9, 2]
    halves = planned(Holder, nines(Box((1,), (2,))), nines(Box((0,), (1,))))  # without code of its own
    assert halves.apply_(emptied(Holder()), buffers="recompute").get_buffer("steps").tolist() == [9, 9, 9]


def nine_at_one(named: wi.Named) -> Any:
    return [(Constant(9.0), Box((1,), (1,)), "nine")]


def test_a_rule_for_a_part_of_a_buffer_lies_over_the_modules_own_code() -> None:
    rules = [wi.Rule((wi.rules.buffer, "steps"), nine_at_one), "xavier"]
    model = wi.initialize_(emptied(Resets()), rules, seed=0, buffers="recompute")
    assert model.get_buffer("steps").tolist() == [0, 9, 2]
    model = emptied(Holder())
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(ValueError, match=r"steps \(3,\) of Holder"):  # which has no code
        wi.initialize_(model, rules, seed=0, buffers="recompute")
    assert all(map(torch.equal, before, model.parameters()))
    made = wi.initialize_(Resets(), rules, seed=3, buffers="recompute")
    assert torch.equal(made.fc.weight, wi.initialize_(Resets(), rules, seed=3).fc.weight)  # type: ignore[union-attr,arg-type]


class Counts(nn.Module):
    """Buffers of integers, of which a function of its own writes all, or a part, or adds to them."""

    def __init__(self, write: Callable[[Tensor], Any], dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("counts", torch.arange(4).to(dtype))
        self.write = write

    def reset_parameters(self) -> None:
        self.write(self.counts)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_integers_that_are_written_in_part_are_refused(dtype: torch.dtype) -> None:
    parts: list[Callable[[Tensor], Any]] = [
        lambda t: t[1:].fill_(1),
        lambda t: t.logical_not_(),
        lambda t: t.bitwise_or_(t[:1] > 0),
    ]
    for write in parts:
        model = emptied(Counts(write, dtype))
        with pytest.raises(ValueError, match=r"counts \(4,\) of Counts"):
            wi.initialize_(model, "xavier", seed=0, buffers="recompute")
    for whole in (lambda t: t.copy_(torch.tensor([0, 1, 0, 1])), lambda t: t.copy_(torch.randint(0, 2, (4,)))):
        made = wi.initialize_(emptied(Counts(whole, dtype)), "xavier", seed=0, buffers="recompute")
        assert set(made.get_buffer("counts").tolist()) <= {0, 1}


class FromAnother(Holder):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("base", torch.tensor([2.0, 2.0, 2.0]))

    def reset_parameters(self) -> None:
        self.steps.copy_(self.base + 1)  # type: ignore[operator]


def test_what_is_computed_from_other_buffers_is_refused() -> None:
    """The code runs before the rules fill what it reads."""
    rules = [wi.Rule((wi.rules.buffer, "base"), "ones_"), "xavier"]
    with pytest.raises(ValueError, match=r"steps \(3,\) of FromAnother"):
        wi.initialize_(emptied(FromAnother()), rules, seed=0, buffers="recompute")


def test_a_plan_may_have_a_tied_buffer_under_another_name() -> None:
    model: Any = nn.Module()
    model.one, model.two = emptied(Resets()), emptied(Resets())  # which unties
    model.two.steps = model.one.steps
    entries = [entry for entry in wi.plan(model, "xavier", seed=0) if not entry.buffer]
    wi.Plan((*entries, nines(None, "two.steps"))).apply_(model, buffers="recompute")
    assert model.two.steps.tolist() == [9, 9, 9]


TABLE = torch.arange(3.0)


class Shares(Holder):
    def reset_buffers(self) -> None:
        self.steps = TABLE


class Expands(Holder):
    def reset_buffers(self) -> None:
        self.steps = torch.zeros(1, dtype=torch.float64).expand(3)


@pytest.mark.parametrize(("kind", "rest"), [(Shares, 2), (Expands, 0)])
def test_what_the_code_keeps_elsewhere_is_not_written(kind: type[Holder], rest: float) -> None:
    plan = planned(kind, nines(Box((0,), (2,))))
    assert plan.apply_(emptied(kind()), buffers="recompute").get_buffer("steps").tolist() == [9, 9, rest]
    assert TABLE.tolist() == [0, 1, 2]


class Draws(Holder):
    def reset_buffers(self) -> None:
        assert isinstance(self.steps, Tensor)
        self.steps.fill_(random.random() + float(torch.rand(())))


def test_the_generators_stay_where_they_are() -> None:
    plan, model = planned(Draws), emptied(Draws())
    before = random.getstate(), torch.get_rng_state().tolist()
    plan.apply_(model, buffers="recompute")
    assert before == (random.getstate(), torch.get_rng_state().tolist())


class Complex(Holder):
    def __init__(self) -> None:
        super().__init__()
        self.steps = self.steps.to(torch.complex64)

    def reset_buffers(self) -> None:
        self.steps[:2] = 1


@pytest.mark.parametrize("kind", [Resets, Replaces, AsTimm])
def test_modules_with_code_of_their_own(kind: type[Holder]) -> None:
    model = emptied(nn.Sequential(kind()))
    steps = model[0].get_buffer("steps")
    state = torch.random.get_rng_state()
    wi.initialize_(model, "xavier", seed=3, buffers="recompute")
    assert torch.equal(state, torch.random.get_rng_state())
    assert model[0].get_buffer("steps") is steps
    assert steps.tolist() == [0, 1, 2]
    assert torch.equal(model[0].fc.weight, wi.initialize_(nn.Sequential(kind()), "xavier", seed=3)[0].fc.weight)


@pytest.mark.parametrize(
    ("kind", "why"), [(Holder, ""), (WritesPart, ""), (Complex, ""), (Raises, r" \(reset_buffers: OSError: no table\)")]
)
def test_what_cannot_be_computed_is_named(kind: type[Holder], why: str) -> None:
    model = emptied(nn.Sequential(kind()))
    named = rf"got 1 that are not\. .*deferred.*\n  0\.steps \(3,\) of {kind.__name__}{why}$"
    with pytest.raises(ValueError, match=f"^initialize_: .*{named}"):
        wi.initialize_(model, "xavier", seed=0, buffers="recompute")
    with pytest.raises(ValueError, match=f"^apply_: .*{named}"):
        wi.plan(model, "xavier", seed=0).apply_(model, buffers="recompute")
    tensors: list[Tensor] = [*model.parameters(), *model.buffers()]
    assert all(bool((tensor == GARBAGE).all()) for tensor in tensors), "something was written"


def test_buffers_of_norms_are_the_plans() -> None:
    model = wi.initialize_(emptied(nn.Sequential(nn.BatchNorm1d(3))), seed=0, buffers="recompute")
    assert model[0].get_buffer("running_var").tolist() == [1, 1, 1]


def test_on_meta_the_error_names_what_to_empty_would_leave() -> None:
    model = nn.Sequential(Holder()).to("meta")
    for buffers in ("keep", "recompute"):
        with pytest.raises(
            ValueError, match=r"under deferred\(\).*leaves 1 buffers without values \(0\.steps\): .*'recompute'"
        ):
            wi.initialize_(model, "xavier", seed=0, buffers=buffers)
        with pytest.raises(ValueError, match=r"leaves 1 buffers without values \(0\.steps\): apply_\(.*'recompute'"):
            wi.plan(model, "xavier", seed=0).apply_(model, buffers=buffers)
    with pytest.raises(ValueError, match=r"under deferred\(\) .* or use model\.to_empty\(device=\.\.\.\)\.$"):
        wi.initialize_(nn.Linear(2, 2, device="meta"))


@pytest.mark.parametrize("buffers", ["keep", "recompute"])
def test_a_buffer_on_meta_is_refused_before_weights_are_written(buffers: str) -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("table", torch.zeros(3, device="meta"))
    before = model.weight.tolist()
    with pytest.raises(ValueError, match=r"\n  table: on meta, without memory\."):
        wi.initialize_(model, "xavier", seed=0, buffers=buffers)
    assert model.weight.tolist() == before


@pytest.mark.parametrize("wrong", [True, None, "Keep", ["keep"]])
def test_buffers_must_be_known(wrong: Any) -> None:
    model = nn.Linear(2, 2)
    plan, before = wi.plan(model, seed=0), model.weight.tolist()
    with pytest.raises(ValueError, match=r'^initialize_: buffers must be "keep" or "recompute", got '):
        wi.initialize_(model, buffers=wrong)
    with pytest.raises(ValueError, match=r'^apply_: buffers must be "keep" or "recompute", got '):
        plan.apply_(model, buffers=wrong)
    assert model.weight.tolist() == before


@pytest.mark.parametrize("kind", [Replaces, AsTimm])
def test_buffers_over_a_mesh_that_the_code_makes_plain_are_named(kind: type[Holder]) -> None:
    with rank_of(0, (1,)) as mesh:
        model = distribute_module(kind(), mesh)
        plan, before = wi.plan(model, "xavier", seed=0), model.fc.weight.to_local().tolist()
        with pytest.raises(ValueError, match=rf"steps \(3,\) of {kind.__name__}"):
            plan.apply_(model, buffers="recompute")
        assert model.fc.weight.to_local().tolist() == before


def test_tensors_by_name_have_no_code() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(TypeError, match=r'^apply_\(buffers="recompute"\): model must be a module, got a dict'):
        wi.plan(model, seed=0).apply_(dict(model.named_parameters()), buffers="recompute")
