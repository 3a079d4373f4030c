"""The two short ways to the kernels, for one plain tensor: a call of ``init`` spends its time in Python, not in the fill."""

from __future__ import annotations

import torch

from ..numerics.distributions import Distribution
from ..tensors.named import PLAIN_TYPES
from ..tensors.torch_private import increment_version
from . import backend, drop_in_cuda
from .backend import kernels
from .job import FillJob
from .native import STORAGE, get_num_threads, native_transform, plain_address
from .run import fill
from .words import LOWEST, MASK64, seed_cell

__all__ = ["draw_and_fill", "fill_tensor"]

_SMALL = 1 << 15  # elements that one thread fills: kSmall of csrc/cpu/dispatch.h


def draw_and_fill(tensor: torch.Tensor, distribution: Distribution) -> bool:
    """A drop-in call on a plain tensor: draws the seed from the default generator and fills, on the CPU in 2 microseconds.

    Returns:
        False, and nothing is drawn or written, for any other tensor: the caller then takes the careful path.
    """
    if not tensor.is_cpu:
        return tensor.is_cuda and drop_in_cuda.draw_and_fill(tensor, distribution)
    dtype = tensor.dtype
    storage = STORAGE.get(dtype)  # the checks of plain_address once more: a call would cost a tenth of a microsecond
    if storage is None or not backend.native or type(tensor) not in PLAIN_TYPES or not distribution.one_pass:
        return False
    try:
        if not tensor.is_contiguous() or tensor.is_inference() or tensor.is_neg():
            return False
        address = tensor.data_ptr()
    except RuntimeError:
        return False
    if not address:
        return False
    transform = distribution.forms.get(dtype) or native_transform(distribution, dtype)
    n, (draw, seed) = tensor.numel(), seed_cell.both
    draw(LOWEST, None)
    increment_version((tensor,))  # before the fill, which Ctrl-C may end
    kernels.fill_drawn(address, storage, n, transform, seed, 1 if n <= _SMALL else get_num_threads())
    return True


def fill_tensor(tensor: torch.Tensor, distribution: Distribution, seed: int, stream: int = 0) -> None:
    """``fill`` of one tensor that is its own global tensor."""
    address = plain_address(tensor) if distribution.one_pass and tensor.is_cpu else 0
    if not address:
        return fill((FillJob(tensor, distribution, seed, stream),))
    dtype = tensor.dtype
    transform = native_transform(distribution, dtype)
    seed, stream = seed & MASK64, stream & MASK64
    increment_version((tensor,))
    kernels.fill_contiguous(address, STORAGE[dtype], tensor.numel(), transform, seed, stream, get_num_threads())
    return None
