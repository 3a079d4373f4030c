"""Values against a second implementation, and the bounds they must keep.

Known answers of the oracle, then kernels and parameters against it bit for bit, at random places and at words that are chosen:
Philox is a bijection, so a kernel can be made to see any word. Then R3: what rounding to a dtype may not do to the bounds.
"""

from __future__ import annotations

import decimal
import itertools
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from fractions import Fraction

import mpmath  # type: ignore[import-untyped]
import oracle
import pytest
import torch
from bitwise import differing
from conftest import INF, RANDOM, REAL_DTYPES, available, each_random, each_real_dtype, fill, made, using
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from weightinit_cuda.numerics import probability, rounding
from weightinit_cuda.numerics.distributions import Distribution, Normal, TruncNormal, Uniform
from weightinit_cuda.numerics.lowering import Kind, Transform, lower

ISAS = [name for name in available() if name != "reference"] or ["reference"]
NARROW = (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
EDGES = (0, 1, 0x7FFFFF, 0xFFFFFF, 0x1000000, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFF000000, 0xFFFFFFFE, 0xFFFFFFFF)
quick = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
long = settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))


def at_words(distribution: Distribution, dtype: torch.dtype, words: oracle.Words) -> torch.Tensor:
    """What the kernels make of one block of these words: four elements, or two of float64."""
    n = 2 if dtype == torch.float64 else 4
    place = oracle.place_of(words)
    tensor = torch.empty(n, dtype=dtype)
    return fill(tensor, distribution, place.seed, place.stream, (2**64,), (place.block * n,))


def oracle_at_words(distribution: Distribution, dtype: torch.dtype, words: oracle.Words) -> torch.Tensor:
    values = oracle.block_values(oracle.rule_of(distribution, dtype), words, dtype == torch.float64)
    return oracle.tensor_of([oracle.convert(x, dtype) for x in values], dtype)


def blocks_of_edges(extra: Sequence[int] = ()) -> list[oracle.Words]:
    """Blocks in which every edge stands at every place, once beside itself and once beside a word of no account."""
    words = [word & oracle.MASK32 for word in (*EDGES, *extra)]
    rng = random.Random(0)
    return [(a, b, c, d) for a in words for b, c, d in [(a, a, a), (rng.choice(words), rng.getrandbits(32), rng.choice(words))]]


def real(tensor: torch.Tensor) -> list[Fraction]:
    return [Fraction(x) for x in tensor.double().tolist()]


# ---- the oracle itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "rounds", "words"),
    [
        ((0, 0, 0, 0), (0, 0), 10, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, 10, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            10,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
        ((0, 0, 0, 0), (0, 0), 7, (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48)),
    ],
)
def test_oracle_philox(counter: oracle.Words, key: tuple[int, int], rounds: int, words: oracle.Words) -> None:
    assert oracle.philox(counter, key, rounds) == words
    if rounds == 10:
        assert oracle.counter_of(words, key) == counter


def test_oracle_rounds_as_torch() -> None:
    rng = random.Random(1)
    for dtype in REAL_DTYPES[2:]:
        for _ in range(2000):
            x = math.ldexp(rng.choice((-1, 1)) * rng.getrandbits(24), rng.randrange(-50, -4))
            limit = torch.finfo(dtype).max if dtype.itemsize == 1 else INF
            expected = torch.tensor(x, dtype=torch.float32).clamp(-limit, limit).to(dtype)
            assert oracle.rounded(Fraction(x), oracle.BINARY[dtype]) == expected.item()


# ---- kernels against the oracle -------------------------------------------------------------------------------------


@each_real_dtype
@each_random
def test_parameters_equal_the_oracles(distribution: Distribution, dtype: torch.dtype) -> None:
    """integers and 50 decimal digits against mpmath with 120."""
    transform, rule = lower(distribution, dtype), oracle.rule_of(distribution, dtype)
    assert transform.kind.name.lower().removesuffix("_clamped") == rule.name
    assert transform.params == rule.params[: len(transform.params)]
    assert rule.name == "constant" or transform.integers == (() if rule.split is None else (rule.split,))


@each_real_dtype
@each_random
def test_values_equal_the_oracles(distribution: Distribution, dtype: torch.dtype) -> None:
    for seed, stream, start, n in ((20, 0, 0, 90), (2**64 - 1, 2**63 + 5, 2**34 - 21, 50), (5, 1, 2**64 - 33, 33)):
        expected = oracle.elements(distribution, dtype, seed, stream, start, n)
        got = made(distribution, dtype, n, seed, stream, (2**64,), (start,))
        assert differing(got, expected) == 0


