"""Rules: which tensor of a model gets which distribution, as data.

A :class:`Rule` says what it matches and what it gives. A rule set is a list of rules, read in order: the first that matches a
tensor decides. Sets compose as lists do. This file turns one rule and one tensor
into distributions and knows no scheme; ``resolve`` reads lists of rules, ``sets`` has those that come with the library.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property, lru_cache, partial
from pathlib import PurePath
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from .. import init as functions
from ..init.catalog import CATALOG, DRAWN, distribution_of, function_of
from ..numerics.distributions import Distribution
from ..tensors.boxes import Box
from ..tensors.named import Named
from .keys import DTYPE_AND_SHAPE, Key, key_of_function, no_key

__all__ = [
    "RULE_SETS",
    "Fill",
    "Given",
    "Match",
    "Rule",
    "RuleSet",
    "Rules",
    "buffer",
    "glob",
]

Match = str | type[nn.Module] | Callable[[Named], bool]
"""A glob of qualified names, a type of the module that holds the tensor, or a question about the tensor."""

Fill = tuple[Distribution, Box | None, str]
"""A distribution, the part that it fills (all if None), and where it comes from (the rule if empty)."""

Given = Distribution | list[Fill] | None
"""What a function as ``init`` returns: a distribution, a list of fills (the later ones win), or None for "not mine"."""


def buffer(named: Named) -> bool:
    """The tensor is a buffer. A rule speaks of parameters only, unless this is one of its conditions: a mask named
    ``attn.bias`` is no bias."""
    return named.buffer


class Rule:
    """Tensors that match get ``init``.

    Args:
        match: a glob of whole qualified names (``"*.bias"``; of tied names any), the type of the module that holds the tensor,
            a function of the :class:`.Named` tensor, or a tuple of these, all of which must hold.
        init: a function of ``weightinit_cuda.init`` or its name (``torch.nn.init``'s functions mean ours), a
            ``functools.partial`` of one, a distribution, or a function of your own that is given the :class:`.Named` tensor and
            returns a distribution, a list of fills, or None for "not mine".
        params: further arguments of the function of ``init``.

    Raises:
        ValueError, TypeError: no such function, or not its arguments; or nothing that a tensor could match.

    >>> Rule((nn.Linear, "*.weight"), "kaiming_normal_", nonlinearity="relu")
    Rule((Linear, '*.weight'), kaiming_normal_, nonlinearity='relu')
    >>> Rule("*.weight", partial(nn.init.normal_, std=0.02))
    Rule('*.weight', normal_, std=0.02)
    """

    def __init__(self, match: Match | tuple[Match, ...], init: str | Distribution | Callable[..., Any], **params: Any) -> None:
        self.match = match if isinstance(match, tuple) else (match,)
        self.init, self.params = _named(init, params)
        for one in self.match:
            _require_match(one)
        self.of_buffers = buffer in self.match
        self.conditions = tuple(_condition(one) for one in self.match if one != "*" and one is not buffer)
        self._is_fixed = not any(isinstance(value, Tensor | list) for value in self.params.values())
        if isinstance(self.init, str):
            _require_params(self.init, self.params)
        elif params:
            raise TypeError(f"Rule: parameters belong to a function of init, got {params} beside {_called(init)}.")
        elif not isinstance(self.init, Distribution):
            _require_own_function(self.init)

    def __repr__(self) -> str:
        return self._text

    @cached_property  # every entry of a plan says which rule it comes from
    def _text(self) -> str:
        match = ", ".join(repr(m) if isinstance(m, str) else _called(m) for m in self.match)
        given = self.init if isinstance(self.init, str) else _called(self.init)
        numbers = "".join(f", {key}={_short(value)}" for key, value in self.params.items())
        return f"Rule({f'({match})' if len(self.match) > 1 else match}, {given}{numbers})"

    def matches(self, named: Named) -> bool:
        """Whether the rule speaks of the tensor."""
        return named.buffer is self.of_buffers and all(condition(named) for condition in self.conditions)

    def fills(self, named: Named) -> list[Fill]:
        """What the tensor gets; nothing: not this rule's.

        Raises:
            TypeError: the rule's function returns something else.
        """
        return self.given(named) if self.matches(named) else []

    def given(self, named: Named) -> list[Fill]:
        """The same of a tensor that the rule speaks of."""
        init = self.init
        if isinstance(init, str):
            give = _given_to if self._is_fixed else _given_to.__wrapped__
            return [(give(self, named.tensor.dtype, named.tensor.shape), None, "")]
        given = init if isinstance(init, Distribution) else init(named)
        if isinstance(given, list):
            return given
        if given is not None and not isinstance(given, Distribution):
            raise TypeError(f"{_called(init)} must return a distribution, a list of fills or None, got {given!r}")
        return [] if given is None else [(given, None, "")]

    @property
    def key(self) -> Key:
        """What decides what tensors get of which the rule speaks."""
        if isinstance(self.init, FunctionType):
            return key_of_function(self.init)
        is_data = isinstance(self.init, Distribution) or (isinstance(self.init, str) and self._is_fixed)
        return DTYPE_AND_SHAPE if is_data else no_key

    def globs(self) -> list[str]:
        """The conditions on names."""
        return [match for match in self.match if isinstance(match, str)]


@lru_cache(maxsize=4096)
def _given_to(rule: Rule, dtype: torch.dtype, shape: torch.Size) -> Distribution:
    """What a rule with a function of ``init`` gives, remembered where the function's arguments cannot change."""
    return distribution_of(rule.init, dtype, tuple(shape), rule.params)


@dataclass(frozen=True)
class RuleSet:
    """Rules that depend on the model: on its depth, on what follows a layer, on another model.

    Args:
        name: what sources of entries begin with.
        rules: a function of the model that returns its rules.

    >>> deep = RuleSet("deep", lambda model: [Rule("*", "normal_", std=len(list(model.modules())) ** -0.5)])
    >>> deep.rules(nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)))
    [Rule('*', normal_, std=0.5)]
    """

    name: str
    rules: Callable[[nn.Module], Rules]


Rules = str | Rule | RuleSet | Callable[[Named], Given] | Sequence["Rules"]
"""The name of a set, a rule, a set for models, a function as a rule that matches every parameter, or a list of these."""

RULE_SETS: dict[str, Rules] = {}
"""Rules by name. Add your own: ``RULE_SETS["mine"] = [Rule("*.scale", "ones_"), "kaiming"]``."""


def _named(given: Any, params: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A function of ``init`` (ours, or its namesake in torch) by its name, and its parameters; anything else as it is."""
    if isinstance(given, partial):
        name, _ = _named(given.func, {})
        if not isinstance(name, str):
            return given, params
        if given.args:
            raise TypeError(f"Rule: a partial of {name} must bind by keyword, got positional {given.args}.")
        return name, {**given.keywords, **params}
    name = getattr(given, "__name__", "")
    if callable(given) and name in CATALOG and given in (getattr(functions, name), getattr(nn.init, name, None)):
        return name, params
    return given, params


def _require_own_function(function: Any) -> None:
    """Refuses what is no function of one :class:`Named` tensor: a function of torch, a class, a number."""
    wanted = "a function of init or its name, a distribution or a function of a Named tensor"
    if not callable(function):
        raise TypeError(f"Rule: init must be {wanted}, got {function!r}.")
    module = str(getattr(function, "__module__", None) or "builtins")
    strange = isinstance(function, type | nn.Module) or module.split(".")[0] in ("torch", "builtins", "_operator")
    try:
        inspect.signature(function).bind(None)
    except (TypeError, ValueError):
        strange = True
    if strange or module.startswith(functions.__name__):
        raise TypeError(f"Rule: init must be {wanted}, got {_called(function)} of {module}.")


def _require_params(function: str, params: Mapping[str, Any]) -> None:
    try:
        row = function_of(function)
    except ValueError as error:
        raise ValueError(f"Rule: {error}") from None
    if wrong := sorted(params.keys() & set(DRAWN)):
        raise TypeError(f"Rule: seeds, streams and shards are the plan's, got {', '.join(wrong)} for {function}.")
    try:
        row.bind(params)
    except TypeError as error:
        raise TypeError(f"Rule: params must be those of {function}, got {params}: {error}.") from None


def _require_match(match: object) -> None:
    if isinstance(match, str):
        if not match or re.search(r"\[(?![^]]+\])", match):
            raise ValueError(f"Rule: match must be a glob with every [ closed, got {match!r}.")
    elif not callable(match) or (isinstance(match, type) and not issubclass(match, nn.Module)):
        raise TypeError(f"Rule: match must be a glob, a type of module or a function of a Named tensor, got {match!r}.")


def _condition(match: Match) -> Callable[[Named], object]:
    """A condition as a question about the tensor."""
    if isinstance(match, str):
        return partial(_has_name, glob(match))
    return partial(_is_held_by, match) if isinstance(match, type) else match


def _has_name(like: Callable[[str], object], named: Named) -> bool:
    return bool(like(named.name) or any(map(like, named.aliases)))


def _is_held_by(kind: type[nn.Module], named: Named) -> bool:
    return isinstance(named.module, kind)


@lru_cache(maxsize=4096)
def glob(pattern: str) -> Callable[[str], object]:
    return re.compile(translate(pattern)).match


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def _called(what: object) -> str:
    """What people call a condition or a function: a lambda by the line of its file."""
    name = getattr(what, "__name__", "")
    if isinstance(what, Distribution):
        return what.describe()
    code = getattr(what, "__code__", None)
    if name == "<lambda>" and code is not None:
        return f"lambda at {PurePath(code.co_filename).name}:{code.co_firstlineno}"
    return name or repr(what)
