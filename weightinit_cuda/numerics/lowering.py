"""How a distribution becomes numbers for the kernels: ``lower(distribution, dtype)`` gives a :class:`Transform`.

A transform is the kernel's kind and its parameters, rounded exactly as `docs/numerics.md` says and the same on every platform
(integers and decimals, no libm). Kernels and reference receive nothing else. Knows no tensors of models and no devices.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from .coefficients import CENTRAL_SIGMA
from .distributions import (
    MAX_SIGMA_32,
    MAX_SIGMA_64,
    Constant,
    Distribution,
    Normal,
    OneHot,
    SparseNormal,
    TruncNormal,
    Uniform,
)
from .probability import CONTEXT, erf_over_sqrt2, log_tail, mass_between, relative_masses, tail
from .rounding import FLOAT32, FLOAT64, FORMATS, Format

# Beyond this many sigma the values that lie inside a one-sided interval are within one rounding of its nearer bound.
FAR_SIGMA_32 = Decimal(4096)
FAR_SIGMA_64 = Decimal(1_000_000)
_CENTRAL = Decimal.from_float(CENTRAL_SIGMA)


class Kind(enum.IntEnum):
    """The kernels' transforms; the numbers are shared with ``csrc/job.h``."""

    BITS = 0
    CONSTANT = 1
    UNIFORM = 2
    UNIFORM_CLAMPED = 3
    NORMAL = 4
    TRUNC_NORMAL_CENTRAL = 5
    TRUNC_NORMAL = 6
    ONE_HOT = 7


class Transform(NamedTuple):
    """A kind with its parameters, in the order of `docs/numerics.md`; whole numbers (``split``, ...) go to ``integers``."""

    kind: Kind
    params: tuple[float, ...] = ()
    integers: tuple[int, ...] = ()


def lower(distribution: Distribution, dtype: torch.dtype) -> Transform:
    """The transform that gives ``distribution`` in a real floating-point ``dtype``.

    Raises:
        ValueError: TruncNormal on an interval that holds no value of the dtype; OneHot with places outside its rows.
    """
    return distribution.form(("lowered", dtype), lambda: LOWERINGS[type(distribution)](distribution, dtype))


def _lower_one_hot(d: OneHot, dtype: torch.dtype) -> Transform:
    d.require((1,))
    return Transform(Kind.ONE_HOT, (_number(d.value),), (d.row, d.period, d.limit, d.offset, d.step, _pattern(d.value, dtype)))


LOWERINGS: dict[type[Distribution], Callable[[Any, torch.dtype], Transform]] = {
    Constant: lambda d, dtype: _constant(d.value, dtype),
    Uniform: lambda d, dtype: _uniform(d.a, d.b, dtype),
    Normal: lambda d, dtype: _normal(d.mean, d.std, dtype),
    TruncNormal: lambda d, dtype: _trunc_normal(d.mean, d.std, d.a, d.b, dtype),
    OneHot: _lower_one_hot,
    SparseNormal: lambda d, dtype: _normal(0.0, d.std, dtype),  # its zeros are written after it
}
"""How each distribution is lowered. One that is not here is made by no kernel."""


def _pattern(value: float, dtype: torch.dtype) -> int:
    """The bits of ``value`` rounded to the dtype, as an unsigned integer; the positive quiet NaN for NaN."""
    return _pattern_of(value, math.copysign(1.0, value), dtype)


@lru_cache(maxsize=4096)
def _pattern_of(value: float, _sign: float, dtype: torch.dtype) -> int:  # 0.0 and -0.0 are one key, so the sign is another
    if math.isnan(value):
        return QUIET_NAN[dtype]
    if FORMATS[dtype].saturates:
        value = min(max(value, -FORMATS[dtype].largest), FORMATS[dtype].largest)
    made = torch.tensor([_number(value)], dtype=_COMPUTED[dtype], device="cpu").to(dtype)
    return int.from_bytes(bytes(made.view(torch.uint8).tolist()), "little")


_COMPUTED = {dtype: torch.float64 if dtype == torch.float64 else torch.float32 for dtype in FORMATS}
QUIET_NAN = {
    torch.float64: 0x7FF8 << 48,
    torch.float32: 0x7FC0 << 16,
    torch.float16: 0x7E00,
    torch.bfloat16: 0x7FC0,
    torch.float8_e4m3fn: 0x7F,
    torch.float8_e5m2: 0x7F,
}


def _constant(value: float, dtype: torch.dtype) -> Transform:
    return Transform(Kind.CONSTANT, (_number(value),), (_pattern(value, dtype),))


def _number(value: float) -> float:
    """The value as torch takes it: no integers of more than 64 bits."""
    return float(value) if abs(value) >= 2**63 else value


def _compute_format(dtype: torch.dtype) -> Format:
    return FLOAT64 if dtype == torch.float64 else FLOAT32


