"""Memory for tensors that have none: real storages, allocated and put under the same tensor objects.

The object stays what it is: identity, class, attributes, requires_grad, hooks, ties and weak references, so optimizers and
modules that hold it need not know. Knows no tapes and no plans.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ..tensors.named import PLAIN_TYPES
from ..tensors.torch_private import is_traceable_wrapper_subclass, storage_key, swap_tensor_impl

__all__ = ["LARGE", "allocate", "ask_for_huge_pages", "put_under", "refresh"]

LARGE = 1 << 22  # bytes; below, two huge pages are not worth a system call


def allocate(tensors: Iterable[tuple[Tensor, torch.device, torch.dtype]]) -> list[Tensor]:
    """Real, unwritten tensors for tensors on meta: same shape and strides; those that share a storage share one again.

    Args:
        tensors: each with the device and the dtype that it is to have.
    """
    storages: dict[tuple[int, torch.device, torch.dtype], Tensor] = {}
    return [_allocated(tensor, device, dtype, storages) for tensor, device, dtype in tensors]


def _allocated(tensor: Tensor, device: torch.device, dtype: torch.dtype, storages: dict[Any, Tensor]) -> Tensor:
    if is_traceable_wrapper_subclass(tensor):
        return torch.empty_like(tensor, device=device, dtype=dtype, requires_grad=False)
    storage = tensor.untyped_storage()
    key = storage_key(storage), device, dtype
    if key not in storages:
        storages[key] = torch.empty(storage.nbytes() // tensor.dtype.itemsize, dtype=dtype, device=device)
        ask_for_huge_pages(storages[key])
    made = torch.empty(0, dtype=dtype, device=device)  # not a view: a parameter has no base
    memory = storages[key].untyped_storage()
    made.set_(memory, tensor.storage_offset(), tensor.size(), tensor.stride())
    return made.conj() if tensor.is_conj() else made


@lru_cache(maxsize=1)
def _madvise() -> Any:
    """The C library's madvise; None where there is none, or no huge pages."""
    return getattr(ctypes.CDLL(None), "madvise", None) if hasattr(mmap, "MADV_HUGEPAGE") else None


def ask_for_huge_pages(tensor: Tensor) -> None:
    """Asks Linux to back fresh memory with pages of 2 MB. Its first touch, which is the fill, then faults 512 times less often.

    A wish: where the kernel does not grant it, nothing happens.
    """
    size = tensor.numel() * tensor.element_size()
    if tensor.is_cpu and size >= LARGE and (madvise := _madvise()) is not None:
        begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (tensor.data_ptr() + size) // mmap.PAGESIZE * mmap.PAGESIZE
        madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_HUGEPAGE)


_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def put_under(tensor: Tensor, real: Tensor) -> None:
    """Gives a tensor the memory of another one, which nobody else has, and which is not to be used after that."""
    wrapped = type(tensor) not in PLAIN_TYPES and is_traceable_wrapper_subclass(tensor)
    if tensor.requires_grad and tensor.is_leaf:
        real.requires_grad_(True)
    hooks = [(name, registered) for name in _HOOKS if (registered := getattr(tensor, name, None))]
    if wrapped:
        for name in tensor.__tensor_flatten__()[0]:  # type: ignore[attr-defined]
            if isinstance(inner := getattr(real, name), Tensor):  # a DTensor lists its mesh, too
                setattr(tensor, name, inner)
    swap_tensor_impl(tensor, real)
    for name, registered in hooks:  # they know the memory that is gone
        setattr(tensor, name, None)
        setattr(tensor, name, registered)


def refresh(model: nn.Module, wrapped: bool) -> None:
    """What modules do after their parameters have moved: cuDNN's flat weights, FSDP2's views of shards."""
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()
    if wrapped:
        model._apply(lambda tensor: tensor)  # type: ignore[no-untyped-call]
