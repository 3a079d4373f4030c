"""A sample of one source, seed by seed: sums and counts are kept, values are not. At the end it gives its findings."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from . import findings
from .findings import Finding
from .laws import Array, Law, cells

__all__ = ["Sample", "crossed", "distinct", "tails"]

PARTS = 1024  # equally likely parts of the law, for float32 and float64
LAGS = (1, 2, 3, 4, 5, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
PAIR_LAGS = (1, 2, 4, 8)  # neighbours in a block, and the same word of the next ones
HIGH, LOW = 64, 256  # parts of the law and of a unit value's lowest bits that pairs are counted in
GRID = 2.0**23  # the coarsest grid that a peer draws its unit values on
KS_VALUES = 1 << 17  # of each seed
SIGMAS = (4.0, 5.0, 5.77, 6.0)  # 5.77: where torch's CPU generator ends
SMALL = torch.float32, torch.float64  # dtypes whose values are as good as real numbers here


class Sample:
    """Accumulates the values of all seeds.

    Args:
        law: they are compared with.
        dtype: that they were drawn in.
    """

    def __init__(self, law: Law, dtype: torch.dtype, values: int) -> None:
        self.law, self.dtype = law, dtype
        self.continuous = dtype in SMALL
        self.cells = None if self.continuous else cells(law.name, dtype, values)
        self.edges = law.edges(PARTS) if self.cells is None else self.cells.edges
        self.n = 0
        self.sum = self.squares = 0.0
        self.counts = np.zeros(self.edges.size + 1)
        self.products = np.zeros((2, len(LAGS)))
        self.pairs = {lag: np.zeros((HIGH, HIGH)) for lag in PAIR_LAGS}
        self.low_pairs = {lag: np.zeros((LOW, LOW)) for lag in PAIR_LAGS}
        self.at = {"a": 0, "b": 0, "outside": 0}
        self.kept: list[Array] = []

    def add(self, values: Tensor) -> None:
        """The values of one seed."""
        x = values.cpu().double()
        law = self.law
        self.n += x.numel()
        self.at["a"] += int((x == law.lo).sum())
        self.at["b"] += int((x == law.hi).sum())
        self.at["outside"] += int(((x < law.lo) | (x > law.hi)).sum())
        centred = x - law.mean
        self.sum += float(centred.sum())
        self.squares += float((centred**2).sum())
        part = torch.bucketize(x, torch.from_numpy(self.edges))
        self.counts += torch.bincount(part, minlength=self.counts.size).numpy()
        self._add_lags((centred / law.std).numpy())
        if self.continuous:
            self._add_pairs(x, part)
            self.kept.append(x[:KS_VALUES].numpy().copy())

    def _add_lags(self, x: Array) -> None:
        squares = (x**2 - 1.0) / math.sqrt(self.law.kurtosis - 1.0)
        for i, lag in enumerate(LAGS):
            self.products[0, i] += float(x[:-lag] @ x[lag:])
            self.products[1, i] += float(squares[:-lag] @ squares[lag:])

    def _add_pairs(self, x: Tensor, part: Tensor) -> None:
        high = part // (PARTS // HIGH)
        for lag in PAIR_LAGS:
            self.pairs[lag] += _table(high, lag, HIGH)
        if self.law.name == "uniform" and self.dtype == torch.float32:
            low = (x * GRID).floor().long() % LOW
            for lag in PAIR_LAGS:
                self.low_pairs[lag] += _table(low, lag, LOW)

    def findings(self) -> dict[str, Finding]:
        """All of them, by name."""
        law, n = self.law, self.n
        found = {
            "mean": findings.mean(law, self.sum + n * law.mean, n),
            "std": findings.std(law, self.squares, n),
            "chi_square": findings.chi_square(self.counts, None if self.cells is None else self.cells.probabilities),
            "lags": findings.largest((self.products / math.sqrt(n)).reshape(-1)),
        }
        if self.continuous:
            found["ks"] = findings.ks(law, np.concatenate(self.kept))
            found["pairs"] = self._worst_pairs()
        if math.isfinite(law.hi):
            found["bounds"] = self._bounds()
        return found

    def _worst_pairs(self) -> Finding:
        tables = [table for table in (*self.pairs.values(), *self.low_pairs.values()) if table.any()]
        worst = min((findings.chi_square(table.reshape(-1)) for table in tables), key=lambda found: found.p or 0.0)
        p = -math.expm1(len(tables) * math.log1p(-min(worst.p or 0.0, 1.0 - 1e-16)))
        return Finding(max(p, findings.LEAST), worst.z, {"tables": len(tables)})

    def _bounds(self) -> Finding:
        """Outside, or at an open end: never. The finding is that count; hits of closed ends are details."""
        wrong = self.at["outside"] + (self.at["b"] if self.law.open_above else 0)
        return Finding(0.0 if wrong else 1.0, None, {"at_a": self.at["a"], "at_b": self.at["b"], "outside": self.at["outside"]})


def _table(part: Tensor, lag: int, size: int) -> Array:
    counts = torch.bincount(part[:-lag] * size + part[lag:], minlength=size * size)
    table: Array = counts.double().view(size, size).numpy()
    return table


def distinct(values: Tensor) -> Finding:
    """How many different values, and how many equally likely ones would collide as often. Reported, not judged."""
    n, different = values.numel(), int(torch.unique(values.cpu().double()).numel())
    alike = math.log2(n * (n - 1) / 2 / (n - different)) if different < n else None
    details = {"values": n, "distinct": different, "alike_as_log2": None if alike is None else round(alike, 2)}
    return Finding(None, None, details)


def crossed(fills: list[Tensor], law: Law) -> Finding:
    """The largest correlation between any two of several fills."""
    table = (torch.stack([fill.cpu().double() for fill in fills]) - law.mean) / law.std
    correlations = (table @ table.T).numpy() / math.sqrt(table.shape[1])
    return findings.largest(correlations[np.triu_indices(len(fills), 1)], fills=len(fills))


def tails(law: Law, beyond: dict[float, int], n: int, most: float) -> dict[str, Finding]:
    """Counts of |x| beyond each number of sigmas against what the law expects of n values; ``most`` is the largest |x|."""
    found = {}
    for sigma, times in beyond.items():
        expected = 2.0 * float(law.frozen.sf(sigma)) * n
        found[f"beyond {sigma:g}"] = findings.count(times, expected, sigma=sigma, n=n, largest=float(f"{most:.5g}"))
    return found
