"""Distributions: what the elements of a tensor can be drawn from, or be, before any number of a kernel is known.

``Uniform``, ``Normal``, ``TruncNormal``, ... are what the user means; ``lowering`` turns them into numbers for the kernels.
Knows no tensors and no devices.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Constant(NamedTuple):
    """Every element is ``value``."""

    value: float


class Uniform(NamedTuple):
    """Uniform on [a, b); all elements a if a == b."""

    a: float
    b: float


class Normal(NamedTuple):
    """Normal with the given mean and standard deviation."""

    mean: float
    std: float


class TruncNormal(NamedTuple):
    """Normal(mean, std) conditioned on [a, b]; the bounds are values, not sigmas, and may be infinite."""

    mean: float
    std: float
    a: float
    b: float


class OneHot(NamedTuple):
    """Rows of ``row`` elements with at most one that is not 0.

    Row r has ``value`` at position ``offset + k * step``, k = r mod ``period``, if k < ``limit``.
    """

    value: float
    row: int
    period: int
    limit: int
    offset: int
    step: int


class SparseNormal(NamedTuple):
    """A matrix of Normal(0, std) in which every column of ``rows`` elements has exactly ``zeros`` zeros, at random rows.

    The zeros of column c are at the ``zeros`` smallest of the words ``c * rows, ..., (c + 1) * rows - 1`` of the stream
    ``stream ^ SPARSE_PLACES``; of equal words, at the first.
    """

    rows: int
    zeros: int
    std: float


SPARSE_PLACES = 0x5BD1E995C2B2AE35  # any constant: it keeps the words of the places apart from those of the values


Distribution = Constant | Uniform | Normal | TruncNormal | OneHot | SparseNormal


class Orthogonal(NamedTuple):
    """A matrix with orthonormal rows or columns times ``gain``: it ends in linear algebra, so no kernel makes it."""

    gain: float


class Computed(NamedTuple):
    """Values that a model's own code computes; ``how`` names the operations. Plans list them, nothing makes them again."""

    how: str


Initial = Distribution | Orthogonal | Computed
"""Whatever the first values of a parameter can be."""


KINDS: dict[str, type[Initial]] = {
    "constant": Constant,
    "uniform": Uniform,
    "normal": Normal,
    "trunc_normal": TruncNormal,
    "one_hot": OneHot,
    "sparse_normal": SparseNormal,
    "orthogonal": Orthogonal,
    "computed": Computed,
}
KIND_NAMES = {kind: name for name, kind in KINDS.items()}


def describe(distribution: Initial) -> str:
    """The distribution in short.

    >>> describe(Normal(0.0, 0.02)), describe(TruncNormal(0.0, 1.0, -2.0, float("inf")))
    ('normal(mean=0, std=0.02)', 'trunc_normal(mean=0, std=1, a=-2, b=inf)')
    """
    if isinstance(distribution, Constant | Computed):
        numbers = _short(distribution[0])
    else:
        numbers = ", ".join(f"{key}={_short(value)}" for key, value in distribution._asdict().items())
    return f"{KIND_NAMES[type(distribution)]}({numbers})"


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
