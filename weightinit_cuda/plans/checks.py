"""What every plan has been checked for before anything is done with it: plans are files that people exchange.

``require_sound`` looks at each entry of a plan once, whether it was read from a file or made by hand: at types and ranges, at
its box, and whether its distribution can fill a tensor of that shape and dtype. Knows no models and no files.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain
from reprlib import Repr
from types import NoneType
from typing import Any

import torch

from ..engine.checks import require
from ..numerics.distributions import Distribution
from ..rules import require_sound as require_numbers
from ..tensors.boxes import Box
from .entry import Entry

__all__ = ["can_fill", "require_sound", "shown"]

_short = Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


REFUSALS = (ValueError, TypeError, RuntimeError, ArithmeticError, AttributeError, MemoryError)


def shown(value: object) -> str:
    """A value as messages show it: never long."""
    return _short.repr(value)


def require_sound(entries: Iterable[object]) -> tuple[Entry, ...]:
    """The entries, each of which some tensor can be filled by, and which agree about each tensor.

    Raises:
        ValueError: something else; the entry is named by its number, from 0 on, and by its name.
    """
    if not isinstance(entries, Iterable):
        raise TypeError(f"Plan: entries must be a list of entries, got {shown(entries)}.")
    entries = tuple(entries)
    if _fastest(entries, Entry, can_fill):
        return entries  # type: ignore[return-value]
    of_name: dict[str, Entry] = {}
    for number, entry in enumerate(entries):
        try:
            _require_agreement(_entry(entry), of_name)
        except REFUSALS as error:
            name = f", {shown(entry.name)}" if isinstance(entry, Entry) else ""
            raise ValueError(f"Plan: {str(error).rstrip('.')} (entry {number}{name}).") from error
    return entries  # type: ignore[return-value]


def plainly_sound(entries: Sequence[object], kind: type, can_fill: Callable[[Any, object, tuple[int, ...]], bool]) -> bool:
    """Whether a look at each field of all entries at once shows that they are sound: each is the whole of a tensor with one
    name. Most plans are like that, and have thousands of entries; others are gone through one by one. The kernels' module has
    the same function, which takes a tenth of the time."""
    if set(map(type, entries)) != {kind}:
        return False
    names, shapes, dtypes, distributions, streams, sources, boxes, aliases, buffers = zip(*entries, strict=True)
    types = [set(map(type, column)) for column in (names, sources, streams, buffers, boxes, shapes, aliases)]
    if types != [{str}, {str}, {int}, {bool}, {NoneType}, {tuple}, {tuple}] or any(aliases):
        return False
    return (
        all(map(str.isascii, names))
        and len(set(names)) == len(names)
        and 0 <= min(streams) <= max(streams) < 2**64
        and set(map(type, chain.from_iterable(shapes))) <= {int}
        and min(chain.from_iterable(shapes), default=0) >= 0
        and all(map(can_fill, distributions, dtypes, shapes))
    )


_fastest: Callable[..., bool] = plainly_sound
with suppress(ImportError):
    from .._C import plainly_sound as _fastest


def can_fill(distribution: Any, dtype: object, shape: tuple[int, ...]) -> bool:
    """Whether it is a distribution that a tensor of that dtype and shape can be filled with."""
    if not isinstance(distribution, Distribution) or not isinstance(dtype, torch.dtype):
        return False
    if (key := ("in a plan", dtype, shape)) not in distribution.forms:
        try:
            distribution.form(key, lambda: _require_fill(distribution, dtype, shape))
        except REFUSALS:
            return False
    return True


def _entry(entry: object) -> Entry:
    if not isinstance(entry, Entry):
        raise ValueError(f"every entry must be an Entry, got {shown(entry)}")
    name, shape, dtype, distribution, stream, source, box, aliases, buffer = entry
    _require_name(name)
    if not isinstance(aliases, tuple):
        raise ValueError(f"aliases must be a tuple of names, got {shown(aliases)}")
    for alias in aliases:
        _require_name(alias)
    if not isinstance(source, str):
        raise ValueError(f"source must be text, got {shown(source)}")
    if type(stream) is not int or not 0 <= stream < 2**64:
        raise ValueError(f"stream must be a whole number in [0, 2**64), got {shown(stream)}")
    if type(buffer) is not bool:
        raise ValueError(f"buffer must be True or False, got {shown(buffer)}")
    _require_whole("shape", shape)
    if not isinstance(distribution, Distribution):
        raise ValueError(f"distribution must be a distribution, got {shown(distribution)}")
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"dtype must be a dtype of torch, got {shown(dtype)}")
    distribution.form(("in a plan", dtype, shape), lambda: _require_fill(distribution, dtype, shape))
    if box is not None:
        _require_box(box, shape)
    return entry


def _require_name(name: object) -> None:
    if not isinstance(name, str):
        raise ValueError(f"a name must be text, got {shown(name)}")
    if not name.isascii():
        name.encode()  # a lone surrogate is no text: no stream and no file could have the name


def _require_whole(what: str, sizes: object) -> None:
    if not isinstance(sizes, tuple) or not set(map(type, sizes)) <= {int} or min(sizes, default=0) < 0:
        raise ValueError(f"{what} must be a tuple of whole numbers, got {shown(sizes)}")


def _require_fill(distribution: Distribution, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Refuses what no tensor can be, and what it cannot be filled with."""
    size = dtype.itemsize
    for length in shape:
        size *= max(length, 1)
        if size >= 2**63:
            raise ValueError(f"shape must be one of less than 2**63 bytes, got {shown(shape)}")
    for name, value in distribution.numbers().items():
        _require_number(name, value, isinstance(value, str) and not distribution.is_fill)
    if distribution.is_fill:
        require_numbers(distribution, dtype)
        require(distribution, dtype, shape)


def _require_number(name: str, value: Any, is_text: bool) -> None:
    if is_text:
        return
    if not isinstance(value, numbers.Complex):
        raise ValueError(f"{name} must be a number, got {shown(value)}")
    complex(value)  # refuses whole numbers beyond all floats


def _require_box(box: object, shape: Sequence[int]) -> None:
    if not isinstance(box, Box):
        raise ValueError(f"box must be a Box or None, got {shown(box)}")
    _require_whole("the offset of a box", box.offset)
    _require_whole("the shape of a box", box.shape)
    if len(box.offset) != len(shape) or len(box.shape) != len(shape):
        raise ValueError(f"a box must have as many dimensions as its tensor, got {shown(box)} in {shown(shape)}")
    if any(size < 1 or at + size > whole for at, size, whole in zip(box.offset, box.shape, shape, strict=True)):
        raise ValueError(f"a box must lie inside its tensor, got {shown(box)} in {shown(shape)}")


def _require_agreement(entry: Entry, of_name: dict[str, Entry]) -> None:
    """Refuses entries that say two things of one tensor."""
    first = of_name.setdefault(entry.name, entry)
    if first is entry and not entry.aliases:
        return
    if first.shape != entry.shape or first.dtype != entry.dtype:
        raise ValueError(
            f"the entries of one tensor must agree in shape and dtype, got {shown(first.shape)}, {first.dtype}"
            f" and {shown(entry.shape)}, {entry.dtype}"
        )
    for alias in entry.aliases:
        other = of_name.setdefault(alias, entry)
        if other.name != entry.name:
            raise ValueError(f"a name must be of one tensor, got {shown(alias)} of {shown(other.name)}, too")
    if first.name != entry.name:
        raise ValueError(f"a name must be of one tensor, got it as an alias of {shown(first.name)}, too")
