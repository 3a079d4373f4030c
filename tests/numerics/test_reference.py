"""The executable specification against sources that share no code with it.

In the order of evidence: known answers, exactness of the operations it is built from (fma, sqrt, casts), a second evaluation
of `docs/numerics.md` in Python integers and fractions, invariances (index, slicing, layout, region, chunk), statistics.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import struct
from collections.abc import Iterator
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bitwise import raw, same_bits
from oracle import block_of

from weightinit_cuda.numerics import coefficients as table
from weightinit_cuda.numerics import reference, runs
from weightinit_cuda.numerics.lowering import Kind, Transform

INF = math.inf


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """These tensors are small: threads would only wait for each other where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


FLOAT_DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


def f32(x: float) -> float:
    """Round a float64 to float32."""
    return float(np.float32(x))


def phi(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


def central(a: float, b: float, mean: float = 0.0, std: float = 1.0) -> Transform:
    """Truncated normal between a and b sigma, central transform."""
    x_a, x_b = math.erf(a / math.sqrt(2)), math.erf(b / math.sqrt(2))
    params = (f32((x_b - x_a) * 2**-32), f32((x_a + x_b) / 2), f32(mean), f32(std), f32(mean + a * std), f32(mean + b * std))
    return Transform(Kind.TRUNC_NORMAL_CENTRAL, params)


def two_sided(a: float, b: float, dtype: torch.dtype) -> Transform:
    """Truncated standard normal on a < 0 < b, tail transform."""
    p_a, p_b = phi(a), phi(-b)
    mass = 1 - p_a - p_b
    if dtype == torch.float64:
        split = min(round(2**64 * ((0.5 - p_a) / mass)), 2**64 - 1)
        return Transform(Kind.TRUNC_NORMAL, (p_a + mass * 2**-53, p_b + mass * 2**-53, mass, 0, 0, 1, a, b), (split,))
    split = min(round(2**32 * ((0.5 - p_a) / mass)), 2**32 - 1)
    bases = f32(p_a + mass * 2**-32), f32(p_b + mass * 2**-32)
    return Transform(Kind.TRUNC_NORMAL, (*bases, f32(mass * 2**-31), 0, 0, 1, f32(a), f32(b)), (split,))


def upper_tail(a: float, b: float) -> Transform:
    """Truncated standard normal on 0 <= a < b in float32, everything counted in the mass above a."""
    p_ref = phi(-a)
    rho = phi(-b) / p_ref
    params = (0, f32(rho + (1 - rho) * 2**-32), f32((1 - rho) * 2**-31), f32(-2 * math.log(p_ref)), 0, 1, f32(a), f32(b))
    return Transform(Kind.TRUNC_NORMAL, params, (0,))


UNIFORM = Transform(Kind.UNIFORM, (-0.25, 0.75))
NORMAL = Transform(Kind.NORMAL, (f32(0.1), f32(0.02)))
RANDOM = [
    (UNIFORM, torch.float32),
    (UNIFORM, torch.float64),
    (NORMAL, torch.float32),
    (NORMAL, torch.float64),
    (NORMAL, torch.bfloat16),
    (NORMAL, torch.float8_e4m3fn),
    (central(-2, 2), torch.float32),
    (central(-1, 2), torch.float16),
    (two_sided(-3, 4, torch.float32), torch.float32),
    (two_sided(-3, 4, torch.float64), torch.float64),
    (upper_tail(8, 9), torch.float32),
    (Transform(Kind.BITS, ()), torch.int32),
    (Transform(Kind.BITS, ()), torch.int64),
    (Transform(Kind.ONE_HOT, (1.0,), (7, 5, 5, 0, 1)), torch.float32),
    (Transform(Kind.CONSTANT, (0.3,)), torch.bfloat16),
]


# ---- known answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_equals_random123(counter: tuple[int, ...], key: tuple[int, ...], words: tuple[int, ...]) -> None:
    block = torch.from_numpy(np.array([counter[0] | counter[1] << 32], dtype=np.uint64).view(np.int64))
    made = reference.philox4x32_10(block, counter[2] | counter[3] << 32, key[0] | key[1] << 32)
    assert tuple(int(w) for w in made) == words


def test_philox_equals_cpp26() -> None:
    """The 10000th output of a default std::philox4x32."""
    assert reference.bits(seed=20111115, stream=0, n=10000)[-1] == 1955073260


@pytest.mark.parametrize("start", [0, 5, 2**32 - 3, 2**34 + 1, 2**62 - 2, 2**63 - 6, 2**63 + 1, 2**64 - 11])
def test_bits_addresses_64_bits(start: int) -> None:
    seed, stream = 0xFEDCBA9876543210, 0x123456789ABCDEF0
    expected = [block_of(seed, stream, i // 4)[i % 4] for i in range(start, start + 11)]
    assert reference.bits(seed, stream, 11, start).tolist() == expected


def test_seed_and_stream_are_taken_modulo_2_64() -> None:
    assert torch.equal(reference.bits(-1, -2, 9), reference.bits(2**64 - 1, 2**64 - 2, 9))


# ---- the operations -------------------------------------------------------------------------------------------------


def round_f32(x: Fraction) -> float:
    """A fraction rounded to float32, nearest even, in integers. Zero gives +0."""
    if x == 0:
        return 0.0
    e = max(math.frexp(float(x))[1] - 24, -149)
    while abs(x) >= Fraction(2) ** (e + 24):  # float(x) may have been rounded to the next power of two, or down from it
        e += 1
    n = round(x / Fraction(2) ** e)  # Python rounds halves to even
    return math.copysign(INF, n) if abs(n) * Fraction(2) ** e >= 2**128 else math.ldexp(n, e)


def near_ties(rng: np.random.Generator, n: int) -> tuple[np.ndarray, ...]:
    """a b + c within 2^-46 half units of the middle between two float32 numbers, where a sum in float64 alone fails."""
    k = rng.integers(1, 64, n)
    scale = np.exp2(rng.integers(-130, 100, n).astype(np.float64))  # the lowest make subnormal sums
    signs = rng.choice([-1.0, 1.0], (2, n))
    a = (1 + k * 2.0**-23).astype(np.float32)
    b = ((1 - k * rng.choice([1, 2], n) * 2.0**-23) * 2.0**-24 * scale * signs[0]).astype(np.float32)
    c = (rng.integers(2**23, 2**24, n) * 2.0**-23 * scale * signs[1]).astype(np.float32)
    return a, b, c


def any_floats(rng: np.random.Generator, n: int) -> np.ndarray:
    """float32 numbers of every exponent, subnormals included, no NaN."""
    x = rng.integers(0, 2**32, n, dtype=np.uint32).view(np.float32)
    return np.where(np.isnan(x), np.float32(INF), x)


def close_floats(rng: np.random.Generator, n: int) -> tuple[np.ndarray, ...]:
    """Operands whose product and addend overlap."""
    return tuple((rng.standard_normal(n) * np.exp2(rng.integers(-14, 14, n))).astype(np.float32) for _ in range(3))


def fma_of(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return reference.fma(*(torch.from_numpy(x) for x in (a, b, c))).numpy()


def test_fma_is_one_rounding_of_the_exact_sum() -> None:
    rng = np.random.default_rng(0)
    for a, b, c in (near_ties(rng, 2000), close_floats(rng, 1000)):
        exact = [Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)) for x, y, z in zip(a, b, c, strict=True)]
        np.testing.assert_array_equal(fma_of(a, b, c), np.array([round_f32(x) for x in exact], np.float32))


def test_near_ties_are_ties() -> None:
    """Power of the test above: a sum in float64 alone is wrong in many of its cases."""
    a, b, c = near_ties(np.random.default_rng(0), 2000)
    plain = (a.astype(np.float64) * b + c).astype(np.float32)
    assert (plain != fma_of(a, b, c)).sum() > 200


def test_fma_equals_libm() -> None:
    try:
        fmaf = ctypes.CDLL(None).fmaf
    except (AttributeError, OSError, TypeError):
        pytest.skip("no fmaf in the C library")
    fmaf.restype, fmaf.argtypes = ctypes.c_float, [ctypes.c_float] * 3
    rng = np.random.default_rng(1)
    for a, b, c in (near_ties(rng, 40000), close_floats(rng, 40000), tuple(any_floats(rng, 40000) for _ in range(3))):
        expected = np.array([fmaf(x, y, z) for x, y, z in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)], np.float32)
        made = fma_of(a, b, c)
        np.testing.assert_array_equal(made, expected)
        finite = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(made[finite]), np.signbit(expected[finite]))


