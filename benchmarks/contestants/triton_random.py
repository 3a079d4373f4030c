"""Triton's ``tl.rand`` and ``tl.randn`` as its users write them, and the variants that use all four words of a Philox block."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
from typing import Any

from torch import Tensor

from .peer import Draw, Wanted

__all__ = ["open_triton"]

BLOCK = 1024  # values of one program: the size of Triton's own tutorials


def open_triton(at_once: int, wanted: Wanted) -> Draw | str:
    """A kernel of its own for every kind; each call has the next seed.

    Args:
        at_once: values made of a Philox block: 1 (``tl.rand``) or 4 (``tl.rand4x``).
    """
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if not wanted.dtype.is_floating_point or wanted.dtype.itemsize == 1:
        return f"measured for floats of 16 bits and more, no {wanted.dtype}"
    if wanted.arguments:
        return "measured for the default arguments only"
    kernels: Any = importlib.import_module("benchmarks.contestants.triton_kernels")
    kernel, calls = kernels.KERNELS[wanted.call, at_once], itertools.count(1)  # see seed_of

    def draw(tensor: Tensor) -> None:
        n = tensor.numel()
        grid = (-(-n // (BLOCK * at_once)),)
        seed = seed_of(wanted.seed, next(calls))
        kernel[grid](tensor, n, seed, BLOCK=BLOCK, WIDE=n > 2**31 - BLOCK * at_once)

    return draw


def seed_of(seed: int, call: int) -> int:
    """The seed of a call, counted from 1: from 2^32 on and alike modulo 16, so that Triton, which compiles a kernel for each
    integer type and for multiples of 16, compiles in the first call only and never in one that is timed.

    >>> seed_of(3, 1) == 2**32 + 3, seed_of(3, 2) == 2**33 + 3
    (True, True)
    """
    return (seed & (2**32 - 1)) + (call << 32)