def test_complex_is_real_of_twice_the_elements() -> None:
    for dtype in (torch.complex64, torch.complex128):
        expected = oracle.elements(RANDOM["normal"], dtype.to_real(), 20, 3, 2 * 2**33 - 8, 40)
        got = made(RANDOM["normal"], dtype, 20, 20, 3, (2**40,), (2**33 - 4,))
        assert differing(torch.view_as_real(got).reshape(-1), expected) == 0


@each_real_dtype
@each_random
def test_extreme_words_equal_the_oracles(distribution: Distribution, dtype: torch.dtype) -> None:
    """Words at which a value is smallest, largest, tied, cancelled or at a split, in every evaluator."""
    split = oracle.rule_of(distribution, dtype).split or 0
    split >>= 32 if dtype == torch.float64 else 0
    for words in blocks_of_edges((split - 1, split, split + 1)):
        expected = oracle_at_words(distribution, dtype, words)
        for isa in ISAS:
            with using(isa):
                assert differing(at_words(distribution, dtype, words), expected) == 0, words
    with using("reference"):
        assert differing(at_words(distribution, dtype, words), expected) == 0


def numbers(low: int, high: int) -> st.SearchStrategy[float]:
    """Numbers of all magnitudes between 2^low and 2^high, of both signs, short and long ones, and 0."""
    whole = st.one_of(st.integers(1, 8), st.integers(2**23, 2**24), st.integers(2**52, 2**53 - 1))
    scaled = st.builds(
        lambda m, e, s: s * math.ldexp(m, e - m.bit_length()), whole, st.integers(low, high), st.sampled_from((-1, 1))
    )
    return st.one_of(scaled, st.just(0.0), st.sampled_from((1.0, -1.0, 0.5, 3.0, 448.0, 65504.0)))


RANGE = {
    torch.float32: (-149, 126),
    torch.float64: (-1070, 1021),
    torch.float16: (-24, 15),
    torch.bfloat16: (-133, 126),
    torch.float8_e4m3fn: (-9, 8),
    torch.float8_e5m2: (-16, 15),
}
WORDS = st.tuples(*[st.one_of(st.sampled_from(EDGES), st.integers(0, oracle.MASK32))] * 4)


@st.composite
def uniforms(draw: st.DrawFn, dtype: torch.dtype) -> Uniform:
    """a < b of all magnitudes: unrelated, or close to each other."""
    low, high = RANGE[dtype]
    a = draw(numbers(low, high))
    b = draw(st.one_of(numbers(low, high), numbers(low, high).map(lambda x: a + abs(x)), st.just(math.nextafter(a, INF))))
    a, b = min(a, b), max(a, b)
    largest = torch.finfo(dtype).max
    assume(
        a < b and max(-a, b) <= largest and b - a <= torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).max
    )
    return Uniform(a, b)


@st.composite
def truncations(draw: st.DrawFn, dtype: torch.dtype) -> TruncNormal:
    """Bounds from half a sigma to far in the tail, infinite ones, short intervals, any scale of mean and std."""
    low, high = RANGE[dtype]
    std = abs(draw(numbers(max(low, -120), high - 8)))
    mean = draw(st.one_of(st.just(0.0), numbers(low, high - 8), st.integers(-300, 300).map(lambda k: k * std / 16)))
    assume(std > 0)
    alpha = draw(st.one_of(numbers(-8, 5), st.just(-INF), st.integers(-400, 400).map(float)))
    beta = draw(st.one_of(numbers(-8, 5), st.just(INF), numbers(-20, 3).map(lambda x: alpha + abs(x))))
    a, b = sorted((mean + alpha * std, mean + beta * std))
    assume(a < b and a < INF and b > -INF)
    assume(all(math.isinf(t) or abs(Fraction(t) - Fraction(mean)) <= 600 * Fraction(std) for t in (a, b)))
    return TruncNormal(mean, std, a, b)


def representable(distribution: TruncNormal, dtype: torch.dtype) -> bool:
    """Whether the dtype has a value inside the bounds; an infinity is one in an interval that ends there, but not in float8."""
    to = oracle.BINARY[dtype]
    end = to.largest if to.saturates else INF
    lo = -end if math.isinf(distribution.a) else oracle.rounded(Fraction(distribution.a), to, 1)
    hi = end if math.isinf(distribution.b) else oracle.rounded(Fraction(distribution.b), to, -1)
    return lo <= hi and (lo < INF or distribution.b == INF) and (hi > -INF or distribution.a == -INF)


