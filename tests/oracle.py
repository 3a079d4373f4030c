"""Format 1 a second time: docs/numerics.md in Python integers, fractions and mpmath, one element at a time.

Shares no code with the package but the coefficients, which are data. float32 values are Python floats that hold a binary32
number; every operation on them is exact in fractions, then rounded once. float64 operations are Python's own, which are
IEEE-754. Functions are named as the rows of docs/numerics.md, with the width.
"""

from __future__ import annotations

import functools
import math
import struct
from fractions import Fraction
from typing import Any, NamedTuple

import mpmath  # type: ignore[import-untyped]
import torch

from weightinit_cuda.numerics import coefficients as table
from weightinit_cuda.numerics.distributions import Distribution, Normal, TruncNormal, Uniform

MASK32, MASK64 = 2**32 - 1, 2**64 - 1
M0, M1, W0, W1 = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85
exact = mpmath.MPContext()
exact.dps = 120

# ---- 1. Words -------------------------------------------------------------------------------------------------------

Words = tuple[int, int, int, int]


def philox(counter: Words, key: tuple[int, int], rounds: int = 10) -> Words:
    x0, x1, x2, x3 = counter
    for i in range(rounds):
        k0, k1 = (key[0] + i * W0) & MASK32, (key[1] + i * W1) & MASK32
        p0, p1 = x0 * M0, x2 * M1
        x0, x1, x2, x3 = p1 >> 32 ^ x1 ^ k0, p1 & MASK32, p0 >> 32 ^ x3 ^ k1, p0 & MASK32
    return x0, x1, x2, x3


def counter_of(words: Words, key: tuple[int, int]) -> Words:
    """The inverse of philox under a key: the counter whose block is these words."""
    y0, y1, y2, y3 = words
    inverse0, inverse1 = pow(M0, -1, 2**32), pow(M1, -1, 2**32)
    for i in reversed(range(10)):
        k0, k1 = (key[0] + i * W0) & MASK32, (key[1] + i * W1) & MASK32
        x0, x2 = y3 * inverse0 & MASK32, y1 * inverse1 & MASK32
        y0, y1, y2, y3 = x0, y0 ^ x2 * M1 >> 32 ^ k0, x2, y2 ^ x0 * M0 >> 32 ^ k1
    return y0, y1, y2, y3


def block_of(seed: int, stream: int, block: int) -> Words:
    counter = (block & MASK32, block >> 32, stream & MASK32, stream >> 32)
    return philox(counter, (seed & MASK32, seed >> 32))


class Place(NamedTuple):
    seed: int
    stream: int
    block: int


@functools.lru_cache(maxsize=4096)
def place_of(words: Words) -> Place:
    """A seed, stream and block, below 2^62, whose words are these: kernels can be made to see any words."""
    for seed in range(64):
        c0, c1, c2, c3 = counter_of(words, (seed, 0))
        if c1 < 2**30:
            return Place(seed, c2 | c3 << 32, c0 | c1 << 32)
    raise AssertionError("one block in four is addressable")


# ---- numbers --------------------------------------------------------------------------------------------------------


class Binary(NamedTuple):
    """A storage format: bits of precision, exponent of the smallest spacing, largest finite value."""

    precision: int
    lowest: int
    largest: float
    saturates: bool = False


BINARY32 = Binary(24, -149, (2 - 2.0**-23) * 2.0**127)
BINARY64 = Binary(53, -1074, (2 - 2.0**-52) * 2.0**1023)
BINARY = {
    torch.float32: BINARY32,
    torch.float64: BINARY64,
    torch.float16: Binary(11, -24, 65504.0),
    torch.bfloat16: Binary(8, -133, (2 - 2.0**-7) * 2.0**127),
    torch.float8_e4m3fn: Binary(4, -9, 448.0, saturates=True),
    torch.float8_e5m2: Binary(3, -16, 57344.0, saturates=True),
}


