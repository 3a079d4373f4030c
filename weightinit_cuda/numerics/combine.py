"""How a made value v meets the element x that is there: stored, added, or interpolated with it.

Rows of `docs/numerics.md`, section 5, as plain data that jobs carry down to every evaluator. A weight is rounded here once, so
all of them receive the same number. Knows no tensors and no kernels.
"""

from __future__ import annotations

import enum
from fractions import Fraction
from typing import NamedTuple

import torch

from .rounding import FLOAT32

__all__ = ["ADD", "STORE", "Combine", "Mode", "lerp", "made_dtype", "settled"]


class Mode(enum.IntEnum):
    """The kernels' modes; the numbers are shared with ``csrc/job.h``."""

    STORE = 0
    ADD = 1
    LERP = 2


class Combine(NamedTuple):
    """What becomes of x.

    Args:
        mode: STORE gives v, ADD gives x + v, LERP gives x + weight (v - x).
        weight: of LERP; the others do not look at it.
    """

    mode: Mode
    weight: float = 0.0


STORE = Combine(Mode.STORE)
ADD = Combine(Mode.ADD)


def lerp(weight: float) -> Combine:
    """x becomes ``x + weight (v - x)``: x itself at 0, v itself at 1."""
    return Combine(Mode.LERP, weight)


def settled(combine: Combine, dtype: torch.dtype) -> Combine | None:
    """What is left to compute for a real dtype: the weight rounded; STORE for a weight of 1; None, leave x alone, for 0."""
    if combine.mode is not Mode.LERP:
        return combine
    weight = combine.weight if dtype == torch.float64 else FLOAT32.round(Fraction(combine.weight))
    return None if weight == 0 else STORE if weight == 1 else lerp(weight)


def made_dtype(mode: Mode, dtype: torch.dtype) -> torch.dtype:
    """The dtype of v: that of the tensor; what is added is not rounded to a dtype narrower than float32."""
    return torch.float32 if mode is Mode.ADD and dtype.itemsize < 4 else dtype
