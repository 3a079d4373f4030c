"""What every rank does: ways to shard a model and initialise it, each compared with the same model in a single process.

A flow takes the world and returns what it found: how many elements differ, out of how many. It raises where it must.
The models and the ways are those of `examples/`, with sizes that no world divides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import distributed_checkpoint
import distributed_fsdp2
import distributed_megatron
import distributed_offload
import distributed_pipeline
import distributed_plain_shards
import distributed_seed_plan
import distributed_tensor_parallel
import torch
import torch.distributed as dist
import zero3
from bitwise import differing
from llama import TINY, Llama
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard

import weightinit_cuda as wi

SEED = 20


class World(NamedTuple):
    """This rank's place, and a folder that all worlds share."""

    rank: int
    size: int
    device: str
    scratch: Path

    def mesh(self, *names: str) -> DeviceMesh:
        """All ranks in a row, or with two names as (size / 2, 2) where that is possible."""
        if len(names) < 2:
            return init_device_mesh(self.device, (self.size,), mesh_dim_names=names or ("all",))
        columns = 2 if self.size % 2 == 0 else 1
        return init_device_mesh(self.device, (self.size // columns, columns), mesh_dim_names=names)


Found = dict[str, Any]
FLOWS: dict[str, Callable[[World], Found]] = {}


def flow(function: Callable[[World], Found]) -> Callable[[World], Found]:
    FLOWS[function.__name__] = function
    return function


# ---- comparing ------------------------------------------------------------------------------------------------------


def gathered(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def named(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def compared(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Found:
    """Every tensor gathered, against a single process."""
    different = {name: differing(gathered(tensor), expected[name]) for name, tensor in got.items()}
    held = sum(t.to_local().numel() if isinstance(t, DTensor) else t.numel() for t in got.values())
    return {
        "differing": sum(different.values()),
        "where": [name for name, count in different.items() if count],
        "compared": sum(expected[name].numel() for name in got),
        "held": held,
    }


# ---- functions of init ----------------------------------------------------------------------------------------------


# In torch 2.6 distribute_tensor always sends values from rank 0, and strided shards have to be even.
LOCALLY: dict[str, Any] = {"src_data_rank": None} if "src_data_rank" in signature(distribute_tensor).parameters else {}


def strides_may_be_uneven() -> bool:
    try:
        _StridedShard(0, split_factor=2)._split_tensor(torch.zeros(7, 1), 2)
    except AssertionError:
        return False
    return True


def shared_out(tensor: Tensor, mesh: DeviceMesh, placements: list[Any]) -> Tensor:
    return distribute_tensor(tensor, mesh, placements, **LOCALLY)


def each_placement(world: World) -> Iterable[tuple[str, DeviceMesh, list[Any]]]:
    row, square = world.mesh(), world.mesh("a", "b")
    yield "rows", row, [Shard(0)]
    yield "columns", row, [Shard(1)]
    yield "replicated", row, [Replicate()]
    yield "both", square, [Shard(0), Shard(1)]
    yield "nested", square, [Shard(0), Shard(0)]
    yield "hybrid", square, [Replicate(), Shard(0)]
    if strides_may_be_uneven():
        yield "right to left", square, [_StridedShard(0, split_factor=square.size(1)), Shard(0)]


@flow
def drop_in(world: World) -> Found:
    """Every function, every placement, uneven and empty shards, seeds drawn after ``torch.manual_seed``."""
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "kaiming_uniform_": lambda w: wi.init.kaiming_uniform_(w, a=5**0.5),
        "normal_": lambda w: wi.init.normal_(w, std=0.02),
        "trunc_normal_": lambda w: wi.init.trunc_normal_(w, std=0.02),
        "xavier_normal_": wi.init.xavier_normal_,
        "sparse_": lambda w: wi.init.sparse_(w, 0.3),
        "eye_": wi.init.eye_,
        "ones_": wi.init.ones_,
    }
    if world.device == "cpu":  # whose QR the expected one is
        calls["orthogonal_"] = wi.init.orthogonal_
    torch.manual_seed(SEED)
    shape = (7, 10)  # a world of 8 has an empty row
    expected = {name: call(torch.empty(shape)) for name, call in calls.items()}
    got: dict[str, Tensor] = {}
    for placement, mesh, placements in each_placement(world):
        torch.manual_seed(SEED)
        for name, call in calls.items():
            got[f"{name} {placement}"] = call(shared_out(torch.zeros(shape), mesh, placements))
    return compared(got, {key: expected[key.split()[0]] for key in got})


@flow
def torch_on_a_cpu_mesh(world: World) -> Found:
    """The peer, as it is: on a CPU mesh nn.init gives every rank the same numbers, so the tensor repeats itself."""
    mesh = init_device_mesh("cpu", (world.size,))
    tensor = distribute_tensor(torch.zeros(2 * world.size, 3), mesh, [Shard(0)])
    alike = {}
    for module in (nn.init, wi.init):
        torch.manual_seed(SEED)
        module.normal_(tensor)
        shards = tensor.full_tensor().view(world.size, -1)
        alike[module.__name__.split(".")[0]] = bool((shards == shards[0]).all())
    shapes: Found = {}
    for name, call in {"sparse_": lambda: nn.init.sparse_(tensor, 0.5), "eye_": lambda: nn.init.eye_(tensor)}.items():
        try:
            shapes[name] = list(call().to_local().shape)
        except RuntimeError as error:
            shapes[name] = str(error)
    return {"alike": alike, **shapes}


# ---- whole models ---------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def drawn() -> dict[str, Tensor]:
    """The model in a single process, by its own code with our functions in it."""
    torch.manual_seed(SEED)
    with wi.patched():
        model = Llama(TINY)
    torch.manual_seed(SEED)
    with wi.patched():
        model.init_weights()
    return named(model)


def fully_sharded(model: Llama, mesh: DeviceMesh, **options: Any) -> Llama:
    for block in model.layers.values():
        fully_shard(block, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)
    return model


def own_code(model: Llama) -> Llama:
    torch.manual_seed(SEED)
    with wi.patched():
        model.init_weights()
    return model


@flow
def fsdp2_patched(world: World) -> Found:
    """As torchtitan does it: built on meta, sharded, given memory, then the model's own init_weights."""
    with torch.device("meta"):
        model = Llama(TINY)
    fully_sharded(model, world.mesh()).to_empty(device=world.device)
    return compared(named(own_code(model)), drawn())


@flow
def initialize(world: World) -> Found:
    """By rules and by a plan, on the shards of a model that was built in each process."""
    model = fully_sharded(Llama(TINY), world.mesh())
    expected = wi.initialize_(Llama(TINY), rules="torch", seed=SEED)
    found = compared(named(wi.initialize_(model, rules="torch", seed=SEED)), named(expected))
    plan = wi.plan(model, rules="torch", seed=SEED + 1)
    again = compared(named(plan.apply_(model)), named(plan.apply_(expected)))
    return found | {"differing": found["differing"] + again["differing"]}


@lru_cache(maxsize=1)
def single() -> Llama:
    """The model in a single process, recorded."""
    with wi.deferred() as recorded:
        model = Llama(TINY)
    return recorded.materialize_(model, seed=SEED)


def as_single(model: Llama) -> Found:
    return compared(named(model), named(single())) | {"fingerprint": wi.fingerprint(model)}


@flow
def fsdp2(world: World) -> Found:
    """Sharded, then trained one step: the parameters are ones that autograd and FSDP know."""
    model = distributed_fsdp2.build(world.mesh(), seed=SEED)
    found = as_single(model)
    tokens = torch.arange(16, device=world.device).view(1, -1)
    model(tokens).square().mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    return found


@flow
def fsdp2_hybrid(world: World) -> Found:
    """Replicas of shards (HSDP): copies agree without having been told."""
    model = distributed_fsdp2.build(world.mesh("replicas", "shards"), seed=SEED)
    assert wi.check_ranks(model) == {}
    return as_single(model)


@flow
def fsdp2_offload(world: World) -> Found:
    model = distributed_offload.build(world.mesh(), seed=SEED)
    assert all(parameter.to_local().is_cpu for parameter in model.parameters())
    return as_single(model)


@flow
def fsdp2_tensor_parallel(world: World) -> Found:
    model = distributed_tensor_parallel.build(world.mesh("data", "tensor"), seed=SEED)
    placements = {type(placement) for parameter in model.parameters() for placement in parameter.placements}
    assert world.size < 4 or world.size % 2 or _StridedShard in placements
    return as_single(model)


@flow
def zero3_parts(world: World) -> Found:
    """Parameters that ZeRO-3 partitions (DeepSpeed itself: test_deepspeed.py): each rank fills its part of the flat whole."""
    model = zero3.partition(Llama(TINY))
    torch.manual_seed(world.rank)  # ranks agree on the seed that is drawn
    wi.initialize_(model, rules="llama")
    alone = Llama(TINY)
    torch.manual_seed(0)
    wi.initialize_(alone, rules="llama")
    whole = {name: zero3.gathered(parameter) for name, parameter in model.named_parameters()}
    found = compared(whole, dict(alone.named_parameters()))
    zero3.gather(model)
    assert wi.fingerprint(model) == wi.fingerprint(alone)
    return found | {"fingerprint_of_parts": wi.fingerprint(zero3.partition(model)) == wi.fingerprint(alone)}


@flow
def seeds_that_differ(world: World) -> Found:
    """Ranks that called torch.manual_seed differently hold one tensor all the same, in every way of making it."""
    torch.manual_seed(SEED + world.rank)
    with wi.deferred() as recorded:
        model = Llama(TINY)
    recorded.materialize_(fully_sharded(model, world.mesh("replicas", "shards")), device=world.device)
    alike, seeds = [wi.fingerprint(model)], [recorded.plan(model).seed]
    with wi.deferred() as recorded:
        expected = Llama(TINY)
    found = compared(named(model), named(recorded.materialize_(expected, seed=seeds[0])))
    for way in (wi.initialize_, lambda net: wi.plan(net).apply_(net)):
        alike.append(wi.fingerprint(way(model)))
        seeds.append(wi.plan(model).seed)
    everyone: list[Any] = [None] * world.size
    dist.all_gather_object(everyone, (alike, seeds))
    assert all(one == everyone[0] for one in everyone), everyone
    assert len(set(alike)) == len(set(seeds)) == 3
    return found


@flow
def pipeline(world: World) -> Found:
    """Stages of at most three ranks: the layers of a rank are those of the whole model."""
    stages = min(world.size, 3)
    stage = distributed_pipeline.build(world.rank % stages, stages, seed=SEED, device=world.device)
    assert len(stage.layers) == TINY.layers // stages or stages == 2
    return compared(named(stage), named(single()))


@flow
def plain_shards(world: World) -> Found:
    """Layers without DTensor, their shards put together."""
    shards, whole = (
        {
            "column": distributed_plain_shards.ColumnParallel("column", 6, 17, rank, size).weight,
            "bias": distributed_plain_shards.ColumnParallel("column", 6, 17, rank, size).bias,
            "row": distributed_plain_shards.RowParallel("row", 17, 6, rank, size).weight,
            "experts": distributed_plain_shards.ExpertParallel("experts", 9, 6, 4, rank, size).weight,
            "flat": distributed_plain_shards.flat_partition("flat", (7, 5, 3), rank, size),
        }
        for rank, size in ((world.rank, world.size), (0, 1))
    )
    everyone: list[dict[str, Tensor]] = [{}] * world.size
    dist.all_gather_object(everyone, {name: shard.detach() for name, shard in shards.items()})
    got = {name: torch.cat([one[name] for one in everyone], dim=1 if name == "row" else 0) for name in shards}
    return compared(got, {name: tensor.detach() for name, tensor in whole.items()})


@flow
def seed_plan(world: World) -> Found:
    """A saved plan in place of torchtitan's seed checkpoint."""
    path = str(world.scratch / f"seed-{world.size}-{world.rank}.json")
    distributed_seed_plan.save(path, seed=SEED)
    return as_single(distributed_seed_plan.build(world.mesh(), path))


@flow
def megatron(world: World) -> Found:
    """Shards as Megatron's parameters describe them, with stride 2, gathered by DTensor."""
    width, hidden = 2 * world.size, 4 * world.size
    whole = distributed_megatron.Experts(width, hidden, 2, ranks=1)
    plan = wi.plan(whole, distributed_megatron.RULES, seed=SEED)
    model = distributed_megatron.Experts(width, hidden, 2, world.size, stride=2)
    distributed_megatron.fill_(model, plan, world.mesh())
    got = distributed_megatron.tensors_of(model, world.mesh())
    found = compared(got, named(plan.apply_(whole)))
    assert wi.fingerprint(got) == wi.fingerprint(whole)
    return found


@flow
def checkpoint(world: World) -> Found:
    """Saved here, loaded here from what the larger worlds have saved."""
    model = distributed_fsdp2.build(world.mesh(), seed=SEED)
    saved = distributed_checkpoint.save(model, str(world.scratch / f"checkpoint-{world.size}"))
    folders = sorted(world.scratch.glob("checkpoint-*"))
    loaded = {}
    for folder in folders:
        other = distributed_fsdp2.build(world.mesh(), seed=SEED + 1)
        assert distributed_checkpoint.load_(other, str(folder)) == saved
        loaded[folder.name] = as_single(other)
    return as_single(other) | {"differing": sum(found["differing"] for found in loaded.values()), "loaded": sorted(loaded)}


@flow
def check_ranks(world: World) -> Found:
    """A replica that goes astray is found, by name and rank; shards of one tensor are nobody's replicas."""
    square = world.mesh("replicas", "shards")
    replicated = shared_out(torch.zeros(6, 4), square, [Replicate(), Shard(0)])
    tensors = {
        "plain": torch.zeros(5),
        "sharded": shared_out(torch.zeros(9, 2), world.mesh(), [Shard(0)]),
        "replicated": replicated,
        f"stage {world.rank % 2}": torch.full((3,), float(world.rank % 2)),
    }
    for name, tensor in tensors.items():
        wi.init.normal_(tensor, seed=SEED, stream=name)
    assert wi.check_ranks(tensors) == {}
    mine = {"plain shard": torch.full((2,), float(square.get_coordinate()[1]))}
    assert bool(wi.check_ranks(mine)) == (square.size(1) > 1)
    assert wi.check_ranks(mine, group=square.get_group("replicas")) == {}
    last = world.size - 1
    if world.rank == last:
        tensors["plain"][2] += 1
        tensors["sharded"].to_local().mul_(2)
        replicated.to_local()[0, 0] = 3
        tensors[f"stage {last % 2}"][0] = 7
    found = wi.check_ranks(tensors)
    expected = {"plain": (last,)} if world.size > 1 else {}
    if square.size(0) > 1:
        first_copy = last % square.size(1)  # of two copies the first is right, of more the most frequent
        assert first_copy < last
        expected["replicated"] = (last,)
    if world.size > 2:
        expected[f"stage {last % 2}"] = (last,)
    assert found == expected, (found, expected)
    return {"differing": 0, "compared": 1}