def rounded(x: Fraction, to: Binary, toward: int = 0) -> float:
    """x in a format: to nearest, ties to even (toward 0), to the next value at or below (-1), at or above (1).

    A tiny negative number gives -0. Where there is no value at or above, infinity, for formats that saturate too.
    """
    n, d, sign = abs(x.numerator), x.denominator, -1 if x < 0 else 1
    if n == 0:
        return 0.0
    e = n.bit_length() - d.bit_length()
    e -= (n << -e if e < 0 else n) < (d << e if e > 0 else d)
    unit = max(e - to.precision + 1, to.lowest)
    dividend, divisor = (n, d << unit) if unit >= 0 else (n << -unit, d)
    steps, rest = divmod(dividend, divisor)
    steps += rest > 0 and toward == sign if toward else 2 * rest + (steps & 1) > divisor
    if steps * Fraction(2) ** unit > Fraction(to.largest):
        beyond = toward == sign or (toward == 0 and not to.saturates)
        return sign * (math.inf if beyond else to.largest)
    return math.copysign(math.ldexp(steps, unit), sign)


def f32(x: Fraction) -> float:
    return rounded(x, BINARY32)


def negative(x: float) -> bool:
    return math.copysign(1.0, x) < 0


def fma32(a: float, b: float, c: float) -> float:
    if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c)):
        return a * b + c
    total = Fraction(a) * Fraction(b) + Fraction(c)
    if total == 0:
        return -0.0 if negative(c) and negative(a) != negative(b) else 0.0
    return f32(total)


def mul32(a: float, b: float) -> float:
    if not (math.isfinite(a) and math.isfinite(b)) or a == 0 or b == 0:
        return a * b
    return f32(Fraction(a) * Fraction(b))


def sub32(a: float, b: float) -> float:
    return f32(Fraction(a) - Fraction(b)) if a != b else 0.0


def add32(a: float, b: float) -> float:
    return fma32(a, 1.0, b)


def div32(a: float, b: float) -> float:
    return f32(Fraction(a) / Fraction(b)) if a else a / b


def sqrt32(x: float) -> float:
    n, d = x.as_integer_ratio()
    assert n > 0
    scaled = n * d << 400  # sqrt(n / d) = sqrt(n d) / d, with 200 bits after the point
    root = math.isqrt(scaled)
    return f32(Fraction(2 * root + (root * root != scaled), d << 201))


def float_of_int(i: int) -> float:
    return f32(Fraction(i))


def signed(word: int) -> int:
    return word - 2**32 if word >> 31 else word


def bits32(x: float) -> int:
    return int.from_bytes(struct.pack("<f", x), "little")


def from32(i: int) -> float:
    return float(struct.unpack("<f", (i & MASK32).to_bytes(4, "little"))[0])


def bits64(x: float) -> int:
    return int.from_bytes(struct.pack("<d", x), "little")


def from64(i: int) -> float:
    return float(struct.unpack("<d", (i & MASK64).to_bytes(8, "little"))[0])


def horner32(coefficients: tuple[float, ...], x: float) -> float:
    p = coefficients[-1]
    for c in coefficients[-2::-1]:
        p = fma32(p, x, c)
    return p


def horner64(coefficients: tuple[float, ...], x: float) -> float:
    p = coefficients[-1]
    for c in coefficients[-2::-1]:
        p = p * x + c
    return p


# ---- 2. float32 transforms ------------------------------------------------------------------------------------------

LN2_32 = f32(Fraction(-2) * Fraction(0xB17217F7D1CF79ABC9E3B39803F2F6AF, 2**128))  # of which 2^-23 is a power of two away
LN2_64 = -2 * math.log(2)
C0_32 = f32(Fraction(1, 10**30))
R0_32 = f32(Fraction(math.isqrt(2 * 0xB17217F7D1CF79ABC9E3B39803F2F6AF << 128), 2**128))
R0_64 = math.sqrt(2 * math.log(2))


