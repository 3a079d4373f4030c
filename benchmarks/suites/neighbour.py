"""Suite ``neighbour``: fills on a machine that has something else to do, too.

A second thread must never make a fill slower than one alone: not if its core is busy, not if there is no core for it. Uniform
float32 from a fill that is too short for a second thread to one that is long, and a whole model built under ``patched()``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..case import Case
from ..measuring.neighbours import LOADS, MODEL

__all__ = ["cases"]

SIZES = (2**14, 2**16, 2**18, 2**20, 2**22)
QUICK = (2**18,)


def cases(threads: Sequence[int], sizes: Sequence[int] | None = None, quick: bool = False, full: bool = False) -> list[Case]:
    """All rows, by company.

    Args:
        threads: the largest of them is used, against one thread in the same row.
        sizes: instead of the suite's own.
        quick: one size, and no model.
        full: no more than otherwise.
    """
    most, rows = max(threads), list[Case]()
    for label, why in LOADS.items():
        for size in sorted(sizes or (QUICK if quick else SIZES)):
            rows.append(Case("neighbour", label, "uniform_", (), torch.float32, (size,), most, why))
        if not quick:
            rows.append(Case("neighbour", label, "construct", (), torch.float32, (1,), most, f"{MODEL} built; {why}"))
    return rows