def check_equal(distribution: Distribution, dtype: torch.dtype, words: oracle.Words) -> None:
    expected = oracle_at_words(distribution, dtype, words)
    assert differing(at_words(distribution, dtype, words), expected) == 0


@each_real_dtype
@quick
@given(data=st.data(), words=WORDS)
def test_any_uniform_equals_the_oracles(dtype: torch.dtype, data: st.DataObject, words: oracle.Words) -> None:
    check_equal(data.draw(uniforms(dtype)), dtype, words)


@each_real_dtype
@quick
@given(data=st.data(), words=WORDS)
def test_any_normal_equals_the_oracles(dtype: torch.dtype, data: st.DataObject, words: oracle.Words) -> None:
    low, high = RANGE[dtype]
    check_equal(Normal(data.draw(numbers(low, high)), abs(data.draw(numbers(low, high)))), dtype, words)


def test_a_constant_is_rounded_through_float32() -> None:
    """R2 holds where float64 lies just beside a tie of the narrow dtype, too: 2^-134 and a bit, half of bfloat16's smallest."""
    check_equal(Normal(-4.591774807899562e-41, 0.0), torch.bfloat16, (0, 0, 0, 0))


@each_real_dtype
@quick
@given(data=st.data(), words=WORDS)
def test_any_trunc_normal_equals_the_oracles(dtype: torch.dtype, data: st.DataObject, words: oracle.Words) -> None:
    distribution = data.draw(truncations(dtype))
    assume(representable(distribution, dtype))
    check_equal(distribution, dtype, words)


@pytest.mark.exhaustive
@each_real_dtype
@long
@given(data=st.data(), words=WORDS)
def test_many_trunc_normals_equal_the_oracles(dtype: torch.dtype, data: st.DataObject, words: oracle.Words) -> None:
    distribution = data.draw(truncations(dtype))
    assume(representable(distribution, dtype))
    check_equal(distribution, dtype, words)


# ---- R3: bounds hold after rounding ---------------------------------------------------------------------------------

ONES = 0xFFFFFFFF
ENDS: tuple[oracle.Words, ...] = ((0, ONES, 0xFFFFFF, 0xFFFFFF00), (ONES, ONES, 0, 0), (0, 0, ONES, ONES))


def values_with_ends(distribution: Distribution, dtype: torch.dtype) -> torch.Tensor:
    """60 values, and those of the words at which a distribution is at its ends."""
    return torch.cat([made(distribution, dtype, 60), *(at_words(distribution, dtype, words) for words in ENDS)])


def check_uniform(distribution: Uniform, dtype: torch.dtype) -> None:
    """Real numbers, and the comparisons that a user writes: in the dtype, in float64."""
    a, b = distribution.a, distribution.b
    values = values_with_ends(distribution, dtype)
    storage = oracle.BINARY[dtype]
    rounded_a, rounded_b = (oracle.rounded(Fraction(bound), storage) for bound in (a, b))
    inside_a, inside_b = oracle.rounded(Fraction(a), storage, 1), oracle.rounded(Fraction(rounded_b), storage, 0)
    if inside_a >= inside_b or (dtype not in NARROW and rounded_a >= rounded_b):
        assert (values.double() == rounded_a).all(), "no value in [a, b): torch's rounded a"
        return
    assert all(x < Fraction(b) for x in real(values)), "never b"
    assert (values.double() < rounded_b).all(), "never what torch makes of b in this dtype"
    if dtype.itemsize > 1:  # torch compares no float8
        assert (values < torch.tensor(b, dtype=torch.float64).to(dtype)).all()
    if dtype in NARROW:
        assert all(x >= Fraction(a) for x in real(values))
        assert (values.double() >= a).all()
    assert (values.double() >= rounded_a).all()


def check_trunc_normal(distribution: TruncNormal, dtype: torch.dtype) -> None:
    if not representable(distribution, dtype):
        with pytest.raises(ValueError, match="must hold a value of"):
            made(distribution, dtype, 4)
        return
    values = values_with_ends(distribution, dtype)
    assert not values.double().isnan().any()
    assert (values.double() >= distribution.a).all()
    assert (values.double() <= distribution.b).all()


@each_real_dtype
@quick
@given(data=st.data())
def test_uniform_keeps_its_bounds(dtype: torch.dtype, data: st.DataObject) -> None:
    check_uniform(data.draw(uniforms(dtype)), dtype)


