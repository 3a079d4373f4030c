"""One process as any rank of any mesh, one rank after the other, and layouts of tensors over meshes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard
from torch.testing._internal.distributed.fake_pg import FakeStore

Placements = Sequence[Any]


@contextmanager
def rank_of(rank: int, mesh_shape: Sequence[int]) -> Iterator[dist.DeviceMesh]:
    """This process as one rank of a mesh, whose names keep torch from taking it for the mesh of another rank."""
    names = tuple(f"{dim} of rank {rank}" for dim in range(len(mesh_shape)))
    dist.init_process_group("fake", rank=rank, world_size=math.prod(mesh_shape), store=FakeStore())
    try:
        yield init_device_mesh("cpu", tuple(mesh_shape), mesh_dim_names=names)
    finally:
        dist.destroy_process_group()


def shard_of(whole: Tensor, mesh: dist.DeviceMesh, placements: Placements) -> DTensor:
    """The DTensor of this rank, its local tensor cut out of ``whole`` by torch."""
    local = whole
    for placement, number, of in zip(placements, mesh.get_coordinate(), mesh.shape, strict=True):
        if not placement.is_replicate():
            local = placement._split_tensor(local, of, with_padding=False, contiguous=True)[0][number]
    return DTensor.from_local(local.clone(), mesh, placements, run_check=False, shape=whole.shape, stride=whole.stride())


def each_rank(whole: Tensor, mesh_shape: Sequence[int], placements: Placements) -> Iterator[DTensor]:
    for rank in range(math.prod(mesh_shape)):
        with rank_of(rank, mesh_shape) as mesh:
            yield shard_of(whole, mesh, placements)


# Name: shape, mesh, placements. Even, uneven, empty shards; nested ones; right-to-left ones, as FSDP2 over tensor parallelism.
LAYOUTS: dict[str, tuple[tuple[int, ...], tuple[int, ...], Placements]] = {
    "rows": ((8, 6), (4,), [Shard(0)]),
    "columns": ((8, 6), (3,), [Shard(1)]),
    "uneven": ((7, 6), (3,), [Shard(0)]),
    "empty": ((3, 6), (8,), [Shard(0)]),
    "one": ((8, 6), (1,), [Shard(0)]),
    "replicated": ((8, 6), (2,), [Replicate()]),
    "mesh": ((8, 6), (2, 2), [Shard(0), Shard(1)]),
    "hybrid": ((7, 6), (2, 2), [Replicate(), Shard(0)]),
    "nested": ((9, 6), (2, 2), [Shard(0), Shard(0)]),
    "strided": ((8, 6), (2, 2), [_StridedShard(0, split_factor=2), Shard(0)]),
    "strided uneven": ((11, 6), (2, 2), [_StridedShard(0, split_factor=2), Shard(0)]),
    "strided alone": ((10, 6), (2, 2), [_StridedShard(0, split_factor=2), Replicate()]),
    "strided columns": ((5, 14), (3, 2), [_StridedShard(1, split_factor=2), Shard(1)]),
    "strided twice": ((24, 6), (2, 2, 2), [_StridedShard(0, split_factor=4), _StridedShard(0, split_factor=2), Shard(0)]),
    "strided both": ((9, 10), (2, 2), [_StridedShard(0, split_factor=2), _StridedShard(1, split_factor=3)]),
}
