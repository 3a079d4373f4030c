"""Suite ``fill``: one tensor, one call. Distribution x dtype x size x threads, small tensors, fresh memory.

The shapes are fixed, each with the reason why it is there, so that two runs are comparable row by row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..case import Case

__all__ = ["cases"]

# Label, function, what follows the tensor. The two truncated normals are those of practice: torch's default, which cuts at
# two sigma, and std = 0.02 with the default bounds, which cut nothing that a float32 normal reaches.
DISTRIBUTIONS: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    ("uniform", "uniform_", ()),
    ("normal", "normal_", ()),
    ("trunc_normal", "trunc_normal_", ()),
    ("trunc_normal std=.02", "trunc_normal_", (0.0, 0.02)),
)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2)

# float32 has the whole ladder: its curve shows the cost of a call, each cache and the step to several threads.
LADDER = {
    2**10: "a layer norm: the cost of a call still shows",
    2**12: "64 x 64: fits in L1",
    2**14: "64 KiB of float32: L2, the speed of the kernel itself",
    2**16: "a tile: one thread's unit of work",
    2**18: "512 x 512: L2 or L3, several threads begin to pay",
    2**20: "a 1024 x 1024 weight",
    2**22: "a 2048 x 2048 weight: L3 or memory",
    2**25: "128 MiB of float32, larger than most caches: the targets' size",
    2**27: "512 MiB of float32, an embedding of a large model: nothing new may happen here",
}
FULL = {
    2**28: "1 GiB of float32",
    2**30: "4 GiB of float32: a layer of experts",
}
# The other dtypes differ from float32 in the kernel and in the bytes stored: one size for each regime shows both.
FEW = (2**10, 2**14, 2**20, 2**25)
FLOAT8 = (2**14, 2**20)  # two kernels, cache only: float8 is stored, hardly ever initialised
QUICK = (2**10, 2**14, 2**20)
GIVEN = "given on the command line"

# Python is all the time there is on a bias; on 64 x 64 half of it. Layers of real models are full of both.
SMALL_CALLS = ("uniform_", "normal_", "kaiming_uniform_", "xavier_uniform_", "trunc_normal_", "zeros_", "ones_")
BIAS, MATRIX_OF_TEN, SMALL_WEIGHT = (10,), (2, 5), (64, 64)

FRESH_SIZE, QUICK_FRESH_SIZE = 2**25, 2**22


def cases(threads: Sequence[int], sizes: Sequence[int] | None = None, quick: bool = False, full: bool = False) -> list[Case]:
    """All rows, by number of threads, so that thread pools are set up once.

    Args:
        threads: the numbers of threads to measure with.
        sizes: numbers of values instead of the tables above; small and fresh rows stay as they are.
        quick: three sizes for a look that takes less than a minute.
        full: up to 2^30 values.
    """
    rows: list[Case] = []
    for count in threads:
        rows += _fill(count, sizes, quick, full)
        rows += _small(count)
        size = QUICK_FRESH_SIZE if quick else FRESH_SIZE
        rows.append(Case("fresh", "uniform", "uniform_", (), torch.float32, (size,), count, "a model that was just allocated"))
    return rows


def _fill(threads: int, sizes: Sequence[int] | None, quick: bool, full: bool) -> list[Case]:
    whys = LADDER | FULL
    rows = []
    for label, call, arguments in DISTRIBUTIONS:
        for dtype in DTYPES:
            own = QUICK if quick else _own_sizes(dtype)
            own += tuple(FULL) if full else ()
            for size in sorted(own if sizes is None else sizes):
                why = whys.get(size, GIVEN)
                rows.append(Case("fill", label, call, arguments, dtype, (size,), threads, why))
    return rows


def _own_sizes(dtype: torch.dtype) -> tuple[int, ...]:
    if dtype == torch.float32:
        return tuple(LADDER)
    return FLOAT8 if dtype.itemsize == 1 else FEW


def _small(threads: int) -> list[Case]:
    rows = []
    for call in SMALL_CALLS:
        needs_fans = call.startswith(("kaiming", "xavier"))
        ten = MATRIX_OF_TEN if needs_fans else BIAS
        for shape, why in (
            (ten, "ten values: a bias, or a matrix for what needs fans"),
            (SMALL_WEIGHT, "a small layer's weight"),
        ):
            rows.append(Case("small", call, call, (), torch.float32, shape, threads, why))
    return rows
