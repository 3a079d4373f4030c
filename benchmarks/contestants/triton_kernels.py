"""The kernels of ``triton_random``. A file of their own: Triton reads its source, and imports must be at its top."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["KERNELS"]


@triton.jit
def uniform(out, n, seed, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) if WIDE else tl.program_id(0)
    at = first * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.rand(seed, at), mask=at < n)


@triton.jit
def normal(out, n, seed, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) if WIDE else tl.program_id(0)
    at = first * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.randn(seed, at), mask=at < n)


@triton.jit
def uniform4x(out, n, seed, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) if WIDE else tl.program_id(0)
    a, b, c, d = tl.rand4x(seed, first * BLOCK + tl.arange(0, BLOCK))
    at = first * (4 * BLOCK) + tl.arange(0, BLOCK)
    tl.store(out + at, a, mask=at < n)
    tl.store(out + at + BLOCK, b, mask=at + BLOCK < n)
    tl.store(out + at + 2 * BLOCK, c, mask=at + 2 * BLOCK < n)
    tl.store(out + at + 3 * BLOCK, d, mask=at + 3 * BLOCK < n)


@triton.jit
def normal4x(out, n, seed, BLOCK: tl.constexpr, WIDE: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) if WIDE else tl.program_id(0)
    a, b, c, d = tl.randn4x(seed, first * BLOCK + tl.arange(0, BLOCK))
    at = first * (4 * BLOCK) + tl.arange(0, BLOCK)
    tl.store(out + at, a, mask=at < n)
    tl.store(out + at + BLOCK, b, mask=at + BLOCK < n)
    tl.store(out + at + 2 * BLOCK, c, mask=at + 2 * BLOCK < n)
    tl.store(out + at + 3 * BLOCK, d, mask=at + 3 * BLOCK < n)


KERNELS = {("uniform_", 1): uniform, ("normal_", 1): normal, ("uniform_", 4): uniform4x, ("normal_", 4): normal4x}
