"""Plans: what they fill bit for bit, what they refuse before anything is written, what they look like, and what files hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.distributed as dist
from bitwise import differing
from conftest import REAL_DTYPES
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

import weightinit_cuda as wi
from weightinit_cuda import engine
from weightinit_cuda.engine.job import FillJob
from weightinit_cuda.numerics.distributions import Computed, Constant, Distribution, Normal, OneHot, TruncNormal
from weightinit_cuda.numerics.streams import stream_of
from weightinit_cuda.tensors.boxes import Box

Plan, Entry, Rule = wi.Plan, wi.Entry, wi.Rule
INF, NAN = math.inf, math.nan


class One(nn.Module):
    """A model of one parameter, directly on the root."""

    def __init__(self, *shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(shape, dtype=dtype, device=device))


def net(width: int = 6) -> nn.Sequential:
    return nn.Sequential(nn.Embedding(9, width, padding_idx=2), nn.Linear(width, 4), nn.BatchNorm1d(4), nn.PReLU(4))


def require_equal(got: nn.Module, expected: nn.Module) -> None:
    for (name, a), b in zip(got.state_dict().items(), expected.state_dict().values(), strict=True):
        assert differing(a, b) == 0, name


def line(name: str, shape: Sequence[int], distribution: Distribution, **more: Any) -> wi.Entry:
    dtype = more.pop("dtype", torch.float32)
    return Entry(name, tuple(shape), dtype, distribution, more.pop("stream", stream_of(name)), "test", **more)


NORMAL_OF_TEXT = Normal("0", 1.0)  # type: ignore[arg-type]

# ---- filling -----------------------------------------------------------------------------------------------------------

SCHEMES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "uniform_": ((5, 7), {"a": -0.25, "b": 0.5}),
    "normal_": ((5, 7), {"mean": 0.5, "std": 0.02}),
    "trunc_normal_": ((5, 7), {"std": 0.5, "a": -0.5, "b": 1.0}),
    "constant_": ((5, 7), {"val": 0.3}),
    "ones_": ((5,), {}),
    "zeros_": ((), {}),
    "eye_": ((5, 7), {}),
    "dirac_": ((4, 3, 3), {"groups": 2}),
    "sparse_": ((8, 5), {"sparsity": 0.3, "std": 0.5}),
    "orthogonal_": ((5, 7), {"gain": 2.0}),
    "xavier_uniform_": ((5, 7, 3), {"gain": 0.5}),
    "xavier_normal_": ((5, 7), {}),
    "kaiming_uniform_": ((5, 7), {"a": 0.1, "mode": "fan_out"}),
    "kaiming_normal_": ((5, 7), {"nonlinearity": "gelu"}),
    "variance_scaling_": ((5, 7), {"scale": 2.0, "mode": "fan_avg", "distribution": "uniform", "in_axes": [0], "out_axes": 1}),
    "lecun_uniform_": ((5, 7), {}),
    "lecun_normal_": ((2, 5, 7), {"batch_axes": 0}),
}
_REAL_ONLY = ("trunc_normal_", "lecun_normal_")


def test_every_scheme_is_tested() -> None:
    aliases = {name for name in wi.init.__all__ if not name.endswith("_")}
    no_line = {"delta_orthogonal_"}  # a matrix in a part of a tensor: no distribution says that
    assert set(wi.init.__all__) - aliases - no_line == set(SCHEMES)


@pytest.mark.parametrize("dtype", [*REAL_DTYPES, torch.complex64], ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_plan_fills_what_init_fills(scheme: str, dtype: torch.dtype) -> None:
    shape, params = SCHEMES[scheme]
    if dtype.is_complex and scheme in _REAL_ONLY:
        pytest.skip("no order to cut by")
    model = wi.initialize_(One(*shape, dtype=dtype), Rule("w", scheme, **params), seed=7)
    extras = {} if scheme in ("constant_", "ones_", "zeros_", "eye_", "dirac_") else {"seed": 7, "stream": "w"}
    expected = getattr(wi.init, scheme)(torch.empty(shape, dtype=dtype), **params, **extras)
    assert differing(model.w.detach(), expected) == 0


def test_the_padding_row_is_zero_and_the_rest_as_without_it() -> None:
    model = wi.initialize_(net(), seed=3)
    expected = wi.init.normal_(torch.empty(9, 6), seed=3, stream="0.weight")
    expected[2] = 0
    assert differing(model[0].weight.detach(), expected) == 0
    assert model[2].num_batches_tracked.item() == 0


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 4), st.integers(1, 4)), max_size=5),
    st.integers(0, 9),
)
def test_later_boxes_win(corners: list[tuple[int, int, int, int]], seed: int) -> None:
    """As if each line were written over the ones before it."""
    shape, boxes = (7, 7), [Box((a, b), (c, d)) for a, b, c, d in corners]
    lines = [line("w", shape, Normal(0, 1))]
    lines += [line("w", shape, Normal(0, n + 2.0), stream=n, box=box) for n, box in enumerate(boxes)]
    expected = wi.init.normal_(torch.empty(shape), seed=seed, stream="w")
    for n, box in enumerate(boxes):
        whole = wi.init.normal_(torch.empty(shape), std=n + 2.0, seed=seed, stream=n)
        expected[box.slices()] = whole[box.slices()]
    model = Plan(tuple(lines)).apply_(One(*shape), seed=seed)
    assert differing(model.w.detach(), expected) == 0


def test_applying_is_one_call_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[FillJob]] = []
    fill = engine.fill
    monkeypatch.setattr(engine, "fill", lambda jobs: (calls.append(list(jobs)), fill(jobs))[1])
    wi.initialize_(nn.Sequential(*(net() for _ in range(20))), seed=0)
    (jobs,) = calls
    names = [job.name for job in jobs]
    assert len(names) == 20 * 11  # 9 tensors of floats each, the table in three pieces; and a counter of batches
    assert len({job.tensor.data_ptr() for job in jobs}) == len(names)  # nothing twice


@pytest.mark.parametrize("rules", ["torch", "kaiming", [Rule("*.bias", Constant(0.5)), "xavier"]], ids=str)
def test_initialize_is_plan_and_apply(rules: Any) -> None:
    """Of a model that is plain tensors alone no plan is made, and of any other one is: the values are the same."""

    def plain() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3).double(), nn.Linear(3, 2).bfloat16())

    for make in (plain, net):
        for prefix in ("", "layers.0"):
            expected = wi.plan(make(), rules, seed=9, prefix=prefix).apply_(make())
            require_equal(wi.initialize_(make(), rules, seed=9, prefix=prefix), expected)


def test_what_cannot_be_filled_is_named_by_initialize_too() -> None:
    """The same words, whichever way the model would have been filled."""
    for wrong in (TruncNormal(0.0, 1.0, 2.0, 1.0), OneHot(1.0, -1, 1, 1, 0, 1), OneHot(1.0, 2**70, 1, 1, 0, 1), NORMAL_OF_TEXT):
        for model in (nn.Linear(2, 2), nn.Sequential(nn.Embedding(3, 2, padding_idx=0), nn.Linear(2, 2))):
            rules = [Rule("*bias", wrong), "torch"]
            with pytest.raises(ValueError, match=r"Plan|plan") as by_plan:
                wi.plan(model, rules, seed=1).apply_(model)
            before = torch.get_rng_state()
            with pytest.raises(ValueError, match=r"Plan|plan") as at_once:
                wi.initialize_(model, rules)
            assert str(at_once.value) == str(by_plan.value)
            assert torch.equal(torch.get_rng_state(), before)


def test_computed_entries_are_left_as_they_are() -> None:
    model = nn.Linear(2, 2)
    before = model.bias.detach().clone()
    wi.initialize_(model, [Rule("bias", Computed("x")), "torch"], seed=1)
    assert torch.equal(model.bias, before)


def test_initialize_works_in_place_and_returns_the_model() -> None:
    model = net()
    before = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    version = model[1].weight._version
    assert wi.initialize_(model, rules="kaiming", seed=1) is model
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == before
    assert model[1].weight._version > version
    require_equal(wi.plan(model, "kaiming", seed=1).apply_(net()), model)


def test_frozen_parameters_are_filled_and_stay_frozen() -> None:
    frozen = net().requires_grad_(False)
    require_equal(wi.initialize_(frozen, seed=1), wi.initialize_(net(), seed=1))
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_names_decide_and_nothing_else() -> None:
    """Modules that come, go or change places leave the bits of all others as they are."""
    model = nn.ModuleDict({name: nn.Linear(5, 5) for name in "abc"})
    other = nn.ModuleDict({"x": nn.Conv2d(2, 3, 4), "c": nn.Linear(5, 5), "y": nn.LSTM(3, 4), "a": nn.Linear(5, 5)})
    wi.initialize_(model, seed=5)
    wi.initialize_(other, seed=5)
    for name in "ac":
        require_equal(other[name], model[name])
    assert differing(model["a"].weight.detach(), model["b"].weight.detach()) > 0


def test_plans_are_made_on_meta_and_fill_anything_of_the_same_shapes() -> None:
    with torch.device("meta"):
        plan = wi.plan(net(), rules="lecun", seed=2)
    expected = wi.initialize_(net(), rules="lecun", seed=2)
    require_equal(plan.apply_(net().to(memory_format=torch.contiguous_format)), expected)
    state = {name: torch.empty_like(tensor) for name, tensor in net().state_dict().items()}
    assert plan.apply_(state) is state  # a checkpoint
    assert all(differing(tensor, state[name]) == 0 for name, tensor in expected.state_dict().items())


def test_tied_parameters_are_one_line() -> None:
    model = nn.ModuleDict(
        {"table": nn.Embedding(6, 4), "head": nn.Linear(4, 6, bias=False), "again": nn.Linear(4, 6, bias=False)}
    )
    model["head"].weight = model["again"].weight = model["table"].weight
    plan = wi.plan(model, seed=1)
    assert plan.names() == ["table.weight"]
    assert plan["again.weight"] == plan["table.weight"]
    assert "head.weight" in plan
    wi.initialize_(model, seed=1)
    assert differing(model["head"].weight.detach(), wi.init.normal_(torch.empty(6, 4), seed=1, stream="table.weight")) == 0


def test_a_module_that_is_there_twice() -> None:
    shared = nn.Linear(3, 3)
    plan = wi.plan(nn.Sequential(shared, nn.ReLU(), shared))
    assert [(entry.name, entry.aliases) for entry in plan] == [("0.weight", ("2.weight",)), ("0.bias", ("2.bias",))]


def test_buffers_without_a_rule_stay() -> None:
    model = One(3)
    model.register_buffer("mask", torch.ones(2, dtype=torch.bool))
    wi.initialize_(model, Rule("w", "normal_"))
    assert model.mask.all()
    assert wi.plan(model, Rule("w", "normal_")).names() == ["w"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_with_dtype_rounds_the_same_numbers(dtype: torch.dtype) -> None:
    plan = wi.plan(One(64, 3), Rule("w", "normal_"), seed=4)
    narrow = plan.with_dtype(dtype).apply_(One(64, 3, dtype=dtype))
    assert differing(narrow.w.detach(), plan.apply_(One(64, 3)).w.detach().to(dtype)) == 0
    counted = wi.plan(nn.BatchNorm1d(2)).with_dtype(dtype)
    assert counted["num_batches_tracked"][0].dtype == torch.int64


def test_seeds() -> None:
    plan = wi.plan(net(), seed=1)
    assert plan.with_seed(-1).seed == 2**64 - 1
    require_equal(plan.with_seed(2).apply_(net()), plan.apply_(net(), seed=2))
    assert plan.seed == 1
    for bad in (2**64, 0.5, True, "0"):
        with pytest.raises((TypeError, ValueError), match="seed"):
            plan.with_seed(bad)  # type: ignore[arg-type]


def test_computed_lines_are_left_alone() -> None:
    plan = Plan((line("w", (4,), Computed("linspace")),))
    model = untouched(One(4))
    assert (plan.apply_(model).w == 7).all()


# ---- shards ------------------------------------------------------------------------------------------------------------


@contextmanager
def rank_of(rank: int, of: int) -> Iterator[Any]:
    dist.init_process_group("fake", rank=rank, world_size=of, store=FakeStore())
    try:
        yield init_device_mesh("cpu", (of,), mesh_dim_names=(f"rank {rank}",))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("dim", [0, 1])
def test_ranks_fill_their_shards(dim: int) -> None:
    """Shapes in plans are global, fans too; the padding row lies in one rank's shard."""
    whole = wi.initialize_(net(), seed=1)
    table = wi.init.normal_(torch.empty(9, 6), seed=1, stream="0.weight")
    table[2] = 0
    pieces = []
    for rank in range(4):
        with rank_of(rank, 4) as mesh:
            model = net()
            for module, placement in ((model[0], Shard(dim)), (model[1], Replicate())):
                local = module.weight.detach()
                if isinstance(placement, Shard):
                    local = placement._split_tensor(local, 4, with_padding=False, contiguous=True)[0][rank].clone()
                shape, stride = module.weight.shape, module.weight.stride()
                made = DTensor.from_local(local, mesh, [placement], run_check=False, shape=shape, stride=stride)
                module.weight = nn.Parameter(made)
            plan = wi.plan(model, seed=1)
            assert plan.diff(wi.plan(net(), seed=1)) == []
            plan.apply_(model)
            assert differing(model[1].weight.to_local().detach(), whole[1].weight.detach()) == 0
            pieces.append(model[0].weight.to_local().detach())
    assert differing(torch.cat(pieces, dim), table) == 0


