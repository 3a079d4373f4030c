"""The set ``transformers`` follows ``_init_weights`` by running it on a copy: what that sees, and that nothing else happens."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda.numerics.distributions import Constant, Distribution, Normal, TruncNormal, Uniform
from weightinit_cuda.tensors.boxes import Box


class PreTrainedModel(nn.Module):
    """transformers' base, as far as the set looks at it."""

    def __init__(self, std: float = 0.5) -> None:
        super().__init__()
        self.config = SimpleNamespace(initializer_range=std)

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=self.config.initializer_range)


def given(model: nn.Module, name: str) -> list[tuple[Distribution, Box | None]]:
    return [(entry.distribution, entry.box) for entry in wi.plan(model, "transformers", seed=0)[name]]


class Ways(PreTrainedModel):
    """Every way in which code fills a parameter."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("function", "method", "data", "row", "middle", "scaled", "cut", "twice", "untouched"):
            setattr(self, name, nn.Linear(4, 3, bias=False))
        self.norm = nn.LayerNorm(4)
        self.vector = nn.Parameter(torch.empty(6))

    def _init_weights(self, module: nn.Module) -> None:
        if module is not self:
            return
        nn.init.xavier_uniform_(self.function.weight, gain=2.0)
        self.method.weight.normal_(std=0.25)
        self.data.weight.data.uniform_(-1.0, 1.0)
        nn.init.normal_(self.row.weight)
        self.row.weight.data[1].zero_()
        nn.init.ones_(self.middle.weight)
        nn.init.constant_(self.middle.weight[:, 1:3], 5.0)
        nn.init.normal_(self.scaled.weight, std=2.0)
        self.scaled.weight.div_(math.sqrt(16)).mul_(3)
        nn.init.trunc_normal_(self.cut.weight, std=0.02)
        nn.init.normal_(self.twice.weight)
        nn.init.zeros_(self.twice.weight)
        nn.init.zeros_(self.vector)
        self.vector.data[2:4].fill_(-1.0)


WAYS: dict[str, list[tuple[Distribution, Box | None]]] = {
    "function.weight": [(Uniform(-2 * math.sqrt(6 / 7), 2 * math.sqrt(6 / 7)), None)],
    "method.weight": [(Normal(0.0, 0.25), None)],
    "data.weight": [(Uniform(-1.0, 1.0), None)],
    "row.weight": [(Normal(0.0, 1.0), None), (Constant(0.0), Box((1, 0), (1, 4)))],
    "middle.weight": [(Constant(1.0), None), (Constant(5.0), Box((0, 1), (3, 2)))],
    "scaled.weight": [(Normal(0.0, 1.5), None)],
    "cut.weight": [(TruncNormal(0.0, 0.02, -2.0, 2.0), None)],
    "twice.weight": [(Constant(0.0), None)],
    "untouched.weight": [(Uniform(-math.sqrt(3) * math.sqrt(1 / 12), math.sqrt(3) * math.sqrt(1 / 12)), None)],  # Linear's own
    "norm.weight": [(Constant(1.0), None)],
    "vector": [(Constant(0.0), None), (Constant(-1.0), Box((2,), (2,)))],
}


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.filterwarnings("error")
def test_what_init_weights_fills(name: str) -> None:
    found, expected = given(Ways(), name), WAYS[name]
    assert [(type(made), box) for made, box in found] == [(type(made), box) for made, box in expected]
    for (made, _), (wanted, _) in zip(found, expected, strict=True):
        assert list(made.numbers().values()) == pytest.approx(list(wanted.numbers().values()), rel=1e-12)
    assert wi.plan(Ways(), "transformers")["method.weight"][0].source == "transformers: Ways._init_weights, Ways"


def test_nothing_of_the_model_changes() -> None:
    torch.manual_seed(0)
    model = Ways()
    before = {name: (p, p.detach().clone(), p._version) for name, p in model.named_parameters()}
    attributes = {id(module): dict(vars(module)) for module in model.modules()}
    state = torch.get_rng_state()
    wi.plan(model, "transformers", seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    for name, p in model.named_parameters():
        same, values, version = before[name]
        assert p is same
        assert torch.equal(p.nan_to_num(), values.nan_to_num())
        assert p._version == version
    assert attributes == {id(module): dict(vars(module)) for module in model.modules()}


class Strange(PreTrainedModel):
    """What is no fill."""

    def __init__(self) -> None:
        super().__init__()
        self.computed, self.replaced, self.fails = (nn.Linear(4, 4, bias=False) for _ in range(3))
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.fine = nn.Linear(4, 4, bias=False)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self.computed:
            module.weight.copy_(torch.rand(4, 4))
        elif module is self.replaced:
            module.weight = nn.Parameter(torch.zeros(4, 4))
        elif module is self.fails:
            assert isinstance(module.weight, Tensor)
            module.weight.tolist()


def test_what_is_no_fill_is_named() -> None:
    model = Strange()
    with pytest.warns(UserWarning, match="parameters that it computes or leaves to a constructor") as seen:
        plan = wi.plan(model, "transformers", seed=0)
    (said,) = {str(warning.message) for warning in seen}
    assert "\n  computed.weight: Strange._init_weights, Linear computes it (copy_)" in said
    assert "\n  replaced.weight: Strange._init_weights, Linear puts another in its place" in said
    assert "\n  fails.weight: NotImplementedError: values of tensors are asked for" in said
    assert "\n  token: only its constructor writes it" in said
    assert "fine" not in said
    assert {plan[f"{name}.weight"][0].distribution for name in ("computed", "replaced", "fails", "fine")} == {Normal(0.0, 0.5)}


class Numbers(PreTrainedModel):
    """What is computed without draws, as in Mamba; what is not; and a matrix that is filled in another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.empty(6, 4))
        self.steps = nn.Parameter(torch.empty(5, dtype=torch.bfloat16))
        self.part = nn.Parameter(torch.empty(4))
        self.patches = nn.Parameter(torch.empty(8, 3, 2, 2))
        self.beside = nn.Parameter(torch.empty(4))
        self.none = nn.Parameter(torch.empty(0, 3))
        self.many, self.infinite, self.drawn = nn.Parameter(torch.empty(200)), nn.Linear(2, 2), nn.Linear(2, 2)

    def _init_weights(self, module: nn.Module) -> None:
        if module is not self:
            return
        nn.init.normal_(self.rows)
        self.rows.copy_(torch.arange(1, 5).float().log().expand(6, -1))
        self.steps.copy_(torch.tensor([0.0, -0.0, 0.1, 0.1, 7.0]))
        nn.init.ones_(self.part)
        self.part.data[1:3].copy_(torch.tensor(5.0))
        nn.init.xavier_uniform_(self.patches.view(8, -1))
        self.beside.copy_(-10 * torch.ones_like(self.beside) + torch.arange(4, device=self.beside.device) // 2)
        nn.init.zeros_(self.none)
        self.many.copy_(torch.arange(200.0))
        self.infinite.weight.copy_(torch.tensor([[1.0, math.inf], [0.0, 0.0]]))
        self.drawn.weight.copy_(torch.rand(2, 2))
        self.drawn.bias.copy_(torch.zeros(2))  # it could have been drawn, as far as anybody knows


@pytest.mark.filterwarnings("ignore:transformers")
def test_numbers_that_are_computed_are_constants() -> None:
    model = wi.initialize_(Numbers(), [wi.Rule("many", "zeros_"), "transformers"], seed=0)
    assert torch.equal(model.rows, torch.arange(1, 5).float().log().expand(6, -1))
    assert torch.equal(model.steps, torch.tensor([0.0, 0.0, 0.1, 0.1, 7.0], dtype=torch.bfloat16))
    assert model.steps.signbit().tolist() == [False, True, False, False, False]
    assert model.part.tolist() == [1, 5, 5, 1]
    assert model.beside.tolist() == [-10, -10, -9, -9]
    logs = torch.arange(1, 5).float().log().tolist()
    assert given_more(Numbers(), "rows") == [(Constant(log), Box((0, n), (6, 1))) for n, log in enumerate(logs)]
    (made, box), bound = given_more(Numbers(), "patches")[0], math.sqrt(6 / (8 + 12))
    assert isinstance(made, Uniform)
    assert (made.b, box) == (pytest.approx(bound), None)


def given_more(model: nn.Module, name: str) -> list[tuple[Distribution, Box | None]]:
    entries = wi.plan(model, [wi.Rule("many", "zeros_"), "transformers"], seed=0)[name]
    return [(entry.distribution, entry.box) for entry in entries]


def test_what_is_drawn_or_too_much_is_named() -> None:
    with pytest.warns(UserWarning, match="that it computes") as seen:
        wi.plan(Numbers(), [wi.Rule("many", "zeros_"), "transformers"], seed=0)
    said = str(seen[0].message)
    assert [line.partition(":")[0].strip() for line in said.splitlines()[1:]] == [
        *("many", "infinite.weight", "drawn.weight", "drawn.bias")
    ]


class Once(PreTrainedModel):
    """One parameter, and the code that fills it."""

    def __init__(self, code: Callable[[Once, Tensor], object], **made: Any) -> None:
        super().__init__()
        self.code, self.table = code, torch.rand(4)
        self.vector = nn.Parameter(torch.empty(4, **made))

    def _init_weights(self, module: nn.Module) -> None:
        self.code(self, self.vector)


OF_DRAWS: dict[str, Callable[[Once, Tensor], object]] = {
    "number": lambda self, p: p.fill_(torch.rand(()).item()),
    "tensor": lambda self, p: p.fill_(torch.rand(())),
    "factor": lambda self, p: p.normal_().mul_(float(torch.rand(()))),
    "of Python": lambda self, p: p.fill_(random.random()),
    "of Python, by torch": lambda self, p: nn.init.constant_(p, random.random()),
    "of Python, as a table": lambda self, p: p.copy_(torch.full_like(p, random.random())),
    "of numpy": lambda self, p: nn.init.normal_(p, std=np.random.rand()),
    "in the model": lambda self, p: p.copy_(self.table),
    "beside": lambda self, p: p.copy_(torch.rand(4, device=p.device)),
    "choice": lambda self, p: p.copy_(torch.ones(4) if torch.rand(()) > 0.5 else torch.zeros(4)),
}


@pytest.mark.parametrize("name", OF_DRAWS)
def test_numbers_of_draws_are_no_constants(name: str) -> None:
    with pytest.warns(UserWarning, match=r"vector: Once\._init_weights, Once computes it"):
        plan = wi.plan(Once(OF_DRAWS[name]), ["transformers", wi.Rule("vector", "zeros_")], seed=0)
    assert [entry.distribution for entry in plan] == [Constant(0.0)]


@pytest.mark.filterwarnings("ignore:transformers")
def test_the_generators_of_others_stay_where_they_are() -> None:
    def code(self: Once, p: Tensor) -> None:
        p.fill_(random.random() + np.random.rand())

    def late() -> float:
        return random.random() + float(np.random.rand())

    before = random.getstate(), np.random.get_state(legacy=False)["state"]["pos"]
    wi.plan(Once(code), ["transformers", wi.Rule("vector", "zeros_")], seed=0)
    model = constructed(lambda: 0.5)
    model.config.late = late
    wi.plan(model, [OTHERS, "transformers", wi.Rule("*", "zeros_")], seed=0)
    assert before == (random.getstate(), np.random.get_state(legacy=False)["state"]["pos"])


@pytest.mark.filterwarnings("error")
def test_numbers_after_draws_of_their_own() -> None:
    def code(self: Once, p: Tensor) -> None:
        p.normal_()
        torch.rand(2)
        p.fill_(3.0)
        p[:0].copy_(torch.rand(0))

    assert given(Once(code), "vector") == [(Constant(3.0), None)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("function", "value"), [(nn.init.zeros_, 0.0), (nn.init.ones_, 1.0)])
def test_functions_without_numbers_know_nothing_of_draws(function: Callable[[Tensor], Tensor], value: float) -> None:
    def code(self: Once, p: Tensor) -> None:
        random.random()
        function(p)

    assert given(Once(code), "vector") == [(Constant(value), None)]


class Parts(PreTrainedModel):
    """What is filled in part, over what constructors of torch, of transformers and of nobody known have made."""

    __module__ = "transformers.models.none"

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layer, self.lstm, self.norm = nn.Linear(2, 4), nn.LSTM(2, 3), nn.LayerNorm(4)
        self.config, self.numbers, self.drawn = config, nn.Parameter(torch.full((4,), 2.0)), nn.Parameter(torch.rand(4))

    def _init_weights(self, module: nn.Module) -> None:
        if module is self:
            for part in (self.layer.bias[1:3], self.lstm.bias_ih_l0[3:6], self.numbers[1:], self.drawn[1:]):
                part.fill_(7.0)
            self.norm.weight[:2].copy_(torch.tensor([5.0, 6.0]))


def test_what_is_filled_in_part_has_the_rest_of_its_constructor() -> None:
    model = Parts(SimpleNamespace(initializer_range=0.5))
    with pytest.warns(UserWarning, match=r"drawn: Parts\._init_weights, Parts of a part") as seen:
        plan = wi.plan(model, ["transformers", wi.Rule("drawn", "zeros_")], seed=0)
    assert len(str(seen[0].message).splitlines()) == 2
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 77.0)
    plan.apply_(model)
    assert all(77.0 not in parameter for parameter in model.parameters())
    assert model.norm.weight.tolist() == [5, 6, 1, 1]
    assert model.numbers.tolist() == [2, 7, 7, 7]
    assert (model.layer.bias == 7).tolist() == [False, True, True, False]
    assert [(type(e.distribution), e.box) for e in plan["lstm.bias_ih_l0"]] == [(Uniform, None), (Constant, Box((3,), (3,)))]


