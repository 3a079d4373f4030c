"""Statistics on our stream layout: what Philox is, and what the transforms make of it, at sizes where a slip would show.

`statistical` tests take large samples (make test-statistical); a small subset runs by default. Words come through
``weightinit_cuda.bits``, arranged as models use them: consecutive streams, consecutive seeds, interleaved shards. Every battery
has to fail Philox of fewer rounds: a test without power proves nothing. Seeds are fixed, so nothing here is random; limits are
for a chance of a false alarm of about 1e-6 a statistic. Statistics never excuse a bit difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from conftest import INF, made
from oracle import philox

import weightinit_cuda as wi
from benchmarks.quality.philox import philox as weak_philox
from weightinit_cuda.numerics.distributions import Distribution, Normal, TruncNormal, Uniform

stats = pytest.importorskip("scipy.stats")

Words = np.ndarray[Any, np.dtype[np.uint32]]
ALARM = 4.9  # sigma: P(|Z| > 4.9) = 1e-6
DTYPES = [torch.float32, torch.float64]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- sources of words -----------------------------------------------------------------------------------------------


Source = Callable[[int, int, int, int], Words]


def ours(seed: int, stream: int, start: int, n: int) -> Words:
    """Our words, from the kernels."""
    return np.asarray(wi.bits(seed, stream, n, start).numpy(), dtype=np.uint32)


def weak(rounds: int) -> Source:
    """The same words of Philox with fewer rounds; start and n are whole blocks."""

    def words(seed: int, stream: int, start: int, n: int) -> Words:
        blocks = np.arange(start // 4, (start + n) // 4, dtype=np.uint64)
        return weak_philox(blocks, stream, seed, rounds).reshape(-1)

    return words


def one_stream(source: Source, n: int) -> Words:
    return source(20, 5, 0, n)


def consecutive_streams(source: Source, n: int) -> Words:
    """The first words of streams 0, 1, 2, ...: many small parameters, interleaved word by word."""
    return np.stack([source(20, stream, 0, n // 512) for stream in range(512)], 1).reshape(-1)


def consecutive_seeds(source: Source, n: int) -> Words:
    """One parameter under seeds 0, 1, 2, ...: restarts of an experiment."""
    return np.stack([source(seed, 0, 0, n // 512) for seed in range(512)], 1).reshape(-1)


def interleaved_shards(source: Source, n: int) -> Words:
    """Columns of 64 ranks side by side: distant parts of one stream next to each other."""
    return np.stack([source(7, 3, rank << 24, n // 64) for rank in range(64)], 1).reshape(-1)


def high_seeds(source: Source, n: int) -> Words:
    """Seeds and streams that differ only in their upper halves."""
    return np.stack([source(k << 32, k << 32, 0, n // 256) for k in range(256)], 1).reshape(-1)


LAYOUTS = [one_stream, consecutive_streams, consecutive_seeds, interleaved_shards, high_seeds]


def test_weak_philox_with_ten_rounds_is_ours() -> None:
    """The generator that the power checks cripple is the one that is tested."""
    for layout in LAYOUTS:
        np.testing.assert_array_equal(layout(weak(10), 1 << 14), layout(ours, 1 << 14))
    expected = philox((5, 6, 7, 8), (9, 10), 5)
    assert tuple(weak_philox(5 | 6 << 32, 7 | 8 << 32, 9 | 10 << 32, 5).tolist()) == expected


# ---- the battery ----------------------------------------------------------------------------------------------------


def z_of_chi_square(counts: Any, expected: Any) -> float:
    """A chi-square statistic as a normal deviate."""
    counts = np.asarray(counts, np.float64)
    statistic, freedom = float(((counts - expected) ** 2 / expected).sum()), float(counts.size - 1)
    return (statistic - freedom) / math.sqrt(2.0 * freedom)


def bit_frequencies(words: Words) -> float:
    """Every one of the 32 bits is 1 half of the time."""
    ones = np.array([int(np.count_nonzero(words >> bit & 1)) for bit in range(32)])
    return float(np.abs((ones - words.size / 2) / math.sqrt(words.size / 4)).max())


def bytes_in_place(words: Words) -> float:
    """Each of the four bytes takes each of its 256 values alike."""
    table = words.view(np.uint8).reshape(-1, 4)
    return max(abs(z_of_chi_square(np.bincount(table[:, i], minlength=256), words.size / 256)) for i in range(4))


def neighbours(words: Words, distance: int = 1) -> float:
    """The upper and the lower bytes of words at a distance are independent: chi-square of the 65536 pairs."""
    worst = 0.0
    for shift in (24, 0):
        part = (words >> shift & 255).astype(np.int64)
        pairs = np.bincount(part[:-distance] << 8 | part[distance:], minlength=65536)
        worst = max(worst, abs(z_of_chi_square(pairs, (words.size - distance) / 65536)))
    return worst


def lag_correlations(words: Words) -> float:
    """Of words as numbers, and of their bits with the same bits, at lags that blocks, streams and shards make."""
    numbers = words.astype(np.float64) / 2**32 - 0.5
    worst = 0.0
    for lag in (1, 2, 3, 4, 8, 64, 256, 512, 2048):
        worst = max(worst, abs(float((numbers[:-lag] * numbers[lag:]).mean())) * 12 * math.sqrt(words.size - lag))
        agreeing = np.bitwise_count(~(words[:-lag] ^ words[lag:])).mean() / 32
        worst = max(worst, abs(float(agreeing) - 0.5) * 2 * math.sqrt(32 * (words.size - lag)))
    return worst


def avalanche(words: Words) -> float:
    """Each bit flips independently of each other between neighbours: 32 x 32 counts."""
    together = np.zeros((32, 32))
    for part in np.array_split(words[:-1] ^ words[1:], max(1, words.size >> 18)):
        flips = np.unpackbits(part.astype(">u4").view(np.uint8)).reshape(-1, 32).astype(np.float32) - 0.5
        together += flips.T @ flips / (words.size - 1)
    return float(np.abs(together - np.eye(32) / 4).max()) * 4 * math.sqrt(words.size - 1)


def birthdays(words: Words) -> float:
    """Collisions of whole words: as many as chance makes (n^2 / 2^33), by Poisson's law."""
    expected = words.size * (words.size - 1) / 2**33
    collisions = words.size - np.unique(words).size
    tail = min(stats.poisson.sf(collisions - 1, expected), stats.poisson.cdf(collisions, expected))
    return float(stats.norm.isf(max(tail, 1e-300)))


