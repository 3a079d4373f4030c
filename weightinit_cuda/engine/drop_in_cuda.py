"""The short way to the kernels for one plain tensor on a GPU, as ``drop_in`` has it for the CPU: no modes, no guard."""

from __future__ import annotations

import torch

from ..numerics.distributions import Distribution
from ..tensors.named import PLAIN_TYPES
from ..tensors.torch_private import cuda_stream, increment_version
from .backend import is_known_to_work, kernels
from .native import STORAGE, native_transform
from .words import take_position

__all__ = ["draw_and_fill"]


def draw_and_fill(tensor: torch.Tensor, distribution: Distribution) -> bool:
    """A drop-in call on a plain tensor of the current GPU: the seed is that of ``words.draw_seed``, made by the native module.

    Returns:
        False, and nothing is drawn or written, for any other tensor: the caller then takes the careful path.
    """
    dtype, device = tensor.dtype, tensor.get_device()
    storage = STORAGE.get(dtype)
    if (
        storage is None
        or not is_known_to_work(device)
        or type(tensor) not in PLAIN_TYPES
        or not distribution.one_pass
        or torch.cuda.current_device() != device
    ):
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
    generator = torch.cuda.default_generators[device]
    position = take_position(generator)
    increment_version((tensor,))
    stream = cuda_stream(device)
    kernels.cuda_fill_drawn(address, storage, tensor.numel(), transform, generator.initial_seed(), position, stream, device)
    return True
