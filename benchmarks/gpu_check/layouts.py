"""How a tensor may lie in memory, and where in a global tensor: what the check of bits and the tests on a GPU fill.

Each layout is a view into memory of its own, of which a fill must change nothing but the view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from weightinit_cuda.tensors.boxes import Region

__all__ = ["EDGES", "GUARD", "LAYOUTS", "Layout", "base"]

GUARD = 0xA5  # in every byte that a fill must not touch


class Layout(NamedTuple):
    """A view into a base of so many elements, and its place in a global tensor."""

    elements: int
    view: Callable[[Tensor], Tensor]
    region: Region | None = None


def base(count: int, dtype: torch.dtype, device: str | torch.device) -> Tensor:
    """Memory in which every byte is GUARD."""
    return torch.full((count * dtype.itemsize,), GUARD, dtype=torch.uint8, device=device).view(dtype)


def _part(shape: Sequence[int], whole: Sequence[int], offset: Sequence[int]) -> Layout:
    rows, columns = shape
    return Layout(rows * columns, lambda b: b.view(rows, columns), Region(tuple(whole), tuple(offset)))


def _elements(count: int, at: int) -> Layout:
    return Layout(at + count + 2, lambda b: b[at : at + count])


LONG = 3 * 65536 + 37  # elements: more than two tiles of 64 KiB of every dtype, and a rest

LAYOUTS: dict[str, Layout] = {
    "contiguous": Layout(LONG, lambda b: b),
    "misaligned": Layout(LONG + 1, lambda b: b[1:]),
    "misaligned, both ends": Layout(LONG + 8, lambda b: b[3:-5]),
    "matrix": Layout(301 * 700, lambda b: b.view(301, 700)),
    "transposed": Layout(301 * 700, lambda b: b.view(301, 700).t()),
    "permuted": Layout(29 * 31 * 37, lambda b: b.view(29, 31, 37).permute(2, 0, 1)),
    "channels_last": Layout(8 * 30 * 17 * 19, lambda b: b.view(8, 17, 19, 30).permute(0, 3, 1, 2)),
    "every other": Layout(2 * 70001, lambda b: b[::2]),
    "columns": Layout(257 * 300, lambda b: b.view(257, 300)[:, 7:290]),
    "rows": Layout(257 * 300, lambda b: b.view(257, 300)[3:-2]),
    "seven dimensions": Layout(2 * 3 * 4 * 5 * 4 * 3 * 4, lambda b: b.view(2, 3, 4, 5, 4, 3, 4)[:, :2, 1:, :4, ::3, 1:, :3]),
    "shard of columns": _part((300, 201), (900, 1201), (100, 17)),
    "shard of rows": _part((300, 201), (900, 201), (299, 0)),
    "shard, transposed": Layout(300 * 201, lambda b: b.view(201, 300).t(), Region((900, 1201), (100, 17))),
    "far index": Layout(LONG, lambda b: b, Region((2**36,), (2**34 - 1001,))),  # counter's upper half changes in the middle
    "far shard": _part((300, 201), (2**24, 2**16 + 1), (2**18 - 7, 2**15 - 3)),
    "0-dim": Layout(1, lambda b: b.view(())),
    "0-dim, misaligned": Layout(6, lambda b: b[5]),
    "no elements": Layout(4, lambda b: b[2:2]),
    **{f"{n} elements at {at}": _elements(n, at) for n in (1, 2, 5, 17) for at in (0, 1, 7)},
}

# Sizes around those of tiles, whatever they are: any power of two from 4 KiB of float8 to 2 MiB of float64. Each group is
# filled in one launch, and is few enough for a table that travels with it.
EDGES: tuple[dict[str, Layout], ...] = tuple(
    {f"2^{power} {more:+d} elements at {at}": _elements(2**power + more, at) for power in range(12, 19)}
    for more, at in ((-1, 0), (0, 1), (1, 3))
)
