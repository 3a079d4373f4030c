"""Tests of values as models have them: spectra of matrices, rotations, and correlations between tensors that should have none.

Sources: Marchenko and Pastur (1967) for singular values of Gaussian matrices; Diaconis and Shahshahani, "On the eigenvalues of
random matrices" (1994) for traces of Haar-distributed ones: tr Q^k is close to N(eta_k, k), eta_k 1 for even k and else 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]
from torch import Tensor, nn

import weightinit_cuda as wi

from ..quality.findings import largest
from .words import smallest

__all__ = ["VALUE_TESTS", "ValueTest"]

Array = NDArray[np.float64]
SEED, SIZE, SHAPE, MATRICES, TENSORS = 20261129, 32, (64, 128), 400, 96


class ValueTest(NamedTuple):
    """A test of values.

    Args:
        name: what is tested.
        p: probability of what is as far from chance.
        control: the test is of values with a known defect, and must fail.
    """

    name: str
    p: Callable[[], float]
    control: bool = False


# ---- spectra --------------------------------------------------------------------------------------------------------


def _gaussian(std: float = 1.0) -> Array:
    x = torch.empty(MATRICES, *SHAPE, dtype=torch.float64)
    for i, matrix in enumerate(x):
        wi.init.normal_(matrix, 0.0, std, seed=SEED, stream=f"blocks.{i}.weight")
    return np.asarray(x)


def _spectra(drawn: Array) -> float:
    """Largest and smallest singular values, sums of squares, a gap in the middle, against NumPy's: Kolmogorov-Smirnov."""
    theirs_drawn = np.random.default_rng(SEED).normal(size=drawn.shape)
    ours, theirs = (np.linalg.svd(x, compute_uv=False).astype(np.float64) for x in (drawn, theirs_drawn))
    middle = SHAPE[0] // 2
    looks: list[Callable[[Array], Array]] = [
        lambda s: s[:, 0],
        lambda s: s[:, -1],
        lambda s: (s**2).sum(axis=1),
        lambda s: s[:, middle] - s[:, middle + 1],
    ]
    return smallest([float(stats.ks_2samp(look(ours), look(theirs)).pvalue) for look in looks])


def _marchenko_pastur(drawn: Array) -> float:
    """The mean spectrum against the limit law: the squares of all singular values, in parts that the law makes equal.

    Eigenvalues repel each other: their counts vary less than a multinomial's. p is of the chi-square, from one side.
    """
    rows, columns = SHAPE
    ratio = rows / columns
    low, high = (1 - ratio**0.5) ** 2, (1 + ratio**0.5) ** 2
    grid = np.linspace(low, high, 20001)
    density = np.sqrt(np.maximum((high - grid) * (grid - low), 0)) / (2 * np.pi * ratio * np.maximum(grid, 1e-12))
    cumulative = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(grid))])
    edges = np.interp(np.linspace(0, 1, 9)[1:-1] * cumulative[-1], cumulative, grid)
    squares = np.linalg.svd(drawn, compute_uv=False).reshape(-1) ** 2 / columns
    counts = np.bincount(np.searchsorted(edges, squares), minlength=8)
    return float(stats.chisquare(counts).pvalue)


# ---- rotations ------------------------------------------------------------------------------------------------------


def _rotations() -> Array:
    made = [wi.init.orthogonal_(torch.empty(SIZE, SIZE, dtype=torch.float64), seed=SEED, stream=i) for i in range(MATRICES)]
    return np.asarray(torch.stack(made))


def _unsigned_rotations() -> Array:
    """Q of a QR decomposition whose signs are left as they come: not Haar-distributed."""
    return np.linalg.qr(np.random.default_rng(SEED).normal(size=(MATRICES, SIZE, SIZE)))[0]


def _traces(rotations: Array) -> float:
    power, p = rotations, []
    for k in range(1, 5):
        traces = (np.trace(power, axis1=1, axis2=2) - (k % 2 == 0)) / k**0.5
        p.append(float(stats.kstest(traces, "norm").pvalue))
        power = power @ rotations
    return smallest(p)


# ---- correlations ---------------------------------------------------------------------------------------------------


def _uncorrelated(rows: Tensor) -> float:
    """The largest correlation between any two rows, and between any two of their squares."""
    found = []
    for x in (rows, rows**2):
        x = x - x.mean(dim=1, keepdim=True)
        x = x / x.norm(dim=1, keepdim=True)
        between = (x @ x.T)[tuple(torch.triu_indices(len(x), len(x), 1))] * rows.shape[1] ** 0.5
        found.append(largest(between.numpy()).p or 0.0)
    return smallest(found)


def _filled(seed_of: Callable[[int], int], name_of: Callable[[int], str]) -> Tensor:
    rows = torch.empty(TENSORS, 1 << 15)
    for i, row in enumerate(rows):
        wi.init.normal_(row, seed=seed_of(i), stream=name_of(i))
    return rows.double()


def _layers() -> float:
    """Tensors of a model, under one seed."""
    return _uncorrelated(_filled(lambda i: SEED, lambda i: f"layers.{i}.weight"))


def _seeds() -> float:
    """One tensor under consecutive seeds."""
    return _uncorrelated(_filled(lambda i: SEED + i, lambda i: "weight"))


def _same_twice() -> float:
    return _uncorrelated(_filled(lambda i: SEED + i // 2, lambda i: "weight"))


def _noise() -> float:
    """Initial values, and noise that is added to the same tensors under the same seed."""
    net = nn.Sequential(*[nn.Linear(128, 128, bias=False) for _ in range(48)])
    wi.plan(net, [wi.Rule("*", "normal_", mean=0.0, std=1.0)], seed=SEED).apply_(net)
    before = torch.stack([p.detach().clone().flatten() for p in net.parameters()])
    wi.add_noise_(net, 1.0, seed=SEED)
    noise = torch.stack([p.detach().flatten() for p in net.parameters()]) - before
    return _uncorrelated(torch.cat([before, noise]).double())


def _shards() -> float:
    """What ranks hold of one tensor."""
    rows = torch.empty(TENSORS, 1 << 15)
    for i, row in enumerate(rows):
        wi.init.normal_(row[None], seed=SEED, stream="weight", global_shape=tuple(rows.shape), offset=(i, 0))
    return _uncorrelated(rows.double())


VALUE_TESTS = (
    ValueTest("singular values of Gaussian matrices", lambda: _spectra(_gaussian())),
    ValueTest("Marchenko-Pastur law", lambda: _marchenko_pastur(_gaussian())),
    ValueTest("traces of powers of orthogonal_", lambda: _traces(_rotations())),
    ValueTest("correlations between layers", _layers),
    ValueTest("correlations between seeds", _seeds),
    ValueTest("correlations between ranks", _shards),
    ValueTest("correlations between noise and initial values", _noise),
    ValueTest("control: matrices 0.5 % too wide", lambda: _spectra(_gaussian(1.005)), control=True),
    ValueTest("control: Marchenko-Pastur, 5 % too wide", lambda: _marchenko_pastur(_gaussian(1.05)), control=True),
    ValueTest("control: QR without signs", lambda: _traces(_unsigned_rotations()), control=True),
    ValueTest("control: each seed twice", _same_twice, control=True),
)