def clamp(x: float, lo: float, hi: float) -> float:
    """min(max(x, lo), hi); of two equal numbers the first."""
    x = lo if lo > x else x
    return hi if hi < x else x


def uniform_32(w: int, low: float, scale: float, lo: float, hi: float) -> float:
    return clamp(fma32(float(w & 0xFFFFFF), scale, low), lo, hi)


def log_m2_32(u: float, c0: float) -> float:
    e = (bits32(u) - 0x3F3504F3) & 0xFF800000
    f = sub32(from32(bits32(u) - e), 1.0)
    q = horner32(table.LOG32, f)
    return fma32(f, q, fma32(float_of_int(signed(e)), math.ldexp(LN2_32, -23), c0))


def normal_32(w0: int, w1: int, mean: float, std: float) -> tuple[float, float]:
    u = fma32(float_of_int(w0 & 0x7FFFFFFF), 2.0**-31, 2.0**-32)
    r = sqrt32(log_m2_32(u, C0_32))
    a = fma32(float_of_int(signed(w1)), 2.0**-32, 2.0**-33)
    y = mul32(a, a)
    s = mul32(a, horner32(table.SIN32, y))
    c = from32(bits32(horner32(table.COS32, y)) ^ w0 & 0x80000000)
    return fma32(std, mul32(r, c), mean), fma32(std, mul32(r, s), mean)


def trunc_normal_central_32(w: int, scale: float, center: float, mean: float, std: float, lo: float, hi: float) -> float:
    x = fma32(float_of_int(signed(w | 1)), scale, center)
    v = fma32(-x, x, table.CENTRAL_X2)
    z = mul32(x, div32(horner32(table.QUANTILE_CENTRAL_P32, v), horner32(table.QUANTILE_CENTRAL_Q32, v)))
    return clamp(fma32(std, z, mean), lo, hi)


def trunc_normal_32(
    w: int, split: int, left: float, right: float, step: float, log_ref: float, mean: float, std: float, lo: float, hi: float
) -> float:
    is_left = w < split
    n = (w if is_left else ~w & MASK32) >> 1
    v = fma32(float_of_int(n), step, left if is_left else right)
    t = sub32(sqrt32(log_m2_32(v, log_ref)), R0_32)
    z = add32(t, div32(horner32(table.QUANTILE_TAIL_P32, t), horner32(table.QUANTILE_TAIL_Q32, t)))
    return clamp(fma32(std, -z if is_left else z, mean), lo, hi)


# ---- 3. float64 transforms ------------------------------------------------------------------------------------------


def uniform_64(d: int, low: float, scale: float, lo: float, hi: float) -> float:
    return clamp(float(d >> 11) * scale + low, lo, hi)


def log_m2_64(u: float, c0: float) -> float:
    e = (bits64(u) - 0x3FE6A09E667F3BCD) & 0xFFF0000000000000
    m = from64(bits64(u) - e)
    s = (m - 1.0) / (m + 1.0)
    exponent = float((e >> 52) - 4096 if e >> 63 else e >> 52)
    return s * horner64(table.LOG64, s * s) + (exponent * LN2_64 + c0)


def normal_64(d0: int, d1: int, mean: float, std: float) -> tuple[float, float]:
    u = 2.0 - from64(d0 >> 12 | 0x3FF0000000000000)
    r = math.sqrt(log_m2_64(u, 1e-300))
    a = from64(d1 >> 12 | 0x3FF0000000000001) - 1.5
    s = a * horner64(table.SIN64, a * a)
    c = from64(bits64(horner64(table.COS64, a * a)) ^ (d1 & 1) << 63)
    return std * (r * c) + mean, std * (r * s) + mean


