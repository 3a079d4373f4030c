"""Where local memory lies in a global tensor: the one file that knows placements of DTensors.

Of parameters that ZeRO-3 partitions it knows, too, where the part of this rank lies (:mod:`.partitioned`).

``parts`` turns any tensor into plain local tensors with their regions; jobs are made of those, so nobody else needs to know how
a tensor is spread over ranks. A rank computes where its shard lies from the mesh and the placements: nothing of the global size
is made, and nothing is communicated but one number, where ranks must agree on it (``agreed``). torch.distributed.tensor is
looked up and never imported: without it there is no DTensor.
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .boxes import Region
from .partitioned import Partitioned
from .torch_private import increment_version, strided_shard, without_modes

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor
    from typing_extensions import TypeIs

__all__ = [
    "Part",
    "agreed",
    "flat_parts",
    "is_dtensor",
    "is_spread",
    "mark_written",
    "parts",
    "parts_to_write",
    "require_parts",
    "spread_over",
]

Part = tuple[Tensor, Region | None]
"""Plain local memory, and where it lies in the global tensor; None: it is the global tensor."""

_Runs = list[tuple[int, int]]  # [begin, end) of a global dimension, in the order in which local memory holds them


def is_dtensor(tensor: object) -> TypeIs[DTensor]:
    """Whether the tensor is spread over a mesh of ranks."""
    if type(tensor) is Tensor or type(tensor) is nn.Parameter:  # asked in every call, which torch.compile may trace
        return False
    kind = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)
    return kind is not None and isinstance(tensor, kind)


def is_spread(tensor: object) -> bool:
    """Whether this rank has only a part of the tensor, or a copy that others have, too."""
    return is_dtensor(tensor) or isinstance(tensor, Partitioned)


def spread_over(tensor: Tensor) -> list[tuple[Any, str]]:
    """The groups of ranks whose members hold different parts of the tensor, each with the type of device that they talk by."""
    if isinstance(tensor, Partitioned):
        return [] if tensor.gathered is not None else [(tensor.group, tensor.local.device.type)]
    if not is_dtensor(tensor) or tensor.device_mesh.get_coordinate() is None:  # this rank is outside the mesh
        return []
    mesh, placements = tensor.device_mesh, enumerate(tensor.placements)
    return [(mesh.get_group(dim), mesh.device_type) for dim, placement in placements if not placement.is_replicate()]


def mark_written(tensor: Tensor) -> None:
    """Moves the version counter of a DTensor whose parts were written: autograd looks at this one, a fill moves its parts'."""
    if is_dtensor(tensor) and not tensor.is_inference():
        increment_version((tensor,))


def parts(tensor: Tensor, function: str = "parts") -> list[Part]:
    """The memory of this rank as boxes of the global tensor, ``part[i] == global[region.offset + i]``, views all of them.

    A plain tensor is one part, a shard usually too. A rank without elements has none. Tensor parallelism below FSDP2
    (``_StridedShard``) leaves a rank several runs of a dimension: a part for each.

    Args:
        tensor: plain, or a DTensor with placements Shard, Replicate or _StridedShard on any mesh.
        function: who asks, for error messages.

    Raises:
        NotImplementedError: another placement. Partial above all: what the ranks would hold is no part of the tensor.
        ValueError: the local tensor has not the shape that its placements give it.
    """
    if isinstance(tensor, Partitioned):
        return _own_part(tensor) if tensor.gathered is None else [(tensor.gathered, None)]
    if not is_dtensor(tensor):
        return [(tensor, None)]
    require_parts(tensor, function)
    coordinate = tensor.device_mesh.get_coordinate()
    if coordinate is None:  # this rank is outside the mesh
        return []
    runs: list[_Runs] = [[(0, size)] for size in tensor.shape]
    placements: Sequence[Any] = tensor.placements
    for number, of, placement in zip(coordinate, tensor.device_mesh.shape, placements, strict=True):
        if not placement.is_replicate():
            runs[placement.dim] = _shard(runs[placement.dim], placement, number, of)
    with torch.no_grad():
        local = tensor.to_local()
        expected = tuple(sum(end - begin for begin, end in dim) for dim in runs)
        if tuple(local.shape) != expected:
            raise ValueError(
                f"{function}: the local tensor must have shape {expected}, which {tensor.placements} give to this rank of"
                f" {tuple(tensor.shape)}, got {tuple(local.shape)}. Distribute it with distribute_tensor."
            )
        return [(view, Region(tuple(tensor.shape), offset)) for view, offset in _boxes(local, runs)]


def parts_to_write(tensor: Tensor, function: str = "parts") -> list[Part]:
    """As :func:`parts`, and all copies: while ZeRO-3 has gathered a parameter, its part stays, and is what remains after."""
    local = parts(tensor, function)
    if isinstance(tensor, Partitioned) and tensor.gathered is not None and not _same_storage(tensor.gathered, tensor.local):
        local += _own_part(tensor)
    return local


def _own_part(tensor: Partitioned) -> list[Part]:
    return flat_parts(tensor.local, tensor.shape, tensor.begin)


