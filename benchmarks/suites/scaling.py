"""Suite ``scaling``: every number of threads up to all cores, sizes from a call's overhead to memory's speed.

Time against size is a line, overhead + size / rate; ``curves.py`` fits it. Against threads the rate should grow as the stores'
does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from ..case import Case

__all__ = ["cases"]

DISTRIBUTIONS: tuple[tuple[str, str], ...] = (("uniform", "uniform_"), ("normal", "normal_"))
DTYPES = (torch.float32, torch.bfloat16)
SIZES = tuple(2**power for power in range(10, 27, 2))
QUICK = (2**12, 2**16, 2**20)


def cases(threads: Sequence[int], sizes: Sequence[int] | None = None, quick: bool = False, full: bool = False) -> list[Case]:
    """All rows.

    Args:
        threads: not used, the suite has its own: 1, 2, 4, ... and all cores.
        sizes: instead of the suite's own.
        quick: three sizes.
        full: up to 2^30.
    """
    own = QUICK if quick else (*SIZES, 2**28, 2**30) if full else SIZES
    return [
        Case("scaling", label, call, (), dtype, (size,), count, "a point of a curve")
        for count in counts(os.cpu_count() or 1)
        for label, call in DISTRIBUTIONS
        for dtype in DTYPES
        for size in sorted(sizes or own)
    ]


def counts(cores: int) -> list[int]:
    """Numbers of threads.

    >>> counts(2), counts(12)
    ([1, 2], [1, 2, 4, 8, 12])
    """
    return sorted({1 << power for power in range(cores.bit_length()) if 1 << power <= cores} | {cores})
