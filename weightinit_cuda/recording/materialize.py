"""Values for the targets of a model: memory for those that have none, one call of the engine, and the same objects after.

A tensor that is all of a plain memory is one fill under its own name: neither an entry of a plan nor a view is made for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import compress, repeat
from operator import attrgetter
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import engine
from ..engine.job import FillJob
from ..numerics.distributions import Computed, Constant, Distribution
from ..plans.plan import Plan
from ..tensors.boxes import remainder
from ..tensors.named import PLAIN_TYPES, Named
from ..tensors.shards import is_dtensor, mark_written
from ..tensors.torch_private import as_seen, is_traceable_wrapper_subclass
from .memory import LARGE, allocate, allocate_alike, ask_for_huge_pages, put_under, put_under_all, refresh
from .ownership import Claims
from .replay import has_long_words, seen
from .tape import CPU, META, Memory
from .targets import Alone, Found, Known, Layered, Target

__all__ = [
    "finish",
    "is_one_fill",
    "materialize",
    "memory_apart",
    "move_others",
    "one_like",
    "real_memory",
    "unmixed",
]

DTYPE = attrgetter("dtype")
Compute = Callable[[Sequence[Target], dict[str, Tensor]], None]


def is_one_fill(target: Target) -> bool:
    """Whether the target is all of a plain memory, and filled."""
    return isinstance(target.held, Memory) and bool(target.held.steps)


def materialize(
    alone: Alone,
    targets: Sequence[Target],
    claims: Claims,
    plan: Plan,
    seed: int,
    device: torch.device | None,
    compute: Compute,
) -> None:
    """Memory and values for tensors that are alone on a memory, and for the other targets.

    Args:
        plan: of those that are more than one fill.
        seed: of all.
        device: for all of them; None: for each the one that the code asked for.
        compute: computes what is no fill.
    """
    tensors, memories = alone.tensors(), alone.memories
    more: list[Layered | Known] = [*alone.layered, *alone.known]
    if more:
        memories = [*memories, *(one.view.memory for one in more)]
        tensors += [one.named.tensor for one in more]
    made = allocate_alike(tensors, _places(memories, device))
    plain, layered = len(alone.memories), len(alone.layered)
    fills = _columns(made[:plain], alone.names(), claims, seed)
    if layered:
        fills = fills.and_(_under(alone.layered, made[plain : plain + layered], claims, seed))
    for known, tensor in zip(alone.known, made[plain + layered :], strict=True):
        tensor.copy_(seen(known.view, known.values))
    settled = list[tuple[Target, Tensor]]()
    if targets:
        settled = _with_others(fills, targets, claims, plan, device, compute)
    else:
        engine.fill_whole(*fills)
    if layered:
        engine.fill(_over(alone.layered, made[plain : plain + layered]))
    for target, tensor in settled:
        _settle(target, tensor)
    put_under_all(tensors, made)


def _under(layered: Sequence[Layered], made: list[Tensor], claims: Claims, seed: int) -> _Columns:
    """The fills of all of each tensor."""
    names = [one.named.name for one in layered]
    return _Columns(made, [one.fill for one in layered], seed, claims.streams(names), names)


def _over(layered: Sequence[Layered], made: list[Tensor]) -> list[FillJob]:
    """The constants over them; those that other ones cover are left out."""
    jobs = []
    for one, tensor in zip(layered, made, strict=True):
        for at, (box, constant) in enumerate(one.over):
            for left in remainder(box, [later for later, _ in one.over[at + 1 :]]):
                jobs.append(FillJob(tensor.detach()[left.slices()], constant, 0, 0, None, one.named.name))
    return jobs


def _with_others(
    fills: _Columns, targets: Sequence[Target], claims: Claims, plan: Plan, device: torch.device | None, compute: Compute
) -> list[tuple[Target, Tensor]]:
    """Fills targets, by one call of the engine together with other fills.

    Returns:
        The memory for each, which is not under it yet.
    """
    listed = set(plan.names())
    planned = [target for target in targets if target.named.name in listed]
    rest = [target for target in targets if target.named.name not in listed]
    single = [target for target in rest if isinstance(target.held, Memory)]
    whole = [_whole(target, device) for target in single]
    real = real_memory(planned, plan, device)
    names = [target.named.name for target in single]
    engine.fill_whole(*fills.and_(_columns(whole, names, claims, fills.seed)), plan.jobs(real))
    for tensor in real.values():
        mark_written(tensor)
    compute(planned, real)
    bare = [target for target in rest if not isinstance(target.held, Memory)]  # without elements, and so no line in a plan
    return [
        *zip(single, whole, strict=True),
        *((target, _whole(target, device)) for target in bare),
        *((target, real[target.named.name]) for target in planned),
    ]


class _Columns(NamedTuple):
    """Fills of whole tensors, as :func:`.engine.fill_whole` takes them."""

    tensors: list[Tensor]
    distributions: list[Distribution]
    seed: int
    streams: list[int]
    names: list[str]

    def and_(self, other: _Columns) -> _Columns:
        return _Columns(
            self.tensors + other.tensors,
            self.distributions + other.distributions,
            self.seed,
            self.streams + other.streams,
            self.names + other.names,
        )


def _places(memories: Sequence[Memory], device: torch.device | None) -> Iterable[torch.device]:
    """Where each memory is to be."""
    if device is not None:
        return repeat(device, len(memories))
    return map(_asked, memories)


def _asked(memory: Memory) -> torch.device:
    """Where the code wants it."""
    return CPU if memory.device == META else memory.device


def _columns(tensors: list[Tensor], names: list[str], claims: Claims, seed: int) -> _Columns:
    """The one fill of each tensor, but for integers that begin at 0, as batch norms count with: they do, which is no work for
    the engine."""
    distributions, streams = claims.plain_fills(names)
    integers = [at for at, dtype in enumerate(map(DTYPE, tensors)) if dtype is torch.int64]
    if counters := {at for at in integers if _counts(tensors[at], distributions[at])}:
        kept = [at not in counters for at in range(len(tensors))]
        tensors, distributions = list(compress(tensors, kept)), list(compress(distributions, kept))
        streams, names = list(compress(streams, kept)), list(compress(names, kept))
    return _Columns(tensors, distributions, seed, streams, names)


def _counts(tensor: Tensor, distribution: Distribution) -> bool:
    if tensor.dtype is not torch.int64 or tensor.dim() or not isinstance(distribution, Constant) or distribution.value != 0:
        return False
    tensor.zero_()
    return True


def _whole(target: Target, device: torch.device | None) -> Tensor:
    """What the target has, or memory of its own."""
    if (real := _real_one(target)) is not None:
        return real
    tensor = target.named.tensor
    where = device or _asked(target.memory)
    if not tensor.is_contiguous():
        return allocate([(tensor, where, tensor.dtype)])[0]
    made = torch.empty(tensor.shape, dtype=tensor.dtype, device=where)
    if tensor.numel() > LARGE // 8:
        ask_for_huge_pages(made)
    return made


def _real_one(target: Target) -> Tensor | None:
    """That of its tensors which has memory already: a part of the model may have been given its own before."""
    return next((tensor for tensor in target.objects if not tensor.is_meta), None)


def real_memory(targets: Sequence[Target], plan: Plan, device: torch.device | None) -> dict[str, Tensor]:
    """Memory for every target: what it has, or some of what another tensor on the same memory has, or new."""
    real = {t.named.name: one for t in targets if (one := _real_one(t)) is not None}
    bare = [(t, device or _place(t), plan[t.named.name][0].dtype) for t in targets if t.named.name not in real]
    if real and bare:
        there = {t.memory: (t, real[t.named.name]) for t in targets if t.named.name in real}
        beside = {t.named.name: _beside(*there[t.memory], t, where, dtype) for t, where, dtype in bare if t.memory in there}
        real |= {name: one for name, one in beside.items() if one is not None}
        bare = [(t, where, dtype) for t, where, dtype in bare if t.named.name not in real]
    return real | _new_memory(bare)


def _new_memory(asked: Sequence[tuple[Target, torch.device, torch.dtype]]) -> dict[str, Tensor]:
    made = allocate([(t.named.tensor, where, dtype) for t, where, dtype in asked])
    return {t.named.name: tensor for (t, *_), tensor in zip(asked, made, strict=True)}


def memory_apart(targets: Sequence[Target], plan: Plan) -> dict[str, Tensor]:
    """New memory on the CPU for every target, whatever it has."""
    return _new_memory([(t, CPU, plan[t.named.name][0].dtype) for t in targets])


def _beside(known: Target, real: Tensor, target: Target, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    """A tensor on the memory of another one, as both lie on the tape; None if that memory is no copy of the tape's."""
    there, wanted = known.view, target.view
    made = torch.empty(0, dtype=dtype, device=device)
    alike = real.dtype == dtype and there.dtype == wanted.dtype and real.device == made.device
    if not (alike and type(real) in PLAIN_TYPES and type(target.named.tensor) in PLAIN_TYPES):
        return None
    offset = int(real.storage_offset()) + wanted.geometry.offset - there.geometry.offset
    end = offset + wanted.geometry.end - wanted.geometry.offset
    if real.stride() != there.geometry.strides or offset < 0 or end * dtype.itemsize > real.untyped_storage().nbytes():
        return None
    made.set_(real.untyped_storage(), offset, wanted.shape, wanted.geometry.strides)
    return as_seen(made, wanted.conj, wanted.neg)


