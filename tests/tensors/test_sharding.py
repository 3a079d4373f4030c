"""Shards have the values of the whole tensor: every rank of every mesh, in one process, against torch's own way of cutting.

A fake process group lets one process be any rank of any world, one after the other; `tests/distributed` has real ones. What is
true of a rank is decided by ``Placement._split_tensor``, which cuts an actual tensor, while ours computes.
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from bitwise import differing
from hypothesis import given, settings
from hypothesis import strategies as st
from meshes import LAYOUTS, Placements, each_rank, rank_of, shard_of
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.placement_types import _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore

import weightinit_cuda as wi
from weightinit_cuda.numerics.distributions import Normal, Orthogonal
from weightinit_cuda.tensors.shards import flat_parts, parts

each_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


# ---- parts ----------------------------------------------------------------------------------------------------------


def require_right_parts(tensor: DTensor, whole: Tensor) -> None:
    """``whole`` counts its elements, and the DTensor holds its own."""
    seen = torch.zeros_like(tensor.to_local())
    found = parts(tensor)
    if found and found[0][1]:
        assert (
            found[0][1].offset == compute_local_shape_and_global_offset(whole.shape, tensor.device_mesh, tensor.placements)[1]
        )
    for view, region in found:
        assert region is not None
        assert region.global_shape == tuple(whole.shape)
        assert torch.equal(view, whole[region.slices(view.shape)])
        view.fill_(-1)  # a view of the local memory
    assert torch.equal(tensor.to_local(), seen - 1)


@each_layout
def test_parts(layout: tuple[tuple[int, ...], tuple[int, ...], Placements]) -> None:
    shape, mesh_shape, placements = layout
    whole = torch.arange(math.prod(shape)).view(shape)
    for tensor in each_rank(whole, mesh_shape, placements):
        require_right_parts(tensor, whole)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_parts_of_any_layout(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 13), min_size=1, max_size=3)))
    mesh_shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    dims = st.integers(0, len(shape) - 1)
    strided = st.builds(lambda dim, factor: _StridedShard(dim, split_factor=factor), dims, st.integers(2, 4))
    placement = st.one_of(st.just(Replicate()), st.builds(Shard, dims), strided)
    placements = [data.draw(placement) for _ in mesh_shape]
    whole = torch.arange(math.prod(shape)).view(shape)
    with rank_of(data.draw(st.integers(0, math.prod(mesh_shape) - 1)), mesh_shape) as mesh:
        require_right_parts(shard_of(whole, mesh, placements), whole)


def test_few_parts() -> None:
    """Neighbouring runs are one part; a plain tensor is its own."""
    plain = torch.zeros(3)
    assert parts(plain) == [(plain, None)]
    for name, most in (("rows", 1), ("mesh", 1), ("nested", 1), ("strided", 1), ("strided alone", 2), ("strided both", 6)):
        shape, mesh_shape, placements = LAYOUTS[name]
        assert max(len(parts(tensor)) for tensor in each_rank(torch.zeros(shape), mesh_shape, placements)) == most, name


def test_rank_outside_the_mesh_holds_nothing() -> None:
    dist.init_process_group("fake", rank=2, world_size=3, store=FakeStore())
    try:
        mesh = dist.DeviceMesh("cpu", [0, 1])
        tensor = DTensor.from_local(torch.zeros(0), mesh, [Shard(0)], run_check=False, shape=(4,), stride=(1,))
        assert parts(tensor) == []
        torch.manual_seed(0)
        wi.init.normal_(tensor)
        after = torch.get_rng_state()
        torch.manual_seed(0)
        wi.init.normal_(torch.empty(4))
        assert torch.equal(after, torch.get_rng_state())  # it stays in step with the others
    finally:
        dist.destroy_process_group()


@given(st.data())
def test_flat_parts(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 5), max_size=4)))
    whole = torch.arange(math.prod(shape)).view(shape)
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, whole.numel())] * 2)))
    stride = data.draw(st.integers(1, 2))
    flat = torch.full((stride * (end - begin),), -1)[::stride]
    found = flat_parts(flat, shape, begin)
    assert len(found) <= max(2 * len(shape) - 1, 1)
    for view, region in found:
        assert region is not None
        view.copy_(whole[region.slices(view.shape)])
    assert flat.tolist() == list(range(begin, end))


# ---- the functions of init ------------------------------------------------------------------------------------------


class Call(NamedTuple):
    """A function of init with arguments; called with a tensor and, for plain shards, its place."""

    function: str
    arguments: dict[str, Any]

    def __call__(self, tensor: Tensor, **place: Any) -> Tensor:
        if "generator" in self.arguments:  # each call begins where the others did
            place["generator"] = torch.Generator().manual_seed(3)
        result: Tensor = getattr(wi.init, self.function)(tensor, **{**self.arguments, **place})
        return result


def call_of(function: str, **arguments: Any) -> Call:
    return Call(function, arguments)


RANDOM = {
    "uniform_": call_of("uniform_", a=-1, b=1, seed=7),
    "normal_": call_of("normal_", mean=0.5, std=0.02, seed=7, stream="a.weight"),
    "trunc_normal_": call_of("trunc_normal_", std=0.02, seed=7),
    "xavier_uniform_": call_of("xavier_uniform_", seed=7),
    "xavier_normal_": call_of("xavier_normal_", seed=7),
    "kaiming_uniform_": call_of("kaiming_uniform_", a=5**0.5, seed=7),
    "kaiming_normal_": call_of("kaiming_normal_", mode="fan_out", nonlinearity="relu", seed=7),
    "variance_scaling_": call_of("variance_scaling_", scale=2.0, mode="fan_avg", seed=7),
    "lecun_uniform_": call_of("lecun_uniform_", seed=7),
    "lecun_normal_": call_of("lecun_normal_", in_axes=0, out_axes=1, seed=7),
    "orthogonal_": call_of("orthogonal_", gain=2.0, seed=7),
    "sparse_": call_of("sparse_", sparsity=0.3, seed=7),
    "drawn seed": call_of("normal_"),
    "generator": call_of("normal_", generator=None),
}
CALLS = RANDOM | {
    "eye_": call_of("eye_"),
    "constant_": call_of("constant_", val=0.3),
    "ones_": call_of("ones_"),
    "zeros_": call_of("zeros_"),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def require_shard(tensor: DTensor, expected: Tensor) -> None:
    """The rank holds its part of ``expected``, bit for bit."""
    assert differing(tensor.to_local(), shard_of(expected, tensor.device_mesh, tensor.placements).to_local()) == 0


@each_call
def test_nothing_is_communicated(call: Call) -> None:
    """Seen by torch's own counter, a dispatch mode, under which the shards are filled like anywhere."""
    from torch.distributed.tensor.debug import CommDebugMode

    torch.manual_seed(11)
    expected = call(torch.zeros(8, 6))
    with rank_of(1, (2,)) as mesh:
        tensor = shard_of(torch.zeros(8, 6), mesh, [Shard(0)])
        torch.manual_seed(11)
        with CommDebugMode() as counted:
            assert call(tensor) is tensor
        assert counted.get_total_counts() == 0
        require_shard(tensor, expected)