def trunc_normal_64(
    d: int, split: int, left: float, right: float, step: float, log_ref: float, mean: float, std: float, lo: float, hi: float
) -> float:
    is_left = d < split
    n = d if is_left else ~d & MASK64
    v = (from64(n >> 12 | 0x3FF0000000000000) - 1.0) * step + (left if is_left else right)
    t = math.sqrt(log_m2_64(v, log_ref)) - R0_64
    z = t + horner64(table.QUANTILE_TAIL_P64, t) / horner64(table.QUANTILE_TAIL_Q64, t)
    return clamp(std * (-z if is_left else z) + mean, lo, hi)


# ---- parameters -----------------------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """A row of docs/numerics.md, without its width, and its parameters."""

    name: str
    params: tuple[float, ...]
    split: int | None = None


def fraction(x: Any) -> Fraction:
    """An mpmath number, exactly."""
    sign, man, exp, _ = x._mpf_
    return Fraction((-1) ** sign * int(man)) * Fraction(2) ** int(exp)


def real(x: Fraction | float) -> Any:
    if isinstance(x, float) and math.isinf(x):
        return exact.mpf(x)
    return exact.mpf(Fraction(x).numerator) / exact.mpf(Fraction(x).denominator)


def tail(z: Any) -> Any:
    """P(Z > z)."""
    return exact.erfc(z / exact.sqrt(2)) / 2


def probability(p: Any) -> Fraction:
    """p exactly; 0 below 2^-4000, which no sum or rounding here could tell from 0."""
    return fraction(p) if p > exact.mpf(2) ** -4000 else Fraction(0)


@functools.lru_cache(maxsize=4096, typed=True)  # Uniform(0, 1) == Normal(0, 1) as tuples
def rule_of(distribution: Distribution, dtype: torch.dtype) -> Rule:
    storage = BINARY[dtype]
    compute = BINARY64 if dtype == torch.float64 else BINARY32
    match distribution:
        case Uniform(a, b):
            return _uniform(a, b, storage, compute)
        case Normal(mean, std):
            return _normal(mean, std, compute)
        case TruncNormal(mean, std, a, b):
            return _trunc_normal(mean, std, a, b, storage, compute)
    raise AssertionError(distribution)


def _uniform(a: float, b: float, storage: Binary, compute: Binary) -> Rule:
    low, high = rounded(Fraction(a), compute) + 0.0, rounded(Fraction(b), compute)
    width = rounded(Fraction(high) - Fraction(low), compute)
    scale = rounded(Fraction(width) / 2 ** (53 if compute is BINARY64 else 24), compute)
    top = Fraction(rounded(Fraction(b), storage))
    hi = rounded(top - Fraction(2) ** (storage.lowest - 1), storage, -1) + 0.0
    lo = low if storage == compute else rounded(Fraction(a), storage, 1) + 0.0
    if a == b or lo > hi:
        return Rule("constant", (rounded(Fraction(a), storage) + 0.0,))
    return Rule("uniform", (low, scale, lo, hi))


def _normal(mean: float, std: float, compute: Binary) -> Rule:
    if std == 0:  # R2: narrower dtypes hold the rounded float32 value, subnormal means too
        return Rule("constant", (math.copysign(rounded(Fraction(mean), compute), mean),))
    return Rule("normal", (rounded(Fraction(mean), compute) + 0.0, rounded(Fraction(std), compute)))


