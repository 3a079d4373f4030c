"""Recorded tensors where they leave torch in the block: as text, as pickles, as memory for other libraries; and their copies.

There the values are computed, as for ``item()``: a pickle of a tensor on meta would be read again without them. A copy is
recorded.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..tensors.named import PLAIN_TYPES
from ..tensors.torch_private import storage_key, without_modes
from .source_line import described, here
from .tape import META
from .views import Geometry

if TYPE_CHECKING:
    from .recorder import Recorder

__all__ = ["METHODS"]


def _repr(recorder: Recorder, torchs: Callable[..., str], tensor: Tensor, **kwargs: Any) -> str:
    real = recorder.value(tensor.detach()).requires_grad_(tensor.requires_grad)
    text = torchs(real, **kwargs)
    graph = type(tensor.grad_fn).__name__
    return text if tensor.grad_fn is None else text.replace("requires_grad=True", f"grad_fn=<{graph}>")


def _reduced(recorder: Recorder, torchs: Callable[..., Any], tensor: Tensor, proto: Any) -> Any:
    """For ``copy.copy`` the same memory; for a pickle the values, of which views of one memory share one again."""
    if sys._getframe(2).f_code is copy.copy.__code__:
        return _same_memory, (tensor,)
    real = recorder.value(tensor.detach(), copied=False).requires_grad_(tensor.requires_grad)
    if type(tensor) not in PLAIN_TYPES:
        real = real.as_subclass(type(tensor))
    real.__dict__.update(vars(tensor))
    return torchs(real, proto)


def _same_memory(tensor: Tensor) -> Tensor:
    same = tensor.detach().requires_grad_(tensor.requires_grad)
    same.__dict__.update(vars(tensor))
    return same


def _copied(recorder: Recorder, torchs: Callable[..., Tensor], tensor: Tensor, memo: dict[Any, Any]) -> Tensor:
    """``copy.deepcopy``: of tensors that share memory the copies share one again. On meta torch does not see to that."""
    view = recorder.view_of(tensor)
    if (
        id(tensor) in memo
        or type(tensor) is not Tensor
        or not tensor.is_leaf
        or view is None
        or not view.is_resolved
        or tensor.grad is not None
    ):
        return torchs(tensor, memo)
    storages: dict[int, torch.UntypedStorage] = memo.setdefault("torch", {})  # as torch has them there
    key, storage = storage_key(tensor.untyped_storage()), tensor.untyped_storage()
    with torch.no_grad():
        if key not in storages:
            whole = view.memory.whole
            if not whole.is_whole:
                size = whole.dtype.itemsize
                whole = whole._replace(geometry=Geometry(0, (storage.nbytes() // size,), (1,)))
            seen = tensor if whole == view else _seen(storage, whole.dtype, whole.geometry)
            storages[key] = seen.clone().untyped_storage()
        made = _seen(storages[key], view.dtype, view.geometry).requires_grad_(tensor.requires_grad)
    memo[id(tensor)] = made
    made.__dict__.update(copy.deepcopy(vars(tensor), memo))
    return made


def _seen(storage: torch.UntypedStorage, dtype: torch.dtype, geometry: Geometry) -> Tensor:
    with without_modes():
        return torch.empty(0, dtype=dtype, device=META).set_(storage, *geometry)


def _dlpack(recorder: Recorder, torchs: Callable[..., Any], tensor: Tensor, **kwargs: Any) -> Any:
    return torchs(recorder.value(tensor), **kwargs)


def _share_memory(recorder: Recorder, torchs: Callable[..., Any], tensor: Tensor) -> Any:
    raise NotImplementedError(
        f"deferred: memory can be shared when it is there, got share_memory_() in the block ({described(here())})."
        " Share the model after materialize_."
    )


METHODS: dict[str, Callable[..., Any]] = {
    "__deepcopy__": _copied,
    "__repr__": _repr,
    "__reduce_ex__": _reduced,
    "__dlpack__": _dlpack,
    "share_memory_": _share_memory,
}
"""By the name of a method of ``torch.Tensor``: called with the recorder, torch's own method, and its arguments."""