@pytest.mark.parametrize(
    ("a", "b", "c", "expected"),
    [
        (0.0, 1.0, 0.0, "0.0"),
        (-0.0, 1.0, 0.0, "0.0"),
        (-0.0, 1.0, -0.0, "-0.0"),
        (1.0, 1.0, -1.0, "0.0"),
        (2.0**-149, 2.0**-149, 0.0, "0.0"),
        (-(2.0**-149), 2.0**-149, 0.0, "-0.0"),
        (2.0**-75, 2.0**-75, 0.0, "0.0"),  # half the smallest subnormal: to even
        (2.0**-75, 2.0**-75, 2.0**-149, "2.802596928649634e-45"),
        (INF, 1.0, -1.0, "inf"),
        (1.0, 1.0, -INF, "-inf"),
        (3.4028234663852886e38, 2.0, 0.0, "inf"),
        (3.4028234663852886e38, 2.0, -3.4028234663852886e38, "3.4028234663852886e+38"),
        (2.0**127, 1.9999999403953552, 2.0**103, "inf"),  # the largest float32 + half a unit: to even, which is infinity
        (INF, 0.0, 1.0, "nan"),
        (INF, 1.0, -INF, "nan"),
    ],
)
def test_fma_special_values(a: float, b: float, c: float, expected: str) -> None:
    one = torch.tensor([a], dtype=torch.float32)
    for other in (torch.tensor([b], dtype=torch.float32), b):
        for addend in (torch.tensor([c], dtype=torch.float32), c):
            assert repr(reference.fma(one, other, addend).item()) == expected