def runs_of_zero_bits(words: Words) -> float:
    """Leading and trailing zeros are geometric."""
    worst = 0.0
    for value in (words, words[:, None].view(np.uint8)[:, ::-1].copy().view(np.uint32).reshape(-1)):
        lengths = np.minimum(31 - np.floor(np.log2(np.maximum(value, 1).astype(np.float64))).astype(np.int64), 12)
        expected = words.size * np.array([0.5 ** (k + 1) for k in range(12)] + [0.5**12])
        worst = max(worst, abs(z_of_chi_square(np.bincount(lengths, minlength=13), expected)))
    return worst


def next_but_three(words: Words) -> float:
    return neighbours(words, 4)


BATTERY: dict[str, Callable[[Words], float]] = {
    "bits": bit_frequencies,
    "bytes": bytes_in_place,
    "next": neighbours,
    "fourth": next_but_three,
    "lags": lag_correlations,
    "avalanche": avalanche,
    "birthdays": birthdays,
    "zeros": runs_of_zero_bits,
}


def run_battery(words: Words) -> dict[str, float]:
    return {name: test(words) for name, test in BATTERY.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_battery(layout: Callable[[Source, int], Words]) -> None:
    results = run_battery(layout(ours, 1 << 19))
    assert max(results.values()) < ALARM + 0.6, results  # chi-squares are a little more than normal in their tails


@pytest.mark.parametrize("layout", LAYOUTS)
def test_battery_has_power(layout: Callable[[Source, int], Words]) -> None:
    """Philox with 5 rounds fails in every layout, by more than 12 sigma."""
    assert max(run_battery(layout(weak(5), 1 << 20)).values()) > 10


def later(seeds: int) -> Source:
    return lambda seed, stream, start, n: ours(seed + seeds, stream, start, n)


@pytest.mark.statistical
@pytest.mark.parametrize("layout", LAYOUTS)
def test_battery_at_length(layout: Callable[[Source, int], Words]) -> None:
    """2^25 words of every layout, in eight parts."""
    worst: dict[str, float] = {}
    for part in range(8):
        for name, value in run_battery(layout(later(512 * part), 1 << 22)).items():
            worst[name] = max(worst.get(name, 0.0), value)
    assert max(worst.values()) < ALARM + 1, worst


# ---- correlations between fills -------------------------------------------------------------------------------------


def counters(n: int, rounds: int, what: str) -> Words:
    """The first word of n blocks that differ in one coordinate only: the counter, the stream or the seed counts up."""
    count = np.arange(n, dtype=np.uint64)
    zero = np.zeros(1, np.uint64)
    block, stream, seed = (count if what == name else zero for name in ("block", "stream", "seed"))
    return np.asarray(weak_philox(block, stream, seed, rounds))


def linear_bits(blocks: Words, order: int = 3) -> float:
    """Differences in GF(2): parities of every output bit over aligned groups of 2^order counters (integral cryptanalysis).

    A few rounds map such a group to a set that cancels bit by bit; enough rounds make its parity a fair coin.
    """
    worst = 0.0
    for bits in range(1, order + 1):
        size = 1 << bits
        groups = blocks[: len(blocks) // size * size].reshape(-1, size, 4)
        parity = np.bitwise_xor.reduce(groups, axis=1)
        ones = np.unpackbits(np.ascontiguousarray(parity).view(np.uint8), axis=1).mean(0)
        worst = max(worst, float(np.abs(ones - 0.5).max()) * 2 * math.sqrt(len(parity)))
    return worst


def differentials(n: int, rounds: int, what: str) -> float:
    """Flips one bit of a coordinate and counts which output bits flip with it: the strict avalanche criterion."""
    rng = np.random.default_rng(1)
    base = [rng.integers(0, 2**64, n, dtype=np.uint64) for _ in range(3)]
    place, worst = ("block", "stream", "seed").index(what), 0.0
    plain = weak_philox(base[0], base[1], base[2], rounds)
    for bit in range(0, 64, 3):
        changed = list(base)
        changed[place] = base[place] ^ np.uint64(1 << bit)
        flips = np.ascontiguousarray(plain ^ weak_philox(changed[0], changed[1], changed[2], rounds))
        flipped = np.unpackbits(flips.view(np.uint8), axis=1).mean(0)
        worst = max(worst, float(np.abs(flipped - 0.5).max()) * 2 * math.sqrt(n))
    return worst


@pytest.mark.parametrize("what", ["block", "stream", "seed"])
def test_one_bit_of_a_coordinate_flips_half_of_the_words(what: str) -> None:
    assert differentials(4096, 10, what) < ALARM + 0.7  # the largest of 2816 deviates


@pytest.mark.parametrize("what", ["block", "stream", "seed"])
def test_flips_and_parities_have_power(what: str) -> None:
    """Philox with 5 rounds fails both, by more than 40 sigma."""
    assert differentials(1 << 16, 5, what) > 30
    assert linear_bits(counters(1 << 18, 5, what), order=6) > 30


@pytest.mark.parametrize("what", ["block", "stream", "seed"])
def test_parities_of_consecutive_counters(what: str) -> None:
    assert linear_bits(counters(1 << 17, 10, what)) < ALARM


@pytest.mark.statistical
@pytest.mark.parametrize("what", ["block", "stream", "seed"])
def test_parities_and_flips_at_length(what: str) -> None:
    assert linear_bits(counters(1 << 22, 10, what), order=6) < ALARM
    assert differentials(1 << 18, 10, what) < ALARM + 0.7


def crossed(values: list[Any]) -> float:
    """The largest correlation between any two fills, as a normal deviate."""
    table = np.stack([(v - v.mean()) / v.std() for v in values])
    correlations = table @ table.T / table.shape[1]
    np.fill_diagonal(correlations, 0)
    return float(np.abs(correlations).max()) * math.sqrt(table.shape[1])


@pytest.mark.parametrize(
    "distribution", [Normal(0, 1), Uniform(0, 1), TruncNormal(0, 1, -2, 2)], ids=["normal", "uniform", "trunc"]
)
def test_fills_are_not_correlated(distribution: Distribution) -> None:
    """64 consecutive streams and 64 consecutive seeds, each with each."""
    for where in ("streams", "seeds"):
        fills = [
            made(distribution, torch.float32, 8192, *((1, k) if where == "streams" else (k, 1))).numpy().astype(np.float64)
            for k in range(64)
        ]
        assert crossed(fills) < ALARM + 0.8, where


def test_box_muller_pairs_are_independent() -> None:
    """Each of a pair with the other, also in squares and signs; and the pairs of a block with each other."""
    for dtype, n in ((torch.float32, 4), (torch.float64, 2)):
        table = made(Normal(0, 1), dtype, (1 << 18, n)).double().numpy()
        for of in (lambda x: x, lambda x: x**2 - 1, np.abs, np.sign, lambda x: (np.abs(x) > 2).astype(float)):
            assert crossed([of(table[:, i]) for i in range(n)]) < ALARM


# ---- distributions --------------------------------------------------------------------------------------------------

LAWS: dict[str, tuple[Distribution, Any]] = {
    "uniform": (Uniform(-1.0, 3.0), stats.uniform(-1, 4)),
    "normal": (Normal(0.5, 2.0), stats.norm(0.5, 2)),
    "trunc_central": (TruncNormal(0, 1, -2, 2), stats.truncnorm(-2, 2)),
    "trunc_two_sided": (TruncNormal(0, 1, -1, 4), stats.truncnorm(-1, 4)),
    "trunc_above": (TruncNormal(0, 1, 1, 3), stats.truncnorm(1, 3)),
    "trunc_half": (TruncNormal(0, 1, 0, INF), stats.halfnorm()),
    "trunc_below": (TruncNormal(0, 1, -INF, -4), stats.truncnorm(-INF, -4)),
}


def check_law(name: str, dtype: torch.dtype, n: int) -> None:
    """Kolmogorov-Smirnov, chi-square of 1000 equal parts, and the first four moments."""
    distribution, law = LAWS[name]
    x = np.sort(made(distribution, dtype, n, 1).double().numpy())
    at = law.cdf(x)
    assert max(np.abs(at - np.arange(n) / n).max(), np.abs(at - np.arange(1, n + 1) / n).max()) * math.sqrt(n) < 2.7
    parts = np.minimum((at * 1000).astype(np.int64), 999)
    assert abs(z_of_chi_square(np.bincount(parts, minlength=1000), n / 1000)) < ALARM + 0.6
    moments = [float(law.moment(k)) for k in range(9)]
    for k in range(1, 5):
        error = math.sqrt((moments[2 * k] - moments[k] ** 2) / n)
        assert abs(float((x**k).mean()) - moments[k]) < ALARM * error, f"moment {k}"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", LAWS)
def test_law(name: str, dtype: torch.dtype) -> None:
    check_law(name, dtype, 1 << 17)


@pytest.mark.statistical
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", LAWS)
def test_law_at_length(name: str, dtype: torch.dtype) -> None:
    check_law(name, dtype, 1 << 22)


@pytest.mark.parametrize(
    "wrong", [Normal(0.0, 1.02), Normal(0.02, 1.0), TruncNormal(0, 1, -2.5, 2.5)], ids=["std", "mean", "cut"]
)
def test_laws_have_power(wrong: Distribution, monkeypatch: pytest.MonkeyPatch) -> None:
    """A standard deviation 2 % off, a mean off by 0.02, tails that are missing: each is seen."""
    monkeypatch.setitem(LAWS, "wrong", (wrong, stats.norm()))
    with pytest.raises(AssertionError):
        check_law("wrong", torch.float32, 1 << 17)


def tail_counts(dtype: torch.dtype, n: int, seeds: int) -> dict[float, int]:
    counts = dict.fromkeys((4.0, 5.0, 5.77, 6.0), 0)
    for seed in range(seeds):
        x = made(Normal(0, 1), dtype, n, seed).abs_()
        x = x[x > 4]
        for sigma in counts:
            counts[sigma] += int((x > sigma).sum())
    return counts


def check_tails(counts: dict[float, int], n: int) -> None:
    for sigma, count in counts.items():
        expected = n * 2 * float(stats.norm.sf(sigma))
        tail = min(float(stats.poisson.sf(count - 1, expected)), float(stats.poisson.cdf(count, expected)))
        assert tail > 1e-6, f"{count} values beyond {sigma} sigma, expected {expected:.1f}"


def test_tails() -> None:
    """As many values beyond 4, 5, 5.77 and 6 sigma as there should be: 5.77 is where torch's own end."""
    check_tails(tail_counts(torch.float32, 1 << 22, 2), 1 << 23)


@pytest.mark.statistical
@pytest.mark.parametrize(("dtype", "seeds"), [(torch.float32, 32), (torch.float64, 8)], ids=str)
def test_tails_at_length(dtype: torch.dtype, seeds: int) -> None:
    """2^31 float32 values: 17 of them beyond 5.77 sigma, 4 beyond 6."""
    counts = tail_counts(dtype, 1 << 26, seeds)
    check_tails(counts, seeds << 26)
    assert counts[5.77] > 0


def test_narrow_types_are_not_biased() -> None:
    """U(-1, 1) in bfloat16: torch's mean is -0.00185 at this size, z = -6.5."""
    for dtype in (torch.bfloat16, torch.float16):
        mean = made(Uniform(-1, 1), dtype, 1 << 22).double().mean().item()
        assert abs(mean) < 4 / math.sqrt(3 << 22)
        unit = made(Uniform(0, 1), dtype, 1 << 22).double()
        assert abs(unit.mean().item() - 0.5) < 4 / math.sqrt(12 << 22)
        assert abs(made(Normal(0, 1), dtype, 1 << 22).double().mean().item()) < 4 / 2**11
    half = made(Uniform(0, 1), torch.bfloat16, 1 << 22).double()
    assert abs((half >= 0.5).double().mean().item() - 0.5) < 0.0015, "the half step below 0.5 rounds up to it: 2^-10"


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_float8_frequencies(dtype: torch.dtype) -> None:
    """Every value is as frequent as its rounding interval is probable."""
    n = 1 << 20
    for distribution, law in ((Normal(0, 1), stats.norm()), (TruncNormal(0, 1, -2, 2), stats.truncnorm(-2, 2))):
        got = made(distribution, dtype, n).double()
        values, counts = (t.numpy() for t in torch.unique(got.abs(), return_counts=True))
        grid = np.unique(torch.arange(127, dtype=torch.uint8).view(dtype).double().numpy())
        grid = grid[np.isfinite(grid)]
        middles = np.concatenate([[0.0], (grid[1:] + grid[:-1]) / 2, [np.inf]])
        limit = INF if isinstance(distribution, Normal) else 2.0
        if limit < INF:  # what rounds beyond the bound is brought back to it
            middles[np.searchsorted(grid, limit) + 1 :] = np.inf
        expected = {float(value): 2 * n * float(mass) for value, mass in zip(grid, np.diff(law.cdf(middles)), strict=True)}
        for value, count in zip(values, counts, strict=True):
            mass = expected[float(value)]
            assert abs(count - mass) < ALARM * math.sqrt(mass) + 1, value
