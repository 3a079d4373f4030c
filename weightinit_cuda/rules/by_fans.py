"""Schemes of fans: every weight by its inputs and outputs, whatever the model (xavier, kaiming, lecun)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..init.catalog import distribution_of
from ..numerics.distributions import Distribution
from ..tensors.named import Named
from .keys import decided_by, shape_key
from .layouts import Layout, bias, layout_of, lookup, matrix
from .rule import Fill, Rule, Rules, buffer
from .torch_reset import OF_NO_LAYER, padded, torch_reset

__all__ = ["AS_TORCH", "drawn", "scheme", "with_fans"]

# What no scheme speaks of: norms with their running statistics, PReLU, the extra rows of attention; norms of others, tokens.
AS_TORCH = (Rule("*", torch_reset), Rule((buffer, "*"), torch_reset), *OF_NO_LAYER)


_OF_LINEAR = shape_key(frozenset((nn.Linear,)))  # other layers have groups, and tables


def drawn(function: str, **params: Any) -> Callable[[Named], list[Fill]]:
    """A function of ``init`` as a rule for tables, too: a padding row is zero."""

    def give(named: Named) -> list[Fill]:
        made = distribution_of(function, named.tensor.dtype, tuple(named.tensor.shape), params)
        return [(made, box, ", ".join(filter(None, (what, note)))) for made, box, note in padded(named, made)]

    what = give.__name__ = _call(function, params)
    return give


def _call(function: str, params: Mapping[str, Any]) -> str:
    """As people would write it."""
    numbers = (f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value!r}" for key, value in params.items())
    return f"{function}({', '.join(numbers)})" if params else function


def with_fans(named: Named, function: str, **params: Any) -> tuple[Distribution, str]:
    """The distribution by the fans of what is multiplied, and a sentence about it."""
    layout, whole = layout_of(named) or Layout(), tuple(named.tensor.shape)
    axes = {"in_axes": layout.in_axes, "out_axes": layout.out_axes}
    made = distribution_of(function, named.tensor.dtype, layout.shape(whole), {**params, **axes})
    return made, "{}, fan_in {}, fan_out {}".format(_call(function, params), *layout.fans(whole))


def scheme(function: str, **params: Any) -> list[Rules]:
    """Rules that fill every weight by its fans: ``function`` is one of xavier, kaiming, lecun and variance_scaling.

    Biases get 0. Lookup tables get N(0, 1) and a zero padding row: a row is looked up, not summed over, and the schemes assume
    that what enters a layer has variance 1. Fans are those of the matrix that is multiplied (``layouts``), of one projection
    of a fused one, one gate, one group. The rest (norms, PReLU) is as torch has it.
    """

    @decided_by(_OF_LINEAR)
    def by_fans(named: Named) -> list[Fill]:
        made, source = with_fans(named, function, **params)
        return [(made, None, source)]

    return [
        Rule(bias, "zeros_"),
        Rule(lookup, drawn("normal_", std=1.0)),
        Rule(matrix, by_fans),
        *AS_TORCH,
    ]
