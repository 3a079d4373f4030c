"""What rules cover, by columns: what a plan's entries are made of, and what plain tensors are filled with at once.

The kernels' module has the same functions, which take a tenth of the time: a model has thousands of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from torch import Tensor

from ..numerics.distributions import Distribution
from ..rules import Fill
from ..tensors.named import PLAIN_TYPES, Named
from .checks import can_fill
from .entry import Entry

__all__ = ["Columns", "Covered", "entries_of", "plain_columns"]

Covered = tuple[Named, list[Fill]]
"""A tensor, and what it is filled with. Tensors that share a list have one dtype and one shape."""


class Columns(NamedTuple):
    """Tensors, each with what fills all of it, and with its name."""

    tensors: list[Tensor]
    distributions: list[Distribution]
    names: list[str]


def plain_columns(covered: list[Covered]) -> Columns | None:
    """The columns, if all are plain tensors with memory, each filled as a whole and with what can fill it."""
    if (found := _whole_columns(covered, tuple(PLAIN_TYPES))) is None:
        return None
    *columns, kinds = found
    sound = all(made.is_fill and can_fill(made, tensor.dtype, tensor.shape) for tensor, made in kinds)
    return Columns(*columns) if sound else None


def entries_of(covered: list[Covered], streams: list[int]) -> tuple[Entry, ...]:
    """The entries of a plan."""
    return _entries_of(covered, streams, Entry)


WholeColumns = tuple[list[Tensor], list[Distribution], list[str], list[tuple[Tensor, Distribution]]]


def whole_columns(covered: Sequence[Covered], types: tuple[type, ...]) -> WholeColumns | None:
    """The columns, and one pair of tensor and distribution for each list of fills; None unless every tensor is of one of the
    types, has memory, and is filled as a whole, at once."""
    for (_, tensor, *_), fills in covered:
        if type(tensor) not in types or tensor.is_meta or len(fills) != 1 or fills[0][1] is not None:
            return None
    tensors, distributions = [named.tensor for named, _ in covered], [fills[0][0] for _, fills in covered]
    kinds = {id(fills): (named.tensor, fills[0][0]) for named, fills in covered}
    return tensors, distributions, [named.name for named, _ in covered], list(kinds.values())


def made_entries(covered: Sequence[Covered], streams: Sequence[int], kind: type[Entry]) -> tuple[Entry, ...]:
    """As :func:`entries_of`."""
    return tuple(
        kind(name, tuple(tensor.shape), tensor.dtype, distribution, stream, source, box, aliases, buffer)
        for ((name, tensor, aliases, _, _, buffer), fills), stream in zip(covered, streams, strict=True)
        for distribution, box, source in fills
    )


_whole_columns: Callable[..., Any] = whole_columns
_entries_of: Callable[..., tuple[Entry, ...]] = made_entries
with suppress(ImportError):
    from .._C import entries_of as _entries_of
    from .._C import whole_columns as _whole_columns
