"""What lies in a memory, piece by piece, and which parts of the pieces a view sees, as boxes of its indices.

A piece has values of a distribution, values that only a replay gives, or nothing. Of a draw it is known which elements of it
each piece has, through copies, cuts and transposes. Knows no operators.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..numerics.distributions import Constant, Distribution
from ..tensors.boxes import Box
from .tape import FillStep, View
from .views import Geometry, box_of, carried, common, cut, same_order

__all__ = ["BoxValue", "Drawn", "Nothing", "Replayed", "Value", "Written", "moved", "seen_in_boxes"]


class Drawn(NamedTuple):
    """Values of a distribution.

    Args:
        step: the fill that draws them. None: a constant.
        whole: whether these are all the values of that fill, in the same order.
        copied: whether they are in another memory than the fill's.
        origin: the elements of the fill that they are, in its memory, one after the other as they are read; None: not known.
    """

    distribution: Distribution
    source: str
    step: FillStep | None = None
    whole: bool = True
    copied: bool = False
    origin: Geometry | None = None


class Replayed(NamedTuple):
    """Values that only a replay gives."""

    source: str


class Nothing(NamedTuple):
    """Memory that nobody has written.

    Args:
        mixed: whether it may lie among values, and it is not known where.
    """

    source: str
    mixed: bool = False


Value = Drawn | Replayed | Nothing
BoxValue = tuple[Box, Value]


class Written(NamedTuple):
    geometry: Geometry
    dtype: torch.dtype
    value: Value


def moved(part: BoxValue, dim: int, at: int, stacked: bool) -> BoxValue:
    """A part of a tensor as a part of that in which the tensor begins at index ``at`` of a dimension."""
    (offset, shape), value = part
    if not stacked:
        return Box((*offset[:dim], at + offset[dim], *offset[dim + 1 :]), shape), value
    if isinstance(value, Drawn) and value.origin is not None:
        strides = value.origin.strides
        origin = Geometry(value.origin.offset, (*shape[:dim], 1, *shape[dim:]), (*strides[:dim], 0, *strides[dim:]))
        value = value._replace(origin=origin)
    return Box((*offset[:dim], at, *offset[dim:]), (*shape[:dim], 1, *shape[dim:])), value


def seen_in_boxes(piece: Written, view: View, most: int) -> list[BoxValue] | None:
    """The parts of a piece that lie in a view. One that is no box of it, or of which it is not known which elements of a draw
    it is, is cut along its longest stride, and again.

    Returns:
        None if there are more parts than that, or single elements among them: to list these says less than the code.
    """
    parts: list[BoxValue] = []
    pieces = [piece]
    while pieces:
        piece = pieces.pop()
        seen = _seen(piece, view)
        slices = _slices(piece, most - len(parts) - len(pieces)) if seen is None or _is_lost(seen, piece) else None
        if slices is not None:
            pieces += reversed(slices)
        elif seen is None:
            return None
        else:
            parts += [part for part in seen if part[0].numel]
    return parts


def _is_lost(seen: list[BoxValue], piece: Written) -> bool:
    """Whether it was known of a piece, and is not of the part seen, which elements of a draw it is."""
    origin = isinstance(piece.value, Drawn) and piece.value.origin
    return bool(origin) and any(isinstance(v, Drawn) and not v.whole and v.origin is None for _, v in seen)


def _slices(piece: Written, most: int) -> list[Written] | None:
    """The piece at each index of the dimension with the longest stride; None if these are single elements, or too many."""
    shape, strides = piece.geometry.shape, piece.geometry.strides
    dim = max(range(len(shape)), key=lambda d: (shape[d] > 1, strides[d]), default=0)
    if not shape or shape[dim] > most or shape[dim] == piece.geometry.numel:
        return None
    size = (*shape[:dim], 1, *shape[dim + 1 :])
    before, after = (0,) * dim, (0,) * (len(shape) - dim - 1)
    cuts = [cut(piece.geometry, Box((*before, at, *after), size)) for at in range(shape[dim])]
    return [Written(one, piece.dtype, _value_seen(piece, one, False)) for one in cuts]


def _seen(piece: Written, view: View) -> list[BoxValue] | None:
    """The part of a piece that lies in a view, if one does; None if it is no box."""
    inside = piece.geometry
    box = box_of(view.geometry, inside)
    if box is None:
        if isinstance(piece.value, Nothing) and piece.dtype != view.dtype:
            return [(Box.whole(view.shape), piece.value)]
        inside = view.geometry
        if box_of(piece.geometry, inside) is None:
            shared = common(piece.geometry, view.geometry, view.memory.frame)
            if shared is None:
                return None
            inside = shared
        if not inside.numel:
            return []
        box = box_of(view.geometry, inside)
        if box is None:
            return None
    return [(box, _value_seen(piece, cut(view.geometry, box), box == Box.whole(view.shape)))]


def _value_seen(piece: Written, seen: Geometry, is_all: bool) -> Value:
    """The value of the part of a piece: a matrix cut or turned is none of its kind any more, and a draw cut is not whole."""
    value = piece.value
    if not isinstance(value, Drawn) or isinstance(value.distribution, Constant):
        return value
    same = piece.geometry == seen
    if not value.distribution.elementwise:
        return value if same and is_all else Replayed(value.source)
    if same:
        return value
    origin = value.origin and carried(piece.geometry, value.origin, seen)
    return value._replace(whole=value.whole and same_order(piece.geometry, seen), origin=origin)