def _uniform(a: float, b: float, dtype: torch.dtype) -> Transform:
    storage, compute = FORMATS[dtype], _compute_format(dtype)
    low, high = compute.round(Fraction(a)), compute.round(Fraction(b))
    width = compute.round(Fraction(high) - Fraction(low))
    hi = storage.below(storage.round(Fraction(b)))
    lo = low if storage == compute else storage.round(Fraction(a), "up")
    if a == b or lo > hi:  # nothing between a and b: torch fills the rounded a
        return _constant(storage.round(Fraction(a)), dtype)
    bits = 53 if compute is FLOAT64 else 24
    scale = compute.round(Fraction(width) / 2**bits)
    largest = compute.round((2**bits - 1) * Fraction(scale) + Fraction(low))
    inside = storage.round(Fraction(low)) >= lo and storage.round(Fraction(largest)) <= hi
    if compute is FLOAT32 and inside:
        return Transform(Kind.UNIFORM, (low, scale))
    return Transform(Kind.UNIFORM_CLAMPED, (low, scale, lo, hi))


def _normal(mean: float, std: float, dtype: torch.dtype) -> Transform:
    if std == 0 or not math.isfinite(mean):
        return _constant(math.nan if math.isinf(mean) and math.isinf(std) else mean + 0.0, dtype)
    compute = _compute_format(dtype)
    rounded_std = compute.round(Fraction(std)) if math.isfinite(std) else std
    return Transform(Kind.NORMAL, (compute.round(Fraction(mean)), rounded_std))


def _trunc_normal(mean: float, std: float, a: float, b: float, dtype: torch.dtype) -> Transform:
    storage, compute = FORMATS[dtype], _compute_format(dtype)
    if a == b:
        return _constant(a, dtype)
    lo = storage.round(Fraction(a), "up") if math.isfinite(a) else -storage.largest if storage.saturates else a
    hi = storage.round(Fraction(b), "down") if math.isfinite(b) else storage.largest if storage.saturates else b
    if lo > hi:
        raise ValueError(f"trunc_normal_: [a, b] must hold a value of {dtype}, got a={a} and b={b} with none between.")
    if lo == hi or std == 0:
        return _constant(min(max(mean, lo), hi), dtype)
    wide = compute is FLOAT64
    center, spread = compute.round(Fraction(mean)), compute.round(Fraction(std))
    reach = Fraction(MAX_SIGMA_64 if wide else MAX_SIGMA_32) * Fraction(spread)
    lowest, highest = (_rounded_twice(Fraction(center) + side * reach, compute, storage) for side in (-1, 1))
    if lo <= lowest and highest <= hi:
        return _normal(mean, std, dtype)
    alpha, beta = _sigmas(a, mean, std), _sigmas(b, mean, std)
    far = FAR_SIGMA_64 if wide else FAR_SIGMA_32
    if alpha >= far or beta <= -far:
        return _constant(lo if alpha > 0 else hi, dtype)
    if not wide and alpha >= _CENTRAL.copy_negate() and beta <= _CENTRAL:
        x_a, x_b = Fraction(erf_over_sqrt2(alpha)), Fraction(erf_over_sqrt2(beta))
        params = (compute.round((x_b - x_a) / 2**32), compute.round((x_a + x_b) / 2), center, spread, lo, hi)
        return Transform(Kind.TRUNC_NORMAL_CENTRAL, params)
    if beta <= 0:  # the mirror image
        alpha, beta, spread = beta.copy_negate(), alpha.copy_negate(), -spread
    bits = 64 if wide else 32
    if alpha >= 0:
        left, split = Fraction(0), 0
        mass, right = (_fraction(p) for p in relative_masses(alpha, beta))
        log_m2_ref = compute.round(-2 * Fraction(log_tail(alpha)))
    else:
        left, right = _fraction(tail(alpha.copy_negate())), _fraction(tail(beta))
        mass = _fraction(mass_between(alpha, beta))
        split = min(max(round(2**bits * (Fraction(1, 2) - left) / mass), 0), 2**bits - 1)
        log_m2_ref = 0.0
    step = compute.round(mass if wide else mass / 2**31)
    half = mass / 2 ** (53 if wide else 32)  # words are counted in halves of these
    bases = compute.round(left + half), compute.round(right + half)
    return Transform(Kind.TRUNC_NORMAL, (*bases, step, log_m2_ref, center, spread, lo, hi), (split,))


def _rounded_twice(x: Fraction, compute: Format, storage: Format) -> float:
    first = compute.round(x)
    return storage.round(Fraction(first)) if math.isfinite(first) else first


def _fraction(probability: Decimal) -> Fraction:
    """Exact; 0 below 10^-1000, whose fraction would have that many digits and is no float64."""
    return Fraction(probability) if probability.adjusted() > -1000 else Fraction(0)


def _sigmas(bound: float, mean: float, std: float) -> Decimal:
    """(bound - mean) / std as a decimal, or an infinity."""
    if math.isinf(bound):
        return Decimal("Infinity" if bound > 0 else "-Infinity")
    exact = (Fraction(bound) - Fraction(mean)) / Fraction(std)
    return CONTEXT.divide(Decimal(exact.numerator), Decimal(exact.denominator))
