"""Real models as tables: each parameter's name, shape and initialisation. How they were made is in generate.py. One is made up:
500 small tensors, for what a call costs.

A part of a model is its embeddings, its last and its first layers, large tensors cut: the mix of shapes remains, the size fits
the machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .configs import MODELS, file_name

__all__ = ["MODELS", "PART", "SMALL", "Parameter", "Table", "load", "part_of"]

SMALL = "500 small tensors"
PART = 160_000_000  # values: ResNet-50 is whole, half a minute is enough for any model with two cores; 0.6 GB of float32
CUT = 8  # no tensor of a part has more than 1 / CUT of its values


class Parameter(NamedTuple):
    """A parameter and the function of torch.nn.init that its model's code calls last, with its arguments."""

    name: str
    shape: tuple[int, ...]
    call: str
    arguments: dict[str, Any]

    @property
    def values(self) -> int:
        return math.prod(self.shape)

    @property
    def layer(self) -> int | None:
        """The first number in the name; embeddings and heads have none."""
        return next((int(word) for word in self.name.split(".") if word.isdigit()), None)


class Table(NamedTuple):
    """A model's parameters. ``what`` says what is left out; empty if it is whole."""

    model: str
    dtype: str
    parameters: Sequence[Parameter]
    what: str = ""

    @property
    def values(self) -> int:
        return sum(parameter.values for parameter in self.parameters)


def load(model: str) -> Table:
    """The whole model, a name of MODELS or SMALL."""
    if model == SMALL:
        return Table(SMALL, "float32", list(_linear_layers(250, 64)))
    table = json.loads((Path(__file__).parent / file_name(model)).read_text(encoding="utf-8"))
    rows = [Parameter(name, tuple(shape), call, arguments) for name, shape, call, arguments in table["parameters"]]
    return Table(table["model"], table["dtype"], rows)


def _linear_layers(count: int, size: int) -> Iterator[Parameter]:
    """As ``nn.Linear(size, size)`` resets itself."""
    bound = size**-0.5
    for layer in range(count):
        yield Parameter(f"{layer}.weight", (size, size), "kaiming_uniform_", {"a": 5**0.5})
        yield Parameter(f"{layer}.bias", (size,), "uniform_", {"a": -bound, "b": bound})


def part_of(table: Table, values: int = PART) -> Table:
    """As many layers as fit into about so many values, and what belongs to no layer; the whole model if it fits.

    >>> part_of(load("ResNet-50")).what
    ''
    >>> part_of(load("Llama-3-8B")).what
    '1 of 32 layers, cut tensors: 5'
    """
    if table.values <= values:
        return table
    cut = [parameter._replace(shape=_cut(parameter.shape, values // CUT)) for parameter in table.parameters]
    layers = sorted({parameter.layer for parameter in cut if parameter.layer is not None})
    chosen = _fitting(cut, layers, values)
    kept = [parameter for parameter in cut if parameter.layer in chosen]
    whole = {parameter.name: parameter.shape for parameter in table.parameters}
    smaller = sum(parameter.shape != whole[parameter.name] for parameter in kept)
    count = len({parameter.layer for parameter in kept} - {None})
    return table._replace(parameters=kept, what=f"{count} of {len(layers)} layers, cut tensors: {smaller}")


def _fitting(parameters: Sequence[Parameter], layers: Sequence[int], values: int) -> set[int | None]:
    """None, the last layer, and as many of the first ones as fit: models of experts begin with layers without."""

    def total(chosen: set[int | None]) -> int:
        return sum(parameter.values for parameter in parameters if parameter.layer in chosen)

    chosen: set[int | None] = {None, layers[-1]}
    for layer in layers[:-1]:
        if total(chosen | {layer}) > values:
            break
        chosen.add(layer)
    return chosen


def _cut(shape: tuple[int, ...], values: int) -> tuple[int, ...]:
    """The shape with its first dimensions cut to at most so many values in all.

    >>> _cut((8, 100, 10), 2000), _cut((8, 100, 10), 500), _cut((7,), 8)
    ((2, 100, 10), (1, 50, 10), (7,))
    """
    return tuple(_cut_sizes(shape, values))


def _cut_sizes(shape: tuple[int, ...], values: int) -> Iterator[int]:
    for position, size in enumerate(shape):
        rest = math.prod(shape[position + 1 :])
        kept = min(size, max(1, values // rest))
        yield kept
        values //= kept
