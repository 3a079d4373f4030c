"""One entry of a plan, and how it is written: as data for a file, as words for people.

An entry says what one tensor, or a box of it, is filled with. Plans are lists of entries (``plan``); this file knows no models
and fills nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, get_type_hints

import torch

from ..numerics.distributions import KINDS, Distribution
from ..tensors.boxes import Box

__all__ = ["Entry", "as_data", "dtype_name", "from_data"]


class Entry(NamedTuple):
    """One fill of one parameter or buffer, or of a box of it.

    Args:
        name: qualified name; of tied names the first.
        shape: of the whole tensor, also where a model holds a shard of it.
        dtype: of the tensor.
        distribution: what goes into it.
        stream: 64-bit stream of its random numbers.
        source: the rule, or the line of the model's code, that it comes from.
        box: the part that this entry fills; None for all. Where boxes of one name overlap, the later entry wins.
        aliases: further names of the same tensor.
        buffer: whether it is a buffer, not a parameter.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    distribution: Distribution
    stream: int
    source: str
    box: Box | None = None
    aliases: tuple[str, ...] = ()
    buffer: bool = False

    @property
    def numel(self) -> int:
        """How many elements the entry names; later entries may take some of them."""
        return math.prod(self.shape if self.box is None else self.box.shape)


# ---- as data ---------------------------------------------------------------------------------------------------------


def as_data(entry: Entry) -> dict[str, Any]:
    """The entry as JSON has it: streams in hex, infinite bounds and complex constants as text, the rest as it is."""
    fields = {key: _as_json(value) for key, value in entry.distribution.numbers().items()}
    data: dict[str, Any] = {
        "name": entry.name,
        "shape": list(entry.shape),
        "dtype": dtype_name(entry.dtype),
        "distribution": {"kind": entry.distribution.kind, **fields},
        "stream": f"{entry.stream:#018x}",
        "source": entry.source,
    }
    if entry.box is not None:
        data["box"] = {"offset": list(entry.box.offset), "shape": list(entry.box.shape)}
    if entry.aliases:
        data["aliases"] = list(entry.aliases)
    if entry.buffer:
        data["buffer"] = True
    return data


def from_data(data: Mapping[str, Any]) -> Entry:
    """The entry that :func:`as_data` wrote.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, OverflowError: it is none.
    """
    fields = dict(data["distribution"])
    kind = KINDS[fields.pop("kind")]
    box = data.get("box")
    return Entry(
        name=_text(data["name"]),
        shape=tuple(map(_whole, data["shape"])),
        dtype=_dtype(data["dtype"]),
        distribution=kind(**{key: _from_json(get_type_hints(kind)[key], value) for key, value in fields.items()}),
        stream=_bits64(data["stream"]),
        source=_text(data["source"]),
        box=box and Box(tuple(map(_whole, box["offset"])), tuple(map(_whole, box["shape"]))),
        aliases=tuple(map(_text, data.get("aliases", ()))),
        buffer=bool(data.get("buffer", False)),
    )


def _as_json(value: Any) -> Any:
    return str(value) if isinstance(value, complex) or (isinstance(value, float) and not math.isfinite(value)) else value


def _from_json(wanted: type, value: Any) -> Any:
    """A field of a distribution: a text, a whole number, or a number that a float can be."""
    if wanted is not float:
        return _text(value) if wanted is str else _whole(value)
    if isinstance(value, str):
        return complex(value) if "j" in value else float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a number is required, got {value!r}")
    float(value)  # refuses integers beyond all floats
    return value


def _bits64(value: Any) -> int:
    if not 0 <= (number := int(_text(value), 16)) < 2**64:
        raise ValueError(f"64 bits are required, got {value!r}")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text is required, got {value!r}")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"a whole number is required, got {value!r}")
    return value


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"a dtype of torch is required, got {name!r}")
    return dtype
