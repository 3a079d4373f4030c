"""The tensors of a model with their names: what plans, fingerprints and perturbations go through.

A tied tensor appears once, under the first of its names. Knows modules, but nothing of what their tensors hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from .partitioned import shown_whole

__all__ = ["PLAIN_TYPES", "Model", "Named", "joined", "named_tensors"]

PLAIN_TYPES = frozenset((Tensor, nn.Parameter, nn.Buffer))
"""Whose objects are the memory that they show; a subclass may mean other memory."""

Model = nn.Module | Mapping[str, Tensor]
"""A module, or its tensors by name, as ``state_dict()`` gives them."""


class Named(NamedTuple):
    """One tensor of a model.

    Args:
        name: qualified name; of tied names the first.
        tensor: the parameter or buffer itself; of a parameter that ZeRO-3 partitions the whole that it stands for.
        aliases: further names of the same tensor.
        module: the module that holds it under ``name``; None in a mapping.
        attribute: its name in that module: ``"weight"``.
        buffer: whether it is a buffer, not a parameter.
    """

    name: str
    tensor: Tensor
    aliases: tuple[str, ...] = ()
    module: nn.Module | None = None
    attribute: str = ""
    buffer: bool = False


def joined(prefix: str, name: str) -> str:
    """The qualified name of what is called ``name`` in the module called ``prefix``; of a model itself that is ""."""
    return f"{prefix}.{name}" if prefix else name


def named_tensors(model: Model, *, buffers: bool = True) -> list[Named]:
    """All parameters, then all buffers, in the order of registration; each tensor once.

    Raises:
        NotImplementedError: parameters that ZeRO-3 partitions in a way that a rank cannot fill its part; all are named.

    >>> tied = nn.Linear(2, 2, bias=False)
    >>> [(t.name, t.aliases) for t in named_tensors(nn.ModuleDict({"a": tied, "b": tied}))]
    [('a.weight', ('b.weight',))]
    """
    if isinstance(model, nn.Module):
        found = [*_of(model, "_parameters"), *(_of(model, "_buffers") if buffers else ())]
    else:
        found = [Named(name, tensor, attribute=name.rpartition(".")[2]) for name, tensor in model.items()]
    first: dict[int, Named] = {}
    for named in found:
        known = first.get(id(named.tensor))
        first[id(named.tensor)] = named if known is None else known._replace(aliases=(*known.aliases, named.name))
    return [*_whole(first.values())]


def _whole(named: Iterable[Named]) -> Iterable[Named]:
    troubled = []
    for one in named:
        try:
            whole = shown_whole(one.tensor)
        except NotImplementedError as error:
            troubled.append(f"{one.name}: {error}")
        else:
            yield one if whole is one.tensor else one._replace(tensor=whole)
    if troubled:
        raise NotImplementedError(
            "parameters that ZeRO-3 partitions must have this rank's part in memory, got others. Use"
            " deepspeed.zero.GatheredParameters(..., modifier_rank=0) for them.\n  " + "\n  ".join(troubled)
        )


def _of(model: nn.Module, kind: str) -> Iterable[Named]:
    for prefix, module in model.named_modules(remove_duplicate=False):
        for attribute, tensor in getattr(module, kind).items():
            if tensor is not None:
                yield Named(joined(prefix, attribute), tensor, (), module, attribute, kind == "_buffers")