def test_sqrt_32_is_exact() -> None:
    """Every float32 significand, in two binades."""
    x = torch.arange(0x3F800000, 0x40800000, dtype=torch.int32).view(torch.float32)
    assert np.array_equal(reference.sqrt_32(x).numpy(), np.sqrt(x.numpy()))


@pytest.mark.parametrize("off", [0, 1, -1])
def test_sqrt_64_is_exact_wherever_torch_is_off_by_one(off: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's CPU root (MKL) misses the nearest float64 for some 0.8 % of all numbers where AVX-512 is used."""
    rng = np.random.default_rng(2)
    n = np.concatenate([rng.integers(1, 2**26, 5000), 2 ** np.arange(26)]).astype(np.float64)
    squares = np.concatenate([np.nextafter(n * n, 0), n * n, np.nextafter(n * n, INF)])
    x = np.concatenate([rng.random(1 << 18) * 80, np.exp2(rng.random(1 << 16) * 100 - 60), squares, [1e-300, 0.0, 1e100]])
    root = torch.Tensor.sqrt

    def shifted(x: torch.Tensor) -> torch.Tensor:
        r = torch.from_numpy(np.sqrt(x.numpy())) if off else root(x)
        return (r.view(torch.int64) + off * (r > 0)).view(torch.float64)

    monkeypatch.setattr(torch.Tensor, "sqrt", shifted)
    assert np.array_equal(reference.sqrt_64(torch.from_numpy(x)).numpy(), np.sqrt(x))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_torch_division_is_exact(dtype: type[np.floating]) -> None:
    rng = np.random.default_rng(2)
    a, b = ((rng.standard_normal(1 << 18) * np.exp2(rng.integers(-20, 20, 1 << 18))).astype(dtype) for _ in range(2))
    assert np.array_equal((torch.from_numpy(a) / torch.from_numpy(b)).numpy(), a / b)


# ---- conversion -----------------------------------------------------------------------------------------------------

FORMATS = {  # explicit significand bits, smallest normal exponent, largest finite value, what follows it
    torch.float16: (10, -14, 65504.0, INF),
    torch.bfloat16: (7, -126, 255 * 2.0**120, INF),
    torch.float8_e4m3fn: (3, -6, 448.0, 448.0),
    torch.float8_e5m2: (2, -14, 57344.0, 57344.0),
}


def rounded(x: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """float32 to a narrower format and back, nearest even: whole multiples of the format's spacing."""
    significand, e_min, largest, beyond = FORMATS[dtype]
    wide = x.astype(np.float64)
    exponent = np.maximum(np.frexp(np.where(np.isfinite(wide), wide, 1))[1] - 1, e_min)
    spacing = np.ldexp(1.0, exponent - significand)
    y = np.rint(wide / spacing) * spacing
    return np.where(np.abs(y) > largest, np.copysign(beyond, y), y).astype(np.float32)


@pytest.mark.parametrize("dtype", list(FORMATS))
def test_conversion_is_nearest_even(dtype: torch.dtype) -> None:
    """All float32 numbers by their top 19 bits, each with the rest at, just off and far off every tie."""
    top = np.arange(1 << 19, dtype=np.uint32) << 13
    rest = np.array([0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF], dtype=np.uint32)
    x = (top[:, None] | rest).reshape(-1).view(np.float32)
    x = x[~np.isnan(x)]
    made = reference.convert(torch.from_numpy(x), dtype)
    expected = torch.from_numpy(rounded(x, dtype))
    assert same_bits(made.float(), expected)
    odd = torch.from_numpy(x)[5::1013]  # strided, and the scalar ends of the vectorised loops
    assert same_bits(torch.stack([reference.convert(v, dtype) for v in odd[:300]]).float(), expected[5::1013][:300])
    assert same_bits(reference.convert(odd, dtype).float(), expected[5::1013])


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float8_e4m3fn, 448), (torch.float8_e5m2, 57344)])
def test_float8_saturates(dtype: torch.dtype, largest: int) -> None:
    x = torch.tensor([INF, -INF, 1e30, -1e30, largest * 1.2, -0.0])
    assert reference.convert(x, dtype).float().tolist() == [largest, -largest, largest, -largest, largest, 0]
    assert math.isnan(reference.convert(torch.tensor(math.nan), dtype).float())


