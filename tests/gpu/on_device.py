"""What the GPU tests share: when they run, the layouts, and equality of all memory with the CPU's."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
import torch
from bitwise import raw

from weightinit_cuda import engine
from weightinit_cuda.engine.job import FillJob
from weightinit_cuda.numerics.distributions import Distribution
from weightinit_cuda.tensors.boxes import Region

INSISTED = os.environ.get("WEIGHTINIT_CUDA") == "1"  # make gpu-check: a build without CUDA fails there, nothing is skipped


def _why_skipped() -> str:
    if not torch.cuda.is_available():
        return "no CUDA device"
    if INSISTED or engine.backend_info().cuda == "native":
        return ""
    return f"no CUDA kernels: {engine.backend_info().cuda}"


WHY_SKIPPED = _why_skipped()
on_gpu = (pytest.mark.gpu, pytest.mark.skipif(bool(WHY_SKIPPED), reason=WHY_SKIPPED))
GUARD = 0xA5  # in every byte that a fill must not touch


class Layout(NamedTuple):
    """A view into a base of ``count`` elements, and its place in a global tensor."""

    count: int
    view: Callable[[torch.Tensor], torch.Tensor]
    region: Region | None = None


def base(count: int, dtype: torch.dtype, device: str | torch.device) -> torch.Tensor:
    """Memory in which every byte is GUARD."""
    return torch.full((count * dtype.itemsize,), GUARD, dtype=torch.uint8, device=device).view(dtype)


def job(
    tensor: torch.Tensor, distribution: Distribution, seed: int = 20, stream: int = 3, region: Region | None = None
) -> FillJob:
    return FillJob(tensor, distribution, seed, stream, region)


def fill(
    tensor: torch.Tensor, distribution: Distribution, seed: int = 20, stream: int = 3, region: Region | None = None
) -> None:
    engine.fill([job(tensor, distribution, seed, stream, region)])


def on_cpu(
    distribution: Distribution,
    dtype: torch.dtype,
    shape: Sequence[int],
    seed: int = 20,
    stream: int = 3,
    region: Region | None = None,
) -> torch.Tensor:
    """What the CPU makes."""
    tensor = torch.empty(tuple(shape), dtype=dtype)
    fill(tensor, distribution, seed, stream, region)
    return tensor


def wrong_memory(layout: Layout, distribution: Distribution, dtype: torch.dtype, seed: int = 20) -> int:
    """Fills the layout on both devices; how many bytes of the whole base differ: values, and what lies around them."""
    bases = [base(layout.count, dtype, device) for device in ("cpu", "cuda")]
    for memory in bases:
        fill(layout.view(memory), distribution, seed, region=layout.region)
    cpu, gpu = (raw(memory) for memory in bases)
    return int((cpu != gpu).sum())


LONG = 3 * 65536 + 37  # elements: more than two tiles (csrc/cuda/launch.h: 64 KiB) of every dtype, and a rest


def _part(shape: Sequence[int], whole: Sequence[int], offset: Sequence[int]) -> Layout:
    rows, columns = shape
    return Layout(rows * columns, lambda b: b.view(rows, columns), Region(tuple(whole), tuple(offset)))


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
    **{
        f"{n} elements at {at}": Layout(at + n + 2, lambda b, n=n, at=at: b[at : at + n])
        for n in (1, 2, 5, 17)
        for at in (0, 1, 7)
    },  # type: ignore[misc]
}
