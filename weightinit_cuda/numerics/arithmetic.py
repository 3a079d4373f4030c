"""Distributions under arithmetic: what is known of ``c X``, ``X + c``, ``erfinv(X)`` and ``clamp(X)`` if X is.

Models scale what they have drawn (``randn(n) * 0.02``, GPT-2's residual layers) and write truncated normals as chains. Each
function gives the distribution of the result, exactly, or None where it is none that a kernel makes. The random numbers
stay the same ones: every map here is increasing, so a larger word still gives a larger value. Knows no tensors.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from .distributions import Distribution, TruncNormal, Uniform

__all__ = ["clamped", "erfinv", "scaled", "shifted"]

_ROOT_HALF = math.sqrt(0.5)


def scaled(x: Distribution, c: float) -> Distribution | None:
    """c X, for 0 <= c < inf.

    >>> from .distributions import Normal
    >>> scaled(Normal(0.0, 1.0), 0.02)
    Normal(mean=0.0, std=0.02)
    """
    return x.scaled(c) if 0 <= c < math.inf else None


def shifted(x: Distribution, c: float) -> Distribution | None:
    """X + c.

    >>> shifted(Uniform(0.0, 1.0), -0.5)
    Uniform(a=-0.5, b=0.5)
    """
    if c == 0:
        return x
    return x.shifted(c) if math.isfinite(c) else None


def clamped(x: Distribution, low: float, high: float) -> Distribution | None:
    """min(max(X, low), high), where that moves nothing.

    >>> clamped(TruncNormal(0.0, 0.02, -math.inf, math.inf), -2.0, 2.0)
    TruncNormal(mean=0.0, std=0.02, a=-2.0, b=2.0)
    """
    return x.clamped(low, high)


def erfinv(x: Distribution) -> TruncNormal | None:
    """erfinv(X): of a uniform on [a, b) within [-1, 1] it is a normal of std sqrt(1/2), cut at erfinv(a) and erfinv(b).

    >>> erfinv(Uniform(-1.0, 1.0))
    TruncNormal(mean=0.0, std=0.7071067811865476, a=-inf, b=inf)
    """
    if not (isinstance(x, Uniform) and -1 <= x.a < x.b <= 1):
        return None
    return TruncNormal(0.0, _ROOT_HALF, _erfinv(x.a), _erfinv(x.b))


def _erfinv(y: float) -> float:
    if abs(y) == 1:
        return math.copysign(math.inf, y)
    tail = NormalDist().inv_cdf((1 - abs(y)) / 2) if abs(y) < 1 else 0.0  # in the tail, where digits are left
    return math.copysign(tail * _ROOT_HALF, y)
