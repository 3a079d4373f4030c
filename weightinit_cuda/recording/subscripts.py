"""``tensor[index]`` and ``tensor[index] = value`` by functions of Python, put under ``Tensor`` and taken away without a trace.

Tensors are mappings to Python's C API, and no sequences: ``torch.tensor([a, b])`` reads numbers from tensors of no dimensions.
A class that is given ``__getitem__`` by Python becomes both, and stays it when the method is taken away: so the native module
clears the two slots of sequences again. Without it nothing is put there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..engine.backend import kernels
from ..init.torch_draws import put_methods, remove_methods

__all__ = ["put", "remove"]


def put(methods: dict[str, Callable[..., Any]]) -> None:
    """Puts ``__getitem__`` and ``__setitem__`` there."""
    if kernels is not None and not methods.keys() & vars(Tensor).keys():  # else somebody's own
        put_methods(methods)
        kernels.no_sequences(Tensor, Tensor.__getitem__)


def remove(methods: dict[str, Callable[..., Any]]) -> None:
    """Takes them away, if they are still these."""
    if any(vars(Tensor).get(name) is method for name, method in methods.items()):
        remove_methods(methods)
        kernels.no_sequences(Tensor, Tensor.__getitem__)
