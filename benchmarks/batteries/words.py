"""Tests of 32-bit words: each gives the probability of what is at least as far from chance.

The classical ones that find what counter-based, linear and congruential generators get wrong: frequencies, serial pairs,
birthday spacings, ranks of binary matrices, Hamming weights, and correlations of bits at distances.

Sources: Knuth, "The art of computer programming", volume 2, 3.3; Marsaglia, "A current view of random number generators"
(1985); Marsaglia and Tsang, "Some difficult-to-pass tests of randomness" (2002); L'Ecuyer and Simard, "TestU01" (2007).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

from ..quality.findings import Finding, chi_square, count, largest

__all__ = ["TESTS", "Words", "smallest"]

Words = NDArray[np.uint32]
Test = Callable[[Words], float]

BIRTHDAYS = 4096  # of 2^32 days: 4 equal spacings are expected
MATRICES = 1 << 16  # at most
FULL, ONE_LESS = 0.2887880951, 0.5775761902  # of random 32 x 32 matrices over two elements: of rank 32, and of rank 31
LAGS = (1, 2, 3, 4, 5, 8, 16, 32, 64, 256)


def smallest(p: list[float]) -> float:
    """Of many independent probabilities: that of a smallest one as small (Sidak)."""
    return float(-np.expm1(len(p) * np.log1p(-min(min(p), 1 - 1e-16))))


def _p(finding: Finding) -> float:
    assert finding.p is not None
    return finding.p


def frequencies(words: Words) -> float:
    """Values of each byte."""
    counts = [np.bincount((words >> np.uint32(8 * i)) & np.uint32(255), minlength=256) for i in range(4)]
    return smallest([_p(chi_square(of_byte)) for of_byte in counts])


def _pairs(parts: NDArray[np.uint32]) -> float:
    """Neighbours that do not overlap, in 2^16 cells; also four apart, where counters have the same word of a block."""
    found = []
    for lag in (1, 4):
        whole = parts[: parts.size // (2 * lag) * 2 * lag].reshape(-1, 2, lag)
        cells = (whole[:, 0] << np.uint32(8) | whole[:, 1]).reshape(-1)
        found.append(_p(chi_square(np.bincount(cells, minlength=1 << 16))))
    return smallest(found)


def high_pairs(words: Words) -> float:
    """Pairs of highest bytes."""
    return _pairs(words >> np.uint32(24))


def low_pairs(words: Words) -> float:
    """Pairs of lowest bytes."""
    return _pairs(words & np.uint32(255))


def _equal_spacings(words: Words) -> float:
    rows = np.sort(words[: words.size // BIRTHDAYS * BIRTHDAYS].reshape(-1, BIRTHDAYS), axis=1)
    spacings = np.sort(np.diff(rows, axis=1), axis=1)
    equal = int((np.diff(spacings, axis=1) == 0).sum())
    rate = rows.shape[0] * BIRTHDAYS**3 / 2**34
    return _p(count(equal, rate))


def birthdays(words: Words) -> float:
    """Spacings between words, and between words with their bits in reverse, that come more than once."""
    table = np.array([int(f"{i:08b}"[::-1], 2) for i in range(256)], dtype=np.uint8)
    reverse = np.ascontiguousarray(table[words.view(np.uint8)].reshape(-1, 4)[:, ::-1]).view(np.uint32).reshape(-1)
    return smallest([_equal_spacings(words), _equal_spacings(reverse)])


def ranks(words: Words) -> float:
    """Ranks of 32 x 32 binary matrices whose rows are words."""
    rows = words[: min(words.size // 32, MATRICES) * 32].reshape(-1, 32).copy()
    rank, each = np.zeros(rows.shape[0], dtype=np.int64), np.arange(rows.shape[0])
    free = np.ones(rows.shape, dtype=bool)  # rows that are no pivot yet
    for bit in range(32):
        has = (rows >> np.uint32(bit) & np.uint32(1)).astype(bool)
        usable = has & free
        found, pivot = usable.any(axis=1), usable.argmax(axis=1)
        is_pivot = np.zeros_like(free)
        is_pivot[each[found], pivot[found]] = True
        rows ^= np.where(has & ~is_pivot & found[:, None], rows[each, pivot][:, None], np.uint32(0))
        free &= ~is_pivot
        rank += found
    counts = np.array([(rank == 32).sum(), (rank == 31).sum(), (rank < 31).sum()])
    return _p(chi_square(counts, np.array([FULL, ONE_LESS, 1 - FULL - ONE_LESS])))


def weights(words: Words) -> float:
    """Numbers of ones in words: how they are distributed, and pairs of neighbours."""
    ones = np.bitwise_count(words).astype(np.int64)
    low, high = 8, 24
    law = stats.binom(32, 0.5)
    shares = np.array([law.cdf(low), *law.pmf(range(low + 1, high)), law.sf(high - 1)])
    classes = np.clip(ones, low, high) - low
    first, second = classes[: classes.size // 2 * 2].reshape(-1, 2).T
    pairs = np.bincount(first * shares.size + second, minlength=shares.size**2)
    chances = np.outer(shares, shares).reshape(-1)
    rare = first.size * chances < 10
    if rare.any():
        pairs, chances = np.append(pairs[~rare], pairs[rare].sum()), np.append(chances[~rare], chances[rare].sum())
    return smallest([_p(chi_square(np.bincount(classes, minlength=shares.size), shares)), _p(chi_square(pairs, chances))])


def distances(words: Words) -> float:
    """Each bit against the same bit, and its neighbours, of words at several distances."""
    z = []
    for lag in LAGS:
        for turn in (0, 1, 7):
            other = words[lag:] << np.uint32(turn) | words[lag:] >> np.uint32(32 - turn) if turn else words[lag:]
            different = words[:-lag] ^ other
            ones = np.array([int((different >> np.uint32(bit) & np.uint32(1)).sum(dtype=np.int64)) for bit in range(32)])
            z.append((ones - different.size / 2) / np.sqrt(different.size / 4))
    return _p(largest(np.concatenate(z)))


TESTS: dict[str, Test] = {
    "frequencies": frequencies,
    "high pairs": high_pairs,
    "low pairs": low_pairs,
    "birthdays": birthdays,
    "ranks": ranks,
    "weights": weights,
    "distances": distances,
}