@pytest.mark.parametrize("code", [lambda self, p: p.copy_(torch.ones(4)), lambda self, p: p.fill_(1.0)])
def test_other_bits_of_a_parameter(code: Any) -> None:
    model = Once(lambda self, p: code(self, p.view(torch.int32)))
    with pytest.warns(UserWarning, match=r"vector: Once\._init_weights, Once of other bits"):
        wi.plan(model, ["transformers", wi.Rule("vector", "zeros_")], seed=0)


@pytest.mark.filterwarnings("error")
def test_what_is_expanded_costs_no_memory() -> None:
    model = Once(lambda self, p: p.copy_(torch.tensor([1.0, 2.0])[:, None]))
    model.vector = nn.Parameter(torch.empty(2, 1 << 50, device="meta"))
    assert given(model, "vector") == [(Constant(float(n + 1)), Box((n, 0), (1, 1 << 50))) for n in range(2)]


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float16, torch.float64])
def test_constants_of_every_dtype(dtype: torch.dtype) -> None:
    ((made, box),) = given(Once(lambda self, p: p.copy_(torch.tensor(0.1)), dtype=dtype), "vector")
    assert (made, box) == (Constant(torch.tensor(0.1).to(dtype).item()), None)


class Constructed(PreTrainedModel):
    """Parameters that only the constructor writes, in a class of transformers."""

    __module__ = "transformers.models.none"

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.scale = nn.Parameter(torch.tensor(config.scale))
        self.rows = nn.Parameter(1e-3 * torch.ones(4, 1))
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(2)) for _ in range(config.layers)])
        self.drawn = nn.Parameter(torch.rand(3))
        self.bare = nn.Parameter(torch.empty(3))
        self.resized = nn.Parameter(torch.zeros(3))
        self.late = nn.Parameter(torch.zeros(2).add_(config.late()))


