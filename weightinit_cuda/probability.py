"""Probabilities of the normal distribution in decimal arithmetic.

``decimal`` rounds every operation, exp and ln included, correctly: the same digits on every platform, which libm's erfc does
not promise. Results are good to 25 digits or more. Used for kernel parameters, never per element.
"""

from __future__ import annotations

from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from functools import lru_cache

CONTEXT = Context(prec=50, Emax=MAX_EMAX, Emin=MIN_EMIN)
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582")
_LOG_SQRT_2PI = Decimal("0.918938533204672741780329736405617639861397473637783413")
_SERIES_LIMIT = 6  # below it the power series, above it the continued fraction


def density(z: Decimal) -> Decimal:
    """exp(-z^2 / 2) / sqrt(2 pi)."""
    c = CONTEXT
    return c.exp(c.subtract(c.divide(c.multiply(-z, z), Decimal(2)), _LOG_SQRT_2PI))


@lru_cache(maxsize=4096)
def _below_mean(z: Decimal) -> Decimal:
    """Phi(z) - 1/2 for 0 <= z < 6: density(z) (z + z^3/3 + z^5/15 + ...), all terms positive."""
    c = CONTEXT
    term = total = +z
    square, k = c.multiply(z, z), 1
    while term > total.scaleb(-50):
        k += 2
        term = c.divide(c.multiply(term, square), Decimal(k))
        total = c.add(total, term)
    return c.multiply(total, density(z))


@lru_cache(maxsize=4096)
def _mills(z: Decimal) -> Decimal:
    """tail(z) / density(z) for z >= 6: 1 / (z + 1 / (z + 2 / (z + 3 / ...))), evaluated backwards."""
    c = CONTEXT
    fraction = +z
    for k in range(200, 0, -1):
        fraction = c.add(z, c.divide(Decimal(k), fraction))
    return c.divide(Decimal(1), fraction)


def tail(z: Decimal) -> Decimal:
    """P(Z > z) for z >= 0."""
    if z < _SERIES_LIMIT:
        return CONTEXT.subtract(Decimal("0.5"), _below_mean(z))
    return CONTEXT.multiply(density(z), _mills(z))


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


def truncated_variance(alpha: Decimal, beta: Decimal) -> Decimal:
    """Variance of a standard normal conditioned on [alpha, beta], alpha < 0 < beta."""
    c = CONTEXT
    mass = c.subtract(c.subtract(Decimal(1), tail(-alpha)), tail(beta))
    at_a, at_b = density(alpha), density(beta)
    edge = c.divide(c.subtract(c.multiply(alpha, at_a), c.multiply(beta, at_b)), mass)
    mean = c.divide(c.subtract(at_a, at_b), mass)
    return c.subtract(c.add(Decimal(1), edge), c.multiply(mean, mean))
