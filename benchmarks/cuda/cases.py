"""What is measured on a GPU: one tensor from 2^10 to 2^32 values, the same as a curve, and whole models in one call."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..case import Case
from ..shapes import SMALL, load

__all__ = ["cases"]

# Label, function, what follows the tensor: one for each program of the kernel that users meet; the first two are also curves.
DISTRIBUTIONS: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    ("uniform", "uniform_", ()),
    ("normal", "normal_", ()),
    ("trunc_normal", "trunc_normal_", ()),
    ("trunc_normal std=.02", "trunc_normal_", (0.0, 0.02)),
    ("ones", "ones_", ()),
)
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
CURVE = tuple(2**power for power in range(10, 31, 2))
MODELS = {
    SMALL: "nothing but calls: what one launch saves",
    "ResNet-50": "161 tensors, most of them small",
    "GPT-2": "148 tensors, half a GB",
    "Llama-3-8B": "291 tensors, 16 GB: the speed of the kernel",
}
GIVEN = "given on the command line"
ON_GPU = 0  # as Case.threads: a GPU has its own


def cases(suite: str = "all", sizes: Sequence[int] | None = None, quick: bool = False) -> list[Case]:
    """All rows.

    Args:
        suite: "fill", "model", "scaling" or "all".
        sizes: numbers of values instead of the ladder; models stay as they are.
        quick: three sizes, and no large model.
    """
    rows = []
    if suite in ("fill", "all"):
        rows += _tensors("fill", sorted(sizes or (QUICK if quick else LADDER)), DISTRIBUTIONS)
    if suite in ("scaling", "all"):
        rows += _tensors("scaling", sorted(sizes or (QUICK if quick else CURVE)), DISTRIBUTIONS[:2])
    if suite in ("model", "all"):
        for table, why in ((load(name), why) for name, why in MODELS.items()):
            if not (quick and table.values > 2**30):
                rows.append(Case("model", table.model, "model", (), getattr(torch, table.dtype), (table.values,), ON_GPU, why))
    return rows


def _tensors(group: str, sizes: Sequence[int], distributions: Sequence[tuple[str, str, tuple[float, ...]]]) -> list[Case]:
    why = {"fill": LADDER}.get(group, dict.fromkeys(CURVE, "a point of a curve"))
    return [
        Case(group, label, call, arguments, dtype, (size,), ON_GPU, why.get(size, GIVEN))
        for label, call, arguments in distributions
        for dtype in DTYPES
        for size in sizes
    ]