# ---- nothing is written on errors --------------------------------------------------------------------------------------


def untouched(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if not tensor.is_meta:
                tensor.fill_(7)
    return model


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    return model


def plain(*sizes: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(4, size, bias=False) for size in sizes))


def with_bias() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 5, bias=False))


MISFITS: dict[str, tuple[nn.Module, list[str]]] = {
    "shape": (
        with_bias(),
        ["got 2 differences", "0.bias: a parameter that the plan does not have", "1.weight: shape (5, 4)"],
    ),
    "missing": (plain(4), ["1.weight: in the plan, but not in the model"]),
    "dtype": (plain(4, 4).half(), ["0.weight: torch.float16, but torch.float32", "1.weight", "with_dtype"]),
    "meta": (nn.Sequential(plain(4)[0], plain(4).to("meta")[0]), ["1.weight: on meta", "to_empty"]),
    "tied": (tied(), ["0.weight: tied in the model, but the plan has 0.weight, 1.weight apart"]),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_named_and_nothing_is_written(case: str) -> None:
    model, messages = MISFITS[case]
    untouched(model)
    with pytest.raises(ValueError, match="apply_: the model must fit the plan") as error:
        wi.plan(plain(4, 4)).apply_(model)
    for message in messages:
        assert message in str(error.value)
    assert all((tensor == 7).all() for tensor in model.state_dict().values() if not tensor.is_meta)


def test_rules_that_fail_write_nothing() -> None:
    model = untouched(net())
    for rules in ([Rule("0.*", "normal_")], [Rule("3.*", "xavier_uniform_"), "torch"], ["torch", "no such set"]):
        with pytest.raises(ValueError, match="plan: "):
            wi.initialize_(model, rules)
    assert all((tensor == 7).all() for tensor in model.state_dict().values())


def test_memory_that_cannot_be_written_is_found_before_anything_is() -> None:
    model = nn.Module()
    model.a, model.b = nn.Parameter(torch.full((4,), 7.0)), nn.Parameter(torch.full((1,), 7.0).expand(4))
    with pytest.raises(RuntimeError, match="more than one element"):
        wi.initialize_(model, Rule("*", "normal_"))
    assert (model.a == 7).all()


def test_plans_are_consistent() -> None:
    with pytest.raises(ValueError, match=r"agree in shape and dtype, .*\(entry 1, 'w'\)"):
        Plan((line("w", (4,), Normal(0, 1)), line("w", (5,), Normal(0, 1))))
    with pytest.raises(ValueError, match=r"a box must lie inside its tensor.*\(entry 0, 'w'\)"):
        Plan((line("w", (4,), Normal(0, 1), box=Box((2,), (3,))),))


# ---- reading -----------------------------------------------------------------------------------------------------------


def test_looking_inside() -> None:
    plan = wi.plan(net())
    assert len(plan) == 10
    assert plan.names()[:3] == ["0.weight", "1.weight", "1.bias"]
    assert [entry.name for entry in plan["0.weight"]] == ["0.weight", "0.weight"]
    assert "0.bias" not in plan
    with pytest.raises(KeyError, match=r"got '0\.bias'"):
        plan["0.bias"]
    with pytest.raises(AttributeError):
        plan.seed = 3  # type: ignore[misc]


def test_diff() -> None:
    one, other = wi.plan(net(), "torch", seed=0), wi.plan(net(), [Rule("1.bias", "zeros_"), "torch"], seed=9)
    assert one.diff(one) == wi.plan(net(), "torch", seed=0).diff(one) == []
    seed, bias = one.diff(other)
    assert seed == "seed: 0 -> 9"
    assert bias.startswith("1.bias: Uniform(a=-0.4082482904638631")
    assert "-> Constant(value=0.0) in all of (4,)" in bias
    assert one.diff(wi.plan(net()[:3]))[-1].endswith("-> missing")
    assert wi.plan(net()[:3]).diff(one)[-1].startswith("3.weight: missing -> ")


TABLE = """\
gpt2: 7 tensors, 144 values, seed 0, format 1

 tensor                             shape    dtype      distribution               source
 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
 wte.weight = lm_head.weight        (9, 4)   float32    normal(mean=0, std=0.02)   gpt2: normal_(std=0.02)
 wte.weight[0:1, 0:4]               (9, 4)   float32    constant(0)                gpt2: normal_(std=0.02), padding_idx=0
 h.*.c_proj.weight             x3   (4, 8)   bfloat16   normal(mean=0, std=0.01)   gpt2: Rule('*c_proj.weight', normal_, std=0.01)
 h.*.c_proj.bias               x3   (4,)     bfloat16   constant(0)                gpt2: Rule(bias, zeros_)
"""  # noqa: E501


def test_table() -> None:
    """Blocks of one kind are one row, counted; tied names and boxes are shown."""
    model = nn.ModuleDict({"wte": nn.Embedding(9, 4, padding_idx=0), "lm_head": nn.Linear(4, 9, bias=False)})
    model["lm_head"].weight = model["wte"].weight
    model["h"] = nn.ModuleList(nn.ModuleDict({"c_proj": nn.Linear(8, 4, dtype=torch.bfloat16)}) for _ in range(3))
    model.config = type("Config", (), {"n_layer": 2})()
    assert str(wi.plan(model, "gpt2", seed=0)) == TABLE.rstrip()
