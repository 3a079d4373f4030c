"""Distributions under arithmetic: what is known of ``c X``, ``X + c``, ``erfinv(X)`` and ``clamp(X)`` if X is.

Models scale what they have drawn (``randn(n) * 0.02``, GPT-2's residual layers) and write truncated normals as chains. Each
function gives the distribution of the result, exactly, or None where it is none that a kernel makes. The random numbers
stay the same ones: every map here is increasing, so a larger word still gives a larger value. Knows no tensors.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from .distributions import Constant, Initial, Normal, OneHot, Orthogonal, SparseNormal, TruncNormal, Uniform
from .lowering import MAX_SIGMA_64

__all__ = ["clamped", "erfinv", "scaled", "shifted"]

_ROOT_HALF = math.sqrt(0.5)
NEAR = 1e-6  # sigmas. A bound recomputed in another way (cdf, erfinv, times sqrt 2) is the same bound


def scaled(x: Initial, c: float) -> Initial | None:
    """c X, for 0 < c < inf.

    >>> scaled(Normal(0.0, 1.0), 0.02)
    Normal(mean=0.0, std=0.02)
    """
    if not 0 < c < math.inf:
        return Constant(0.0) if c == 0 and _bounded(x) else None
    match x:
        case Uniform(a, b):
            return Uniform(_round(a * c), _round(b * c))
        case Normal(mean, std):
            return Normal(_round(mean * c), _round(std * c))
        case TruncNormal(mean, std, a, b):
            return TruncNormal(*(_round(number * c) for number in (mean, std, a, b)))
        case SparseNormal(rows, zeros, std):
            return SparseNormal(rows, zeros, _round(std * c))
        case Orthogonal(gain):
            return Orthogonal(_round(gain * c))
        case OneHot():
            return x._replace(value=_round(x.value * c))
    return None


def shifted(x: Initial, c: float) -> Initial | None:
    """X + c.

    >>> shifted(Uniform(0.0, 1.0), -0.5)
    Uniform(a=-0.5, b=0.5)
    """
    if c == 0:
        return x
    if not math.isfinite(c):
        return None
    match x:
        case Uniform(a, b):
            return Uniform(_round(a + c), _round(b + c))
        case Normal(mean, std):
            return Normal(_round(mean + c), std)
        case TruncNormal(mean, std, a, b):
            return TruncNormal(_round(mean + c), std, _round(a + c), _round(b + c))
    return None


def erfinv(x: Initial) -> TruncNormal | None:
    """erfinv(X): of a uniform on [a, b) within [-1, 1] it is a normal of std sqrt(1/2), cut at erfinv(a) and erfinv(b).

    >>> erfinv(Uniform(-1.0, 1.0))
    TruncNormal(mean=0.0, std=0.7071067811865476, a=-inf, b=inf)
    """
    if not (isinstance(x, Uniform) and -1 <= x.a < x.b <= 1):
        return None
    return TruncNormal(0.0, _ROOT_HALF, *(_erfinv(bound) for bound in x))


def _erfinv(y: float) -> float:
    if abs(y) == 1:
        return math.copysign(math.inf, y)
    tail = NormalDist().inv_cdf((1 - abs(y)) / 2) if abs(y) < 1 else 0.0  # in the tail, where digits are left
    return math.copysign(tail * _ROOT_HALF, y)


def clamped(x: Initial, low: float, high: float) -> Initial | None:
    """min(max(X, low), high), where that moves nothing: else values pile up at a bound, and no distribution here does that.

    A bound that X has already, up to rounding, becomes exactly the one that is clamped to. One so far out that float64 has no
    normal number beyond it is made a bound, which costs nothing (where nothing is cut, a truncated normal is a normal).

    >>> clamped(TruncNormal(0.0, 0.02, -math.inf, math.inf), -2.0, 2.0)
    TruncNormal(mean=0.0, std=0.02, a=-2.0, b=2.0)
    """
    match x:
        case Uniform(a, b):
            near = NEAR * (b - a)
            return x if low <= a + near and b - near <= high else None
        case Normal(mean, std):
            reach = MAX_SIGMA_64 * std
            return x if low <= mean - reach and mean + reach <= high else None
        case TruncNormal(mean, std, a, b):
            lower, upper = _bound(-a, -low, -mean, std), _bound(b, high, mean, std)
            if lower is None or upper is None:
                return None
            return TruncNormal(mean, std, 0.0 - lower, upper)
    return None


def _bound(b: float, high: float, mean: float, std: float) -> float | None:
    """The upper bound of a normal cut at b and clamped to ``high``; None if that moves values."""
    if abs(b - high) <= NEAR * std or (b > high and high >= mean + MAX_SIGMA_64 * std):
        return high
    return b if b <= high else None


def _bounded(x: Initial) -> bool:
    return isinstance(x, Uniform | Normal | TruncNormal)


def _round(number: float) -> float:
    """To 15 digits: what a decimal number keeps through float64 arithmetic. sqrt(1/2) * 0.02 * sqrt(2) is 0.02 again."""
    return float(f"{number:.15g}") + 0.0
