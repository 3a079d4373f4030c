"""Distribution values again, from a plan alone: any slice of any tensor, or a whole model set back.

Sits on plans, which know what each element is; here is which elements are asked for. Only what is asked for is made: memory is
that of the result, and for slices with a step a chunk beside it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from types import EllipsisType
from typing import SupportsIndex, TypeVar

import torch
from torch import Tensor

from ..plans.entry import Entry
from ..plans.plan import PLAN, Plan
from ..tensors.boxes import Box, Region, intersection, remainder
from ..tensors.kinds import TEXT, must_be
from ..tensors.named import Model
from ..tensors.shards import Part

__all__ = ["chunks", "regenerate", "unknown"]

Index = SupportsIndex | slice | EllipsisType
Module = TypeVar("Module", bound=Model)
_CHUNK = 1 << 20  # elements of a box that is made to take a slice with a step out of it: bounds the memory beside the result
_STREAMED = 1 << 22  # elements of a chunk: some megabytes
_SMALL = 1 << 14  # elements that are made faster than another job is set up


def regenerate(
    plan: Plan,
    name: str,
    index: Index | tuple[Index, ...] = ...,
    *,
    seed: SupportsIndex | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """``initial[index]`` of one tensor, where ``initial`` is what ``plan.apply_`` would have filled it with, bit for bit.

    Elements that the index leaves out are not made; of a slice with a step, what lies between is made in chunks. Exception: a
    tensor with an orthogonal entry is made whole, for its values depend on all of its random numbers.

    Args:
        plan: what the model was initialised with.
        name: qualified name, or another name of the same (tied) tensor.
        index: integers, slices with any positive step and one ``...``, as for indexing a tensor; default all.
        seed: instead of the plan's.
        device: where to make the values; they are the same on every device.

    Returns:
        A new tensor of the plan's dtype (``plan.with_dtype`` gives another).

    Raises:
        KeyError: the plan has no such name.
        IndexError, TypeError, ValueError: the index does not fit the shape, or is of another kind.
        ValueError: the model's own code computed some of these values, or the plan says nothing about them.

    >>> import torch, weightinit_cuda as wi
    >>> net = torch.nn.Linear(64, 1000)
    >>> plan = wi.plan(net, rules="kaiming", seed=0)
    >>> torch.equal(wi.regenerate(plan, "weight", (slice(7, 900, 100), -1)), plan.apply_(net).weight[7:900:100, -1])
    True
    """
    must_be(PLAN, "regenerate", plan=plan)
    must_be(TEXT, "regenerate", name=name)
    entries = plan[name]
    shape, dtype = entries[0].shape, entries[0].dtype
    chosen, kept = _ranges(shape, index, name)
    if reason := unknown(plan, name, _bounding(chosen)):
        raise ValueError(f"regenerate: the plan must say the values, got {reason} ({name}). Construct the model to get them.")
    if any(entry.distribution.linear_algebra for entry in entries):
        whole = torch.empty(shape, dtype=dtype, device=device)
        plan.fill_({entries[0].name: whole}, seed=seed)
        made = whole[tuple(slice(r.start, r.stop, r.step) for r in chosen)].clone()
    else:
        made = torch.empty([len(r) for r in chosen], dtype=dtype, device=device)
        _make(plan, entries[0], made, chosen, seed)
    return made[kept]


def chunks(
    plan: Plan, name: str, *, seed: SupportsIndex | None = None, device: torch.device | str = "cpu"
) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
    """All initial values of a tensor as (index, ``regenerate(plan, name, index)``), one after the other in row-major order."""
    entries = plan[name]
    at_once = math.prod(entries[0].shape) if any(entry.distribution.linear_algebra for entry in entries) else _STREAMED
    for box in _cut(Box.whole(entries[0].shape), at_once):
        yield box.slices(), regenerate(plan, name, box.slices(), seed=seed, device=device)


def _cut(box: Box, limit: int) -> Iterator[Box]:
    """Boxes of at most ``limit`` elements, each contiguous in row-major order, and in that order."""
    if box.numel <= limit:
        yield box
        return
    dim = next(d for d, size in enumerate(box.shape) if size > 1)
    step = max(1, limit // (box.numel // box.shape[dim]))
    for begin in range(0, box.shape[dim], step):
        offset, shape = list(box.offset), list(box.shape)
        offset[dim], shape[dim] = offset[dim] + begin, min(step, box.shape[dim] - begin)
        yield from _cut(Box(tuple(offset), tuple(shape)), limit)


def _ranges(shape: Sequence[int], index: object, name: str) -> tuple[list[range], tuple[int | slice, ...]]:
    """The indices asked for in each dimension, and the index that then drops the dimensions that were integers."""
    given = list(index) if isinstance(index, tuple) else [index]
    dots = [at for at, one in enumerate(given) if one is ...]
    if len(dots) > 1:
        raise IndexError(f"regenerate: an index can only have a single ellipsis, got {index} ({name}).")
    missing = len(shape) - len(given) + len(dots)
    if missing < 0:
        raise IndexError(f"regenerate: at most {len(shape)} indices are possible for shape {shape}, got {index} ({name}).")
    at = dots[0] if dots else len(given)
    given[at : at + 1] = [slice(None)] * missing
    chosen = [_range(one, size, name) for one, size in zip(given, shape, strict=True)]
    return chosen, tuple(slice(None) if isinstance(one, slice) else 0 for one in given)


def _range(one: object, size: int, name: str) -> range:
    if isinstance(one, slice):
        if one.step is not None and one.step <= 0:
            raise ValueError(f"regenerate: the step of a slice must be at least 1, got {one.step} ({name}). Flip the result.")
        return range(size)[one]
    if isinstance(one, bool) or not isinstance(one, SupportsIndex) or isinstance(one, Tensor):
        raise TypeError(f"regenerate: an index must be an integer, a slice or ..., got {one!r} ({name}).")
    number = operator.index(one)
    if not -size <= number < size:
        raise IndexError(f"regenerate: the index must be in [{-size}, {size}), got {number} ({name}).")
    return range(number % size, number % size + 1)


def _bounding(chosen: Sequence[range]) -> Box:
    """The smallest box that holds the indices."""
    return Box(tuple(r.start for r in chosen), tuple(r[-1] + 1 - r.start if r else 0 for r in chosen))


def unknown(plan: Plan, name: str, within: Box | None = None) -> str:
    """Why the plan cannot say the values of a tensor, or of a box of it; empty if it can."""
    entries = plan[name]
    wanted = within or Box.whole(entries[0].shape)
    if wanted.numel == 0:
        return ""
    shares = plan.shares(name)
    filled = [box for _, decided in shares for box in decided]
    if sum(box.numel for box in filled) < math.prod(entries[0].shape) and (gaps := remainder(wanted, filled)):
        return f"the plan has no entry for {gaps[0]}"
    for entry, decided in shares:
        if not entry.distribution.is_fill and any(intersection(box, wanted) for box in decided):
            return f"{entry.distribution.numbers()['how']} is what the model's own code computes ({entry.source})"
    return ""


def _make(plan: Plan, entry: Entry, made: Tensor, chosen: Sequence[range], seed: SupportsIndex | None) -> None:
    """Fills ``made`` with the elements of the cross product of ``chosen``: boxes directly, others through a scratch box."""
    direct: list[Part] = []
    for target, ranges in _pieces(made, chosen):
        box = _bounding(ranges)
        if all(r.step == 1 for r in ranges):
            direct.append((target, Region(entry.shape, box.offset)))
            continue
        scratch = torch.empty(box.shape, dtype=made.dtype, device=made.device)
        plan.fill_({entry.name: [(scratch, Region(entry.shape, box.offset))]}, seed=seed)
        target.copy_(scratch[tuple(slice(None, None, r.step) for r in ranges)])
    plan.fill_({entry.name: direct}, seed=seed)


def _pieces(made: Tensor, chosen: Sequence[range]) -> Iterator[tuple[Tensor, list[range]]]:
    """The result, cut until each piece is a box itself or lies in a box that is small, or not much larger. Nothing empty."""
    ranges = [range(r.start, r.start + 1) if len(r) == 1 else r for r in chosen]  # one index has no step
    if made.numel() == 0:
        return
    around = _bounding(ranges).numel
    if all(r.step == 1 for r in ranges) or around <= _SMALL or around <= min(4 * made.numel(), _CHUNK):
        yield made, ranges
        return
    dim = max(range(len(ranges)), key=lambda dim: ranges[dim].step)
    half = len(ranges[dim]) // 2
    for target, some in zip(made.tensor_split((half,), dim), (ranges[dim][:half], ranges[dim][half:]), strict=True):
        yield from _pieces(target, [*ranges[:dim], some, *ranges[dim + 1 :]])
