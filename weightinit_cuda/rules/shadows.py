"""The numbers behind small tensors on meta that code computes from numbers alone: each operator runs on the CPU, too.

For code that makes a table beside a parameter, on the parameter's device, and copies it there. Nothing is known of what was
drawn, on meta or in memory; once code reads a number of what it has drawn, nothing is known of what it computes after that.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import torch
from torch import Tensor

from ..tensors.torch_private import TorchDispatchMode, schema_of, storage_key, tree_map

__all__ = ["Following", "Shadows"]

MOST = 1 << 20  # elements of a tensor: a position for each of 7,000 patches is the largest table in transformers
_OF_SHAPES = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}


class _UnknownError(Exception):
    """Of this tensor nothing is known."""


class Shadows:
    """What tensors on meta would hold, as far as the operators that made them were followed."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[Tensor, Tensor]] = {}  # by storage, which the first tensor keeps
        self.begin()

    def begin(self) -> None:
        """Other code begins, which knows nothing of the tensors until now."""
        self._forget()
        self._drawn = self._read = False
        self._others = _other_generators()

    def _forget(self) -> None:
        self._of.clear()

    def are_drawn(self) -> bool:
        """Whether numbers that the code has now may depend on draws."""
        return self._read or _other_generators() != self._others

    def numbers(self, tensor: Tensor) -> Tensor | None:
        """What it would hold; None if that is not known."""
        return None if self.are_drawn() else self._numbers(tensor)

    def _numbers(self, tensor: Tensor) -> Tensor | None:
        if not tensor.is_meta:
            return None if self._drawn else tensor
        known, shadow = self._of.get(storage_key(tensor.untyped_storage()), (None, None))
        if known is None or shadow is None or known.dtype != tensor.dtype:
            return None
        return shadow.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    def follow(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Does on the CPU what an operator has done on meta."""
        writes = schema_of(func).is_mutable
        if torch.Tag.nondeterministic_seeded in func.tags:
            made_here = result if isinstance(result, tuple | list) else (result,)
            self._drawn = self._drawn or any(isinstance(each, Tensor) and not each.is_meta for each in made_here)
        if not isinstance(result, Tensor):
            self._read = self._read or (self._drawn and isinstance(result, int | float | complex))
            if writes:
                self._forget()
            return
        key = storage_key(result.untyped_storage())
        if not result.is_meta or (key in self._of) != writes:  # a view has the numbers of what it is a view of
            return
        if result.numel() > MOST and not writes:
            return
        try:
            made = func(*self._on_cpu(func, args, kwargs), **self._named(kwargs))
            if not writes and _lies_alike(made, result):
                self._of[key] = result, made
        except Exception:  # an operator that needs what is not there: what it has written is not known now
            self._of.pop(key, None)

    def _on_cpu(self, func: Any, args: Any, kwargs: Any) -> list[Any]:
        """The operator's arguments; where only the shape of the first matters, another of its shape."""
        name = schema_of(func).name.removeprefix("aten::")
        if torch.Tag.nondeterministic_seeded in func.tags or "empty" in name or "resize" in name:
            raise _UnknownError
        if any(isinstance(each, Tensor) and each.numel() > MOST for each in args):
            raise _UnknownError
        if name in _OF_SHAPES and args and isinstance(args[0], Tensor):
            return [torch.empty(args[0].shape, dtype=args[0].dtype), *tree_map(self._known, list(args[1:]))]
        return list(tree_map(self._known, list(args)))

    def _named(self, kwargs: Any) -> dict[str, Any]:
        on_cpu = {"device": torch.device("cpu")} if "device" in kwargs else {}
        return {key: self._known(value) for key, value in kwargs.items() if key != "device"} | on_cpu

    def _known(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if (numbers := self._numbers(value)) is None:
            raise _UnknownError
        return numbers


def _other_generators() -> tuple[object, ...]:
    """Where the generators are that are not torch's: each draw moves a position, or changes the first word."""
    of_python, numpy = random.getstate(), sys.modules.get("numpy")
    of_numpy: Any = numpy.random.get_state() if numpy is not None else ("", (0,))
    return of_python[1][0], of_python[1][-1], of_python[2], of_numpy[1][0], of_numpy[2:]


def _lies_alike(one: Tensor, other: Tensor) -> bool:
    return one.stride() == other.stride() and one.untyped_storage().nbytes() == other.untyped_storage().nbytes()


class Following(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every operator."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shadows = Shadows()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.shadows.follow(func, args, kwargs or {}, result)
        return result
