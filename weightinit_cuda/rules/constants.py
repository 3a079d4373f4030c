"""Tensors of numbers that code has computed, as constants of boxes: what rules can say of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..tensors.boxes import Box

__all__ = ["MOST", "constants"]

MOST = 128  # boxes of one tensor: 32 layers with so many are checked in 0.05 s and applied in 0.3


def constants(values: Tensor, dtype: torch.dtype) -> list[tuple[float, Box]] | None:
    """Boxes that together are the tensor in that dtype, each with the number that is everywhere in it; None if they are too
    many, or if numbers are complex or not finite. An expanded tensor costs no more than what it is expanded from.

    >>> constants(torch.tensor([[1.0, 2.0, 2.0], [1.0, 2.0, 2.0]]), torch.float32)
    [(1.0, Box(offset=(0, 0), shape=(2, 1))), (2.0, Box(offset=(0, 1), shape=(2, 2)))]
    """
    if not values.numel() or values.is_complex() or dtype.is_complex:
        return None
    shape, expanded = values.shape, [stride == 0 for stride in values.stride()]
    for dim in (dim for dim, is_expanded in enumerate(expanded) if is_expanded):
        values = values.narrow(dim, 0, 1)
    values = values.to(dtype).double()  # in which every dtype can be compared
    if not bool(values.isfinite().all()):
        return None
    found: list[tuple[float, Box]] = []
    waiting = [Box.whole(values.shape)]
    while waiting:
        box = waiting.pop()
        inside = values[box.slices()]
        parts = next((parts for dim in range(values.dim()) if len(parts := _runs(inside, box, dim)) > 1), None)
        if parts is None:
            found.append((float(inside.flatten()[0]), box))
        else:
            waiting += reversed(parts)
        if len(found) + len(waiting) > MOST:
            return None
    return [(value, _expanded(box, shape, expanded)) for value, box in found]


def _expanded(box: Box, shape: Sequence[int], expanded: Sequence[bool]) -> Box:
    return box._replace(
        shape=tuple(whole if all_of_it else n for n, whole, all_of_it in zip(box.shape, shape, expanded, strict=True))
    )


def _runs(inside: Tensor, box: Box, dim: int) -> list[Box]:
    """The box cut wherever neighbours along a dimension differ, in any bit."""
    size = box.shape[dim]
    if size == 1:
        return [box]
    one, next_one = inside.narrow(dim, 0, size - 1), inside.narrow(dim, 1, size - 1)
    differs = (one != next_one) | (one.signbit() != next_one.signbit())
    ends = [1 + at for at in differs.transpose(0, dim).reshape(size - 1, -1).any(1).nonzero().flatten().tolist()]
    return [_part(box, dim, begin, end) for begin, end in zip([0, *ends], [*ends, size], strict=True)]


def _part(box: Box, dim: int, begin: int, end: int) -> Box:
    offset, shape = list(box.offset), list(box.shape)
    offset[dim], shape[dim] = offset[dim] + begin, end - begin
    return Box(tuple(offset), tuple(shape))