@each_layout
@each_call
def test_every_rank_gets_its_part(call: Call, layout: tuple[tuple[int, ...], tuple[int, ...], Placements]) -> None:
    shape, mesh_shape, placements = layout
    torch.manual_seed(5)
    expected = call(torch.empty(shape))
    for tensor in each_rank(torch.full(shape, math.nan), mesh_shape, placements):
        parameter = torch.nn.Parameter(tensor)
        version, local_version = parameter._version, parameter._local_tensor._version
        torch.manual_seed(5)
        assert call(parameter) is parameter
        assert parameter.requires_grad
        assert parameter.is_leaf
        assert parameter._version > version
        if call.function in RANDOM and parameter._local_tensor.numel():
            assert parameter._local_tensor._version > local_version
        require_shard(parameter.detach(), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.complex64])
@pytest.mark.parametrize("name", ["normal_", "sparse_", "eye_", "orthogonal_"])
def test_dtypes(name: str, dtype: torch.dtype) -> None:
    for layout in ("uneven", "strided alone", "mesh"):
        shape, mesh_shape, placements = LAYOUTS[layout]
        expected = CALLS[name](torch.empty(shape, dtype=dtype))
        for tensor in each_rank(torch.zeros(shape, dtype=dtype), mesh_shape, placements):
            require_shard(CALLS[name](tensor), expected)


@pytest.mark.parametrize("placements", [[Shard(0)], [Shard(1)], [Shard(2)], [_StridedShard(0, split_factor=2)]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int32])
def test_dirac(placements: Placements, dtype: torch.dtype) -> None:
    expected = wi.init.dirac_(torch.empty(8, 2, 3, dtype=dtype), groups=2)
    for tensor in each_rank(torch.full((8, 2, 3), 9, dtype=dtype), (2,), placements):
        require_shard(wi.init.dirac_(tensor, groups=2), expected)


