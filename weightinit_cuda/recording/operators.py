"""One call of an operator of torch: its arguments, and what the schema says of them.

On the tape the tensors among the arguments are views; while code runs they are tensors. Both go through the same :class:`Call`.
Knows no tapes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..tensors.torch_private import TensorBase, schema_of

__all__ = ["Call", "Nature", "is_meta", "leaves", "nature"]

is_meta: Callable[[Tensor], bool] = TensorBase.is_meta.__get__  # type: ignore[attr-defined]
"""Whether a tensor is on meta, whatever recorded tensors answer in the block."""

# Written by batch norms in training, which their schemas do not say.
_UNSAID = {name: frozenset(("running_mean", "running_var")) for name in ("native_batch_norm", "cudnn_batch_norm")}


class Nature(NamedTuple):
    """What a schema says."""

    name: str  # without namespace, overload and the underscore of operators in place
    parameters: tuple[str, ...]
    written: tuple[tuple[int, str], ...]  # arguments whose values it changes, in order, with their places
    takes_device: bool
    random: bool
    only_views: bool  # it changes what a tensor refers to (resize_, set_, squeeze_), not values
    simple: bool  # torch's own: what it draws is nothing, what it makes is one new tensor, or its first argument in place


_natures: dict[int, Nature] = {}  # by the identity of the operator, of which torch has one object: its own hash is Python's


def nature(operator: torch._ops.OpOverload) -> Nature:
    known = _natures.get(id(operator))
    if known is None:
        known = _natures[id(operator)] = _nature(operator)
    return known


@cache  # which keeps the operator alive
def _nature(operator: torch._ops.OpOverload) -> Nature:
    schema = schema_of(operator)
    names = tuple(argument.name for argument in schema.arguments)
    name = schema.name.rpartition(":")[2]
    said = {a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write}
    written = said | _UNSAID.get(name, frozenset())
    return Nature(
        name[:-1] if name.endswith("_") and not name.endswith("__") else name,
        names,
        tuple((at, parameter) for at, parameter in enumerate(names) if parameter in written),
        "device" in names,
        torch.Tag.nondeterministic_seeded in operator.tags,
        torch.Tag.inplace_view in operator.tags,
        _is_simple(operator, schema, names, written),
    )


def _is_simple(operator: torch._ops.OpOverload, schema: Any, names: tuple[str, ...], written: frozenset[str]) -> bool:
    shared = [argument.name for argument in schema.arguments if argument.alias_info is not None]
    returned = [one.alias_info is not None for one in schema.returns]
    return (
        operator.namespace == "aten"
        and torch.Tag.nondeterministic_seeded not in operator.tags
        and torch.Tag.inplace_view not in operator.tags
        and len(schema.returns) == 1
        and str(schema.returns[0].type) == "Tensor"
        and (not (shared or written or any(returned)) or (shared == list(written) == list(names[:1]) and all(returned)))
    )


class Call(NamedTuple):
    """An operator with its arguments. Their tensors may be of any kind: real ones, ones on meta, views of a tape."""

    operator: torch._ops.OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def nature(self) -> Nature:
        return _natures.get(id(self.operator)) or nature(self.operator)

    @property
    def given(self) -> dict[str, Any]:
        """The arguments by name."""
        return dict(zip(self.nature.parameters, self.args, strict=False)) | self.kwargs

    @property
    def device(self) -> torch.device | None:
        """The device that is asked for; None: that of its tensors."""
        return self.kwargs.get("device")

    def map(self, kind: type, change: Callable[[Any], Any]) -> Call:
        """The call with another tensor for each of its tensors, which are of a class ``kind``."""
        args = tuple([change(x) if isinstance(x, kind) else _changed(x, kind, change) for x in self.args])
        kwargs = {key: _changed(x, kind, change) for key, x in self.kwargs.items()} if self.kwargs else self.kwargs
        return Call(self.operator, args, kwargs)

    def tensors(self, kind: type = Tensor) -> list[Any]:
        return leaves((*self.args, *self.kwargs.values()) if self.kwargs else self.args, kind)

    def written(self, kind: type = Tensor) -> list[Any]:
        """The tensors that the operator changes."""
        found: list[Any] = []
        for at, name in self.nature.written:
            found += leaves(self.args[at] if at < len(self.args) else self.kwargs.get(name), kind)
        return found

    def with_device(self, device: torch.device) -> Call:
        """The call as it is made on another device: memory there is not pinned, and generators are of no use."""
        takes_device = self.nature.takes_device
        if not self.kwargs and not takes_device:
            return self
        kwargs = {key: value for key, value in self.kwargs.items() if key != "pin_memory"}
        kwargs |= {"device": device} if takes_device else {}
        return self._replace(kwargs=kwargs | ({"generator": None} if "generator" in kwargs else {}))

    def likeness(self) -> tuple[Any, ...] | None:
        """What the shape and dtype of the result follow from, but for the default dtype; None if that cannot be said."""
        try:
            return (id(self.operator), *map(_like, self.args), *((key, _like(x)) for key, x in self.kwargs.items()))
        except TypeError:
            return None

    def __call__(self) -> Any:
        return self.operator(*self.args, **self.kwargs)


# Arguments of operators are nested once at most; torch's pytree, which knows everything, takes ten times as long.


def _changed(x: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    if isinstance(x, kind):
        return change(x)
    return type(x)(_changed(each, kind, change) for each in x) if type(x) in (list, tuple) else x


_PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)


def _like(x: Any) -> Any:
    if type(x) in _PLAIN:
        return type(x), x  # 1, 1.0 and True are equal
    if isinstance(x, Tensor) and x.layout is torch.strided:
        return x.shape, x.stride(), x.dtype, x.is_conj(), x.is_neg()
    if type(x) in (list, tuple):
        return tuple(map(_like, x))
    raise TypeError


def leaves(x: Any, kind: type = Tensor) -> list[Any]:
    """All of a class in nested lists and tuples."""
    if isinstance(x, kind):
        return [x]
    if not isinstance(x, (list, tuple)):
        return []
    found: list[Any] = []
    for each in x:
        if isinstance(each, kind):
            found.append(each)
        elif isinstance(each, (list, tuple)):
            found += leaves(each, kind)
    return found
