"""The exact distributions that values are compared with, and what is left of them in a dtype of 16 bits: cells.

A cell is what rounds to one value; its probability is the real distribution's. What would round to b of [a, b) belongs to the
value below b: there is no other right place for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy import stats  # type: ignore[import-untyped]

__all__ = ["LAWS", "Array", "Cells", "Law", "cells"]

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Law:
    """A distribution.

    Args:
        name: as tables show it.
        call: the function of torch.nn.init whose defaults draw it.
        mean, std, kurtosis: exact.
        lo, hi: bounds; ``open_above`` if hi itself must not come out.
        frozen: scipy's distribution.
    """

    name: str
    call: str
    mean: float
    std: float
    kurtosis: float
    lo: float
    hi: float
    open_above: bool
    frozen: Any

    @property
    def cdf(self) -> Callable[[Array], Array]:
        cdf: Callable[[Array], Array] = self.frozen.cdf
        return cdf

    def edges(self, parts: int) -> Array:
        """The inner edges of so many equally likely parts."""
        return np.asarray(self.frozen.ppf(np.arange(1, parts) / parts), np.float64)


_CUT = stats.truncnorm(-2, 2)
LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Law("uniform", "uniform_", 0.5, 12**-0.5, 1.8, 0.0, 1.0, True, stats.uniform()),
        Law("normal", "normal_", 0.0, 1.0, 3.0, -math.inf, math.inf, False, stats.norm()),
        Law(
            "trunc_normal",
            "trunc_normal_",
            0.0,
            float(_CUT.std()),
            float(_CUT.stats("k")) + 3.0,
            -2.0,
            2.0,
            False,
            _CUT,
        ),
    )
}


@dataclass(frozen=True)
class Cells:
    """A law in a dtype: edges between cells, probabilities of the cells (one more than edges), rarest ones joined."""

    edges: Array
    probabilities: Array


@lru_cache(maxsize=32)
def cells(name: str, dtype: torch.dtype, values: int, least: float = 25.0) -> Cells:
    """The cells of a 16-bit dtype, neighbours joined until each expects ``least`` of so many values."""
    law = LAWS[name]
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).double()
    finite = np.unique(every[torch.isfinite(every)].numpy())
    kept = finite[(finite >= law.lo) & ((finite < law.hi) if law.open_above else (finite <= law.hi))]
    middles = (kept[:-1] + kept[1:]) / 2
    below = law.cdf(middles)
    edges, last = [], 0.0
    for middle, at in zip(middles, below, strict=True):
        if (at - last) * values >= least and (1.0 - at) * values >= least:
            edges.append(middle)
            last = at
    chosen = np.array(edges)
    return Cells(chosen, np.diff(law.cdf(chosen), prepend=0.0, append=1.0))
