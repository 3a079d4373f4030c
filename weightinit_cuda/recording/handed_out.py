"""Recorded tensors where they leave torch in the block: as text, as pickles, as memory for other libraries.

There the values are computed, as for ``item()``: a pickle of a tensor on meta would be read again without them.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..tensors.named import PLAIN_TYPES
from .source_line import described, here

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


def _dlpack(recorder: Recorder, torchs: Callable[..., Any], tensor: Tensor, **kwargs: Any) -> Any:
    return torchs(recorder.value(tensor), **kwargs)


def _share_memory(recorder: Recorder, torchs: Callable[..., Any], tensor: Tensor) -> Any:
    raise NotImplementedError(
        f"deferred: memory can be shared when it is there, got share_memory_() in the block ({described(here())})."
        " Share the model after materialize_."
    )


METHODS: dict[str, Callable[..., Any]] = {
    "__repr__": _repr,
    "__reduce_ex__": _reduced,
    "__dlpack__": _dlpack,
    "share_memory_": _share_memory,
}
"""By the name of a method of ``torch.Tensor``: called with the recorder, torch's own method, and its arguments."""
