"""One entry of a plan, and how it is written: as data for a file, as words for people.

An entry says what one tensor, or a box of it, is filled with. Plans are lists of entries (``plan``); this file knows no models
and fills nothing.
"""

from __future__ import annotations

import json
import math
import numbers
import re
from collections.abc import Mapping
from dataclasses import fields as fields_of
from functools import lru_cache
from typing import Any, NamedTuple, get_type_hints

import torch

from ..numerics.distributions import KINDS, Distribution
from ..tensors.boxes import Box

__all__ = ["Entry", "as_data", "as_line", "as_text", "dtype_name", "read_entries"]


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


def as_line(entry: Entry) -> str:
    """The entry in a line of the file."""
    return as_text(as_data(entry))


def as_text(data: Mapping[str, Any], indent: int | None = None) -> str:
    """JSON that every file can hold: what UTF-8 cannot (lone surrogates, from names of files) is escaped."""
    text = json.dumps(data, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(data, indent=indent)
    return text


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


def _as_json(value: Any) -> Any:
    """Numbers of any library as Python has them; text where JSON has no number."""
    if isinstance(value, str | complex):
        return str(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if math.isfinite(value) else str(float(value))


_REQUIRED = ("name", "shape", "dtype", "distribution", "stream", "source")
_KNOWN = frozenset((*_REQUIRED, "box", "aliases", "buffer"))
Made = dict[str, Distribution]  # distributions by their data: equal ones become one object, and are checked once


def read_entries(data: object) -> list[Entry]:
    """The entries that :func:`as_data` wrote, in the types that JSON has; whether they are sound, the plan looks.

    Raises:
        ValueError: something else; the entry is named by its number, from 0 on, and by its name.
    """
    if not isinstance(data, list):
        raise ValueError(f"entries must be a list, got a {type(data).__name__}")
    entries: list[Entry] = []
    made: Made = {}
    for number, one in enumerate(data):
        try:
            entries.append(_from_data(one, made))
        except (ValueError, TypeError, ArithmeticError) as error:
            name = f", {one['name']!r:.60}" if isinstance(one, dict) and "name" in one else ""
            raise ValueError(f"{error} (entry {number}{name})") from error
    return entries


def _from_data(data: object, made: Made) -> Entry:
    """One entry.

    Args:
        data: what JSON gave.
        made: the distributions of the entries before.
    """
    if not isinstance(data, dict):
        raise ValueError(f"an object is required, got a {type(data).__name__}")
    if lost := [key for key in _REQUIRED if key not in data]:
        raise ValueError(f"a field {lost[0]!r} is required, got none")
    if unknown := data.keys() - _KNOWN:
        raise ValueError(f"the fields must be among {', '.join(sorted(_KNOWN))}, got {min(unknown)!r}")
    box = data.get("box")
    return Entry(
        name=data["name"],
        shape=_tuple(data, "shape"),
        dtype=_dtype(data["dtype"]),
        distribution=_distribution(data["distribution"], made),
        stream=_bits64(data["stream"]),
        source=data["source"],
        box=None if box is None else _box(box),
        aliases=_tuple(data, "aliases") if "aliases" in data else (),
        buffer=data.get("buffer", False),
    )


def _tuple(data: Mapping[str, Any], key: str) -> tuple[Any, ...]:
    value = data[key]
    if not isinstance(value, list):
        raise ValueError(f"{key} must be a list, got a {type(value).__name__}")
    return tuple(value)


def _box(data: object) -> Box:
    if not isinstance(data, dict) or data.keys() != {"offset", "shape"}:
        raise ValueError("a box must have an offset and a shape, and nothing else")
    return Box(_tuple(data, "offset"), _tuple(data, "shape"))


def _distribution(data: object, made: Made) -> Distribution:
    if not isinstance(data, dict):
        raise ValueError(f"distribution must be an object, got a {type(data).__name__}")
    key = repr(data)  # tells 1, 1.0 and True apart, and 0.0 and -0.0
    if (known := made.get(key)) is not None:
        return known
    fields = dict(data)
    kind = fields.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(sorted(KINDS))}, got {kind!r}")
    wanted = _types(kind)
    if fields.keys() != wanted.keys():
        raise ValueError(f"{kind} must have the numbers {', '.join(wanted)}, got {', '.join(fields) or 'none'}")
    made[key] = KINDS[kind](**{name: _from_json(name, wanted[name], value) for name, value in fields.items()})
    return made[key]


@lru_cache(maxsize=64)
def _types(name: str) -> dict[str, type]:
    """What the parameters of a distribution are."""
    kind = KINDS[name]
    hints = get_type_hints(kind)
    return {one.name: hints[one.name] for one in fields_of(kind) if one.init}


def _from_json(name: str, wanted: type, value: Any) -> Any:
    """A parameter of a distribution: a text, a whole number, or a number that a float can be."""
    if wanted is float and isinstance(value, str):
        return complex(value) if "j" in value else float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float) if wanted is float else wanted):
        raise ValueError(f"{name} must be {'a number' if wanted is float else wanted.__name__}, got {value!r}")
    return value


def _bits64(value: object) -> int:
    if not isinstance(value, str) or not re.fullmatch("0x[0-9a-fA-F]{1,16}", value):
        raise ValueError(f"stream must be 64 bits in hexadecimal, as 0x0123456789abcdef, got {value!r:.60}")
    return int(value, 16)


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@lru_cache(maxsize=256)
def _dtype(name: object) -> torch.dtype:
    dtype = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"dtype must be the name of a dtype of torch, got {name!r:.60}")
    return dtype
