"""The first rule that speaks of a tensor, for one tensor of a model after another."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from typing import NamedTuple, TypeGuard

import torch

from ..init.catalog import CATALOG
from ..numerics.distributions import Distribution
from ..tensors.named import Named
from .keys import Key, no_key
from .rule import Fill, Rule

__all__ = ["Matching", "require_sound"]

_REFUSALS = (ValueError, TypeError, RuntimeError, ArithmeticError)
_WAYS = "matches", "fills", "given"


class Row(NamedTuple):
    """A rule, as it is asked.

    Args:
        origin: the name of the set that it comes from.
        rule: the rule itself.
        conditions: of the rule, which all have to hold.
        key: what decides what the rule gives.
        known: what it gave, by key; and by distribution, dtype, shape and source.
    """

    origin: str
    rule: Rule
    conditions: tuple[Callable[[Named], object], ...]
    key: Key
    known: dict[Hashable, list[Fill]]


Rows = tuple[tuple[Row, ...], tuple[Row, ...]]  # of parameters, of buffers
Refused = tuple[Row, BaseException]


class Matching:
    """Rules, asked about the tensors of one model. Those that get the same as a whole, and have the same dtype and shape, share
    one list of fills.

    Args:
        rules: each with the name of the set it comes from.
    """

    def __init__(self, rules: Iterable[tuple[str, Rule]]) -> None:
        rows: tuple[list[Row], list[Row]] = [], []
        for origin, rule in rules:
            if _has_own_way(rule):
                row = Row(origin, rule, (), no_key, {})
                rows[False].append(row)
                rows[True].append(row)
            else:
                rows[rule.of_buffers].append(Row(origin, rule, rule.conditions, rule.key, {}))
        self._rows: Rows = tuple(rows[0]), tuple(rows[1])

    def first(self, named: Named) -> list[Fill]:
        """The fills of the first rule that has any, with their sources in full; an empty list if none has.

        Raises:
            ValueError: what a rule refuses.
        """
        return fills_or_raise(self.firsts([named])[0])

    def firsts(self, tensors: list[Named]) -> list[list[Fill] | Refused]:
        """:meth:`first` of many; where a rule refuses, what :func:`fills_or_raise` takes."""
        return fastest(tensors, self._rows, _ask, _REFUSALS)


def fills_or_raise(found: list[Fill] | Refused) -> list[Fill]:
    """What :meth:`Matching.firsts` has of a tensor, as fills."""
    if isinstance(found, list):
        return found
    row, error = found
    raise ValueError(f"{error} ({row.origin}: {row.rule})") from error


def covers_all(found: list[list[Fill] | Refused]) -> TypeGuard[list[list[Fill]]]:
    """Whether every tensor has fills."""
    return all(found) and set(map(type, found)) <= {list}


def first_fills(
    tensors: list[Named],
    rules: Rows,
    ask: Callable[[Row, Named, Hashable], list[Fill]],
    refusals: tuple[type[BaseException], ...],
) -> list[list[Fill] | Refused]:
    """What :meth:`Matching.firsts` returns. The kernels' module has the same function, which takes a third of the time.

    Args:
        tensors: the tensors.
        rules: the rows of parameters and of buffers.
        ask: from row, tensor and key to fills, which it makes known.
        refusals: types of exceptions; others are raised.
    """
    found: list[list[Fill] | Refused] = []
    for named in tensors:
        for row in rules[named.buffer]:
            try:
                if all(holds(named) for holds in row.conditions):
                    key = row.key(named)
                    known = None if key is None else row.known.get(key)
                    if fills := ask(row, named, key) if known is None else known:
                        found.append(fills)
                        break
            except refusals as error:
                found.append((row, error))
                break
        else:
            found.append([])
    return found


fastest: Callable[..., list[list[Fill] | Refused]] = first_fills
with suppress(ImportError):
    from .._C import first_fills as fastest


def _ask(row: Row, named: Named, key: Hashable) -> list[Fill]:
    fills = _in_full(row, named)
    if key is not None:
        row.known[key] = fills
    return fills


def _in_full(row: Row, named: Named) -> list[Fill]:
    """Fills checked and with their sources in full; or what another tensor like this one got by the rule, if it is that."""
    fills = row.rule.fills(named) if _has_own_way(row.rule) else row.rule.given(named)
    if len(fills) != 1 or fills[0][1] is not None:
        return [_sound(fill, row, named) for fill in fills]
    made, _, source = fills[0]
    key = id(made), named.tensor.dtype, named.tensor.shape, source  # of what lives as long as the list
    if (same := row.known.get(key)) is None:
        same = row.known[key] = [_sound(fills[0], row, named)]
    return same


def _has_own_way(rule: Rule) -> bool:
    """Whether the rule is of a class that decides otherwise than :class:`Rule` what it speaks of, or what that gets."""
    kind = type(rule)
    return kind is not Rule and any(getattr(kind, name) is not getattr(Rule, name) for name in _WAYS)


def _sound(fill: Fill, row: Row, named: Named) -> Fill:
    distribution, box, source = fill
    require_sound(distribution, named.tensor.dtype)
    return distribution, box, f"{row.origin}: {source or row.rule}"


def require_sound(distribution: Distribution, dtype: torch.dtype) -> None:
    """Refuses numbers that no fill could use, in the words of ``init``."""
    distribution.form(("sound", dtype), lambda: _require_sound(distribution, dtype))


def _require_sound(distribution: Distribution, dtype: torch.dtype) -> None:
    row = CATALOG.get(f"{distribution.kind}_")
    if row is not None and row.random and not row.by_shape:
        row.scheme(dtype, *distribution.numbers().values())
