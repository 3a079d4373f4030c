"""What decides what a rule gives a tensor, where that is less than the tensor: those with the same key get the same.

A model has hundreds of tensors of few shapes; a rule is then asked once for each key. Keys hold within one model.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Set
from contextlib import suppress
from typing import Any, TypeVar

from ..tensors.named import PLAIN_TYPES, Named

__all__ = ["DTYPE_AND_SHAPE", "Key", "ShapeKey", "decided_by", "key_of_function", "no_key", "shape_key"]

Key = Callable[[Named], Hashable]
"""From a tensor to what decides; None is no key: there the rule is asked."""

_Function = TypeVar("_Function", bound=Callable[..., Any])
_OF_FUNCTIONS: dict[Any, Key] = {}


class ShapeKey:
    """Dtype and shape; in layers of the given kinds also the kind, the name of the tensor in the module, and the shape of the
    layer's weight. The kernels' module has the same class, which takes a third of the time.

    Args:
        kinds: types of layers, no others have a key; None: of all modules alike.
        plain: types of tensors whose shapes are what they seem.
    """

    def __init__(self, kinds: Set[type] | None, plain: tuple[type, ...]) -> None:
        self._kinds, self._plain = kinds, plain

    def __call__(self, named: Named) -> Hashable:
        _, tensor, _, module, attribute, _ = named
        if self._kinds is None:
            return tensor.dtype, tensor.shape
        kind: Any = type(module)  # mypy takes no type for hashable
        if kind not in self._kinds or module is None:
            return None
        weight = module._parameters.get("weight")
        if weight is None or (weight is not tensor and (type(weight) not in self._plain or 0 in weight.shape)):
            return None  # made from parts, or as if it were partitioned
        return kind, attribute, tensor.dtype, tensor.shape, weight.shape


_shape_key: Any = ShapeKey
with suppress(ImportError):
    from .._C import ShapeKey as _shape_key


def shape_key(kinds: Set[type] | None) -> Key:
    """The fastest there is."""
    key: Key = _shape_key(kinds, tuple(PLAIN_TYPES))
    return key


DTYPE_AND_SHAPE = shape_key(None)


def decided_by(key: Key) -> Callable[[_Function], _Function]:
    """Says of a function for rules that it gives two tensors of one model the same if they have the same key."""

    def enter(function: _Function) -> _Function:
        _OF_FUNCTIONS[function] = key
        return function

    return enter


def key_of_function(function: Callable[..., Any]) -> Key:
    """What was said of a function; nothing was of most."""
    return _OF_FUNCTIONS.get(function, no_key)


def no_key(named: Named) -> None:
    """The key where nobody knows what decides."""