@each_real_dtype
@quick
@given(data=st.data())
def test_trunc_normal_keeps_its_bounds(dtype: torch.dtype, data: st.DataObject) -> None:
    check_trunc_normal(data.draw(truncations(dtype)), dtype)


@pytest.mark.exhaustive
@each_real_dtype
@long
@given(data=st.data())
def test_bounds_at_length(dtype: torch.dtype, data: st.DataObject) -> None:
    check_uniform(data.draw(uniforms(dtype)), dtype)
    check_trunc_normal(data.draw(truncations(dtype)), dtype)


@each_real_dtype
@pytest.mark.parametrize(
    ("a", "b"),
    [(0.0, 1.0), (-1.0, 1.0), (0.1, 0.3), (-0.3, -0.1), (0.999, 1.0), (1.0, 1.001), (0.0, 1e-7), (-1e-7, 0.0), (100.0, 448.0)],
)
def test_uniform_ends(a: float, b: float, dtype: torch.dtype) -> None:
    check_uniform(Uniform(a, b), dtype)


def test_uniform_reaches_both_ends() -> None:
    """The first and the last value, in each dtype: a is reached, and the value just below b."""
    for dtype in REAL_DTYPES:
        low = at_words(Uniform(0.0, 1.0), dtype, (0, 0, 0, 0))
        high = at_words(Uniform(0.0, 1.0), dtype, (0xFFFFFFFF,) * 4)
        assert (low.double() == 0).all()
        assert (high.double() == 1 - torch.finfo(dtype).eps / 2).all()


@pytest.mark.parametrize("ratio", [1.0, 0.3])
@pytest.mark.parametrize(
    ("dtype", "exponent"),
    [(torch.float32, e) for e in (-100, -104, -110, -118)]
    + [(torch.float64, e) for e in (-960, -972, -1000)]
    + [(torch.bfloat16, e) for e in (-104, -118)],
)
def test_uniform_of_tiny_range_is_uniform(dtype: torch.dtype, exponent: int, ratio: float) -> None:
    """The scale becomes subnormal at a range of 2^-102 (float64: 2^-969); far below its bits run out (docs/numerics.md)."""
    width = math.ldexp(1.3, exponent)
    for a in (0.0, -ratio * width):
        unit = (made(Uniform(a, a + width), dtype, 20_000).double() - a) / width
        assert abs(unit.mean().item() - 0.5) < 0.01
        assert abs(unit.std().item() - 12**-0.5) < 0.01
        assert unit.max() > 0.99
        assert unit.sort().values.diff().count_nonzero() > 100


def test_uniform_is_not_biased_by_rounding() -> None:
    """The values that would round to b go to the value below, not to a: the mean moves by no more than half that spacing."""
    for dtype in (torch.bfloat16, torch.float16):
        steps = torch.arange(0, 2**24, 16, dtype=torch.float64) / 2**24
        exact = (steps * 2 - 1).to(dtype).double()
        below = torch.where(exact >= 1, 1 - torch.finfo(dtype).eps / 2, exact).mean().item()
        got = made(Uniform(-1.0, 1.0), dtype, 1 << 20).double().mean().item()
        assert abs(got - below) < 4 * 3**-0.5 / 2**10


# ---- truncated normal -----------------------------------------------------------------------------------------------


@each_real_dtype
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.3, 0.02), (-3.0, 2.0)])
def test_bounds_that_cut_nothing_are_no_bounds(mean: float, std: float, dtype: torch.dtype) -> None:
    sigmas = {torch.float64: 8.6, torch.float32: 6.7}.get(dtype, 16.0)  # a narrow type may round 6.66 beyond 6.7
    for a, b in ((mean - sigmas * std, mean + sigmas * std), (-INF, INF), (-300.0, INF), (-INF, 300.0), (-300.0, 400.0)):
        assert differing(made(TruncNormal(mean, std, a, b), dtype, 5000), made(Normal(mean, std), dtype, 5000)) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounds_just_inside_what_normal_reaches(dtype: torch.dtype) -> None:
    """The largest value of normal is kept by a bound just beyond it, and not by one just below."""
    words = (0, 0, 0, 0) if dtype == torch.float32 else (0xFFFFFFFF, 0xFFFFFFFF, 0, 0)
    reach = max(
        abs(x) for words_ in (words, (0x80000000, 0x80000000, 0, 0)) for x in real(at_words(Normal(0, 1), dtype, words_))
    )
    assert 6.66 < reach < 8.5
    for bound in (float(reach), float(reach) - 1e-3, 5.0):
        assert max(abs(x) for x in real(values_with_ends(TruncNormal(0, 1, -bound, bound), dtype))) <= Fraction(bound)


