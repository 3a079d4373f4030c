"""One row of a benchmark: which call, on how many values of which dtype, in what memory, with how many threads.

Plain data. Suites make cases, the runner measures them, reports name them; nothing here runs anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

__all__ = ["Case", "dtype_name", "size_name"]


@dataclass(frozen=True)
class Case:
    """One row.

    Args:
        group: the table it belongs to: "fill", "small", "fresh", "scaling", "model", "construct" or "neighbour".
        label: the distribution, the model or the company, as tables and targets name it.
        call: name of the function in torch.nn.init.
        arguments: what follows the tensor in that call.
        dtype, shape: of the tensor.
        threads: for torch.set_num_threads; 0 on a GPU.
        why: the reason for this shape.
    """

    group: str
    label: str
    call: str
    arguments: tuple[float, ...]
    dtype: torch.dtype
    shape: tuple[int, ...]
    threads: int
    why: str

    @property
    def values(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.values * self.dtype.itemsize

    @property
    def size(self) -> str:
        """The shape as tables show it: 2^25 for one dimension, 64x64 for more."""
        return size_name(self.values) if len(self.shape) == 1 else "x".join(map(str, self.shape))

    @property
    def name(self) -> str:
        where = f"{self.threads}t" if self.threads else "gpu"
        return f"{self.group}/{self.label}/{dtype_name(self.dtype)}/{self.size}/{where}"


def dtype_name(dtype: torch.dtype) -> str:
    """torch.float32 -> float32."""
    return str(dtype).removeprefix("torch.")


def size_name(values: int) -> str:
    """Powers of two of 2^10 and more as such.

    >>> size_name(1024), size_name(10)
    ('2^10', '10')
    """
    return f"2^{values.bit_length() - 1}" if values >= 1024 and values.bit_count() == 1 else str(values)
