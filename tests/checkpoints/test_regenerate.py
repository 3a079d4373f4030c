"""Any slice of any parameter from the plan alone, and whole models set back: the bits are those of filling the full tensor."""

from __future__ import annotations

from types import EllipsisType

import pytest
import torch
import torch.distributed as dist
from bitwise import differing
from conftest import each_distribution
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.testing._internal.distributed.fake_pg import FakeStore

import weightinit_cuda as wi
from weightinit_cuda import engine
from weightinit_cuda.checkpoints import regenerate as regeneration
from weightinit_cuda.checkpoints.regenerate import regenerate
from weightinit_cuda.numerics.distributions import (
    Computed,
    Constant,
    Distribution,
    Normal,
    Orthogonal,
    SparseNormal,
    Uniform,
)
from weightinit_cuda.plans.entry import Entry
from weightinit_cuda.plans.plan import Plan
from weightinit_cuda.plans.restore import restore_
from weightinit_cuda.tensors.boxes import Box

Index = int | slice | EllipsisType
NORMAL = Normal(0.0, 1.0)


def line(
    shape: tuple[int, ...],
    fill: Distribution = NORMAL,
    box: Box | None = None,
    dtype: torch.dtype = torch.float32,
    name: str = "w",
) -> Entry:
    return Entry(name, shape, dtype, fill, 7, "test", box)


def full(plan: Plan, name: str = "w") -> Tensor:
    """The whole tensor, as the plan fills it."""
    first = plan[name][0]
    tensor = torch.empty(first.shape, dtype=first.dtype)
    plan.fill_({first.name: tensor})
    return tensor


# ---- regenerate -----------------------------------------------------------------------------------------------------


@st.composite
def indexings(draw: st.DrawFn) -> tuple[tuple[int, ...], Index | tuple[Index, ...]]:
    """A shape and any index that torch would take: integers and slices, out of range too, with an ellipsis anywhere."""
    shape = tuple(draw(st.lists(st.integers(1, 9), max_size=4)))
    count = draw(st.integers(0, len(shape)))
    last = draw(st.booleans())  # the indices belong to the last dimensions
    bound = st.none() | st.integers(-12, 12)
    index: list[Index] = [
        draw(st.integers(-n, n - 1) | st.builds(slice, bound, bound, st.none() | st.integers(1, 5)))
        for n in (shape[len(shape) - count :] if last else shape[:count])
    ]
    if last or draw(st.booleans()):
        index.insert(0 if last else count, ...)
    return shape, index[0] if len(index) == 1 and draw(st.booleans()) else tuple(index)


@given(indexings(), st.sampled_from((1, 8, 1 << 14)))
@settings(deadline=None, max_examples=300)
def test_any_index(case: tuple[tuple[int, ...], Index | tuple[Index, ...]], small: int) -> None:
    shape, index = case
    plan = Plan((line(shape),), seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regeneration, "_SMALL", small)
        patch.setattr(regeneration, "_CHUNK", 4 * small)
        got = regenerate(plan, "w", index)
    assert differing(got, full(plan)[index].clone(memory_format=torch.contiguous_format)) == 0


@each_distribution
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64], ids=str)
def test_any_distribution(distribution: Distribution, dtype: torch.dtype) -> None:
    if dtype.is_complex and distribution.kind == "trunc_normal":
        pytest.skip("complex numbers have no order to cut by: a plan refuses it")
    plan = Plan((line((40, 14), distribution, dtype=dtype),), seed=3)
    for index in (..., (slice(3, 30, 7), slice(1, None, 3)), 5, (slice(None), -1)):
        assert differing(regenerate(plan, "w", index), full(plan)[index]) == 0


def test_sparse_columns() -> None:
    plan = Plan((line((30, 20), SparseNormal(30, 9, 0.1)),))
    assert differing(regenerate(plan, "w", (slice(4, 25, 2), slice(3, 17))), full(plan)[4:25:2, 3:17]) == 0


def test_later_lines_win() -> None:
    """A fused QKV weight with a zero row: three boxes and one more over them."""
    boxes = [Box((4 * i, 0), (4, 6)) for i in range(3)]
    fills = (NORMAL, Uniform(-1.0, 1.0), Constant(2.0))
    lines = [line((12, 6), fill, box) for fill, box in zip(fills, boxes, strict=True)]
    plan = Plan((line((12, 6), Constant(9.0)), *lines, line((12, 6), Constant(0.0), Box((5, 0), (1, 6)))))
    whole = full(plan)
    assert whole[5].eq(0).all()
    assert not whole.eq(9).any()
    for index in (..., slice(2, 11, 3), 5, (slice(3, 9), slice(None, None, 5))):
        assert differing(regenerate(plan, "w", index), whole[index]) == 0


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (4, 3, 2)], ids=str)
def test_orthogonal_is_made_whole_and_cut(shape: tuple[int, ...]) -> None:
    plan = Plan((line(shape, Orthogonal(1.5)),), seed=1)
    for index in (..., slice(1, 4, 2), (2, slice(1, 3))):
        assert differing(regenerate(plan, "w", index), full(plan)[index]) == 0