@pytest.mark.parametrize(
    ("mean", "std", "a", "b", "dtype"),
    [
        (16777217.02, 0.285, 0.0, 16777218.0, torch.float32),  # f32(mean) is 0.98 above the mean, half of it beyond b
        (-16777217.02, 0.285, -16777218.0, 0.0, torch.float32),
        (1 + 2**-23 - 0.49 * 2**-23, 0.95 * 2**-23 / 6.661, 0.0, 1 + 2**-23, torch.float32),
        (1 - 0.49 * 2**-23, 0.95 * 2**-23 / 6.661, 0.5, 1.0, torch.float32),
    ],
)
def test_a_mean_that_float32_rounds_over_a_bound(mean: float, std: float, a: float, b: float, dtype: torch.dtype) -> None:
    """'Cuts nothing' must hold for the rounded mean that the kernels add, not only for the exact one."""
    values = made(TruncNormal(mean, std, a, b), dtype, 100_000).double()
    assert values.min() >= a
    assert values.max() <= b


SYMMETRIC = [(1.0, 0.3), (2.0, 1.0), (2.0625, 1.0), (3.5, 1.0), (5.0, 0.02), (0.01, 1.0), (4.0, 100.0)]


@each_real_dtype
@pytest.mark.parametrize(("sigmas", "std"), SYMMETRIC)
def test_symmetric_bounds_are_mirrored_by_the_complement(sigmas: float, std: float, dtype: torch.dtype) -> None:
    """The values of the words w and ~w are each other's negative: tails are exactly symmetric."""
    rng = random.Random(2)
    distribution = TruncNormal(0.0, std, -sigmas * std, sigmas * std)
    for words in [
        *blocks_of_edges(),
        *((w, w ^ 5, w * 3 & oracle.MASK32, 7) for w in (rng.getrandbits(32) for _ in range(50))),
    ]:
        mirrored = tuple(~word & oracle.MASK32 for word in words)
        assert torch.equal(
            at_words(distribution, dtype, words).double(),
            -at_words(distribution, dtype, (mirrored[0], mirrored[1], mirrored[2], mirrored[3])).double(),
        )


@each_real_dtype
@pytest.mark.parametrize(
    ("mean", "a", "b"), [(0.0, 1.0, 5.0), (0.0, 8.0, 9.0), (0.25, 0.25, 4.0), (-1.0, 2.0, INF), (0.0, 37.0, INF)]
)
def test_one_sided_bounds_are_mirrored(mean: float, a: float, b: float, dtype: torch.dtype) -> None:
    above, below = made(TruncNormal(mean, 1.0, a, b), dtype, 3000), made(TruncNormal(-mean, 1.0, -b, -a), dtype, 3000)
    assert torch.equal(above.double(), -below.double())


def kolmogorov_smirnov(values: torch.Tensor, distribution: TruncNormal) -> float:
    """sup |F_n - F| sqrt(n), with the survival function of the tail in which the interval lies."""
    mean, std, a, b = distribution.mean, distribution.std, distribution.a, distribution.b
    if mean > 0.5 * (max(a, -1e300) + min(b, 1e300)):
        return kolmogorov_smirnov(-values, TruncNormal(-mean, std, -b, -a))
    with mpmath.workdps(60):
        tail = [mpmath.erfc((mpmath.mpf(t) - mean) / (std * mpmath.sqrt(2))) for t in (a, b)]
        n, worst = values.numel(), mpmath.mpf(0)
        previous, below = None, 0
        ordered = values.double().sort().values.tolist()
        for i, x in enumerate(ordered):
            if x != previous:
                previous, below = x, i
                at = (tail[0] - mpmath.erfc((mpmath.mpf(x) - mean) / (std * mpmath.sqrt(2)))) / (tail[0] - tail[1])
            worst = max(worst, abs(at - mpmath.mpf(below) / n), abs(at - mpmath.mpf(i + 1) / n))
        return float(worst * math.sqrt(n))


FAR: list[tuple[float, float]] = [
    (8.0, 9.0),
    (37.0, INF),
    (-INF, -20.0),
    (300.0, 301.0),
    (-2.1, 2.1),
    (-6.0, 6.0),
    (3.0, 3.5),
    (-0.5, 30.0),
    (0.0, INF),
    (-40.0, -39.9),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("a", "b"), FAR)
