"""Views of a storage as integers: which part of one view another one is.

Recorded code writes through views (rows, slices, transposes, flattened tensors) of one storage. Here a view is its offset,
shape and strides, and the question is always the same: is this view a box of that one? This file knows integers only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from ..tensors.boxes import Box, intersection

__all__ = ["Geometry", "box_of", "carried", "common", "contiguous", "cut", "fills_storage", "overlaps_itself", "same_order"]


class Geometry(NamedTuple):
    """Element i of a view is element ``offset + sum(i * strides)`` of its storage."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        """One beyond the last element of the storage that the view reaches."""
        return self.offset + sum((size - 1) * stride for size, stride in self._dims()) + (self.numel > 0)

    def _dims(self) -> list[tuple[int, int]]:
        return [(size, stride) for size, stride in zip(self.shape, self.strides, strict=True) if size != 1]


def contiguous(shape: Sequence[int]) -> Geometry:
    """The view that is all of a storage of its own, row by row, as torch makes it.

    >>> contiguous((4, 3))
    Geometry(offset=0, shape=(4, 3), strides=(3, 1))
    """
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * max(size, 1))
    return Geometry(0, tuple(shape), tuple(reversed(strides[: len(shape)])))


def cut(whole: Geometry, box: Box) -> Geometry:
    """The view of a box of a view.

    >>> cut(Geometry(0, (4, 3), (3, 1)), Box((2, 0), (1, 3)))
    Geometry(offset=6, shape=(1, 3), strides=(3, 1))
    """
    offset = whole.offset + sum(at * stride for at, stride in zip(box.offset, whole.strides, strict=True))
    return Geometry(offset, box.shape, whole.strides)


@lru_cache(maxsize=4096)
def box_of(whole: Geometry, part: Geometry) -> Box | None:
    """The box of ``whole`` whose elements are those of ``part``, in whatever order; None if they are no box of it.

    >>> box_of(Geometry(0, (4, 3), (3, 1)), Geometry(3, (6,), (1,)))
    Box(offset=(1, 0), shape=(2, 3))
    """
    if whole == part:
        return Box.whole(whole.shape)
    start = _position(whole, part.offset)
    if start is None or not part.numel:
        return None
    dims = {stride: d for d, (size, stride) in enumerate(zip(whole.shape, whole.strides, strict=True)) if size > 1}
    extent = [1] * len(whole.shape)
    for size, stride in _merged(part):
        while size > 1:
            d = dims.pop(stride, None)
            if d is None:
                return None
            if size <= whole.shape[d] - start[d]:
                extent[d], size = size, 1
            elif start[d] == 0 and size % whole.shape[d] == 0:  # goes on in the next dimension
                extent[d] = whole.shape[d]
                size, stride = size // whole.shape[d], stride * whole.shape[d]
            else:
                return None
    return Box(tuple(start), tuple(extent))


def _position(whole: Geometry, offset: int) -> list[int] | None:
    """The index in ``whole`` of an element of the storage; None if it has none, or its elements overlap or interleave."""
    rest, start, reach = offset - whole.offset, [0] * len(whole.shape), math.inf
    if rest < 0:
        return None
    order = sorted(
        (stride, size, d) for d, (size, stride) in enumerate(zip(whole.shape, whole.strides, strict=True)) if size != 1
    )
    for stride, size, d in reversed(order):
        if stride <= 0 or size * stride > reach:
            return None
        start[d], rest = divmod(rest, stride)
        if start[d] >= size:
            return None
        reach = stride
    return None if rest else start


def carried(piece: Geometry, origin: Geometry, seen: Geometry) -> Geometry | None:
    """Where the elements of ``seen`` come from, in their order, if element i of ``piece`` comes from element i of ``origin``.

    Returns:
        None if they are no part of the piece, or no view.

    >>> carried(contiguous((2, 4)), Geometry(0, (2, 4), (1, 2)), Geometry(4, (4,), (1,)))  # row 1 of a copy of a transpose
    Geometry(offset=1, shape=(4,), strides=(2,))
    """
    if piece == seen:
        return origin
    if not seen.numel or _position(piece, seen.offset) is None:
        return None
    dims = _in_step(piece, origin)
    rest, offset, left = seen.offset - piece.offset, origin.offset, []
    for size, stride, there in dims:
        at, rest = divmod(rest, stride)
        offset += at * there
        left.append(size - 1 - at)
    strides = [0] * len(seen.shape)
    for number, (size, stride) in enumerate(zip(seen.shape, seen.strides, strict=True)):
        if size == 1:
            continue
        d = next((d for d, (_, step, _) in enumerate(dims) if 0 < step <= stride), None)
        if d is None or stride % dims[d][1]:
            return None
        steps = stride // dims[d][1]
        left[d] -= (size - 1) * steps
        if left[d] < 0:
            return None
        strides[number] = steps * dims[d][2]
    return Geometry(offset, seen.shape, tuple(strides))


def _in_step(one: Geometry, other: Geometry) -> list[tuple[int, int, int]]:
    """Size and both strides of each dimension, longest first; dimensions that continue each other in both views are one."""
    both = [dim for dim in zip(one.strides, one.shape, other.strides, strict=True) if dim[1] != 1]
    dims: list[tuple[int, int, int]] = []
    for stride, size, there in sorted(both):
        if dims and dims[-1][0] * dims[-1][1] == stride and dims[-1][0] * dims[-1][2] == there:
            dims[-1] = dims[-1][0] * size, *dims[-1][1:]
        else:
            dims.append((size, stride, there))
    return dims[::-1]


def common(one: Geometry, other: Geometry, frame: Geometry) -> Geometry | None:
    """What two views share, as boxes of a third that holds both; an empty view if nothing.

    Returns:
        None if they are no boxes of ``frame``.
    """
    if one.end <= other.offset or other.end <= one.offset:
        return Geometry(one.offset, (0,), (1,))
    boxes = box_of(frame, one), box_of(frame, other)
    if boxes[0] is None or boxes[1] is None:
        return None
    shared = intersection(boxes[0], boxes[1])
    return Geometry(one.offset, (0,), (1,)) if shared is None else cut(frame, shared)


@lru_cache(maxsize=4096)
def fills_storage(view: Geometry, elements: int) -> bool:
    """Whether the view holds every element of a storage of so many, each once."""
    if view.offset or view.numel != elements:
        return False
    return _is_row_by_row(view) or (view.end == elements and _position(view, 0) is not None)


def overlaps_itself(view: Geometry) -> bool:
    """Whether two indices of the view may be one element of the storage.

    >>> overlaps_itself(Geometry(0, (2, 2), (1, 1)))
    True
    """
    if _is_row_by_row(view):
        return False
    reach = 0
    for stride, size in sorted((stride, size) for size, stride in zip(view.shape, view.strides, strict=True) if size > 1):
        if stride <= reach:
            return True
        reach += (size - 1) * stride
    return False


def _is_row_by_row(view: Geometry) -> bool:
    """Whether the view is contiguous."""
    step = 1
    for size, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if stride != step and size != 1:
            return False
        step *= size
    return True


def same_order(one: Geometry, other: Geometry) -> bool:
    """Whether two views go through the same elements in the same order, whatever their dimensions.

    >>> same_order(Geometry(0, (4, 3), (3, 1)), Geometry(0, (12,), (1,)))
    True
    """
    return one.offset == other.offset and _merged(one) == _merged(other)


def _merged(view: Geometry) -> list[tuple[int, int]]:
    """Dimensions with those that continue each other made one."""
    merged: list[tuple[int, int]] = []
    for size, stride in view._dims():
        if merged and merged[-1][1] == size * stride:
            merged[-1] = (merged[-1][0] * size, stride)
        else:
            merged.append((size, stride))
    return merged
