"""What operators with numbers do to a distribution: from the name of an operator and its numbers to a change.

The rules say what ``arithmetic`` knows in the terms of torch's operators. Knows no tapes.
"""

from __future__ import annotations

from collections.abc import Callable

from ..numerics.arithmetic import clamped, erfinv, scaled, shifted
from ..numerics.distributions import Distribution

__all__ = ["MOVES", "RULES", "Change", "Numbers"]

Numbers = dict[str, float | None]
Change = Callable[[Distribution], Distribution | None]
MOVES = {"copy", "clone", "_to_copy", "fill"}


def _move(numbers: Numbers, first: bool) -> Change | None:
    return lambda x: x


def _mul(numbers: Numbers, first: bool) -> Change | None:
    c = numbers.get("other" if first else "self")
    return None if c is None else lambda x: scaled(x, c)


def _div(numbers: Numbers, first: bool) -> Change | None:
    c = numbers.get("other")
    return None if not c or not first or "rounding_mode" in numbers else lambda x: scaled(x, 1 / c)


def _add(numbers: Numbers, first: bool, sign: float = 1.0) -> Change | None:
    c, alpha = numbers.get("other" if first else "self"), numbers.get("alpha", 1.0)
    if c is None or alpha is None or (not first and (alpha != 1 or sign != 1)):
        return None
    return lambda x: shifted(x, sign * alpha * c)


def _sub(numbers: Numbers, first: bool) -> Change | None:
    return _add(numbers, first, -1.0)


def _erfinv(numbers: Numbers, first: bool) -> Change | None:
    return erfinv


def _clamp(numbers: Numbers, first: bool) -> Change | None:
    low, high = numbers.get("min"), numbers.get("max")
    return lambda x: clamped(x, float("-inf") if low is None else low, float("inf") if high is None else high)


RULES: dict[str, Callable[[Numbers, bool], Change | None]] = {
    **dict.fromkeys(MOVES, _move),
    "mul": _mul,
    "div": _div,
    "add": _add,
    "sub": _sub,
    "erfinv": _erfinv,
    "special_erfinv": _erfinv,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": _clamp,
}
"""By the name of the operator; called with its numbers, and with whether the distribution is its first operand."""
