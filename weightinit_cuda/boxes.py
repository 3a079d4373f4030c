"""Boxes of a tensor's indices, and what is left of one when others are taken away.

Plans use them to fill one part of a parameter differently from the rest (the zero row of an embedding, the three slices of a
fused QKV weight) without writing anything twice. This file knows integers only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

__all__ = ["Box", "intersection", "remainder", "side_by_side"]


class Box(NamedTuple):
    """The indices i with ``offset <= i < offset + shape`` in every dimension.

    >>> Box((1, 0), (2, 3)).slices()
    (slice(1, 3, None), slice(0, 3, None))
    """

    offset: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def whole(cls, shape: Iterable[int]) -> Box:
        """All indices of a tensor of that shape."""
        shape = tuple(shape)
        return cls((0,) * len(shape), shape)

    @property
    def end(self) -> tuple[int, ...]:
        return tuple(start + size for start, size in zip(self.offset, self.shape, strict=True))

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def slices(self, origin: tuple[int, ...] | None = None) -> tuple[slice, ...]:
        """The box as an index into a tensor whose first element is at ``origin``."""
        origin = origin or (0,) * len(self.offset)
        return tuple(slice(a - o, b - o) for a, b, o in zip(self.offset, self.end, origin, strict=True))


def intersection(one: Box, other: Box) -> Box | None:
    """The indices in both; None if there are none.

    >>> intersection(Box((0, 0), (4, 4)), Box((2, 3), (9, 9)))
    Box(offset=(2, 3), shape=(2, 1))
    """
    begin = tuple(map(max, one.offset, other.offset))
    shape = tuple(min(a, b) - c for a, b, c in zip(one.end, other.end, begin, strict=True))
    return Box(begin, shape) if all(size > 0 for size in shape) else None


def remainder(box: Box, taken: Iterable[Box]) -> list[Box]:
    """Boxes that do not overlap and together hold what is in ``box`` and in none of ``taken``: few, and in row-major order.

    >>> remainder(Box.whole((5, 3)), [Box((2, 0), (1, 3))])
    [Box(offset=(0, 0), shape=(2, 3)), Box(offset=(3, 0), shape=(2, 3))]
    """
    left = [box]
    for hole in taken:
        left = [piece for part in left for piece in _without(part, hole)]
    return sorted(left)


def side_by_side(boxes: Sequence[Box]) -> bool:
    """Whether the boxes are slabs that differ along one axis only, and do not overlap there: seen without comparing all pairs.

    >>> side_by_side([Box((0, 0), (1, 9)), Box((1, 0), (2, 9))]), side_by_side([Box((0, 0), (2, 9)), Box((1, 0), (2, 9))])
    (True, False)
    """
    if len(boxes) < 2:
        return True
    spans = [list(zip(box.offset, box.shape, strict=True)) for box in boxes]
    axes = [axis for axis, first in enumerate(spans[0]) if any(span[axis] != first for span in spans)]
    if len(axes) != 1:
        return False
    ordered = sorted(span[axes[0]] for span in spans)
    return all(start + size <= next_start for (start, size), (next_start, _) in pairwise(ordered))


def _without(box: Box, hole: Box) -> Iterator[Box]:
    """``box`` without ``hole``: in each dimension what lies before and behind the hole, then on with the slab between."""
    common = intersection(box, hole)
    if common is None:
        yield box
        return
    begin, end = list(box.offset), list(box.end)
    for dim, (a, b) in enumerate(zip(common.offset, common.end, strict=True)):
        for low, high in ((begin[dim], a), (b, end[dim])):
            if low < high:
                offset, top = (*begin[:dim], low, *begin[dim + 1 :]), (*end[:dim], high, *end[dim + 1 :])
                yield Box(offset, tuple(map(int.__sub__, top, offset)))
        begin[dim], end[dim] = a, b
