"""Probabilities of the normal distribution in decimal arithmetic.

``decimal`` rounds every operation, exp and ln included, correctly: the same digits on every platform, which libm's erfc does
not promise. Results are good to 25 digits or more. Used for kernel parameters, never per element.
"""

from __future__ import annotations

import math
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, DivisionByZero, InvalidOperation
from functools import lru_cache

CONTEXT = Context(prec=60, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[DivisionByZero, InvalidOperation])
_NOTHING = Decimal(-10_000_000)  # exponentials beyond it are taken as 0: far below any float64
_LOG_SQRT_2PI = Decimal("0.918938533204672741780329736405617639861397473637783413")
_SHORT = Decimal("1e-25")  # shorter intervals are taken with constant density: relative error below 1e-24
_SERIES_LIMIT = 6  # below it the power series, above it the continued fraction


def density(z: Decimal) -> Decimal:
    """exp(-z^2 / 2) / sqrt(2 pi); 0 at infinity."""
    return _exp(_log_density(z)) if z.is_finite() else Decimal(0)


def _log_density(z: Decimal) -> Decimal:
    c = CONTEXT
    return c.subtract(c.divide(c.multiply(z.copy_negate(), z), Decimal(2)), _LOG_SQRT_2PI)


@lru_cache(maxsize=4096)
def _below_mean(z: Decimal) -> Decimal:
    """Phi(z) - 1/2 for 0 <= z < 6: density(z) (z + z^3/3 + z^5/15 + ...), all terms positive."""
    c = CONTEXT
    term = total = CONTEXT.plus(z)
    square, k = c.multiply(z, z), 1
    while term.adjusted() > total.adjusted() - 60 if total else False:
        k += 2
        term = c.divide(c.multiply(term, square), Decimal(k))
        total = c.add(total, term)
    return c.multiply(total, density(z))


@lru_cache(maxsize=4096)
def _mills(z: Decimal) -> Decimal:
    """tail(z) / density(z) for z >= 6: 1 / (z + 1 / (z + 2 / (z + 3 / ...))), evaluated backwards."""
    c = CONTEXT
    fraction = CONTEXT.plus(z)
    for k in range(200, 0, -1):
        fraction = c.add(z, c.divide(Decimal(k), fraction))
    return c.divide(Decimal(1), fraction)


def tail(z: Decimal) -> Decimal:
    """P(Z > z) for z >= 0, infinity included; 0 beyond 4000 or so, where no float64 could tell."""
    if z < _SERIES_LIMIT:
        return CONTEXT.subtract(Decimal("0.5"), _below_mean(z))
    return _exp(log_tail(z)) if z.is_finite() else Decimal(0)


def _exp(x: Decimal) -> Decimal:
    return CONTEXT.exp(x) if x > _NOTHING else Decimal(0)


def mass_between(alpha: Decimal, beta: Decimal) -> Decimal:
    """P(alpha < Z < beta) for alpha < 0 < beta; on an interval too short for 60 digits, density times length."""
    c = CONTEXT
    if (width := c.subtract(beta, alpha)) < _SHORT:
        return c.multiply(density(Decimal(0)), width)
    return c.subtract(c.subtract(Decimal(1), tail(alpha.copy_negate())), tail(beta))


def relative_masses(alpha: Decimal, beta: Decimal) -> tuple[Decimal, Decimal]:
    """P(Z < beta | Z > alpha) and P(Z > beta | Z > alpha) for 0 <= alpha < beta."""
    c = CONTEXT
    if not beta.is_finite():
        return Decimal(1), Decimal(0)
    if (width := c.subtract(beta, alpha)) < _SHORT:
        inside = c.multiply(_exp(c.subtract(_log_density(alpha), log_tail(alpha))), width)
        return inside, c.subtract(Decimal(1), inside)
    above = _exp(c.subtract(log_tail(beta), log_tail(alpha)))
    return c.subtract(Decimal(1), above), above


def log_tail(z: Decimal) -> Decimal:
    """ln P(Z > z) for z >= 0, without underflow."""
    c = CONTEXT
    if z < _SERIES_LIMIT:
        return c.ln(tail(z))
    return c.subtract(c.subtract(c.ln(_mills(z)), _LOG_SQRT_2PI), c.divide(c.multiply(z, z), Decimal(2)))


def erf_over_sqrt2(z: Decimal) -> Decimal:
    """erf(z / sqrt 2) = 2 Phi(z) - 1 for |z| < 6."""
    half = _below_mean(z.copy_abs())
    return CONTEXT.multiply(half, Decimal(2 if z >= 0 else -2))


@lru_cache(maxsize=4096)
def truncated_std(alpha: float, beta: float) -> float:
    r"""Standard deviation of N(0, 1) cut to [alpha, beta], alpha < beta, infinite bounds too.

    .. math:: \sigma^2 = 1 + \frac{\alpha \varphi(\alpha) - \beta \varphi(\beta)}{M} - \left(\frac{\varphi(\alpha) -
              \varphi(\beta)}{M}\right)^2, \quad M = \Phi(\beta) - \Phi(\alpha)

    Far in the tail and on short intervals the three terms nearly cancel; 50 digits leave enough.

    >>> truncated_std(-2.0, 2.0)
    0.8796256610342398
    """
    if alpha > 0:  # the mirror image, so that M is a difference of small tails
        alpha, beta = -beta, -alpha
    c, low, high = CONTEXT, Decimal.from_float(alpha), Decimal.from_float(beta)
    below = tail(low.copy_abs()) if low < 0 else c.subtract(Decimal(1), tail(low))
    up_to = tail(high.copy_abs()) if high < 0 else c.subtract(Decimal(1), tail(high))
    mass = c.subtract(up_to, below)
    at_low, at_high = density(low), density(high)
    edges = c.subtract(_times(low, at_low), _times(high, at_high))
    mean = c.divide(c.subtract(at_low, at_high), mass)
    return float(c.sqrt(c.subtract(c.add(Decimal(1), c.divide(edges, mass)), c.multiply(mean, mean))))


def _times(z: Decimal, at_z: Decimal) -> Decimal:
    return CONTEXT.multiply(z, at_z) if z.is_finite() else Decimal(0)


@lru_cache(maxsize=4096)
def compensated_std(std: float, low: float, high: float) -> float:
    r"""The standard deviation before cutting that leaves ``std`` after it: s * truncated_std(low / s, high / s) = std.

    Args:
        std: wanted standard deviation, positive.
        low, high: bounds relative to the mean, in the unit of ``std``.

    Raises:
        ValueError: no normal cut to [low, high] is as wide as ``std``; the widest one has (high - low) / sqrt(12).

    Numerics: bisection down to two adjacent numbers.

    >>> round(compensated_std(1.0, -2.0, 2.0), 6)
    1.377902
    """
    if not std < (high - low) / math.sqrt(12.0):
        raise ValueError(
            f"trunc_normal_: compensate=True needs std < (b - a) / sqrt(12), got std={std} and b - a={high - low}."
            " Widen the bounds, or give them in sigma with bounds='sigma'."
        )
    narrow, wide = 0.0, std
    while wide * truncated_std(low / wide, high / wide) < std:
        narrow, wide = wide, 2 * wide
    while (middle := (narrow + wide) / 2) not in (narrow, wide):
        if middle * truncated_std(low / middle, high / middle) < std:
            narrow = middle
        else:
            wide = middle
    return wide