# ---- the transforms, once more in fractions -------------------------------------------------------------------------


def fma_1(a: float, b: float, c: float) -> float:
    return round_f32(Fraction(a) * Fraction(b) + Fraction(c))


def div_1(a: float, b: float) -> float:
    return round_f32(Fraction(a) / Fraction(b))


def horner_1(coefficients: tuple[float, ...], x: float) -> float:
    total = coefficients[-1]
    for c in coefficients[-2::-1]:
        total = fma_1(total, x, c)
    return total


def bits_1(x: float) -> int:
    return int(struct.unpack("<i", struct.pack("<f", x))[0])


def float_1(i: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", i & 0xFFFFFFFF))[0])


def signed_1(w: int) -> int:
    return w - (w >> 31 << 32)


def log_m2_1(u: float, c0: float) -> float:
    shift = (bits_1(u) - 0x3F3504F3) & ~0x7FFFFF
    f = float_1(bits_1(u) - shift) - 1
    q = horner_1(table.LOG32, f)
    return fma_1(f, q, fma_1(shift, f32(-2 * math.log(2)) * 2**-23, c0))


def sqrt_1(x: float) -> float:
    return f32(math.sqrt(x))


def normal_1(w0: int, w1: int, mean: float, std: float) -> tuple[float, float]:
    u = fma_1(f32(w0 & 0x7FFFFFFF), 2**-31, 2**-32)
    r = sqrt_1(log_m2_1(u, f32(1e-30)))
    a = fma_1(f32(signed_1(w1)), 2**-32, 2**-33)
    y = f32(a * a)
    s = f32(a * horner_1(table.SIN32, y))
    c = horner_1(table.COS32, y) * (-1 if w0 >> 31 else 1)
    return fma_1(std, f32(r * c), mean), fma_1(std, f32(r * s), mean)


def trunc_normal_central_1(w: int, scale: float, center: float, mean: float, std: float, lo: float, hi: float) -> float:
    x = fma_1(f32(signed_1(w | 1)), scale, center)
    v = fma_1(-x, x, table.CENTRAL_X2)
    z = f32(x * div_1(horner_1(table.QUANTILE_CENTRAL_P32, v), horner_1(table.QUANTILE_CENTRAL_Q32, v)))
    return min(max(fma_1(std, z, mean), lo), hi)


def trunc_normal_1(w: int, split: int, params: tuple[float, ...]) -> float:
    base_left, base_right, step, log_ref, mean, std, lo, hi = params
    left = w < split
    n = (w if left else 0xFFFFFFFF - w) >> 1
    v = fma_1(f32(n), step, base_left if left else base_right)
    r = sqrt_1(log_m2_1(v, log_ref))
    t = f32(r - table.QUANTILE_TAIL_R0_32)
    z = f32(t + div_1(horner_1(table.QUANTILE_TAIL_P32, t), horner_1(table.QUANTILE_TAIL_Q32, t)))
    return min(max(fma_1(std, -z if left else z, mean), lo), hi)


EDGE_WORDS = [0, 1, 2, 3, 0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFE, 0xFFFFFFFF, 0x40000000, 0xC0000000]
WORDS = EDGE_WORDS + [int(w) for w in np.random.default_rng(3).integers(0, 2**32, 60)]


def float32_tensor(x: list[float]) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float32)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (f32(0.1), f32(0.02)), (f32(-1e6), f32(1e-3))])
def test_normal_32_equals_fractions(mean: float, std: float) -> None:
    w0, w1 = WORDS, WORDS[7:] + WORDS[:7]
    made = reference.normal_32(torch.tensor(w0), torch.tensor(w1), mean, std)
    expected = [normal_1(x, y, mean, std) for x, y in zip(w0, w1, strict=True)]
    assert same_bits(made[0], float32_tensor([z for z, _ in expected]))
    assert same_bits(made[1], float32_tensor([z for _, z in expected]))


@pytest.mark.parametrize("transform", [central(-2, 2), central(-1.5, 0.25, 0.5, 0.02), central(1, 1.001)])
def test_trunc_normal_central_32_equals_fractions(transform: Transform) -> None:
    made = reference.trunc_normal_central_32(torch.tensor(WORDS), *transform.params)
    assert same_bits(made, float32_tensor([trunc_normal_central_1(w, *transform.params) for w in WORDS]))


