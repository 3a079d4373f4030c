"""``tensor[index]`` and ``tensor[index] = value`` by functions of Python, put under ``Tensor`` and taken away without a trace.

Tensors are mappings to Python's C API, and no sequences: ``torch.tensor([a, b])`` reads numbers from tensors of no dimensions.
A class that is given ``__getitem__`` by Python becomes both, and stays it when the method is taken away: so the two slots of
sequences are cleared again. Python has no call for that; it is written into the structure of the class, where a test on a class
of our own has found the slots to be. Where they are not, nothing is put there (free-threaded builds, say).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from torch import Tensor

from ..tensors.torch_private import TensorBase

__all__ = ["put", "remove"]

_SQ_ITEM = 44  # of Python's stable ABI (typeslots.h)
_WORD = ctypes.sizeof(ctypes.c_void_p)
_AS_SEQUENCE = object.__basicsize__ + _WORD + 10 * _WORD  # of PyTypeObject: after ob_size and ten fields
_SIZE: int = vars(type)["__basicsize__"].__get__(type)  # of a class itself
_ITEM, _ASS_ITEM = 3 * _WORD, 5 * _WORD  # of PySequenceMethods


class _Slots:
    """The slots of sequences of a class."""

    def __init__(self, kind: type) -> None:
        self._methods = ctypes.c_void_p.from_address(id(kind) + _AS_SEQUENCE).value

    @property
    def item(self) -> int | None:
        return ctypes.c_void_p.from_address(self._methods + _ITEM).value if self._methods else None

    def clear(self) -> None:
        if self._methods:
            for slot in (_ITEM, _ASS_ITEM):
                ctypes.c_void_p.from_address(self._methods + slot).value = None


@cache
def _is_possible() -> bool:
    """Whether the slots are where they are thought to be."""

    class Sequence:
        def __getitem__(self, index: Any) -> Any: ...

    get_slot = ctypes.pythonapi.PyType_GetSlot
    get_slot.restype, get_slot.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_int]
    methods = ctypes.c_void_p.from_address(id(Sequence) + _AS_SEQUENCE).value
    inside = methods is not None and id(Sequence) < methods < id(Sequence) + _SIZE  # as in every class of Python's
    return inside and get_slot(Sequence, _SQ_ITEM) not in (None, 0) and _Slots(Sequence).item == get_slot(Sequence, _SQ_ITEM)


def put(methods: dict[str, Callable[..., Any]]) -> None:
    """Puts ``__getitem__`` and ``__setitem__`` there."""
    if _is_possible() and not methods.keys() & vars(Tensor).keys():  # else somebody's own
        for name, method in methods.items():
            setattr(Tensor, name, method)
        _no_sequences()


def remove(methods: dict[str, Callable[..., Any]]) -> None:
    """Takes them away, if they are still these."""
    if all(vars(Tensor).get(name) is method for name, method in methods.items()):
        for name in methods:
            delattr(Tensor, name)
        _no_sequences()


def _no_sequences() -> None:
    for kind in _kinds(Tensor):
        owner = next(k for k in kind.__mro__ if "__getitem__" in vars(k))
        if owner is Tensor or owner is TensorBase:
            _Slots(kind).clear()


def _kinds(kind: type) -> Iterator[type]:
    yield kind
    derived: list[type] = type.__subclasses__(kind)
    for each in derived:
        yield from _kinds(each)
