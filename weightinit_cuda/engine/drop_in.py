"""The short ways to the kernels, for one plain tensor: a call of ``init`` spends its time in Python, not in the fill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import has_torch_function_unary

from ..numerics.distributions import Distribution
from ..tensors.torch_private import dispatch_modes, forward_ad_runs, functorch_transform, jit_trace
from . import backend, drop_in_cuda
from .backend import kernels
from .job import FillJob
from .native import plain_tensors
from .run import fill
from .words import LOWEST, MASK64, seed_cell

__all__ = ["called", "draw_and_fill", "drawn", "fill_tensor", "method"]


def _never(*_: object) -> bool:
    return False


drawn: Callable[[torch.Tensor, Callable[..., Distribution], tuple[Any, ...]], bool] = _never
"""``drawn(tensor, scheme, args)``: a call of ``init`` on a plain tensor of the CPU, which fills with ``scheme(*args)``; the
first of ``args`` is the tensor's dtype. Draws the seed from the default generator and fills. False, and nothing is drawn or
written, for any other tensor, where operators are recorded, or where the scheme raises: then the careful path is taken."""

called: Callable[[Any, tuple[Any, ...], int], bool] = _never
"""``called(row, args, own)``: the same of a random function of ``torch.nn.init``, by its row in the catalog. So many of its
arguments are the tensor and the function's own; after them there may be a generator. False, too, where somebody else is to see
the call: functorch, a mode, a tensor's class."""

method: Callable[[Any, tuple[str, str], torch.Tensor, tuple[Any, ...], dict[str, Any]], bool] = _never
"""``method(row, names, tensor, args, named)``: the same of a method of tensors, which autograd would see. It has two arguments
of its own, of these names, which are 0 and 1 by default; any other one makes it False."""

if kernels is not None:
    drawn, called, method = kernels.short_calls(
        plain_tensors=plain_tensors,
        seed_cell=seed_cell,
        lowest=LOWEST,
        tracers=(dispatch_modes, jit_trace),
        transforms=functorch_transform,
        overridden=has_torch_function_unary,
        grad_enabled=torch.is_grad_enabled,
        forward=forward_ad_runs,
    )


def draw_and_fill(tensor: torch.Tensor, distribution: Distribution) -> bool:
    """A drop-in call on a plain tensor of a GPU: draws the seed from its default generator and fills.

    Returns:
        False, and nothing is drawn or written, for any other tensor: the caller then takes the careful path.
    """
    return backend.native and tensor.is_cuda and drop_in_cuda.draw_and_fill(tensor, distribution)


def fill_tensor(tensor: torch.Tensor, distribution: Distribution, seed: int, stream: int = 0) -> None:
    """``fill`` of one tensor that is its own global tensor."""
    if backend.native and plain_tensors.fill(tensor, distribution, seed & MASK64, stream & MASK64):
        return
    fill((FillJob(tensor, distribution, seed, stream),))