def test_experts() -> None:
    """Stacked experts (experts, out, in): fans of one expert, whatever the placement."""
    call = call_of("kaiming_uniform_", batch_axes=0, seed=7)
    expected = call(torch.empty(8, 6, 10))
    for dim, mesh_shape in itertools.product(range(3), [(2,), (3,), (4,)]):
        for tensor in each_rank(torch.empty(8, 6, 10), mesh_shape, [Shard(dim)]):
            require_shard(call(tensor), expected)


def test_patched_reaches_modules_and_methods() -> None:
    torch.manual_seed(5)
    with wi.patched():
        expected = torch.nn.Linear(6, 8)
        expected.weight.data.normal_(0.0, 0.02)
    for rank in range(2):
        with rank_of(rank, (2,)) as mesh:
            linear = torch.nn.Linear(6, 8)
            for name, parameter in list(linear.named_parameters()):
                setattr(linear, name, torch.nn.Parameter(shard_of(parameter.detach(), mesh, [Shard(0)])))
            torch.manual_seed(5)
            with wi.patched():
                linear.reset_parameters()
                linear.weight.data.normal_(0.0, 0.02)
            require_shard(linear.weight.detach(), expected.weight.detach())
            require_shard(linear.bias.detach(), expected.bias.detach())


def test_one_draw_from_the_default_generator_and_none_of_dtensors() -> None:
    from torch.distributed.tensor import _random

    torch.manual_seed(5)
    wi.init.normal_(torch.empty(9))
    after = torch.get_rng_state()
    for tensor in each_rank(torch.empty(9), (8,), [Shard(0)]):  # the last ranks hold nothing
        torch.manual_seed(5)
        wi.init.normal_(tensor)
        assert torch.equal(torch.get_rng_state(), after)
    assert _random._rng_tracker is None


def test_meta_shards_draw_and_write_nothing() -> None:
    for tensor in each_rank(torch.empty(8, 6, device="meta"), (2,), [Shard(0)]):
        before = torch.get_rng_state()
        for name in ("normal_", "sparse_", "orthogonal_", "eye_", "zeros_"):
            assert CALLS[name](tensor) is tensor
        assert torch.equal(torch.get_rng_state(), before)


# ---- what is refused ------------------------------------------------------------------------------------------------


@each_call
def test_partial_is_refused(call: Call) -> None:
    with rank_of(0, (2,)) as mesh:
        tensor = DTensor.from_local(torch.full((4, 4), 9.0), mesh, [Partial()], run_check=False)
        before = torch.get_rng_state()
        with pytest.raises(
            NotImplementedError, match=r"every placement of a DTensor must be Shard or Replicate, got \(Partial"
        ):
            call(tensor)
        assert torch.equal(torch.get_rng_state(), before)
        assert (tensor.to_local() == 9).all()


def test_local_tensor_of_another_shape_is_refused() -> None:
    with rank_of(0, (2,)) as mesh:
        tensor = DTensor.from_local(torch.zeros(3, 4), mesh, [Shard(0)], run_check=False, shape=(4, 4), stride=(4, 1))
        with pytest.raises(ValueError, match=r"normal_: the local tensor must have shape \(2, 4\).*got \(3, 4\)"):
            wi.init.normal_(tensor)


def test_a_dtensor_needs_no_place() -> None:
    with rank_of(0, (2,)) as mesh:
        tensor = shard_of(torch.zeros(4, 4), mesh, [Shard(0)])
        with pytest.raises(ValueError, match="a DTensor knows where its shards lie"):
            wi.init.normal_(tensor, global_shape=(4, 4), offset=(0, 0))


def test_torch_distributed_tensor_is_not_imported() -> None:
    """A third of torch's own import time; only those who have a DTensor pay it."""
    code = (
        "import sys, torch; before = 'torch.distributed.tensor' in sys.modules\n"
        "import weightinit_cuda as wi\n"
        "with wi.patched(): torch.nn.Linear(3, 3)\n"
        "wi.init.eye_(wi.init.normal_(torch.empty(3, 3), seed=0)); wi.init.zeros_(torch.empty(3))\n"
        "sys.exit('torch.distributed.tensor' in sys.modules and not before)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---- plain shards ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", RANDOM.values(), ids=RANDOM)
