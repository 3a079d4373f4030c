"""What is measured on a GPU: one tensor from 2^10 to 2^32 values, and whole models in one call."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ..case import Case
from .models import MODELS

__all__ = ["cases"]

DISTRIBUTIONS: tuple[tuple[str, str], ...] = (("uniform", "uniform_"), ("normal", "normal_"), ("trunc_normal", "trunc_normal_"))
DTYPES = (torch.float32, torch.bfloat16)
LADDER = {
    2**10: "a layer norm: the call and the launch",
    2**14: "one tile: one block of threads",
    2**18: "512 x 512: as many tiles as a GPU has processors, at most",
    2**20: "a 1024 x 1024 weight",
    2**22: "a 2048 x 2048 weight: in cache",
    2**24: "a 4096 x 4096 weight: about the size of the cache",
    2**26: "128 or 256 MiB: larger than any cache; the targets begin here",
    2**28: "an embedding of a large model",
    2**30: "nothing new may happen here",
    2**32: "the first size whose index does not fit into 32 bits",
}
QUICK = (2**10, 2**20, 2**26)
GIVEN = "given on the command line"
ON_GPU = 0  # as Case.threads: a GPU has its own


def cases(sizes: Sequence[int] | None = None, quick: bool = False) -> list[Case]:
    """All rows.

    Args:
        sizes: numbers of values instead of the ladder; models stay as they are.
        quick: three sizes, and no large model.
    """
    rows = []
    for label, call in DISTRIBUTIONS:
        for dtype in DTYPES:
            for size in sorted(sizes or (QUICK if quick else LADDER)):
                rows.append(Case("fill", label, call, (), dtype, (size,), ON_GPU, LADDER.get(size, GIVEN)))
    for label, (shapes, dtype, why) in MODELS.items():
        values = sum(math.prod(shape) for shape in shapes())
        if not (quick and values > 2**30):
            rows.append(Case("model", label, "normal_", (0.0, 0.02), dtype, (values,), ON_GPU, why))
    return rows