def test_integer_buffers() -> None:
    plan = Plan((line((), Constant(0), dtype=torch.int64, name="count"), line((5,), Constant(3), dtype=torch.int64)))
    assert regenerate(plan, "count").tolist() == 0
    assert regenerate(plan, "w", slice(0, 5, 2)).tolist() == [3, 3, 3]


def test_aliases_seeds_and_devices() -> None:
    plan = Plan((line((6, 4))._replace(aliases=("head.w",)),), seed=3)
    assert differing(regenerate(plan, "head.w", 2), full(plan)[2]) == 0
    assert differing(regenerate(plan, "w", seed=4), full(plan.with_seed(4))) == 0
    assert regenerate(plan, "w", device="meta").is_meta
    assert differing(regenerate(plan.with_dtype(torch.float16), "w"), full(plan).half()) == 0


def test_only_what_is_asked_for_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terabyte parameter, with steps: few elements are filled, in one call and a few scratch boxes."""
    made: list[int] = []
    fill = engine.fill
    monkeypatch.setattr(engine, "fill", lambda jobs: (made.extend(job.tensor.numel() for job in jobs), fill(jobs)))
    plan = Plan((line((1 << 20, 1 << 18)),))
    result = regenerate(plan, "w", (slice(5, None, 1 << 16), slice(10, 1000)))
    assert result.shape == (16, 990)
    assert sum(made) == 16 * 990
    assert differing(result[3], regenerate(plan, "w", (5 + (3 << 16), slice(10, 1000)))) == 0
    made.clear()
    strided = regenerate(plan, "w", (slice(0, 4), slice(None, None, 3)))
    assert sum(made) <= 4 * strided.numel()
    assert max(made) <= regeneration._CHUNK
    made.clear()
    assert regenerate(plan, "w", (-1, slice(0, 0))).numel() == sum(made) == 0


def test_bad_indices() -> None:
    plan = Plan((line((6, 4)),))
    with pytest.raises(KeyError, match="a name of the plan is required, got 'v'"):
        regenerate(plan, "v")
    with pytest.raises(IndexError, match=r"must be in \[-4, 4\), got 4 \(w\)"):
        regenerate(plan, "w", (0, 4))
    with pytest.raises(IndexError, match="at most 2 indices"):
        regenerate(plan, "w", (0, 0, 0))
    with pytest.raises(IndexError, match="single ellipsis"):
        regenerate(plan, "w", (..., 0, ...))
    with pytest.raises(ValueError, match=r"step of a slice must be at least 1, got -1 \(w\)"):
        regenerate(plan, "w", slice(None, None, -1))
    for bad in (None, True, 1.0, torch.tensor([1, 2]), torch.tensor(1), [0, 1]):
        with pytest.raises(TypeError, match=r"must be an integer, a slice or \.\.\., got"):
            regenerate(plan, "w", bad)  # type: ignore[arg-type]


def test_what_a_plan_does_not_know_is_refused() -> None:
    computed = line((8, 2), Computed("arange, mul"), Box((0, 0), (4, 2)))
    plan = Plan((computed, line((8, 2), NORMAL, Box((2, 0), (4, 2)))))
    assert differing(regenerate(plan, "w", slice(2, 6)), regenerate(Plan((line((8, 2)),)), "w", slice(2, 6))) == 0
    with pytest.raises(ValueError, match=r"got arange, mul is what the model's own code computes \(test\) \(w\)"):
        regenerate(plan, "w", slice(1, 3))
    with pytest.raises(ValueError, match="got the plan has no entry for Box"):
        regenerate(plan, "w", slice(5, 7))
    assert regenerate(plan, "w", slice(7, 7)).shape == (0, 2)


# ---- restore_ -------------------------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    net.register_buffer("seen", torch.zeros(2))
    return net


def trained(net: nn.Module) -> dict[str, Tensor]:
    """Every parameter and float buffer moved; the state after that."""
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point():
                tensor.add_(1.0)
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def test_rewind() -> None:
    net = network()
    plan = wi.plan(net, rules="torch", seed=5)
    plan.apply_(net)
    initial = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    version = net[0].weight._version
    trained(net)
    assert restore_(net, plan) is net
    for name, tensor in net.named_parameters():
        assert differing(tensor.detach(), initial[name]) == 0
    assert net[0].weight._version > version
    assert differing(restore_(net, plan, seed=6)[0].weight.detach(), initial["0.weight"]) > 0


def test_rewind_of_some() -> None:
    net = network()
    plan = wi.plan(net, rules="torch", seed=5)
    plan.apply_(net)
    initial = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    after = trained(net)
    restore_(net, plan, names=["*.weight", "2.bias"])
    for name, tensor in net.named_parameters():
        expected = initial if name.endswith(".weight") or name == "2.bias" else after
        assert differing(tensor.detach(), expected[name]) == 0, name
    restore_(net, plan, names="0.*")
    assert differing(net[0].bias.detach(), initial["0.bias"]) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_pruned_elements_become_zero(dtype: torch.dtype) -> None:
    plan = Plan((line((16, 9), dtype=dtype), line((5,), name="b")), seed=2)
    model = {"w": torch.empty(9, 16).to(dtype).T, "b": torch.empty(5)}
    keep = torch.rand(16, 9, generator=torch.Generator().manual_seed(0)) < 0.3
    restore_(model, plan, mask={"w": keep})
    expected = torch.where(keep, full(plan).float(), 0.0).to(dtype)
    assert differing(model["w"], expected) == 0
    assert differing(model["b"], full(plan, "b")) == 0


def test_masks_of_tied_parameters() -> None:
    net = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})
    net["b"].weight = net["a"].weight
    restore_(net, wi.plan(net, rules="torch"), mask={"b.weight": torch.eye(3, dtype=torch.bool)})
    assert net["a"].weight.count_nonzero() == 3


@pytest.mark.parametrize("rank", range(3))
def test_masks_of_shards(rank: int) -> None:
    """Each rank of three restores its rows; the mask is sharded as the parameter is."""
    plan = Plan((line((8, 5)),), seed=2)
    keep = torch.rand(8, 5, generator=torch.Generator().manual_seed(0)) < 0.3
    dist.init_process_group("fake", rank=rank, world_size=3, store=FakeStore())
    try:
        mesh = init_device_mesh("cpu", (3,), mesh_dim_names=(f"rank {rank}",))

        def shard(whole: Tensor) -> DTensor:
            local = whole[3 * rank : 3 * rank + 3].clone()
            return DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=whole.shape, stride=whole.stride())

        sharded = shard(torch.zeros(8, 5))
        restore_({"w": sharded}, plan, mask={"w": shard(keep)})
        with pytest.raises(ValueError, match="a mask must be a bool tensor with the name, shape and sharding"):
            restore_({"w": sharded}, plan, mask={"w": keep})
        expected = torch.where(keep, full(plan), 0.0)[3 * rank : 3 * rank + 3]
        assert differing(sharded.to_local(), expected) == 0
    finally:
        dist.destroy_process_group()


def test_restore_refuses_before_it_writes() -> None:
    net = network()
    plan = wi.plan(net, rules="torch", seed=5)
    before = trained(net)
    ones = torch.ones(8, 6)
    with pytest.raises(ValueError, match=r"every glob must match a name of the model, got 'x\.\*', 'y'"):
        restore_(net, plan, names=["x.*", "0.*", "y"])
    with pytest.raises(ValueError, match=r"a mask must be .* got 0\.weight \(\(8, 6\), torch\.float32\), 2\.weight .*nowhere"):
        restore_(net, plan, mask={"0.weight": ones, "2.weight": ones.bool(), "nowhere": ones.bool()})
    with pytest.raises(ValueError, match=r"got 0\.bias"):
        restore_(net, plan, names="*.weight", mask={"0.bias": torch.ones(8).bool()})
    with pytest.raises(ValueError, match="must fit the plan"):
        restore_(nn.Linear(6, 8), plan)
    computed = Plan((*plan.entries[1:], plan.entries[0]._replace(distribution=Computed("erfinv"))))
    with pytest.raises(ValueError, match=r"own code computes: 0\.weight\. Leave them out"):
        restore_(net, computed)
    for name, tensor in net.state_dict().items():
        assert differing(tensor, before[name]) == 0
    restore_(net, computed, names="*.bias")
    assert differing(net[0].weight.detach(), before["0.weight"]) == 0
