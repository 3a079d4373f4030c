"""What the GPU tests share: when they run, the layouts, and equality of all memory with the CPU's."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
import torch
from bitwise import raw

from benchmarks.gpu_check.layouts import LAYOUTS, Layout, base
from weightinit_cuda import engine
from weightinit_cuda.engine.job import FillJob
from weightinit_cuda.numerics.distributions import Distribution
from weightinit_cuda.tensors.boxes import Region

__all__ = ["LAYOUTS", "Layout", "base", "fill", "job", "on_cpu", "on_gpu", "why_skipped", "wrong_memory"]


def why_skipped() -> str:
    """Why the tests are skipped; empty if they run. With WEIGHTINIT_CUDA=1, as in `make gpu-check`, they fail instead."""
    if os.environ.get("WEIGHTINIT_CUDA") == "1":
        return ""
    if not torch.cuda.is_available():
        return "no CUDA device"
    cuda = engine.backend_info().cuda
    return "" if cuda == "native" else f"no CUDA kernels: {cuda}"


WHY_SKIPPED = why_skipped()
on_gpu = (pytest.mark.gpu, pytest.mark.skipif(bool(WHY_SKIPPED), reason=WHY_SKIPPED))


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
    bases = [base(layout.elements, dtype, device) for device in ("cpu", "cuda")]
    for memory in bases:
        fill(layout.view(memory), distribution, seed, region=layout.region)
    cpu, gpu = (raw(memory) for memory in bases)
    return int((cpu != gpu).sum())
