"""Values that belong to tensors, by identity and not by their numbers; a tensor that is gone takes its value with it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Generic, TypeVar

from torch import Tensor

__all__ = ["ByIdentity"]

Value = TypeVar("Value")


class ByIdentity(Generic[Value]):
    """A mapping of tensors that keeps none of them alive.

    >>> import torch
    >>> names, weight = ByIdentity[str](), torch.zeros(2)
    >>> names[weight] = "weight"
    >>> names.get(weight), names.get(torch.zeros(2))
    ('weight', None)
    >>> del weight
    >>> len(names)
    0
    """

    def __init__(self) -> None:
        self._found: dict[int, tuple[weakref.ref[Tensor], Value]] = {}

    def __setitem__(self, tensor: Tensor, value: Value) -> None:
        key, found = id(tensor), self._found
        found[key] = weakref.ref(tensor, lambda _: found.pop(key, None)), value

    def get(self, tensor: Tensor) -> Value | None:
        """The tensor's value; None if it has none."""
        entry = self._found.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def pop(self, tensor: Tensor) -> Value | None:
        """The tensor's value, which it has no longer; None if it had none."""
        value = self.get(tensor)
        self._found.pop(id(tensor), None)
        return value

    def __contains__(self, tensor: Tensor) -> bool:
        return self.get(tensor) is not None

    def __iter__(self) -> Iterator[Tensor]:
        return (tensor for reference, _ in list(self._found.values()) if (tensor := reference()) is not None)

    def __len__(self) -> int:
        return len(self._found)