@pytest.mark.parametrize(
    "transform", [two_sided(-3, 4, torch.float32), two_sided(-INF, 0.5, torch.float32), upper_tail(8, 9), upper_tail(0, INF)]
)
def test_trunc_normal_32_equals_fractions(transform: Transform) -> None:
    split = transform.integers[0]
    words = [*WORDS, max(split - 1, 0), split]
    made = reference.trunc_normal_32(torch.tensor(words), split, transform.params)
    assert same_bits(made, float32_tensor([trunc_normal_1(w, split, transform.params) for w in words]))


def test_uniform_32_equals_fractions() -> None:
    low, width = f32(-0.1), f32(0.3)
    made = reference.uniform_32(torch.tensor(WORDS), low, width * 2**-24)
    assert same_bits(made, float32_tensor([fma_1((w & 0xFFFFFF) * 2**-24, width, low) for w in WORDS]))


def as_double(i: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", i))[0])


def log_m2_2(u: float, c0: float) -> float:
    raw_u = struct.unpack("<q", struct.pack("<d", u))[0]
    shift = (raw_u - 0x3FE6A09E667F3BCD) & ~(2**52 - 1)
    m = as_double(raw_u - shift)
    s = (m - 1) / (m + 1)
    return s * horner_2(table.LOG64, s * s) + (float(shift >> 52) * (-2 * math.log(2)) + c0)


def horner_2(coefficients: tuple[float, ...], x: float) -> float:
    total = coefficients[-1]
    for c in coefficients[-2::-1]:
        total = total * x + c
    return total


def normal_2(d0: int, d1: int, mean: float, std: float) -> tuple[float, float]:
    r = math.sqrt(log_m2_2(2 - as_double(d0 >> 12 | 0x3FF << 52), 1e-300))
    a = as_double(d1 >> 12 | 0x3FF0000000000001) - 1.5
    y = a * a
    s, c = a * horner_2(table.SIN64, y), horner_2(table.COS64, y) * (-1 if d1 & 1 else 1)
    return std * (r * c) + mean, std * (r * s) + mean


def trunc_normal_2(d: int, split: int, params: tuple[float, ...]) -> float:
    base_left, base_right, step, log_ref, mean, std, lo, hi = params
    left = d < split
    n = d if left else 2**64 - 1 - d
    v = (as_double(n >> 12 | 0x3FF << 52) - 1) * step + (base_left if left else base_right)
    r = math.sqrt(log_m2_2(v, log_ref))
    t = r - table.QUANTILE_TAIL_R0_64
    z = t + horner_2(table.QUANTILE_TAIL_P64, t) / horner_2(table.QUANTILE_TAIL_Q64, t)
    return min(max(std * (-z if left else z) + mean, lo), hi)


DRAWS = [a << 32 | b for a, b in itertools.product(EDGE_WORDS, repeat=2)] + [
    int(d) for d in np.random.default_rng(4).integers(0, 2**64, 500, dtype=np.uint64)
]


def int64_tensor(draws: list[int]) -> torch.Tensor:
    return torch.from_numpy(np.array(draws, dtype=np.uint64).view(np.int64))


def test_normal_64_equals_python_floats() -> None:
    d1 = DRAWS[31:] + DRAWS[:31]
    made = reference.normal_64(int64_tensor(DRAWS), int64_tensor(d1), 0.1, 0.7)
    expected = [normal_2(x, y, 0.1, 0.7) for x, y in zip(DRAWS, d1, strict=True)]
    assert made[0].tolist() == [z for z, _ in expected]
    assert made[1].tolist() == [z for _, z in expected]


@pytest.mark.parametrize(("a", "b"), [(-3, 4), (-1.0, 1.0), (-INF, 0.5), (-INF, INF)])
def test_trunc_normal_64_equals_python_floats(a: float, b: float) -> None:
    transform = two_sided(a, b, torch.float64)
    split = transform.integers[0]
    draws = [*DRAWS, split - 1, split]
    made = reference.trunc_normal_64(int64_tensor(draws), split, transform.params)
    assert made.tolist() == [trunc_normal_2(d, split, transform.params) for d in draws]


def test_uniform_64_equals_python_floats() -> None:
    made = reference.uniform_64(int64_tensor(DRAWS), -0.1, 0.3 * 2**-53)
    assert made.tolist() == [(d >> 11) * 2**-53 * 0.3 + -0.1 for d in DRAWS]


# ---- ranges and end points ------------------------------------------------------------------------------------------


def test_uniform_covers_its_grid() -> None:
    u = reference.uniform_32(torch.tensor([0, 0xFF000000, 0xFFFFFF, 0xFFFFFFFF]), 0.0, 2.0**-24)
    assert u.tolist() == [0, 0, 1 - 2**-24, 1 - 2**-24]
    d = reference.uniform_64(torch.tensor([0, 2047, -1]), 0.0, 2.0**-53)
    assert d.tolist() == [0, 0, 1 - 2**-53]


def test_uniform_clamped_stays_below_the_upper_bound() -> None:
    """bfloat16 U[-1, 1): without the clamp the top values round to 1."""
    clamped = Transform(Kind.UNIFORM_CLAMPED, (-1.0, 2.0**-23, -1.0, 1 - 2.0**-8))
    index = torch.arange(1 << 14)
    free = reference.values(Transform(Kind.UNIFORM, clamped.params[:2]), torch.bfloat16, 1, 0, index)
    kept = reference.values(clamped, torch.bfloat16, 1, 0, index)
    assert free.max() == 1
    assert kept.max() == 1 - 2.0**-8
    assert same_bits(kept[free < 1], free[free < 1])


def test_normal_reaches_its_tails() -> None:
    zero, edges = torch.zeros(5, dtype=torch.int64), torch.tensor([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
    cos, sin = reference.normal_32(zero, edges, 0.0, 1.0)
    assert 6.6603 < cos[0] < 6.6605
    assert 6.6603 < sin[2] < 6.6605
    assert -6.6605 < sin[3] < -6.6603
    cos, sin = reference.normal_32(torch.tensor([0x7FFFFFFF]), torch.tensor([0]), 0.0, 1.0)
    assert 0 < cos < 1e-4
    cos, sin = reference.normal_64(torch.tensor([-1]), torch.tensor([2**63 - 1]), 0.0, 1.0)
    assert 8.49 < math.hypot(cos, sin) < 8.4908


def test_infinite_and_zero_std() -> None:
    """As in torch: infinite everywhere, never NaN, even at the ends of the angle; and the mean."""
    w0, w1 = (torch.tensor(w) for w in zip(*itertools.product(EDGE_WORDS, repeat=2), strict=True))
    for mean in (0.0, 1.0):
        assert all(x.isinf().all() for x in reference.normal_32(w0, w1, mean, INF))
        assert all((x == mean).all() for x in reference.normal_32(w0, w1, mean, 0.0))
    d0, d1 = (int64_tensor(list(d)) for d in zip(*itertools.product(DRAWS[:144], repeat=2), strict=True))
    assert all(x.isinf().all() for x in reference.normal_64(d0, d1, 0.0, INF))


@pytest.mark.parametrize(
    ("transform", "lo", "hi"),
    [
        (central(-2, 2), -2, 2),
        (two_sided(-3, 4, torch.float32), -3, 4),
        (two_sided(-INF, INF, torch.float32), -6.25, 6.25),
        (upper_tail(8, 9), 8, 9),
        (upper_tail(12, INF), 12, 13.7),
    ],
)
def test_trunc_normal_ends(transform: Transform, lo: float, hi: float) -> None:
    index = torch.arange(1 << 14)
    x = reference.values(transform, torch.float32, 1, 0, index)
    assert x.min() >= lo
    assert x.max() <= hi
    if transform.kind is Kind.TRUNC_NORMAL:
        ends = reference.trunc_normal_32(torch.tensor([0, 0xFFFFFFFF]), transform.integers[0], transform.params)
    else:
        ends = reference.trunc_normal_central_32(torch.tensor([0x80000000, 0x7FFFFFFF]), *transform.params)
    assert abs(ends[0] - lo) < 0.05
    assert abs(ends[1] - hi) < 0.05


def test_symmetric_bounds_give_mirrored_values() -> None:
    words = torch.tensor(WORDS)
    for transform in (central(-2, 2), two_sided(-3, 3, torch.float32)):
        if transform.kind is Kind.TRUNC_NORMAL:
            x, y = (reference.trunc_normal_32(w, 2**31, transform.params) for w in (words, words ^ 0xFFFFFFFF))
        else:
            x, y = (
                reference.trunc_normal_central_32(w, *transform.params) for w in (words | 1, ((words | 1) ^ 0xFFFFFFFF) + 1)
            )
        assert torch.equal(x, -y)


# ---- invariances ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("transform", "dtype"), RANDOM)
def test_fill_equals_values_of_the_index(transform: Transform, dtype: torch.dtype) -> None:
    index = torch.arange(15 * 7)
    whole = reference.fill(torch.empty(15, 7, dtype=dtype), transform, 5, 9)
    assert same_bits(whole.flatten(), reference.values(transform, dtype, 5, 9, index))
    order = torch.randperm(105, generator=torch.Generator().manual_seed(0))
    assert same_bits(
        whole.view(-1).view(torch.uint8).view(105, -1)[order].reshape(-1), raw(reference.values(transform, dtype, 5, 9, order))
    )


@pytest.mark.parametrize(("gib", "values"), [(1, 3 << 17), (16, 1 << 19), (141, 141 << 15), (1000, 3 << 21)])
def test_chunks_are_longer_on_a_gpu(gib: int, values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=gib << 30))
    assert runs.scratch_values(torch.device("cuda", 0)) == values
    assert runs.scratch_values(torch.device("cpu")) <= runs.scratch_values(torch.device("mps")) == 3 << 17


@pytest.mark.parametrize(("transform", "dtype"), RANDOM)
@pytest.mark.parametrize("scratch", [1, 9, 64])
def test_chunks_do_not_show(transform: Transform, dtype: torch.dtype, scratch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reference.fill(torch.empty(5, 3, 7, dtype=dtype), transform, 5, 9)
    monkeypatch.setattr(reference, "scratch_values", lambda device: scratch)
    assert same_bits(whole, reference.fill(torch.empty(5, 3, 7, dtype=dtype), transform, 5, 9))


@pytest.mark.parametrize(("transform", "dtype"), RANDOM)
@pytest.mark.parametrize("scratch", [11, 1 << 20])
def test_every_box_is_a_slice_of_the_whole(
    transform: Transform, dtype: torch.dtype, scratch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (5, 6, 7)
    whole = reference.fill(torch.empty(shape, dtype=dtype), transform, 5, 9)
    monkeypatch.setattr(reference, "scratch_values", lambda device: scratch)
    for box in [
        (1, 4, 0, 6, 0, 7),
        (2, 3, 1, 5, 0, 7),
        (0, 5, 2, 3, 0, 7),
        (0, 5, 0, 6, 3, 4),
        (1, 3, 2, 5, 1, 7),
        (4, 5, 5, 6, 6, 7),
    ]:
        cut = tuple(slice(*box[i : i + 2]) for i in (0, 2, 4))
        local = torch.empty([s.stop - s.start for s in cut], dtype=dtype)
        reference.fill(local, transform, 5, 9, (shape, tuple(s.start for s in cut)))
        assert same_bits(local, whole[cut]), box


@pytest.mark.parametrize("dtype", [*FLOAT_DTYPES, torch.complex64])
def test_memory_layout_does_not_show(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (4, 3, 5, 6)
    whole = reference.fill(torch.empty(shape, dtype=dtype), UNIFORM, 5, 9)
    monkeypatch.setattr(reference, "scratch_values", lambda device: 50)
    storage = torch.zeros(4, 6, 10, 18, dtype=dtype)
    layouts = {
        "channels_last": torch.empty(4, 5, 6, 3, dtype=dtype).permute(0, 3, 1, 2),
        "transposed": torch.empty(6, 5, 3, 4, dtype=dtype).permute(3, 2, 1, 0),
        "strided": storage[:, 1::2, ::2, 2::3],
    }
    for name, tensor in layouts.items():
        assert same_bits(reference.fill(tensor, UNIFORM, 5, 9), whole), name
    untouched = storage.clone()
    untouched[:, 1::2, ::2, 2::3] = 0
    assert not raw(untouched).any()


def test_complex_is_real_of_twice_the_elements() -> None:
    for complex_dtype, dtype in ((torch.complex64, torch.float32), (torch.complex128, torch.float64)):
        z = reference.fill(torch.empty(3, 5, dtype=complex_dtype), NORMAL, 5, 9)
        assert same_bits(torch.view_as_real(z), reference.fill(torch.empty(3, 5, 2, dtype=dtype), NORMAL, 5, 9))
        part = reference.fill(torch.empty(3, 2, dtype=complex_dtype), NORMAL, 5, 9, ((3, 5), (0, 2)))
        assert same_bits(part, z[:, 2:4])


def test_narrow_types_are_the_rounded_float32_value() -> None:
    x = reference.fill(torch.empty(999), NORMAL, 5, 9)
    for dtype in (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
        assert same_bits(reference.fill(torch.empty(999, dtype=dtype), NORMAL, 5, 9), x.to(dtype))


@pytest.mark.parametrize("base", [2**31 - 3, 2**32 - 3, 2**34 - 3, 2**40 + 1, 2**62 - 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_big_indices(base: int, dtype: torch.dtype) -> None:
    made = reference.values(NORMAL, dtype, 5, 9, torch.arange(base, base + 8))
    shard = reference.fill(torch.empty(8, dtype=dtype), NORMAL, 5, 9, ((2**63,), (base,)))
    assert same_bits(made, shard)
    for i in range(base, base + 8):
        if dtype == torch.float32:
            words = block_of(5, 9, i // 4)
            pair = normal_1(*words[i % 4 // 2 * 2 :][:2], *NORMAL.params)
        else:
            w0, w1, w2, w3 = block_of(5, 9, i // 2)
            pair = normal_2(w0 << 32 | w1, w2 << 32 | w3, *NORMAL.params)
        assert made[i - base] == pair[i % 2]


def test_scalars_and_empty_tensors() -> None:
    scalar = reference.fill(torch.empty(()), NORMAL, 5, 9)
    assert scalar == reference.values(NORMAL, torch.float32, 5, 9, torch.tensor(0))
    assert reference.fill(torch.empty(3, 0, 2), NORMAL, 5, 9).shape == (3, 0, 2)
    assert reference.values(NORMAL, torch.float32, 5, 9, torch.empty(0, 2, dtype=torch.int64)).shape == (0, 2)
    assert reference.bits(0, 0, 0).tolist() == []


def test_default_dtype_does_not_show() -> None:
    expected = [(t, d, reference.fill(torch.empty(40, dtype=d), t, 5, 9)) for t, d in RANDOM]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            made = [reference.fill(torch.empty(40, dtype=d, device="cpu"), t, 5, 9) for t, d, _ in expected]
    finally:
        torch.set_default_dtype(before)
    assert all(same_bits(x, y) for x, (_, _, y) in zip(made, expected, strict=True))


def test_autograd_sees_a_write_and_nothing_else() -> None:
    weight = torch.nn.Parameter(torch.zeros(3, 3))
    version = weight._version
    assert reference.fill(weight, NORMAL, 5, 9) is weight
    assert weight._version > version
    assert weight.grad_fn is None


# ---- fills without random numbers, and refusals ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*FLOAT_DTYPES, torch.int64, torch.uint8, torch.bool])
def test_constant_and_one_hot(dtype: torch.dtype) -> None:
    constant = reference.fill(torch.empty(9, dtype=dtype), Transform(Kind.CONSTANT, (0.3,)), 0)
    assert same_bits(constant, torch.full((9,), 0.3, dtype=torch.float64).to(dtype))
    eye = reference.fill(torch.empty(4, 6, dtype=dtype), Transform(Kind.ONE_HOT, (1.0,), (6, 4, 4, 0, 1)), 0)
    assert torch.equal(eye.double(), torch.eye(4, 6, dtype=torch.float64))


def test_one_hot_is_dirac() -> None:
    weight = torch.empty(6, 2, 3, 3)
    torch.nn.init.dirac_(weight, groups=2)
    transform = Transform(Kind.ONE_HOT, (1.0,), (18, 3, 2, 4, 9))
    assert torch.equal(reference.fill(torch.empty_like(weight), transform, 0), weight)


@pytest.mark.parametrize(
    ("transform", "dtype", "error"),
    [
        (central(-2, 2), torch.float64, NotImplementedError),
        (NORMAL, torch.int64, TypeError),
        (Transform(Kind.BITS, ()), torch.bfloat16, TypeError),
    ],
)
def test_refusals(transform: Transform, dtype: torch.dtype, error: type[Exception]) -> None:
    with pytest.raises(error, match="reference: "):
        reference.fill(torch.empty(4, dtype=dtype), transform, 0)


# ---- statistics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["uniform", "normal", "central", "trunc"])
def test_distribution(dtype: torch.dtype, name: str) -> None:
    """Kolmogorov-Smirnov on 2^16 values; the seed is fixed, so the test is not random."""
    stats = pytest.importorskip("scipy.stats")
    if name == "central" and dtype == torch.float64:
        pytest.skip("float64 has the tail transform only")
    transform, law = {
        "uniform": (Transform(Kind.UNIFORM, (0.0, 2.0 ** (-53 if dtype == torch.float64 else -24))), stats.uniform),
        "normal": (Transform(Kind.NORMAL, (0.0, 1.0)), stats.norm),
        "central": (central(-2, 1), stats.truncnorm(-2, 1)),
        "trunc": (two_sided(-1, 3, dtype), stats.truncnorm(-1, 3)),
    }[name]
    x = reference.fill(torch.empty(1 << 16, dtype=dtype), transform, 12, 34).double().numpy()
    assert stats.kstest(x, law.cdf).pvalue > 1e-3
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 4 / 256


def test_far_tail_distribution() -> None:
    """[8, 9] sigma: the survival function divided by its value at 8 is uniform."""
    stats = pytest.importorskip("scipy.stats")
    x = reference.fill(torch.empty(1 << 15), upper_tail(8, 9), 12, 34).double().numpy()
    tail = (stats.norm.sf(x) - stats.norm.sf(9)) / (stats.norm.sf(8) - stats.norm.sf(9))
    assert stats.kstest(tail, "uniform").pvalue > 1e-3