def one_like(named: Named, dtype: torch.dtype | None) -> Tensor:
    """Unwritten memory on the CPU for one tensor."""
    cast = dtype if named.tensor.is_floating_point() else None
    return torch.empty_like(named.tensor, dtype=cast, device=CPU, requires_grad=False)


def _place(target: Target) -> torch.device:
    """Where the code, or the mesh of a sharded tensor, wants it."""
    tensor = target.named.tensor
    return torch.device(tensor.device_mesh.device_type) if is_dtensor(tensor) else _asked(target.memory)


def _settle(target: Target, real: Tensor) -> None:
    """Puts memory under tensors on meta. Of tied ones each gets the same memory, as its own tensor."""
    first, *rest = target.objects
    for tensor in rest:
        if tensor.is_meta:
            put_under(tensor, real.detach())
    if first is not real and first.is_meta:  # FSDP swaps a DTensor once more: nobody else may have it
        put_under(first, real.detach() if is_dtensor(real) or any(real is one for one in rest) else real)


def unmixed(plan: Plan, targets: Sequence[Target]) -> Plan:
    """The plan, in which of tensors with one stream all are drawn from 64 bits, or none is: where a cast has changed that of
    some, these are computed as the code has them, and cast then."""
    if not targets:
        return plan
    before = {target.named.name: has_long_words(target.held.dtype) for target in targets}
    drawn = [entry for entry in plan if entry.distribution.is_random]
    changed = [entry for entry in drawn if has_long_words(entry.dtype) != before[entry.name]]
    as_before = {entry.stream for entry in drawn if has_long_words(entry.dtype) == before[entry.name]} if changed else set()
    mixed = {id(entry) for entry in changed if entry.stream in as_before}
    if not mixed:
        return plan
    entries = (e._replace(distribution=Computed("cast")) if id(e) in mixed else e for e in plan)
    return Plan(tuple(entries), plan.seed, "deferred")


def move_others(
    others: Iterable[Named], device: torch.device | str | int | None, dtype: torch.dtype | None, kept: Collection[str]
) -> None:
    """Tensors that were never deferred (lazy ones, and real ones given from outside) follow to the device and dtype."""
    if device is None and dtype is None:
        return
    for named in others:
        tensor = named.tensor
        if not tensor.is_meta:
            cast = tensor.is_floating_point() and named.attribute and named.name not in kept
            tensor.data = tensor.data.to(device, dtype if cast else None)


def finish(model: nn.Module, found: Found, tensors: Iterable[Tensor]) -> None:
    """What a model and its modules do after their tensors have moved. Those of TorchScript know the memory that is gone, and
    are given their tensors again."""
    for module, name, tensor in found.scripted:
        setattr(module, name, tensor)
    wrapped = any(type(tensor) not in PLAIN_TYPES and is_traceable_wrapper_subclass(tensor) for tensor in tensors)
    refresh(model, [module for _, module in found.modules], wrapped)