def test_any_interval_has_the_right_distribution(a: float, b: float, dtype: torch.dtype) -> None:
    """Kolmogorov-Smirnov, P(> 1.95) = 0.001; the seed is fixed. Where float32 has few values, they are that much coarser."""
    distribution = TruncNormal(0.0, 1.0, a, b)
    values = made(distribution, dtype, 3000, 4)
    spacing = torch.finfo(dtype).eps * max(abs(x) for x in (a, b) if math.isfinite(x))
    density = 1 + max(abs(x) for x in (a, b) if math.isfinite(x))
    assert kolmogorov_smirnov(values, distribution) < 1.95 + math.sqrt(3000) * spacing * density
    check_trunc_normal(distribution, dtype)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.02, 0.0), (1e-30, 0.0), (1e30, 0.0), (0.5, -7.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scale_and_mean_do_not_matter(scale: float, shift: float, dtype: torch.dtype) -> None:
    distribution = TruncNormal(shift * scale, scale, (shift - 1.0) * scale, (shift + 3.0) * scale)
    assert kolmogorov_smirnov(made(distribution, dtype, 3000, 4), distribution) < 1.95


@pytest.mark.parametrize("width", [1e-2, 1e-4, 1e-6, 1e-9, 1e-12, 1e-20, 1e-50, 1e-60, 1e-300])
@pytest.mark.parametrize("center", [0.0, 1.0, 5.0])
@each_real_dtype
def test_short_intervals(center: float, width: float, dtype: torch.dtype) -> None:
    """Any interval that holds a value is filled with values inside it, without an error."""
    check_trunc_normal(TruncNormal(0.0, 1.0, center - width, center + width), dtype)


DISTANT = """
    import torch
    from weightinit_cuda import engine
    from weightinit_cuda.numerics.distributions import TruncNormal
    from weightinit_cuda.engine.job import FillJob

    for mean, std, a, b in (
        (0.0, 1e-4, 0.0, 2.0),  # a half-normal with a bound that does not matter
        (0.0, 1e-4, -2.0, 1e-5),
        (0.0, 1e-30, 0.0, 1.0),
        (0.0, 1.0, 100.0, 1e6),
        (0.0, 1.0, 2000.0, 1e300),
    ):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            print(mean, std, a, b, dtype, flush=True)  # the last one is where it hangs or fails
            tensor = torch.empty(1000, dtype=dtype)
            engine.fill([FillJob(tensor, TruncNormal(mean, std, a, b), 1)])
            assert ((tensor.double() >= a) & (tensor.double() <= b)).all()
"""


def test_distant_bounds_take_no_time() -> None:
    """exp(-z^2 / 2) of a distant bound has millions of digits as a fraction, and is 0 to any rounding."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", textwrap.dedent(DISTANT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("width", [1e-2, 1e-4, 1e-6, 1e-9, 1e-12])
def test_short_intervals_around_the_mean_are_uniform(width: float) -> None:
    for dtype in (torch.float32, torch.float64):
        values = made(TruncNormal(0.0, 1.0, -width, width), dtype, 20_000).double() / width
        assert abs(values.mean().item()) < 0.02
        assert abs(values.std().item() - 3**-0.5) < 0.01
        assert values.sort().values.diff().count_nonzero() > 1000


@each_real_dtype
def test_intervals_of_one_value_and_of_none(dtype: torch.dtype) -> None:
    step = torch.finfo(dtype).eps
    one = TruncNormal(0.0, 1.0, 1 + 0.75 * step, 1 + 1.25 * step)
    assert (made(one, dtype, 100).double() == 1 + step).all()
    assert (made(TruncNormal(0.0, 1.0, 1 + step, 1 + step), dtype, 100).double() == 1 + step).all()
    if dtype != torch.float64:
        none = TruncNormal(0.0, 1.0, 1 + 0.25 * step, 1 + 0.75 * step)
        with pytest.raises(ValueError, match=r"must hold a value of .* with none between"):
            made(none, dtype, 100)
    two = TruncNormal(0.0, 1.0, 1.0, 1 + step)
    assert set(made(two, dtype, 1000).double().tolist()) <= {1.0, 1 + step}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_intervals_beyond_the_largest_value(dtype: torch.dtype) -> None:
    """Saturation and overflow do not bring values back into, or out of, the bounds."""
    largest = torch.finfo(dtype).max
    for a, b in ((1.1 * largest, 1.5 * largest), (-3 * largest, -2 * largest)):
        check_trunc_normal(TruncNormal(0.5 * (max(a, -2 * largest) + min(b, 2 * largest)), largest / 4, a, b), dtype)
    for a, b in ((-2 * largest, 2 * largest), (0.0, 3 * largest), (-largest, 0.9 * largest)):
        values = made(TruncNormal(0.0, largest, a, b), dtype, 1000).double()
        assert values.isfinite().all()
        assert ((values >= a) & (values <= b)).all()


# ---- probabilities and formats --------------------------------------------------------------------------------------

DIGITS = [0.0, 1e-30, 1e-9, 0.1, 0.5, 1.0, 2.0, 2.0625, 3.7, 5.999999999, 6.0, 6.0000001, 8.0, 9.5, 20.0, 37.5, 300.0, 4095.9]


@pytest.mark.parametrize("z", DIGITS)
def test_probabilities_to_twenty_digits(z: float) -> None:
    exact = mpmath.MPContext()
    exact.dps = 80

    def agree(got: decimal.Decimal, expected: object) -> bool:
        return bool(abs(exact.mpf(str(got)) - expected) <= abs(expected) * exact.mpf(10) ** -20)  # type: ignore[arg-type]

    at, root = exact.mpf(z), exact.sqrt(2)
    upper = exact.erfc(at / root) / 2
    assert agree(probability.density(decimal.Decimal(z)), exact.npdf(at))
    assert agree(probability.tail(decimal.Decimal(z)), upper)
    assert agree(probability.log_tail(decimal.Decimal(z)), exact.log(upper))
    if z < 6:
        for signed in (z, -z):
            assert agree(probability.erf_over_sqrt2(decimal.Decimal(signed)), exact.erf(exact.mpf(signed) / root))


@pytest.mark.parametrize(
    ("alpha", "beta"), [(-2.0, 2.0), (-1.0, 3.0), (0.0, INF), (-INF, INF), (1.0, 2.0), (8.0, 9.0), (-9.0, -8.0), (-0.01, 0.01)]
)
def test_truncated_std(alpha: float, beta: float) -> None:
    with mpmath.workdps(60):
        low, high = mpmath.mpf(alpha), mpmath.mpf(beta)
        mass = (mpmath.erfc(low / mpmath.sqrt(2)) - mpmath.erfc(high / mpmath.sqrt(2))) / 2
        at_low, at_high = mpmath.npdf(low), mpmath.npdf(high)
        edges = (low * at_low if mpmath.isfinite(low) else 0) - (high * at_high if mpmath.isfinite(high) else 0)
        expected = mpmath.sqrt(1 + edges / mass - ((at_low - at_high) / mass) ** 2)
        assert abs(probability.truncated_std(alpha, beta) - expected) < 2e-16 * expected


def forget(cases: list[tuple[Distribution, torch.dtype]]) -> None:
    for distribution, _ in cases:
        distribution.forms.clear()
    for cached in (probability._below_mean, probability._mills, probability.truncated_std):
        cached.cache_clear()


@pytest.mark.parametrize(
    "context",
    [
        decimal.Context(prec=3),
        decimal.Context(prec=1, rounding=decimal.ROUND_UP),
        decimal.Context(prec=28, traps=[decimal.FloatOperation, decimal.Inexact, decimal.Rounded]),
        decimal.Context(prec=9, Emin=-20, Emax=20, traps=[decimal.Underflow, decimal.Overflow]),
    ],
    ids=["three digits", "one digit", "traps", "exponents"],
)
def test_ambient_decimal_context_does_not_show(context: decimal.Context) -> None:
    """decimal.getcontext() is the application's: no parameter may depend on it."""
    cases: list[tuple[Distribution, torch.dtype]] = [
        (distribution, dtype) for distribution in RANDOM.values() for dtype in (torch.float32, torch.float64)
    ]
    cases += [
        (TruncNormal(0.1, 0.3, a, b), dtype) for a, b in ((-1.3, 0.7), (3.3, 4.7), (-INF, -9.1)) for dtype in REAL_DTYPES[:2]
    ]
    forget(cases)
    expected: list[Transform | float] = [lower(*case) for case in cases]
    expected += [probability.truncated_std(-1.7, 2.3), probability.truncated_std(8.1, 9.3)]
    forget(cases)

    def too_long(*_: object) -> None:
        raise TimeoutError("a loop that does not end in this context")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(20)
    try:
        with decimal.localcontext(context):
            got: list[Transform | float] = [lower(*case) for case in cases]
            got += [probability.truncated_std(-1.7, 2.3), probability.truncated_std(8.1, 9.3)]
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        forget(cases)
    assert got == expected


def all_values(dtype: torch.dtype) -> list[float]:
    """Every finite value, rising, of a dtype of 8 or 16 bits."""
    bits = torch.arange(256, dtype=torch.uint8) if dtype.itemsize == 1 else torch.arange(-(2**15), 2**15, dtype=torch.int16)
    values = bits.view(dtype).double()
    return sorted(set(values[values.isfinite()].tolist()))


def check_rounding(dtype: torch.dtype, step: int) -> None:
    """Between every pair of neighbours: the values, the middle, and next to each of them, in three directions."""
    values, form = all_values(dtype), rounding.FORMATS[dtype]
    for low, high in list(itertools.pairwise(values))[::step]:
        middle = (Fraction(low) + Fraction(high)) / 2
        near = (Fraction(high) - Fraction(low)) / 2**10  # exact in float32, through which torch casts
        points = [
            Fraction(low),
            Fraction(low) + near,
            middle - near,
            middle,
            middle + near,
            Fraction(high) - near,
            Fraction(high),
        ]
        cast = torch.tensor([float(x) for x in points], dtype=torch.float64).to(torch.float32).to(dtype).double().tolist()
        assert [form.round(x) for x in points] == cast
        assert [form.round(x, "down") for x in points] == [low] * 6 + [high]
        assert [form.round(x, "up") for x in points] == [low] + [high] * 6
        assert form.below(high) == low


@pytest.mark.parametrize(
    ("dtype", "step"), [(torch.float8_e4m3fn, 1), (torch.float8_e5m2, 1), (torch.float16, 37), (torch.bfloat16, 37)]
)
def test_formats_round_as_torch_casts(dtype: torch.dtype, step: int) -> None:
    check_rounding(dtype, step)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_formats_round_everywhere(dtype: torch.dtype) -> None:
    check_rounding(dtype, 1)


@each_real_dtype
@quick
@given(data=st.data())
def test_formats_round_as_the_oracle(dtype: torch.dtype, data: st.DataObject) -> None:
    form, own = rounding.FORMATS[dtype], oracle.BINARY[dtype]
    low, high = RANGE[dtype]
    x = Fraction(data.draw(numbers(low - 4, high))) + Fraction(data.draw(numbers(low - 60, high - 3)))
    assert form.round(x) == oracle.rounded(x, own)
    assert form.round(x, "down") == oracle.rounded(x, own, -1)
    assert form.round(x, "up") == oracle.rounded(x, own, 1)


@each_real_dtype
def test_formats_beyond_the_largest_value(dtype: torch.dtype) -> None:
    """To nearest: as rounding gives it, the largest value in float8. A direction never goes the wrong way."""
    form, largest = rounding.FORMATS[dtype], Fraction(torch.finfo(dtype).max)
    beyond = largest * 3 / 2
    assert form.round(beyond) == (float(largest) if dtype.itemsize == 1 else INF)
    assert form.round(-beyond) == -form.round(beyond)
    assert form.round(beyond, "down") == float(largest)
    assert form.round(-beyond, "up") == -float(largest)
    assert form.round(beyond, "up") == INF, "there is no value at or above it"
    assert form.round(-beyond, "down") == -INF


def test_constants_are_not_confused_by_equal_keys() -> None:
    """0.0 == -0.0 == False and 1 == 1.0 == True: what was asked for first must not come back for another."""
    zero, negative = Uniform(0.0, 0.0), Uniform(-0.0, -0.0)
    for first, second in ((zero, negative), (negative, zero)):
        assert [made(d, torch.float32, 1).item() for d in (first, second)] == [0.0, 0.0]
    kinds = [made(d, torch.float32, 1).signbit().item() for d in (Normal(0.0, 0.0), Normal(-0.0, 0.0))]
    assert kinds == [made(d, torch.float32, 1).signbit().item() for d in (Normal(-0.0, 0.0), Normal(0.0, 0.0))][::-1]
    assert lower(Normal(1, 1), torch.float32).kind is Kind.NORMAL
    assert lower(Uniform(1, 2), torch.float32) != lower(Normal(1, 2), torch.float32)


@example(0.02)
@quick
@given(st.floats(1e-3, 1e3))
def test_normal_in_narrow_types_is_the_rounded_float32(std: float) -> None:
    """R2, with overflow to infinity in float16 and saturation in float8."""
    wide = made(Normal(0.0, std * 100), torch.float32, 200)
    for dtype in NARROW:
        limit = torch.finfo(dtype).max if dtype.itemsize == 1 else INF
        assert differing(made(Normal(0.0, std * 100), dtype, 200), wide.clamp(-limit, limit).to(dtype)) == 0