def test_flat_ranges(call: Call) -> None:
    """ZeRO-3 and FSDP1: a rank holds elements [begin, end) of the flattened parameter."""
    torch.manual_seed(5)
    expected = call(torch.empty(7, 6)).flatten()
    for begin, end in ((0, 42), (0, 5), (3, 16), (20, 40), (13, 17), (41, 42), (42, 42)):
        torch.manual_seed(5)
        shard = call(torch.empty(end - begin), global_shape=(7, 6), flat_range=(begin, end))
        assert differing(shard, expected[begin:end]) == 0, (begin, end)


@pytest.mark.parametrize("dim", [0, 1])
def test_column_and_row_parallel(dim: int) -> None:
    """Megatron: each rank owns a slice of the weight, and its width comes from the whole one."""
    call = call_of("kaiming_normal_", seed=7, stream="mlp.weight")
    whole = call(torch.empty(12, 8))
    size = whole.shape[dim] // 4
    for rank in range(4):
        part = whole.narrow(dim, rank * size, size)
        offset = tuple(rank * size if d == dim else 0 for d in range(2))
        assert differing(call(torch.empty(part.shape), global_shape=(12, 8), offset=offset), part) == 0


def test_plain_shards_of_experts() -> None:
    whole = wi.init.xavier_uniform_(torch.empty(4, 6, 10), batch_axes=0, seed=7)
    place: dict[str, Any] = {"global_shape": (4, 6, 10)}
    mine = wi.init.xavier_uniform_(torch.empty(2, 3, 10), batch_axes=0, seed=7, offset=(2, 3, 0), **place)
    assert differing(mine, whole[2:, 3:]) == 0
    flat = wi.init.xavier_uniform_(torch.empty(101), batch_axes=0, seed=7, flat_range=(33, 134), **place)
    assert differing(flat, whole.flatten()[33:134]) == 0


# ---- plans and recordings -------------------------------------------------------------------------------------------


class Parts(torch.nn.Module):
    """Parameters whose plans have boxes, constants and orthogonal matrices, and values that are no fills."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(11, 6, padding_idx=3)
        self.attention = torch.nn.MultiheadAttention(6, 2)
        self.lstm = torch.nn.LSTM(6, 5)
        self.conv = torch.nn.Conv2d(6, 10, 3)
        self.norm = torch.nn.LayerNorm(6)
        self.decay = torch.nn.Parameter(torch.arange(1, 14).float().log().repeat(5, 1))  # as Mamba's A_log
        self.noise = torch.nn.Parameter(torch.rand(9, 4).exp())
        self.rotation = torch.nn.Parameter(torch.empty(8, 6))
        torch.nn.init.orthogonal_(self.rotation)
        with torch.no_grad():
            self.conv.weight[:, 2] = 0.5
            self.conv.bias[4:] = 1.0


def placements_for(tensor: Tensor, kind: str) -> Placements:
    dim = tensor.dim() - 1 if kind.startswith("last") else 0
    return [_StridedShard(dim, split_factor=2), Shard(dim)] if kind.endswith("strided") else [Replicate(), Shard(dim)]


each_kind = pytest.mark.parametrize("kind", ["first", "last", "first strided", "last strided"])


@each_kind
def test_plans_fill_shards(kind: str) -> None:
    whole = Parts()
    rules = [wi.Rule("rotation", Orthogonal(2.0)), wi.Rule("decay", Normal(0.0, 1.0)), wi.Rule("noise", "ones_"), "torch"]
    plan = wi.plan(whole, rules=rules, seed=7)
    assert any(entry.box is not None for entry in plan)
    plan.apply_(whole)
    for rank in range(4):
        with rank_of(rank, (2, 2)) as mesh:
            mine = {name: shard_of(torch.zeros_like(p), mesh, placements_for(p, kind)) for name, p in whole.named_parameters()}
            plan.apply_(mine)
            for name, parameter in whole.named_parameters():
                require_shard(mine[name], parameter.detach())


@each_kind
def test_recordings_fill_shards(kind: str) -> None:
    with wi.deferred() as recorded:
        whole = Parts()
    recorded.materialize_(whole, seed=7)
    for rank in range(4):
        with rank_of(rank, (2, 2)) as mesh:
            with wi.deferred() as recorded:
                model = Parts()
            for module in model.modules():
                for name, parameter in list(module.named_parameters(recurse=False)):
                    sharded = shard_of(parameter.detach(), mesh, placements_for(parameter, kind))
                    module.register_parameter(name, torch.nn.Parameter(sharded))
            recorded.materialize_(model, device="cpu", seed=7)
            for (name, parameter), expected in zip(model.named_parameters(), whole.parameters(), strict=True):
                assert isinstance(parameter, DTensor), name
                require_shard(parameter.detach(), expected.detach())
