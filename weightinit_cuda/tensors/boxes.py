"""Boxes of a tensor's indices, what is left of one when others are taken away, and the region that a shard is.

Plans use them to fill one part of a parameter differently from the rest (the zero row of an embedding, the three slices of a
fused QKV weight) without writing anything twice. This file knows integers only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import ge, le
from typing import NamedTuple

__all__ = ["Box", "Region", "are_apart", "intersection", "remainder", "visible"]


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
        return tuple([start + size for start, size in zip(self.offset, self.shape, strict=True)])

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def slices(self, origin: tuple[int, ...] | None = None) -> tuple[slice, ...]:
        """The box as an index into a tensor whose first element is at ``origin``."""
        origin = origin or (0,) * len(self.offset)
        return tuple([slice(a - o, a - o + n) for a, n, o in zip(self.offset, self.shape, origin, strict=True)])


def intersection(one: Box, other: Box) -> Box | None:
    """The indices in both; None if there are none.

    >>> intersection(Box((0, 0), (4, 4)), Box((2, 3), (9, 9)))
    Box(offset=(2, 3), shape=(2, 1))
    """
    begin, shape = [], []
    for a, n, b, m in zip(one.offset, one.shape, other.offset, other.shape, strict=True):
        low = a if a > b else b
        size = (a + n if a + n < b + m else b + m) - low
        if size <= 0:
            return None
        begin.append(low)
        shape.append(size)
    return Box(tuple(begin), tuple(shape))


def remainder(box: Box, taken: Iterable[Box]) -> list[Box]:
    """Boxes that do not overlap and together hold what is in ``box`` and in none of ``taken``: few, and in row-major order.

    Raises:
        ValueError: as :func:`visible`.

    >>> remainder(Box.whole((5, 3)), [Box((2, 0), (1, 3))])
    [Box(offset=(0, 0), shape=(2, 3)), Box(offset=(3, 0), shape=(2, 3))]
    """
    layers = [box, *taken]
    return [box] if len(layers) == 1 or box.numel == 0 else _boxes(_cells(box, layers)[0])


def visible(boxes: Sequence[Box]) -> list[list[Box]]:
    """What is left of each box where later ones are put over earlier ones; of each few boxes, in row-major order.

    Indices are halved until one box covers what is left of them: O(n log n) steps for n boxes that are side by side, over
    others or inside each other.

    Raises:
        ValueError: the boxes cut each other into more than ``MOST_CELLS`` cells, as a grid of crossing stripes does.

    >>> visible([Box.whole((5, 3)), Box((2, 0), (1, 3))])[1]
    [Box(offset=(2, 0), shape=(1, 3))]
    """
    filled = [box for box in boxes if box.numel]
    if len(filled) < 2:
        return [[box] for box in boxes]
    begin = tuple(map(min, *(box.offset for box in filled)))
    end = tuple(map(max, *(box.end for box in filled)))
    cells = _cells(Box(begin, tuple(map(int.__sub__, end, begin))), boxes)
    return [_boxes(cells[number]) if box.numel else [box] for number, box in enumerate(boxes)]


def are_apart(boxes: Sequence[Box]) -> bool:
    """Whether no two boxes have an index in common.

    Raises:
        ValueError: as :func:`visible`.
    """
    return all(sum(part.numel for part in parts) == box.numel for parts, box in zip(visible(boxes), boxes, strict=True))


MOST_CELLS = 1 << 18
"""Some seconds' work. Honest plans have a few cells a box; n crossing stripes have n**2 / 4."""
_FEW = 16  # borders up to which the outermost dimension is cut first, which keeps cells contiguous in memory

_Span = tuple[tuple[int, ...], tuple[int, ...]]  # begin and end of a box
_Numbered = tuple[int, tuple[int, ...], tuple[int, ...]]  # the same behind its number


def _cells(within: Box, boxes: Sequence[Box]) -> dict[int, list[_Span]]:
    """The parts of ``within`` by the number of the last box that covers them."""
    cells: dict[int, list[_Span]] = {number: [] for number in range(len(boxes))}
    spans = [(number, box.offset, box.end) for number, box in enumerate(boxes) if intersection(box, within)]
    left = [(within.offset, within.end, spans[::-1])]  # cells with the boxes that they meet, the last box first
    made = 0
    while left:
        begin, end, spans = left.pop()
        spans = _seen(begin, end, spans)
        borders = _borders(begin, end, spans)
        if any(borders):
            dim = _dim_to_cut(borders)
            cut = sorted(borders[dim])[len(borders[dim]) // 2]
            left.append((begin, (*end[:dim], cut, *end[dim + 1 :]), [span for span in spans if span[1][dim] < cut]))
            left.append(((*begin[:dim], cut, *begin[dim + 1 :]), end, [span for span in spans if span[2][dim] > cut]))
        elif spans:
            cells[spans[0][0]].append((begin, end))
            made += 1
            if made > MOST_CELLS:
                raise ValueError(
                    f"the boxes of one tensor must cut each other into at most {MOST_CELLS:,} parts, got more from"
                    f" {len(boxes):,} boxes. Make several tensors of it."
                )
    return cells


def _dim_to_cut(borders: Sequence[Sequence[int]]) -> int:
    counts = list(map(len, borders))
    return counts.index(max(counts)) if sum(counts) > _FEW else next(dim for dim, count in enumerate(counts) if count)


def _seen(begin: tuple[int, ...], end: tuple[int, ...], spans: list[_Numbered]) -> list[_Numbered]:
    """The boxes of a cell down to the first that covers all of it."""
    for count, (_, first, last) in enumerate(spans, 1):
        if all(map(le, first, begin)) and all(map(ge, last, end)):
            return spans[:count]
    return spans


def _borders(begin: tuple[int, ...], end: tuple[int, ...], spans: Sequence[_Numbered]) -> list[list[int]]:
    """Where boxes begin or end inside a cell, in each dimension."""
    return [
        [a for _, first, _ in spans if (a := first[dim]) > low] + [b for _, _, last in spans if (b := last[dim]) < high]
        for dim, (low, high) in enumerate(zip(begin, end, strict=True))
    ]


def _boxes(cells: list[_Span]) -> list[Box]:
    """Cells as boxes, those that together are one box made one."""
    dims = len(cells[0][0]) if len(cells) > 1 else 0
    for dim in reversed(range(dims)):
        cells = _joined(cells, dim)
    return sorted(Box(begin, tuple(map(int.__sub__, end, begin))) for begin, end in cells)


def _joined(cells: list[_Span], dim: int) -> list[_Span]:
    """Cells that continue each other along one dimension, and are alike in all others, as one."""

    def others(cell: _Span) -> tuple[int, ...]:
        return (*cell[0][:dim], *cell[0][dim + 1 :], *cell[1][:dim], *cell[1][dim + 1 :])

    joined: list[_Span] = []
    alike: tuple[int, ...] = ()
    for key, begin, end in sorted((others(cell), *cell) for cell in cells):
        if joined and key == alike and joined[-1][1][dim] == begin[dim]:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
        alike = key
    return joined


class Region(NamedTuple):
    """The place of a local tensor inside a global tensor: ``local[i] == global[offset + i]``.

    Args:
        global_shape: shape of the global tensor, as many dimensions as the local one.
        offset: position of the local tensor's first element, one number a dimension.
    """

    global_shape: tuple[int, ...]
    offset: tuple[int, ...]

    def slices(self, shape: Sequence[int]) -> tuple[slice, ...]:
        """The index of a local tensor of that shape into the global one."""
        return tuple(slice(at, at + size) for at, size in zip(self.offset, shape, strict=True))
