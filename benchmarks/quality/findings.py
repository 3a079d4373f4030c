"""Statistics as findings: a deviation, and the probability of one as large if the generator were right.

Each function takes plain counts or values and knows no generator. p is two-sided; where the largest of many deviations is
taken, p accounts for how many (Sidak).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

from .laws import Array, Law

__all__ = ["ALARM", "Finding", "chi_square", "count", "ks", "largest", "mean", "std"]

ALARM = 1e-6  # p below this is seen: one false alarm in some thousand runs of the whole suite
LEAST = 1e-300  # p as a file can hold it


@dataclass(frozen=True)
class Finding:
    """One statistic.

    Args:
        p: probability of a deviation as large; None for what is reported without being judged.
        z: the deviation in standard errors, where it has some.
        details: numbers for the report.
    """

    p: float | None
    z: float | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def seen(self) -> bool:
        return self.p is not None and self.p < ALARM

    def as_json(self) -> dict[str, Any]:
        numbers = {"p": self.p, "z": self.z}
        return {name: float(f"{x:.4g}") for name, x in numbers.items() if x is not None} | self.details | {"seen": self.seen}


def _two_sided(z: float) -> float:
    return max(LEAST, min(1.0, 2.0 * float(stats.norm.sf(abs(z)))))


def mean(law: Law, sum_of: float, n: int) -> Finding:
    """Of the sum of so many values; ``bias`` is in standard deviations of the law."""
    bias = (sum_of / n - law.mean) / law.std
    z = bias * math.sqrt(n)
    return Finding(_two_sided(z), z, {"bias": float(f"{bias:.4g}"), "error": float(f"{n**-0.5:.3g}")})


def std(law: Law, sum_of_squares: float, n: int) -> Finding:
    """Of the sum of squared distances from the law's mean."""
    excess = sum_of_squares / n / law.std**2 - 1.0
    z = excess * math.sqrt(n / (law.kurtosis - 1.0))
    return Finding(_two_sided(z), z, {"excess": float(f"{excess / 2:.4g}")})


def ks(law: Law, values: Array) -> Finding:
    """Kolmogorov and Smirnov's distance."""
    result = stats.kstest(values, law.cdf, method="asymp")
    return Finding(max(LEAST, float(result.pvalue)), None, {"distance": float(f"{result.statistic:.4g}"), "n": values.size})


def chi_square(counts: NDArray[Any], probabilities: Array | None = None) -> Finding:
    """Counts against equally likely cells, or cells of given probabilities."""
    total = counts.sum()
    expected = total / counts.size if probabilities is None else total * probabilities
    statistic, freedom = float(((counts - expected) ** 2 / expected).sum()), counts.size - 1
    upper, lower = float(stats.chi2.sf(statistic, freedom)), float(stats.chi2.cdf(statistic, freedom))
    z = (statistic - freedom) / math.sqrt(2.0 * freedom)
    return Finding(max(LEAST, min(1.0, 2.0 * min(upper, lower))), z, {"cells": counts.size})


def count(found: int, expected: float, **details: Any) -> Finding:
    """Rare events, by Poisson's law."""
    tails = stats.poisson.cdf(found, expected), stats.poisson.sf(found - 1, expected)
    p = max(LEAST, min(1.0, 2.0 * float(min(tails))))
    return Finding(p, None, {"count": found, "expected": float(f"{expected:.5g}")} | details)


def largest(deviations: Sequence[float] | Array, **details: Any) -> Finding:
    """The largest of independent deviations in standard errors."""
    z = float(np.max(np.abs(deviations)))
    one = 2.0 * float(stats.norm.sf(z))
    p = -math.expm1(len(deviations) * math.log1p(-min(one, 1.0 - 1e-16)))
    return Finding(max(LEAST, min(1.0, p)), z, {"of": len(deviations)} | details)
