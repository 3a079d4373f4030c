"""Rules: which tensor of a model gets which distribution, as data.

A :class:`Rule` says what it matches and what it gives. A rule set is a list of rules, read in order: the first that matches a
tensor decides. Sets compose as lists do. This file turns rules into distributions; seeds, streams and filling are the plan's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from . import init, schemes
from .boxes import Box
from .distributions import Constant, Initial, Orthogonal
from .entry import describe
from .naming import Named

__all__ = ["Fill", "Match", "Rule", "Rules", "distribution_of", "resolve"]

Match = str | type[nn.Module] | Callable[[Named], bool]
"""A glob of qualified names, a type of the module that holds the tensor, or a question about the tensor."""

Fill = tuple[Initial, Box | None, str]
"""A distribution, the part it fills (None: all), and which rule says so."""


class Rule:
    """Tensors that match get ``init``.

    Args:
        match: a glob of qualified names (``"*.bias"``), the type of the module that holds the tensor, a function of the
            :class:`Named` tensor, or a tuple of these, all of which must hold. Buffers match globs that name them only.
        init: the name of a function of ``weightinit_cuda.init``, a distribution, or a function that is given the
            :class:`Named` tensor and returns a distribution, or None for "not mine".
        params: further arguments of the named function.

    Raises:
        ValueError, TypeError: no such function, or not its arguments.

    >>> Rule((nn.Linear, "*.weight"), "kaiming_normal_", nonlinearity="relu")
    Rule((Linear, '*.weight'), kaiming_normal_, nonlinearity='relu')
    """

    def __init__(
        self, match: Match | tuple[Match, ...], init: str | Initial | Callable[[Named], Initial | None], **params: Any
    ) -> None:
        self.match = match if isinstance(match, tuple) else (match,)
        self.init = init
        self.params = params
        if isinstance(init, str):
            _arguments(init, params)
        elif params:
            raise TypeError(f"Rule: parameters belong to a function of init, got {params} beside {init!r}.")

    def __repr__(self) -> str:
        match = ", ".join(m.__name__ if callable(m) else repr(m) for m in self.match)
        given = self.init if isinstance(self.init, str) else getattr(self.init, "__name__", None) or describe(self.init)  # type: ignore[arg-type]
        numbers = "".join(f", {key}={value!r}" for key, value in self.params.items())
        return f"Rule({f'({match})' if len(self.match) > 1 else match}, {given}{numbers})"

    def matches(self, named: Named) -> bool:
        """Whether the rule speaks of the tensor."""
        if named.buffer and not any(isinstance(m, str) and m.strip("*") for m in self.match):
            return False
        return all(_holds(match, named) for match in self.match)

    def fill_of(self, named: Named) -> Initial | None:
        """What the tensor gets; None: not this rule's."""
        if not self.matches(named):
            return None
        if isinstance(self.init, str):
            return distribution_of(self.init, named.tensor.dtype, tuple(named.tensor.shape), self.params)
        return self.init if isinstance(self.init, tuple) else self.init(named)  # distributions are tuples


Rules = str | Rule | Callable[[Named], Initial | None] | Sequence["Rules"]
"""The name of a set, a rule, a function as a rule that matches everything, or a list of these."""


def _holds(match: Match, named: Named) -> bool:
    if isinstance(match, str):
        return any(fnmatchcase(name, match) for name in (named.name, *named.aliases))
    if isinstance(match, type):
        return isinstance(named.module, match)
    return bool(match(named))


# ---- from a name and numbers to a distribution -----------------------------------------------------------------------

_CONSTANTS = {"zeros_": 0.0, "ones_": 1.0}
_BY_SHAPE = ("xavier", "kaiming", "lecun", "variance_scaling", "eye", "dirac", "sparse")
_LECUN = {"lecun_uniform_": "uniform", "lecun_normal_": "truncated_normal"}
_NO_NUMBERS = ("generator", "seed", "stream", "global_shape", "offset", "flat_range")