def constructed(late: Any = lambda: 0.5) -> Any:
    model = Constructed(SimpleNamespace(initializer_range=0.5, scale=2.65, layers=2, late=late))
    model.resized = nn.Parameter(torch.zeros(5))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 77.0)  # what a model has been trained to is not asked
    return model


OTHERS = wi.Rule(lambda named: named.name in ("drawn", "bare", "resized"), "normal_")


@pytest.mark.filterwarnings("ignore:transformers")
def test_numbers_of_constructors() -> None:
    model, state = constructed(), torch.get_rng_state()
    plan = wi.plan(model, [OTHERS, "transformers"], seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(bool((parameter == 77).all()) for parameter in model.parameters())
    plan.apply_(model)
    right = Constructed(model.config)
    for name in ("scale", "rows", "biases.0", "biases.1", "late"):
        assert torch.equal(model.get_parameter(name), right.get_parameter(name)), name
    assert plan["scale"][0].source == "transformers: Constructed.__init__"


def test_what_constructors_draw_is_named() -> None:
    with pytest.warns(UserWarning, match="leaves to a constructor") as seen:
        wi.plan(constructed(), [OTHERS, "transformers"], seed=0)
    lines = str(seen[0].message).splitlines()[1:]
    assert lines == [f"  {name}: only its constructor writes it" for name in ("drawn", "bare", "resized")]


def test_a_module_that_is_not_the_constructors() -> None:
    model = constructed()
    model.biases = type("Mine", (nn.ParameterList,), {})(model.biases)
    with pytest.warns(UserWarning, match=r"biases\.0: only its constructor writes it\n  biases\.1: only"):
        wi.plan(model, [OTHERS, "transformers", wi.Rule("*", "zeros_")], seed=0)


@pytest.mark.parametrize("late", [random.random, lambda: torch.rand(()).item()])
def test_constructors_that_read_what_they_draw(late: Any) -> None:
    with pytest.warns(UserWarning, match="late: only its constructor writes it"):
        wi.plan(constructed(late), [OTHERS, "transformers", wi.Rule("*", "zeros_")], seed=0)


def test_constructors_that_fail_or_are_of_others() -> None:
    model = constructed()
    model.config.late = lambda: (_ for _ in ()).throw(OSError("no file"))
    with pytest.warns(UserWarning, match="scale: only its constructor"), pytest.raises(ValueError, match=r"rows .*no rule"):
        wi.plan(model, "transformers", seed=0)
    own = type("Own", (Constructed,), {"__module__": "mine"})(constructed().config)
    with pytest.warns(UserWarning, match="scale: only its constructor"), pytest.raises(ValueError, match=r"rows .*no rule"):
        wi.plan(own, "transformers", seed=0)


class Tied(PreTrainedModel):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4, padding_idx=0)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.all_tied_weights_keys = {"head.weight": "embed.weight"}

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=2.0)
            nn.init.zeros_(module.weight[0])


