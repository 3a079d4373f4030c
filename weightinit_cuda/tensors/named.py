"""The tensors of a model with their names: what plans, fingerprints and perturbations go through.

A tied tensor appears once, under the first of its names. Knows modules, but nothing of what their tensors hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import NamedTuple

from torch import Tensor, nn

__all__ = ["PLAIN_TYPES", "Model", "Named", "joined", "modules_of", "named_tensors"]

PLAIN_TYPES = frozenset((Tensor, nn.Parameter, nn.Buffer))
"""Whose objects are the memory that they show; a subclass may mean other memory."""

Model = nn.Module | Mapping[str, Tensor]
"""A module, or its tensors by name, as ``state_dict()`` gives them."""


class Named(NamedTuple):
    """One tensor of a model.

    Args:
        name: qualified name; of tied names the first.
        tensor: the parameter or buffer itself.
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

    >>> tied = nn.Linear(2, 2, bias=False)
    >>> [(t.name, t.aliases) for t in named_tensors(nn.ModuleDict({"a": tied, "b": tied}))]
    [('a.weight', ('b.weight',))]
    """
    if isinstance(model, nn.Module):
        own: list[Named] = []
        kept: list[Named] = []
        _collect(model, "", own, kept)
        found = own + kept if buffers else own
    else:
        found = [Named(name, tensor, attribute=name.rpartition(".")[2]) for name, tensor in model.items()]
    return found if len({id(named.tensor) for named in found}) == len(found) else _each_once(found)


def modules_of(model: nn.Module) -> list[nn.Module]:
    """The model and all modules inside it, each once, in any order."""
    waiting, found = [model], {}
    while waiting:
        module = waiting.pop()
        if id(module) not in found:
            found[id(module)] = module
            waiting += [child for child in _held_by(module)[2].values() if child is not None]
    return list(found.values())


def _each_once(found: Iterable[Named]) -> list[Named]:
    first: dict[int, Named] = {}
    for named in found:
        known = first.get(id(named.tensor))
        first[id(named.tensor)] = named if known is None else known._replace(aliases=(*known.aliases, named.name))
    return list(first.values())


_new = tuple.__new__  # what Named() calls, in half the time
_held_by = attrgetter("_parameters", "_buffers", "_modules")


def _collect(module: nn.Module, prefix: str, own: list[Named], kept: list[Named]) -> None:
    """Adds the parameters and the buffers of a module and of all inside it, whose names begin with ``prefix``, in the order of
    ``named_modules()``. One pass, without generators: plans go through every tensor of a model before they fill it."""
    parameters, buffers, children = _held_by(module)
    for attribute, tensor in parameters.items():
        if tensor is not None:
            own.append(_new(Named, (prefix + attribute, tensor, (), module, attribute, False)))
    for attribute, tensor in buffers.items():
        if tensor is not None:
            kept.append(_new(Named, (prefix + attribute, tensor, (), module, attribute, True)))
    for name, child in children.items():
        if child is not None:
            _collect(child, f"{prefix}{name}.", own, kept)