def _trunc_normal(mean: float, std: float, a: float, b: float, storage: Binary, compute: Binary) -> Rule:
    wide = compute is BINARY64
    end = storage.largest if storage.saturates else math.inf
    lo = rounded(Fraction(a), storage, 1) + 0.0 if math.isfinite(a) else -end
    hi = rounded(Fraction(b), storage, -1) + 0.0 if math.isfinite(b) else end
    assert lo <= hi
    if lo == hi:
        return Rule("constant", (lo,))
    reach = Fraction(8.491 if wide else 6.661) * Fraction(std)
    if lo <= rounded(Fraction(mean) - reach, storage) and rounded(Fraction(mean) + reach, storage) <= hi:
        return _normal(mean, std, compute)
    alpha, beta = (real(t) if math.isinf(t) else real((Fraction(t) - Fraction(mean)) / Fraction(std)) for t in (a, b))
    if alpha >= (10**6 if wide else 4096) or beta <= (-(10**6) if wide else -4096):
        return Rule("constant", (lo if alpha > 0 else hi,))
    ends = (rounded(Fraction(mean), compute) + 0.0, rounded(Fraction(std), compute), lo, hi)
    if not wide and max(abs(alpha), abs(beta)) <= table.CENTRAL_SIGMA:
        x_a, x_b = (fraction(exact.erf(t / exact.sqrt(2))) for t in (alpha, beta))
        return Rule("trunc_normal_central", (f32((x_b - x_a) / 2**32), f32((x_a + x_b) / 2), *ends))
    if beta <= 0:
        alpha, beta, ends = -beta, -alpha, (ends[0], -ends[1], lo, hi)
    if alpha >= 0:
        left, right = Fraction(0), probability(tail(beta) / tail(alpha))
        log_ref, mass, split = rounded(fraction(-2 * exact.log(tail(alpha))), compute), 1 - right, 0
    else:
        left, right = probability(tail(-alpha)), probability(tail(beta))
        log_ref, mass = 0.0, 1 - left - right
        words = 2**64 if wide else 2**32
        split = min(max(round(words * (Fraction(1, 2) - left) / mass), 0), words - 1)
    step = rounded(mass if wide else mass / 2**31, compute)
    half = mass / (2**53 if wide else 2**32)
    return Rule("trunc_normal", (rounded(left + half, compute), rounded(right + half, compute), step, log_ref, *ends), split)


# ---- elements -------------------------------------------------------------------------------------------------------


def block_values(rule: Rule, words: Words, wide: bool) -> list[float]:
    """The elements that one block of words gives, before section 4."""
    w0, w1, w2, w3 = words
    if rule.name == "constant":
        return [rule.params[0]] * (2 if wide else 4)
    if wide:
        d = (w0 << 32 | w1, w2 << 32 | w3)
        if rule.name == "normal":
            return list(normal_64(*d, *rule.params))
        if rule.name == "uniform":
            return [uniform_64(x, *rule.params) for x in d]
        return [trunc_normal_64(x, rule.split or 0, *rule.params) for x in d]
    if rule.name == "normal":
        return [*normal_32(w0, w1, *rule.params), *normal_32(w2, w3, *rule.params)]
    if rule.name == "uniform":
        return [uniform_32(w, *rule.params) for w in words]
    if rule.name == "trunc_normal_central":
        return [trunc_normal_central_32(w, *rule.params) for w in words]
    return [trunc_normal_32(w, rule.split or 0, *rule.params) for w in words]


def convert(x: float, dtype: torch.dtype) -> float:
    """Section 4: from float32 (or float64 as it is) to a storage type."""
    to = BINARY[dtype]
    if x == 0 or to is BINARY64:
        return x
    if math.isinf(x):
        return math.copysign(to.largest, x) if to.saturates else x
    return rounded(Fraction(x), to)


def tensor_of(values: list[float], dtype: torch.dtype) -> torch.Tensor:
    """Values of a dtype as a tensor of it: every one is exact in float64."""
    return torch.tensor(values, dtype=torch.float64).to(dtype)


def elements(distribution: Distribution, dtype: torch.dtype, seed: int, stream: int, start: int, n: int) -> torch.Tensor:
    """Elements start .. start + n - 1 of a real dtype."""
    wide = dtype == torch.float64
    rule, per_block = rule_of(distribution, dtype), 2 if wide else 4
    first = start // per_block
    values: list[float] = []
    for block in range(first, (start + n - 1) // per_block + 1):
        values += block_values(rule, block_of(seed, stream, block), wide)
    skip = start - first * per_block
    return tensor_of([convert(x, dtype) for x in values[skip : skip + n]], dtype)
