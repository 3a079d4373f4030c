"""The tensors that are filled: warm memory, shared by all contestants of a row, and fresh memory, new for every call."""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

from ..case import Case

__all__ = ["fresh", "warm"]


def warm(case: Case) -> Tensor:
    """A tensor whose pages exist. Small ones are parameters: that is what layers initialise."""
    tensor = torch.zeros(case.shape, dtype=case.dtype)
    return torch.nn.Parameter(tensor) if case.group == "small" else tensor


def fresh(case: Case, huge_pages: bool) -> Tensor:
    """A tensor in pages that the process has never touched: writing to it pays for the page faults.

    Args:
        huge_pages: ask for transparent huge pages, by madvise.
    """
    pages = mmap.mmap(-1, case.bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if huge_pages and hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=case.dtype).view(case.shape)
