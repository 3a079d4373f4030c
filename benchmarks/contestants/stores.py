"""The C library's memset, as one of the yardsticks: how fast this machine can write at all, with as many threads.

One thread writes the whole tensor; several write a part each, and the calls are made outside Python's lock.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from torch import Tensor

__all__ = ["memset"]

LINE = 64  # bytes of a cache line: no two threads write to one


def memset(tensor: Tensor, threads: int) -> Callable[[], object]:
    """A call that sets all bytes of a contiguous tensor to 0. It keeps the tensor alive, of which C knows the address only."""
    size = tensor.numel() * tensor.element_size()
    edges = [size * i // threads // LINE * LINE for i in range(threads)] + [size]
    sizes = [end - begin for begin, end in itertools.pairwise(edges)]

    def call() -> None:
        starts = [tensor.data_ptr() + edge for edge in edges[:-1]]
        list((_pool(threads).map if threads > 1 else map)(ctypes.memset, starts, [0] * threads, sizes))

    return call


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)
