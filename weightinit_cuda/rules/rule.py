"""Rules: which tensor of a model gets which distribution, as data.

A :class:`Rule` says what it matches and what it gives. A rule set is a list of rules, read in order: the first that matches a
tensor decides. Sets compose as lists do. This file turns rules into distributions and knows no scheme; the sets that come with
the library are in ``sets``; seeds, streams and filling are the plan's.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property, lru_cache, partial
from pathlib import PurePath
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..init import schemes
from ..init.catalog import DRAWN, distribution_of, function_of
from ..numerics.distributions import (
    Computed,
    Constant,
    Initial,
    Normal,
    OneHot,
    Orthogonal,
    SparseNormal,
    TruncNormal,
    Uniform,
    describe,
)
from ..tensors.boxes import Box
from ..tensors.named import Named

__all__ = [
    "RULE_SETS",
    "Fill",
    "Given",
    "Match",
    "Rule",
    "RuleSet",
    "Rules",
    "buffer",
    "first_match",
    "flattened",
    "require_sound",
    "resolve",
]

Match = str | type[nn.Module] | Callable[[Named], bool]
"""A glob of qualified names, a type of the module that holds the tensor, or a question about the tensor."""

Fill = tuple[Initial, Box | None, str]
"""A distribution, the part it fills (None: all), and where it comes from (empty: the rule)."""

Given = Initial | list[Fill] | None
"""What a function as ``init`` returns: a distribution, a list of fills (the later ones win), or None for "not mine"."""

_DISTRIBUTIONS = (Constant, Uniform, Normal, TruncNormal, OneHot, SparseNormal, Orthogonal, Computed)


def buffer(named: Named) -> bool:
    """The tensor is a buffer. A rule speaks of parameters only, unless this is one of its conditions: a mask named
    ``attn.bias`` is no bias."""
    return named.buffer


class Rule:
    """Tensors that match get ``init``.

    Args:
        match: a glob of whole qualified names (``"*.bias"``; of tied names any), the type of the module that holds the tensor,
            a function of the :class:`Named` tensor, or a tuple of these, all of which must hold.
        init: the name of a function of ``weightinit_cuda.init``, a distribution, or a function that is given the
            :class:`Named` tensor and returns a distribution, a list of fills, or None for "not mine".
        params: further arguments of the named function.

    Raises:
        ValueError, TypeError: no such function, or not its arguments; or nothing that a tensor could match.

    >>> Rule((nn.Linear, "*.weight"), "kaiming_normal_", nonlinearity="relu")
    Rule((Linear, '*.weight'), kaiming_normal_, nonlinearity='relu')
    """

    def __init__(self, match: Match | tuple[Match, ...], init: str | Initial | Callable[[Named], Given], **params: Any) -> None:
        self.match = match if isinstance(match, tuple) else (match,)
        self.init = init
        self.params = params
        for one in self.match:
            _require_match(one)
        self._of_buffers = buffer in self.match
        self._conditions = tuple(_condition(one) for one in self.match if one != "*")
        if isinstance(init, str):
            _require_params(init, params)
        elif params:
            raise TypeError(f"Rule: parameters belong to a function of init, got {params} beside {_called(init)}.")
        elif not callable(init) and not isinstance(init, _DISTRIBUTIONS):
            raise TypeError(f"Rule: init must be a function of init, a distribution or a function, got {init!r}.")

    def __repr__(self) -> str:
        return self._text

    @cached_property  # every line of a plan says which rule it comes from
    def _text(self) -> str:
        match = ", ".join(repr(m) if isinstance(m, str) else _called(m) for m in self.match)
        given = self.init if isinstance(self.init, str) else _called(self.init)
        numbers = "".join(f", {key}={_short(value)}" for key, value in self.params.items())
        return f"Rule({f'({match})' if len(self.match) > 1 else match}, {given}{numbers})"

    def matches(self, named: Named) -> bool:
        """Whether the rule speaks of the tensor."""
        return named.buffer is self._of_buffers and all(condition(named) for condition in self._conditions)

    def fills(self, named: Named) -> list[Fill]:
        """What the tensor gets; nothing: not this rule's.

        Raises:
            TypeError: the rule's function returns something else.
        """
        if not self.matches(named):
            return []
        given = self._given(named)
        if isinstance(given, list):
            return given
        if given is not None and not isinstance(given, _DISTRIBUTIONS):
            raise TypeError(f"{_called(self.init)} must return a distribution, a list of fills or None, got {given!r}")
        return [] if given is None else [(given, None, "")]

    def _given(self, named: Named) -> Given:
        if isinstance(self.init, str):
            return distribution_of(self.init, named.tensor.dtype, tuple(named.tensor.shape), self.params)
        return self.init if isinstance(self.init, _DISTRIBUTIONS) else self.init(named)

    def globs(self) -> list[str]:
        """The conditions on names."""
        return [match for match in self.match if isinstance(match, str)]


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
        return partial(_has_name, _glob(match))
    return partial(_is_held_by, match) if isinstance(match, type) else match


def _has_name(like: Callable[[str], object], named: Named) -> bool:
    return bool(like(named.name) or any(map(like, named.aliases)))


def _is_held_by(kind: type[nn.Module], named: Named) -> bool:
    return isinstance(named.module, kind)


@lru_cache(maxsize=4096)
def _glob(pattern: str) -> Callable[[str], object]:
    return re.compile(translate(pattern)).match


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


def _called(what: object) -> str:
    """What people call a condition or a function: a lambda by the line of its file."""
    name = getattr(what, "__name__", "")
    if isinstance(what, _DISTRIBUTIONS):
        return describe(what)
    code = getattr(what, "__code__", None)
    if name == "<lambda>" and code is not None:
        return f"lambda at {PurePath(code.co_filename).name}:{code.co_firstlineno}"
    return name or repr(what)


# ---- from rules and a model to fills ---------------------------------------------------------------------------------

_CUSTOM = "custom"  # the origin of rules that were given, not named


def resolve(model: nn.Module, tensors: Iterable[Named], rules: Rules) -> list[tuple[Named, list[Fill]]]:
    """What each tensor is filled with; buffers that no rule knows are left out.

    Warns:
        UserWarning: a glob in ``rules`` itself matches no name of the model. Named sets serve many models, and may.

    Raises:
        ValueError: parameters that no rule covers, that a rule cannot fill, or that are lazy, without a shape yet; all of
            them are named. Or there is no rule set of that name.
        TypeError: the rules are something else.
    """
    tensors = list(tensors)
    if lazy := [named.name for named in tensors if is_lazy(named.tensor)]:
        raise ValueError(
            f"plan: every tensor must have a shape, got lazy ones that have none yet ({', '.join(lazy)})."
            " Run the model once, on meta if you like."
        )
    flat = list(flattened(model, rules))
    _warn_of_idle_globs([rule for origin, rule in flat if origin == _CUSTOM], tensors)
    found, problems = [], []
    for named in tensors:
        try:
            fills = first_match(flat, named)
        except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
            problems.append(f"{_about(named)}: {error}")
            continue
        if fills:
            found.append((named, fills))
        elif not named.buffer:
            problems.append(f"{_about(named)}: no rule covers it.")
    if problems:
        title = f"plan: a rule that fits is required for every parameter, got {len(problems)} without."
        way = "Add a Rule for them, or end the list with a set that covers them, such as 'torch'."
        raise ValueError("\n  ".join([f"{title} {way}", *problems]))
    return found


def _about(named: Named) -> str:
    holder = "" if named.module is None else f" of {type(named.module).__name__}"
    return f"{named.name} {tuple(named.tensor.shape)}{holder}"


def flattened(
    model: nn.Module, rules: Rules, origin: str = _CUSTOM, inside: tuple[str, ...] = ()
) -> Iterator[tuple[str, Rule]]:
    """The rules one by one, each with the name of the set it comes from."""
    if isinstance(rules, str):
        if rules not in RULE_SETS:
            raise ValueError(f"plan: rules must be one of {sorted(RULE_SETS)} or a list of Rule, got {rules!r}.")
        if rules in inside:
            raise ValueError(f"plan: a rule set must not contain itself, got {' -> '.join((*inside, rules))}.")
        yield from flattened(model, RULE_SETS[rules], rules, (*inside, rules))
    elif isinstance(rules, Rule):
        yield origin, rules
    elif isinstance(rules, RuleSet):
        yield from flattened(model, rules.rules(model), rules.name, inside)
    elif callable(rules):
        yield origin, Rule("*", rules)
    elif isinstance(rules, Iterable):
        for each in rules:
            yield from flattened(model, each, origin, inside)
    else:
        raise TypeError(f"plan: rules must be names of sets, Rules or functions, got {rules!r} ({type(rules).__name__}).")


def _warn_of_idle_globs(rules: Sequence[Rule], tensors: Sequence[Named]) -> None:
    names = [name for named in tensors for name in (named.name, *named.aliases)]
    for rule in rules:
        for glob in rule.globs():
            if not any(map(_glob(glob), names)):
                warnings.warn(f"plan: {rule} matches nothing: no name of the model is like {glob!r}.", stacklevel=4)


def first_match(rules: Iterable[tuple[str, Rule]], named: Named) -> list[Fill]:
    """The fills of the first rule that has any, with their sources in full."""
    for origin, rule in rules:
        try:
            fills = rule.fills(named)
            for distribution, _, _ in fills:
                require_sound(distribution, named.tensor.dtype)
        except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
            raise ValueError(f"{error} ({origin}: {rule})") from error
        if fills:
            return [(distribution, box, f"{origin}: {source or rule}") for distribution, box, source in fills]
    return []


def require_sound(distribution: Initial, dtype: torch.dtype) -> None:
    """Refuses numbers that no fill could use, in the words of ``init``."""
    match distribution:
        case Uniform(a, b):
            schemes.uniform_(dtype, a, b)
        case Normal(mean, std):
            schemes.normal_(dtype, mean, std)
        case TruncNormal(mean, std, a, b):
            schemes.trunc_normal_(dtype, mean, std, a, b)
