"""The arguments that every random function takes beside its distribution: tensor, generator, seed, stream, part.

Each check either returns the argument in the form the engine wants or raises, before anything is drawn or written. Where torch
refuses the same thing, type and wording are torch's. This file knows no distributions.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, SupportsIndex

import torch
from torch import Tensor

from ..numerics.streams import UNNAMED, stream_of
from ..tensors.boxes import Region
from ..tensors.shards import Part, flat_parts, is_dtensor, parts

__all__ = ["Draw", "Shape", "Stream", "generator_for", "parts_of", "seed_of", "stream_number", "whole_shape"]

Shape = Sequence[int]
Stream = SupportsIndex | str


class Draw(NamedTuple):
    """Where the random numbers of a call come from, and which of them: what every random function takes, keyword-only.

    Args:
        generator: gives the seed where ``seed`` does not.
        seed: 64 bits.
        stream: 64 bits, or a name that stands for them.
        global_shape: of the tensor that this one is a part of.
        offset: where the part begins in it.
        flat_range: or which elements of the flattened tensor it holds.
    """

    generator: torch.Generator | None = None
    seed: SupportsIndex | None = None
    stream: Stream = UNNAMED
    global_shape: Shape | None = None
    offset: Shape | None = None
    flat_range: Shape | None = None


def generator_for(function: str, tensor: Tensor, generator: object) -> torch.Generator | None:
    """The generator to draw the seed from; None stands for the default generator of the tensor's device.

    Raises:
        TypeError: it is no ``torch.Generator``.
        RuntimeError: it belongs to another kind of device than the tensor.
    """
    if generator is None:
        return None
    if not isinstance(generator, torch.Generator):
        method = "uniform_" if function.endswith("uniform_") else "normal_"  # torch names the method it would have called
        raise TypeError(f"{method}(): argument 'generator' must be torch.Generator, not {type(generator).__name__}")
    if generator.device.type != tensor.device.type and not tensor.is_meta:
        raise RuntimeError(f"Expected a '{tensor.device.type}' device type for generator but found '{generator.device.type}'")
    return generator


def seed_of(function: str, seed: SupportsIndex) -> int:
    """A seed as 64 bits; a negative one is taken modulo 2^64, as ``torch.manual_seed`` does.

    Raises:
        TypeError: it is no integer; a bool is none.
        ValueError: it is outside [-2^63, 2^64).
    """
    return _bits64(function, "seed", seed)


def stream_number(function: str, stream: SupportsIndex | str) -> int:
    """A stream as 64 bits: a name goes through :func:`stream_of`, an integer is checked as a seed is."""
    return stream_of(stream) if isinstance(stream, str) else _bits64(function, "stream", stream)


def _bits64(function: str, name: str, value: SupportsIndex) -> int:
    if isinstance(value, bool):
        raise TypeError(f"{function}: {name} must be an integer, got {value}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{function}: {name} must be an integer, got {value!r} ({type(value).__name__})") from None
    if not -(2**63) <= number < 2**64:
        raise ValueError(f"{function}: {name} must be in [-2**63, 2**64), got {number}")
    return number % 2**64


def parts_of(function: str, tensor: Tensor, draw: Draw) -> list[Part]:
    """The tensor's memory with its place in the global tensor: a DTensor says it itself, of a plain shard the caller does.

    Raises:
        ValueError: ``global_shape`` without one of ``offset`` and ``flat_range``, or the other way round; the tensor does not
            fit into it there; or a place is given for a DTensor.
        NotImplementedError: a DTensor is partial.
    """
    global_shape, offset, flat_range = draw.global_shape, draw.offset, draw.flat_range
    if global_shape is None and offset is None and flat_range is None:
        return parts(tensor, function)
    if is_dtensor(tensor):
        raise ValueError(
            f"{function}: a DTensor knows where its shards lie, got {global_shape=}, {offset=} and {flat_range=}."
            " Leave them out, or fill tensor.to_local()."
        )
    if global_shape is None or (offset is None) == (flat_range is None):
        raise ValueError(
            f"{function}: global_shape and offset must be given together, or global_shape and flat_range,"
            f" got {global_shape=}, {offset=} and {flat_range=}"
        )
    if tensor.layout is not torch.strided or tensor.is_nested:
        raise ValueError(f"{function}: a part of a global tensor must be strided, got layout {tensor.layout}")
    whole = whole_shape(function, global_shape)
    if flat_range is not None:
        return flat_parts(tensor, whole, _begin(function, tensor, whole, flat_range))
    return [(tensor, _region(function, tensor, whole, _integers(function, "offset", offset)))]


def whole_shape(function: str, global_shape: object) -> tuple[int, ...]:
    """The shape of the tensor that the argument is a part of.

    Raises:
        TypeError: it is no sequence of integers.
    """
    return _integers(function, "global_shape", global_shape)


def _integers(function: str, name: str, value: Any) -> tuple[int, ...]:
    try:
        return tuple(map(operator.index, value))
    except TypeError:
        raise TypeError(f"{function}: {name} must be a sequence of integers, got {value!r:.60}") from None


def _region(function: str, tensor: Tensor, whole: tuple[int, ...], offset: tuple[int, ...]) -> Region:
    """Where the tensor lies: ``tensor[i] == whole[offset + i]``."""
    shape = tuple(tensor.shape)
    fits = len(shape) == len(whole) == len(offset) and all(
        0 <= start <= start + size <= end for start, size, end in zip(offset, shape, whole, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{function}: offset + shape must lie inside global_shape in every dimension,"
            f" got shape {shape}, offset {offset} and global_shape {whole}"
        )
    return Region(whole, offset)


def _begin(function: str, tensor: Tensor, whole: tuple[int, ...], flat_range: Sequence[int]) -> int:
    """The first of the elements [begin, end) of ``whole``, in row-major order, that the 1-D tensor holds."""
    bounds = _integers(function, "flat_range", flat_range)
    if len(bounds) != 2:
        raise ValueError(f"{function}: flat_range must be two numbers, begin and end, got {bounds}")
    begin, end = bounds
    if tensor.dim() != 1 or end - begin != tensor.shape[0]:
        raise ValueError(
            f"{function}: with flat_range=({begin}, {end}) the tensor must be 1-D with {end - begin} elements,"
            f" got shape {tuple(tensor.shape)}"
        )
    if not 0 <= begin <= end <= math.prod(whole):
        raise ValueError(
            f"{function}: flat_range must lie inside the {math.prod(whole)} elements of global_shape,"
            f" got ({begin}, {end}) and global_shape {whole}"
        )
    return begin
