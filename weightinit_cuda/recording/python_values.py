"""Python's own values where they meet recorded tensors, and no operator shows them: indices, lists of tensors, functions.

torch turns a list that is an index, or data, into a tensor on the device of the tensor that it is for, before any mode sees it:
on meta its values would be lost. Here they become tensors of their own first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..tensors.torch_private import without_modes

if TYPE_CHECKING:
    from .recorder import Recorder

__all__ = ["METHODS", "SUBSCRIPTS", "index_of", "known"]

_PLAIN_INDICES = frozenset((int, slice, Tensor, type(None), EllipsisType, bool))
_SEQUENCES = (list, tuple, range)


def index_of(index: Any) -> Any:
    """The index with a tensor for each sequence of numbers in it."""
    if type(index) in _PLAIN_INDICES:
        return index
    if isinstance(index, tuple) or (isinstance(index, _SEQUENCES) and _stands_for_tuple(index)):
        return tuple(_numbers(each) if isinstance(each, _SEQUENCES) else each for each in index)
    return _numbers(index) if isinstance(index, _SEQUENCES) else index


def _stands_for_tuple(index: Any) -> bool:
    """Whether torch takes a list for a tuple: one of slices, tensors, or, before torch 2.9, other lists."""
    kinds = (Tensor, slice, EllipsisType, type(None), *(_SEQUENCES if _lists_in_lists_are_tuples() else ()))
    return len(index) < 32 and any(isinstance(each, kinds) for each in index)


@cache
def _lists_in_lists_are_tuples() -> bool:
    with without_modes():
        return torch.zeros(2, 2, device="cpu")[[[0, 1], [0, 1]]].dim() == 1


def _numbers(sequence: Any) -> Tensor:
    made = torch.tensor(list(sequence), device="cpu")
    return made if made.dtype in (torch.bool, torch.uint8) else made.to(torch.int64)


def known(recorder: Recorder, data: Any) -> Any:
    """Nested sequences with the values of the recorded tensors in them."""
    if isinstance(data, Tensor):
        return recorder.value(data)
    return [known(recorder, each) for each in data] if isinstance(data, (list, tuple)) else data


# ---- methods of recorded tensors --------------------------------------------------------------------------------------


def _getitem(recorder: Recorder, torchs: Callable[..., Any], tensor: Tensor, index: Any) -> Any:
    return torchs(tensor, index_of(index))


def _setitem(recorder: Recorder, torchs: Callable[..., Any], tensor: Tensor, index: Any, value: Any) -> None:
    torchs(tensor, index_of(index), value)


def _new(recorder: Recorder, torchs: Callable[..., Any], tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The old way to say ``new_tensor``."""
    if len(args) == 1 and not kwargs and type(args[0]) in (list, tuple):
        return torch.tensor(args[0], dtype=tensor.dtype, device=tensor.device)
    made: Tensor = torchs(tensor, *args, **kwargs)
    return made


def _by_python(recorder: Recorder, torchs: Callable[..., Any], tensor: Tensor, *args: Any) -> Tensor:
    """A function of Python's for each element: run on the values."""
    return tensor.copy_(torchs(recorder.value(tensor), *(recorder.value(x) if isinstance(x, Tensor) else x for x in args)))


METHODS: dict[str, Callable[..., Any]] = {
    "new": _new,
    "apply_": _by_python,
    "map_": _by_python,
}
"""By the name of the method: called with the recorder, torch's own method, and its arguments."""

SUBSCRIPTS: dict[str, Callable[..., Any]] = {"__getitem__": _getitem, "__setitem__": _setitem}
"""The same; these need more than a name on a class (``subscripts``)."""
