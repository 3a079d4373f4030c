"""The generators that code of others may draw from, put back after it has run."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["generators_kept"]


@contextmanager
def generators_kept(devices: Sequence[int] = ()) -> Iterator[None]:
    """Those of Python, of NumPy (if loaded) and of torch, on the CPU and these GPUs, are afterwards where they were."""
    numpy: Any = sys.modules.get("numpy.random")
    of_python, of_numpy = random.getstate(), numpy.get_state() if numpy else None
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(of_python)
        if numpy:
            numpy.set_state(of_numpy)
