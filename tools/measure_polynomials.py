"""The formulas of docs/numerics.md in numpy, and how far they are from the truth, in ulp.

Only IEEE-754 operations, no function of a libm: the float64 formulas are the truth of the float32 ones, here and in the fits of
tools/fit_polynomials.py, so another numpy or libm moves no coefficient. `measure` holds the float64 formulas against mpmath.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

import mpmath as mp
import numpy as np
from mpmath import mpf

CENTRAL_SIGMA = 2.0625
QUANTILE_UNIT = 0.25  # errors of a quantile z are counted in ulp of max(|z|, QUANTILE_UNIT)
MINUS_2_LN_2 = -float.fromhex("0x1.62e42fefa39efp+0")

F32 = np.float32
Array = np.ndarray
Coefs = dict[str, tuple[float, ...]]

# ---------------------------------------------------------------- constants


@cache
def central_x2() -> float:
    """erf(CENTRAL_SIGMA / sqrt 2)^2 rounded up to float32."""
    exact = mp.erf(CENTRAL_SIGMA / mp.sqrt(2)) ** 2
    near = F32(float(exact))
    return float(near if mpf(float(near)) >= exact else np.nextafter(near, F32(1)))


@cache
def tail_r0(kind: type[np.floating]) -> float:
    """sqrt(2 ln 2), the radius of z = 0, rounded to kind."""
    with mp.workdps(40):
        return float(kind(float(mp.sqrt(2 * mp.log(2)))))


def tail_radius(z: mpf) -> mpf:
    """r = sqrt(-2 ln Phi(-z))."""
    return mp.sqrt(-2 * mp.log(mp.erfc(z / mp.sqrt(2)) / 2))


# ---------------------------------------------------------------- formulas


def horner(coefs: Sequence, x):
    """coefs[0] + x (coefs[1] + ...) in the arithmetic of the arguments."""
    total = coefs[-1]
    for c in coefs[-2::-1]:
        total = total * x + c
    return total


def fma32(a, b, c) -> Array:
    """float32 fused multiply-add, exact: the product fits a float64; where the float64 sum sits on a float32 tie, TwoSum
    tells on which side of it the true sum lies."""
    p, c = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
    total = p + c
    tie = (total.view(np.int64) & 0x1FFFFFFF) == 0x10000000
    if tie.any():
        p, c, t = (np.broadcast_to(v, total.shape)[tie] for v in (p, c, total))
        residue = (p - (t - (t - p))) + (c - (t - p))
        total[tie] = np.where(residue == 0, t, np.nextafter(t, np.copysign(np.inf, residue)))
    return total.astype(F32)


def polynomial(coefs: Sequence[float], x: Array) -> Array:
    """Horner: one fma a step in float32, mul then add in float64."""
    if x.dtype == np.float64:
        return horner(coefs, x)
    total: Any = F32(coefs[-1])
    for c in coefs[-2::-1]:
        total = fma32(total, x, F32(c))
    return total


def log_m2(u: Array, c0: float, log: Sequence[float]) -> Array:
    """-2 ln u + c0."""
    if u.dtype == np.float64:
        bits = u.view(np.int64)
        exponent = (bits - np.int64(0x3FE6A09E667F3BCD)) & np.int64(-0x10000000000000)
        m = (bits - exponent).view(np.float64)
        s = (m - 1) / (m + 1)
        return s * polynomial(log, s * s) + ((exponent >> 52).astype(np.float64) * MINUS_2_LN_2 + c0)
    bits = u.view(np.int32)
    exponent = (bits - np.int32(0x3F3504F3)) & np.int32(-0x800000)
    f = (bits - exponent).view(F32) - F32(1)
    return fma32(f, polynomial(log, f), fma32(exponent.astype(F32), F32(MINUS_2_LN_2 * 2.0**-23), F32(c0)))


def sine(a: Array, sin: Sequence[float]) -> Array:
    """sin(pi a)."""
    return a * polynomial(sin, a * a)


def cosine(a: Array, cos: Sequence[float]) -> Array:
    """cos(pi a)."""
    return polynomial(cos, a * a)


def central(x: Array, p: Sequence[float], q: Sequence[float]) -> Array:
    """z from x = erf(z / sqrt 2)."""
    v = fma32(-x, x, F32(central_x2()))
    return x * (polynomial(p, v) / polynomial(q, v))


def tail(r: Array, p: Sequence[float], q: Sequence[float]) -> Array:
    """z from r = sqrt(-2 ln Phi(-z))."""
    t = r - r.dtype.type(tail_r0(F32 if r.dtype == F32 else np.float64))
    return t + polynomial(p, t) / polynomial(q, t)


# ---------------------------------------------------------------- truth of the float32 formulas


def wider(x: Array) -> Array:
    return x.astype(np.float64)


def true_log(u: Array, c: Coefs) -> Array:
    return log_m2(wider(u), 1e-30, c["LOG64"])


def true_sine(a: Array, c: Coefs) -> Array:
    return sine(wider(a), c["SIN64"])


def true_cosine(a: Array, c: Coefs) -> Array:
    return cosine(wider(a), c["COS64"])


def true_z(r: Array, c: Coefs) -> Array:
    return tail(wider(r), c["QUANTILE_TAIL_P64"], c["QUANTILE_TAIL_Q64"])


def true_central(x: Array, c: Coefs) -> Array:
    """The upper tail probability of z is (1 - x) / 2."""
    return true_z(np.sqrt(true_log((1 - wider(x)) / 2, c)), c)


# ---------------------------------------------------------------- measured errors


def ulps(value: Array, truth: Array, floor: float = 0.0) -> Array:
    """Error in ulp (of value's format) of max(|truth|, floor)."""
    return np.abs(wider(value) - truth) / wider(np.spacing(np.maximum(np.abs(truth), floor).astype(value.dtype)))


def row(name: str, inputs: Iterable[Array], value: Callable, truth: Callable, floor: float = 0.0) -> None:
    """Prints the largest |value - truth| over all chunks of inputs, in ulp of max(|truth|, floor)."""
    worst, where, count, least = -1.0, 0.0, 0, np.inf
    for x in inputs:
        result = value(x)
        error = ulps(result, truth(x), floor)
        worst, where = max((worst, where), (float(error.max()), float(x[error.argmax()])))
        count, least = count + len(x), min(least, float(np.abs(result).min()))
    unit = f"ulp of {floor:g} up" if floor else "ulp"
    print(f"{name:18} {worst:6.3f} {unit:15} at {where:<22.17g} least |value| {least:8.3g}  {count} inputs", flush=True)


def floats(low: float, high: float, step: int = 1) -> Iterator[Array]:
    """Every step-th float32 from low to high."""
    first, last = (int(F32(v).view(np.int32)) for v in (low, high))
    for start in range(first, last + 1, step << 17):
        yield np.arange(start, min(start + (step << 17), last + 1), step, dtype=np.int32).view(F32)


def words(scale: float) -> Iterator[Array]:
    """(n + 1/2) scale, n < 2^23: the inputs below all the floats of [2^23 scale, ...)."""
    return (((np.arange(n, n + (1 << 17)) + 0.5) * scale).astype(F32) for n in range(0, 1 << 23, 1 << 17))


def measure_f32(c: Coefs) -> None:
    """Radius and angle over supersets of all they can be; the quantiles over every third or eleventh float."""
    log, central_sets, tail_sets = c["LOG32"], *((c[f"QUANTILE_{n}_P32"], c[f"QUANTILE_{n}_Q32"]) for n in ("CENTRAL", "TAIL"))
    u, a = (lambda: chain(words(2.0**-31), floats(2.0**-8, 1))), (lambda: chain(words(2.0**-32), floats(2.0**-9, 0.5)))
    x = floats(2.0**-16, float(np.sqrt(central_x2())), 3)
    r, v = floats(tail_r0(F32) - 2.0**-22, 4100, 11), floats(2.0**-33, 0.5, 11)

    def upper(v: Array) -> Array:
        return tail(np.sqrt(log_m2(v, 0.0, log)), *tail_sets)

    def true_upper(v: Array) -> Array:
        return true_z(np.sqrt(true_log(v, c)), c)

    row("log_m2 f32", u(), lambda u: log_m2(u, 1e-30, log), lambda u: true_log(u, c))
    row("sqrt(log_m2) f32", u(), lambda u: np.sqrt(log_m2(u, 1e-30, log)), lambda u: np.sqrt(true_log(u, c)))
    row("sin f32", a(), lambda a: sine(a, c["SIN32"]), lambda a: true_sine(a, c))
    row("cos f32", a(), lambda a: cosine(a, c["COS32"]), lambda a: true_cosine(a, c), 0.5)
    row("central(x) f32", x, lambda x: central(x, *central_sets), lambda x: true_central(x, c), QUANTILE_UNIT)
    row("tail(r) f32", r, lambda r: tail(r, *tail_sets), lambda r: true_z(r, c), QUANTILE_UNIT)
    row("tail(v) f32", v, upper, true_upper, QUANTILE_UNIT)


def measure_f64(c: Coefs) -> None:
    """Samples against mpmath; truth in long double, whose 64 bits resolve 1/2048 ulp."""

    def exact(function: Callable[[mpf], mpf]) -> Callable[[Array], Array]:
        return lambda x: np.array([np.longdouble(mp.nstr(function(mpf(float(v))), 25)) for v in x])

    def z(r: mpf) -> mpf:
        start = mpf(float(true_z(np.array(float(r)), c)))
        return mp.findroot(lambda z: tail_radius(z) - r, (start, start + mpf("1e-9")))

    rng = np.random.default_rng(1)
    u, a = np.exp2(-52 * rng.random(4000) ** 3), rng.random(4000) / 2
    r0 = tail_r0(np.float64)
    r = [r0 + rng.random(2000) / 2, r0 + 7.46 * rng.random(2000), r0 * np.exp(13.6 * rng.random(2000))]
    with mp.workdps(40):
        row("log_m2 f64", [u], lambda u: log_m2(u, 1e-300, c["LOG64"]), exact(lambda u: -2 * mp.log(u)))
        row("sin f64", [a], lambda a: sine(a, c["SIN64"]), exact(mp.sinpi))
        row("cos f64", [a], lambda a: cosine(a, c["COS64"]), exact(mp.cospi), 0.5)
        row("tail(r) f64", r, lambda r: true_z(r, c), exact(z), QUANTILE_UNIT)


def measure(c: Coefs) -> None:
    measure_f64(c)
    measure_f32(c)
