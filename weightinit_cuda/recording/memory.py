"""Memory for tensors that have none: real storages, allocated and put under the same tensor objects.

The object stays what it is: identity, class, attributes, requires_grad, hooks, ties and weak references, so optimizers and
modules that hold it need not know. Knows no tapes and no plans.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..tensors.named import PLAIN_TYPES
from ..tensors.torch_private import as_seen, is_traceable_wrapper_subclass, storage_key, swap_tensor_impl

__all__ = ["LARGE", "allocate", "allocate_alike", "ask_for_huge_pages", "put_under", "put_under_all", "refresh"]

LARGE = 1 << 22  # bytes; below, two huge pages are not worth a system call


def allocate(tensors: Iterable[tuple[Tensor, torch.device, torch.dtype]]) -> list[Tensor]:
    """Real, unwritten tensors for tensors on meta: same shape and strides; those that share a storage share one again.

    Args:
        tensors: each with the device and the dtype that it is to have.
    """
    storages: dict[tuple[int, torch.device, torch.dtype | None], Tensor] = {}
    return [_allocated(tensor, device, dtype, storages) for tensor, device, dtype in tensors]


def _allocated(tensor: Tensor, device: torch.device, dtype: torch.dtype, storages: dict[Any, Tensor]) -> Tensor:
    if is_traceable_wrapper_subclass(tensor):
        return torch.empty_like(tensor, device=device, dtype=dtype, requires_grad=False)
    storage = tensor.untyped_storage()
    key = storage_key(storage), device, None if dtype == tensor.dtype else dtype  # bits may be seen as other dtypes, too
    if key not in storages:
        nbytes = storage.nbytes() // tensor.dtype.itemsize * dtype.itemsize if key[2] else storage.nbytes()
        storages[key] = torch.empty(nbytes, dtype=torch.uint8, device=device)
        ask_for_huge_pages(storages[key])
    made = torch.empty(0, dtype=dtype, device=device)  # not a view: a parameter has no base
    memory = storages[key].untyped_storage()
    made.set_(memory, tensor.storage_offset(), tensor.size(), tensor.stride())
    return as_seen(made, tensor.is_conj(), tensor.is_neg())


def allocate_alike(tensors: Iterable[Tensor], devices: Iterable[torch.device]) -> list[Tensor]:
    """Real, unwritten tensors for plain, contiguous tensors on meta, each with a storage of its own: :func:`put_under_all`."""
    empty = torch.empty_strided  # torch.empty takes twice the time to read its arguments
    made = [
        empty(
            tensor.shape,
            tensor.stride(),
            dtype=tensor.dtype,
            device=device,
            requires_grad=tensor.requires_grad and tensor.is_leaf,
        )
        for tensor, device in zip(tensors, devices, strict=True)
    ]
    for tensor in made:
        if tensor.nbytes >= LARGE:
            ask_for_huge_pages(tensor)
    return made


# The order of the blocks of free pages that the kernel gives back to the host of a virtual machine; -1: it gives back none.
REPORTING = Path("/sys/module/page_reporting/parameters/page_reporting_order")


@lru_cache(maxsize=1)
def huge_pages_wanted() -> bool:
    """Whether fresh memory is to be in huge pages: ``WEIGHTINIT_HUGE_PAGES``, or what the kernel says.

    A virtual machine that reports its free pages has given its free huge pages back, and the host backs them again a small page
    at a time: the first touch of 256 MB takes 1.7 s instead of 0.04, where small pages, which are reused first, take 0.2. It
    cannot be told by touching one, since the next one may be the first that is gone.

    Raises:
        ValueError: the variable is set to something else than 0, 1 or auto.
    """
    wish = os.environ.get("WEIGHTINIT_HUGE_PAGES", "auto") or "auto"
    if wish not in ("0", "1", "auto"):
        raise ValueError(f"WEIGHTINIT_HUGE_PAGES: must be 0, 1 or auto, got {wish!r}.")
    return wish == "1" or (wish == "auto" and not _reports_free_pages())


def _reports_free_pages() -> bool:
    try:
        return 0 <= int(REPORTING.read_text(encoding="ascii")) < 64  # printed as unsigned by some kernels
    except (OSError, ValueError):
        return False


@lru_cache(maxsize=1)
def _madvise() -> Any:
    """The C library's madvise; None where there is none, or no huge pages."""
    return getattr(ctypes.CDLL(None), "madvise", None) if hasattr(mmap, "MADV_HUGEPAGE") else None


def ask_for_huge_pages(tensor: Tensor) -> None:
    """Asks Linux to back fresh memory with pages of 2 MB. Its first touch, which is the fill, then faults 512 times less often.

    A wish: where the kernel does not grant it, nothing happens.
    """
    size = tensor.numel() * tensor.element_size()
    if tensor.is_cpu and size >= LARGE and huge_pages_wanted() and (madvise := _madvise()) is not None:
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


def put_under_all(tensors: Iterable[Tensor], made: Iterable[Tensor]) -> None:
    """:func:`put_under` for plain tensors and what :func:`allocate_alike` has made for them."""
    for tensor, real in zip(tensors, made, strict=True):
        if tensor._backward_hooks or tensor._post_accumulate_grad_hooks:
            put_under(tensor, real)
        else:
            swap_tensor_impl(tensor, real)


def refresh(model: nn.Module, modules: Iterable[nn.Module], wrapped: bool) -> None:
    """What modules do after their parameters have moved: cuDNN's flat weights, FSDP2's views of shards; and the graph of what
    the old ``weight_norm`` has computed."""
    for module in modules:
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()
        if module._forward_pre_hooks:
            _join_to_graph(module)
    if wrapped:
        model._apply(lambda tensor: tensor)  # type: ignore[no-untyped-call]


def _join_to_graph(module: nn.Module) -> None:
    """Joins ``weight`` of ``torch.nn.utils.weight_norm`` to the parameters that it is computed from, as in eager code; each
    forward pass computes it again. Its values stay. A graph that it has belongs to values that are gone."""
    kind = getattr(sys.modules.get("torch.nn.utils.weight_norm"), "WeightNorm", ())
    for hook in module._forward_pre_hooks.values():
        if not isinstance(hook, kind):
            continue
        held = vars(module).get(hook.name)
        parts = [module._parameters.get(f"{hook.name}_{part}") for part in "gv"]
        if not isinstance(held, Tensor) or (held.requires_grad and held.is_leaf):
            continue
        if all(part is not None and type(part) in PLAIN_TYPES and part.dtype == held.dtype for part in parts):
            with torch.enable_grad():
                made = hook.compute_weight(module)
            made.detach().copy_(held)
            put_under(held, made)