def _same_storage(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def require_parts(tensor: DTensor, function: str) -> None:
    """Refuses placements under which ranks hold something else than parts of the tensor."""
    from torch.distributed.tensor import Replicate, Shard

    for placement in tensor.placements:
        if not isinstance(placement, (Replicate, Shard, strided_shard())):
            raise NotImplementedError(
                f"{function}: every placement of a DTensor must be Shard or Replicate, got {tensor.placements}."
                f" Redistribute it first: the ranks of a {type(placement).__name__} hold no part of the tensor."
            )


def _shard(runs: _Runs, placement: Any, number: int, of: int) -> _Runs:
    """What shard ``number`` of ``of`` keeps. A strided one cuts each of ``split_factor`` pieces, as those to its right will."""
    factor = getattr(placement, "split_factor", 1)
    return [run for piece in range(factor) for run in _chunk(_chunk(runs, piece, factor), number, of)]


def _chunk(runs: _Runs, number: int, of: int) -> _Runs:
    """Piece ``number`` of ``of`` equal ones, as torch.chunk cuts: the last may be shorter, or empty."""
    size = -(-sum(end - begin for begin, end in runs) // of)
    kept, at = [], -number * size  # position of a run's first element, counted from the piece's
    for begin, end in runs:
        low, high = max(begin, begin - at), min(end, begin - at + size)
        if low < high:
            kept.append((low, high))
        at += end - begin
    return kept


def _boxes(local: Tensor, runs: Sequence[_Runs]) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
    """A view and its global offset for every combination of one run from each dimension."""
    for chosen in itertools.product(*map(_placed, runs)):
        view = local
        for dim, (at, begin, end) in enumerate(chosen):
            view = view if end - begin == view.shape[dim] else view.narrow(dim, at, end - begin)
        yield view, tuple(begin for _, begin, _ in chosen)


def _placed(runs: _Runs) -> list[tuple[int, int, int]]:
    """Runs with their position in local memory, those that continue each other made one."""
    placed: list[tuple[int, int, int]] = []
    at = 0
    for begin, end in runs:
        if placed and placed[-1][2] == begin:
            placed[-1] = (*placed[-1][:2], end)
        else:
            placed.append((at, begin, end))
        at += end - begin
    return placed


def agreed(number: int, tensors: Iterable[Tensor]) -> int:
    """The 64-bit number of the first rank that has a part of the tensors; of plain ones the number that was given.

    All ranks of the meshes, or of the groups of partitioned parameters, must call this with the same tensors: each dimension
    of each mesh, and each group, is one broadcast of 8 bytes.
    """
    tensors = list(tensors)
    for mesh in dict.fromkeys(tensor.device_mesh for tensor in tensors if is_dtensor(tensor)):
        number = _from_first(number, mesh)
    for group, device in dict.fromkeys((t.group, t.local.device.type) for t in tensors if isinstance(t, Partitioned)):
        number = _broadcast(number, device, [(torch.distributed.get_global_rank(group, 0), group)])
    return number


def _from_first(number: int, mesh: DeviceMesh) -> int:
    """The number of coordinate 0, told along one dimension after the other. A rank outside the mesh keeps its own."""
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        return number
    along = []
    for dim in range(mesh.ndim):
        first = (*coordinate[:dim], 0, *coordinate[dim + 1 :])
        along.append((int(mesh.mesh[first]), mesh.get_group(dim)))
    return _broadcast(number, mesh.device_type, along)


def _broadcast(number: int, device: str, along: Sequence[tuple[int, Any]]) -> int:
    """The number as the given rank of each group has it, one group after the other."""
    with without_modes(), torch.no_grad():
        told = torch.tensor(number - 2**63, dtype=torch.int64, device=device)  # 64 bits, of which torch has signed ones
        for first, group in along:
            torch.distributed.broadcast(told, first, group)
        return int(told.item()) + 2**63


def flat_parts(flat: Tensor, global_shape: Sequence[int], begin: int) -> list[Part]:
    """A 1-D tensor that holds the elements from ``begin`` on of a flattened global tensor, as boxes of that tensor.

    Of d dimensions there are at most 2 d - 1: the rest of a row, whole rows, the beginning of a row, and so on inside rows.
    """
    shape = tuple(global_shape)
    with torch.no_grad():
        return [
            (flat.narrow(0, at - begin, math.prod(size)).view(size), Region(shape, offset))
            for at, offset, size in _flat_boxes(shape, begin, begin + flat.shape[0])
        ]


def _flat_boxes(shape: tuple[int, ...], begin: int, end: int) -> Iterator[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """Flat index of the first element, offset and size of each box that [begin, end) consists of."""
    if begin >= end:
        return
    if len(shape) <= 1:
        yield begin, (begin,)[: len(shape)], (end - begin,)[: len(shape)]
        return
    row = math.prod(shape[1:])
    first, last = -(-begin // row), end // row
    if first < last:  # whole rows
        yield first * row, (first,) + (0,) * (len(shape) - 1), (last - first, *shape[1:])
    head = min(first * row, end)
    for low, high in ((begin, head), (max(last * row, head), end)):
        start = low // row
        for at, offset, size in _flat_boxes(shape[1:], low - start * row, high - start * row):
            yield start * row + at, (start, *offset), (1, *size)
