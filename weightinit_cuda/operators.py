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
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ["Call", "Nature", "leaves", "nature"]

# Written by batch norms in training, which their schemas do not say.
_UNSAID = {name: frozenset(("running_mean", "running_var")) for name in ("native_batch_norm", "cudnn_batch_norm")}


class Nature(NamedTuple):
    """What a schema says."""

    name: str  # without namespace, overload and the underscore of operators in place
    parameters: tuple[str, ...]
    written: frozenset[str]  # arguments whose values it changes
    takes_device: bool
    random: bool
    only_views: bool  # it changes what a tensor refers to (resize_, set_, squeeze_), not values


@cache
def nature(operator: torch._ops.OpOverload) -> Nature:
    schema = operator._schema
    names = tuple(argument.name for argument in schema.arguments)
    written = frozenset(a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write)
    name = schema.name.rpartition(":")[2]
    return Nature(
        name[:-1] if name.endswith("_") and not name.endswith("__") else name,
        names,
        written | _UNSAID.get(name, frozenset()),
        "device" in names,
        torch.Tag.nondeterministic_seeded in operator.tags,
        torch.Tag.inplace_view in operator.tags,
    )


class Call(NamedTuple):
    """An operator with its arguments. Their tensors may be of any kind: real ones, ones on meta, views of a tape."""

    operator: torch._ops.OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def nature(self) -> Nature:
        return nature(self.operator)

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
        args, kwargs = (
            tree_map(lambda x: change(x) if isinstance(x, kind) else x, part, is_leaf=lambda x: isinstance(x, kind))
            for part in (self.args, self.kwargs)
        )
        return self._replace(args=args, kwargs=kwargs)

    def tensors(self, kind: type = Tensor) -> list[Any]:
        return leaves((self.args, self.kwargs), kind)

    def written(self, kind: type = Tensor) -> list[Any]:
        """The tensors that the operator changes."""
        if not self.nature.written:
            return []
        given = self.given
        return [x for name in self.nature.parameters if name in self.nature.written for x in leaves(given.get(name), kind)]

    def with_device(self, device: torch.device) -> Call:
        """The call as it is made on another device: memory there is not pinned, and generators are of no use."""
        kwargs = {key: value for key, value in self.kwargs.items() if key != "pin_memory"}
        kwargs |= {"device": device} if self.nature.takes_device else {}
        return self._replace(kwargs=kwargs | ({"generator": None} if "generator" in kwargs else {}))

    def __call__(self) -> Any:
        return self.operator(*self.args, **self.kwargs)


def leaves(arguments: Any, kind: type = Tensor) -> list[Any]:
    """All of a class in nested lists, tuples and dicts."""
    if isinstance(arguments, kind):
        return [arguments]
    return [x for x in tree_flatten(arguments, is_leaf=lambda x: isinstance(x, kind))[0] if isinstance(x, kind)]
