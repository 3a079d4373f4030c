"""``tensor[index]`` and ``tensor[index] = value`` by functions of Python, put under ``Tensor`` and taken away without a trace.

Tensors are mappings to Python's C API, and no sequences: ``torch.tensor([a, b])`` reads numbers from tensors of no dimensions.
A class that is given ``__getitem__`` by Python becomes both, and stays it when the method is taken away; and Python looks the
method up again for every class below, which takes 20 us. So the native module sets what stands behind ``[]`` itself. Without it
nothing is put there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..engine.backend import kernels
from ..tensors.torch_private import TensorBase

__all__ = ["put", "remove"]


class _Like:
    """Has Python's functions behind ``[]``, which look for the methods."""

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError

    def __setitem__(self, index: Any, value: Any) -> None:
        raise NotImplementedError


_subscripts = kernels and kernels.Subscripts(Tensor, TensorBase, _Like)


def put(methods: dict[str, Callable[..., Any]]) -> None:
    """Puts ``__getitem__`` and ``__setitem__`` there."""
    if _subscripts is not None and not methods.keys() & vars(Tensor).keys():  # else somebody's own
        _subscripts.put(methods)


def remove(methods: dict[str, Callable[..., Any]]) -> None:
    """Takes them away, if they are still these."""
    if _subscripts is not None and any(vars(Tensor).get(name) is method for name, method in methods.items()):
        _subscripts.remove(methods)