def distribution_of(function: str, dtype: torch.dtype, shape: tuple[int, ...], params: Mapping[str, Any]) -> Initial:
    """The distribution that a function of ``init`` would fill a tensor with.

    >>> distribution_of("kaiming_uniform_", torch.float32, (8, 6), {"nonlinearity": "relu"})
    Uniform(a=-1.0, b=1.0)
    """
    if function in _CONSTANTS:
        return Constant(_CONSTANTS[function])
    numbers = _arguments(function, params)
    if function == "constant_":
        return Constant(*numbers)
    if function == "orthogonal_":
        return Orthogonal(*map(float, numbers))
    if function in _LECUN:
        function, numbers = "variance_scaling_", (1.0, "fan_in", _LECUN[function], *numbers)
    about = (dtype, shape) if function.startswith(_BY_SHAPE) else (dtype,)
    made: Initial = getattr(schemes, function)(*about, *numbers)
    return made


def _arguments(function: str, params: Mapping[str, Any]) -> tuple[Any, ...]:
    """What the function takes beside its tensor, in order, with its defaults."""
    if function not in init.__all__ or not function.endswith("_"):
        raise ValueError(f"Rule: init must be a function of weightinit_cuda.init, got {function!r}.")
    if wrong := sorted(set(params) & set(_NO_NUMBERS)):
        raise TypeError(f"Rule: seeds, streams and shards are the plan's, got {', '.join(wrong)} for {function}.")
    bound = _signature(function).bind(None, **params)
    bound.apply_defaults()
    return tuple(value for key, value in bound.arguments.items() if key not in ("tensor", *_NO_NUMBERS))


@lru_cache(maxsize=64)
def _signature(function: str) -> inspect.Signature:
    return inspect.signature(getattr(init, function))


# ---- sets ------------------------------------------------------------------------------------------------------------

_NORM_WEIGHTS = Rule((lambda t: t.tensor.dim() < 2, "*weight"), "ones_")
_BIASES = Rule((lambda t: t.tensor.dim() < 2, "*bias*"), "zeros_")

RULE_SETS: dict[str, Sequence[Rules]] = {
    "xavier": [Rule(lambda t: t.tensor.dim() >= 2, "xavier_uniform_"), _BIASES, _NORM_WEIGHTS],
    "kaiming": [Rule(lambda t: t.tensor.dim() >= 2, "kaiming_normal_", nonlinearity="relu"), _BIASES, _NORM_WEIGHTS],
}


def resolve(model: nn.Module, tensors: Iterable[Named], rules: Rules) -> list[tuple[Named, list[Fill]]]:
    """What each tensor is filled with; buffers that no rule knows are left out.

    Raises:
        ValueError: parameters that no rule covers; all of them are named. Or there is no rule set of that name.
    """
    flat = list(_flattened(rules))
    found = [(named, _first(flat, named)) for named in tensors]
    if uncovered := [named.name for named, fills in found if not fills and not named.buffer]:
        raise ValueError(
            f"plan: a rule for every parameter is required, got none for {', '.join(uncovered)}."
            " Add a Rule for them, or end the list with a set that covers all, such as 'torch'."
        )
    return [(named, fills) for named, fills in found if fills]


def _flattened(rules: Rules) -> Iterable[tuple[str, Rule]]:
    if isinstance(rules, str):
        if rules not in RULE_SETS:
            raise ValueError(f"plan: rules must be one of {sorted(RULE_SETS)} or a list of Rule, got {rules!r}.")
        for _, rule in _flattened(RULE_SETS[rules]):
            yield rules, rule
    elif isinstance(rules, Rule):
        yield "custom", rules
    elif callable(rules):
        yield "custom", Rule("*", rules)
    else:
        for each in rules:
            yield from _flattened(each)


def _first(rules: Iterable[tuple[str, Rule]], named: Named) -> list[Fill]:
    for origin, rule in rules:
        distribution = rule.fill_of(named)
        if distribution is not None:
            return [(distribution, None, f"{origin}: {rule}")]
    return []
