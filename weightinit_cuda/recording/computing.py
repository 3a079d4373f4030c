"""Values for what is no fill: steps that are run again, on the CPU, for the tensors of a model that hold what they give."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from ..numerics.distributions import Computed
from ..plans.plan import Plan
from ..tensors.boxes import Box, intersection
from ..tensors.named import PLAIN_TYPES
from ..tensors.shards import parts
from ..tensors.torch_private import overlaps_itself, storage_key
from .ownership import Claims
from .programs import program
from .replay import place_of, replay
from .targets import Target

__all__ = ["compute"]

_SMALL = 1 << 20  # bytes


def compute(claims: Claims, plan: Plan, targets: Sequence[Target], real: dict[str, Tensor]) -> None:
    """Replays what is no fill, a memory at a time: beside the model only its values are held, and small ones that recur.

    Args:
        claims: of the model.
        plan, targets: what the targets get.
        real: their memory, by their names.
    """
    each = ((target, _computed_boxes(target, plan)) for target in targets if not target.within)
    computed = [(target, boxes) for target, boxes in each if boxes]
    dtypes = {entry.stream: entry.dtype for entry in plan if entry.distribution.is_random} if computed else {}
    known: dict[Hashable, Tensor] = {}
    for target, boxes in computed:
        memory = target.memory
        steps = claims.needed(memory)
        key = program(steps, memory) if len(computed) > 1 and memory.nbytes <= _SMALL else None
        values = known.get(key)
        if values is None:
            values = replay(steps, [memory], lambda step: claims.source(step, plan.seed).drawn_as(dtypes))[memory]
            if key is not None:
                known[key] = values
        _copy_boxes(place_of(target.view, values), real[target.named.name], boxes)
    _copy_views(targets, real)


def _computed_boxes(target: Target, plan: Plan) -> list[Box]:
    """The boxes of the tensor that only a replay gives."""
    whole = Box.whole(target.held.shape)
    return [entry.box or whole for entry in plan[target.named.name] if isinstance(entry.distribution, Computed)]


def _copy_boxes(values: Tensor, tensor: Tensor, boxes: Sequence[Box]) -> None:
    """The boxes of a tensor from values of all of it; of a sharded one what is here."""
    for local, region in parts(tensor, "materialize_"):
        mine = Box.whole(local.shape) if region is None else Box(region.offset, tuple(local.shape))
        for box in boxes:
            common = intersection(box, mine)
            if common is not None and overlaps_itself(local):
                _as_they_lie(local).copy_(_as_they_lie(values))
            elif common is not None:
                local[common.slices(mine.offset)].copy_(values[common.slices()])


def _copy_views(targets: Sequence[Target], real: dict[str, Tensor]) -> None:
    """Values for views that have memory of their own: ``keep=`` leaves them another dtype than what they are views of, or they
    have been given it before."""
    views = {target.named.name: target.view for target in targets}
    for name, within in ((target.named.name, target.within) for target in targets if target.within):
        tensor, source = real[name], real[within].detach()
        if _share_memory(tensor, source):
            continue
        view, around = views[name], views[within].geometry
        if source.stride() != around.strides:  # it lies otherwise by now
            source = torch.empty_strided(around.shape, around.strides, dtype=source.dtype, device=source.device).copy_(source)
        offset = source.storage_offset() + view.geometry.offset - around.offset
        values = source.as_strided(view.shape, view.geometry.strides, offset)
        tensor.copy_(values if view.neg == views[within].neg else -values)


def _as_they_lie(tensor: Tensor) -> Tensor:
    """The memory that a tensor reaches, each element once: of one that is expanded, say."""
    reach = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.as_strided((reach,), (1,))


def _share_memory(tensor: Tensor, source: Tensor) -> bool:
    """Whether a view of another tensor on the tape is one."""
    if type(tensor) in PLAIN_TYPES and type(source) in PLAIN_TYPES:
        return storage_key(tensor.untyped_storage()) == storage_key(source.untyped_storage())
    return tensor.dtype == source.dtype
