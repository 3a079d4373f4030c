"""The two short ways to the kernels, for one plain tensor: a call of ``init`` spends its time in Python, not in the fill."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..numerics.distributions import Distribution
from . import backend, drop_in_cuda
from .job import FillJob
from .native import plain_tensors
from .run import fill
from .words import LOWEST, MASK64, seed_cell

__all__ = ["draw_and_fill", "fill_tensor"]

_draw_and_fill: Callable[..., bool] = getattr(plain_tensors, "draw_and_fill", None)  # type: ignore[assignment]


def draw_and_fill(tensor: torch.Tensor, distribution: Distribution) -> bool:
    """A drop-in call on a plain tensor: draws the seed from the default generator and fills.

    Returns:
        False, and nothing is drawn or written, for any other tensor: the caller then takes the careful path.
    """
    if not backend.native:
        return False
    draw, seed = seed_cell.both
    if _draw_and_fill(tensor, distribution, draw, LOWEST, seed):
        return True
    return tensor.is_cuda and drop_in_cuda.draw_and_fill(tensor, distribution)


def fill_tensor(tensor: torch.Tensor, distribution: Distribution, seed: int, stream: int = 0) -> None:
    """``fill`` of one tensor that is its own global tensor."""
    if backend.native and plain_tensors.fill(tensor, distribution, seed & MASK64, stream & MASK64):
        return
    fill((FillJob(tensor, distribution, seed, stream),))