def test_tied_weights_have_what_their_source_gets() -> None:
    assert given(Tied(), "embed.weight") == [(Normal(0.0, 2.0), None), (Constant(0.0), Box((0, 0), (1, 4)))]


def test_each_part_follows_its_own_model() -> None:
    inner, outer = PreTrainedModel(0.1), PreTrainedModel(0.2)
    inner.fc, outer.fc, outer.inner = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False), inner
    whole = nn.Sequential(outer, nn.Linear(2, 2, bias=False))
    assert given(whole, "0.fc.weight") == [(Normal(0.0, 0.2), None)]
    assert given(whole, "0.inner.fc.weight") == [(Normal(0.0, 0.1), None)]
    assert given(whole, "1.weight") == [(Normal(0.0, 0.02), None)]


def test_in_deferred_values_are_by_structure_and_it_says_so() -> None:
    with wi.deferred():
        model = Ways()
        with pytest.warns(UserWarning, match=r"function.weight: RuntimeError: deferred: must not be nested"):
            plan = wi.plan(model, [wi.Rule("vector", "zeros_"), "transformers"], seed=0)
    assert plan["function.weight"][0].distribution == Normal(0.0, 0.5)


def test_a_std_is_for_all_parts() -> None:
    with pytest.warns(UserWarning, match=r"got a model with its own \(Ways\)"):
        plan = wi.plan(Ways(), [wi.Rule("vector", "zeros_"), wi.rules.by_config(std=0.125)], seed=0)
    assert plan["function.weight"][0].distribution == Normal(0.0, 0.125)


def test_a_part_of_a_model_alone_is_no_model_of_transformers() -> None:
    model: Any = Ways()
    assert given(model.method, "weight") == [(Normal(0.0, 0.02), None)]
