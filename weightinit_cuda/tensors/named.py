"""The tensors of a model with their names: what plans, fingerprints and perturbations go through.

A tied tensor appears once, under the first of its names. Knows modules, but nothing of what their tensors hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from operator import attrgetter, eq
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .partitioned import shown_whole

__all__ = [
    "LEAFLESS",
    "NAME",
    "PLAIN_TYPES",
    "TENSOR",
    "Inside",
    "Model",
    "Named",
    "alike",
    "joined",
    "look_inside",
    "modules_of",
    "named_tensors",
]

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


class Inside(NamedTuple):
    """What one look through a module finds.

    Args:
        tensors: as :func:`named_tensors` has them.
        modules: it and all modules inside it, each once, with their names, in the order of ``named_modules()``.
        held: what may be tensors or hold some among the plain attributes of modules: qualified names, values, and the modules.
    """

    tensors: list[Named]
    modules: list[tuple[str, nn.Module]]
    held: list[tuple[str, Any, nn.Module]]


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
        own: list[Named] = []
        kept: list[Named] = []
        plain = _collect(model, Named, own, kept)
        found = own + kept if buffers else own
        if plain:
            return found
    else:
        found = [Named(name, tensor, attribute=name.rpartition(".")[2]) for name, tensor in model.items()]
    return _shown(found)


def look_inside(model: nn.Module) -> Inside:
    """The tensors of a model, its modules, and what may be tensors among their plain attributes.

    Raises:
        NotImplementedError: as :func:`named_tensors`.
    """
    own, kept, modules, held = _look_through(model, Named, EVERY_MODULE, LEAFLESS, Tensor)
    return Inside(_shown(own + kept), modules, held)


def _shown(found: list[Named]) -> list[Named]:
    """Each tensor once, whole."""
    tensors = list(map(TENSOR, found))
    once = found if len(set(map(id, tensors))) == len(found) else _each_once(found)
    partitioned = any(hasattr(tensor, "ds_id") for tensor in tensors)
    return _whole(once) if partitioned else once


def modules_of(model: nn.Module) -> list[nn.Module]:
    """The model and all modules inside it, each once, in any order."""
    waiting: list[nn.Module | None] = [model]
    found: dict[int, nn.Module] = {}
    while waiting:
        module = waiting.pop()
        if module is not None and id(module) not in found:
            found[id(module)] = module
            if inside := _children_of(module):
                waiting += inside.values()
    return list(found.values())


def _each_once(found: Iterable[Named]) -> list[Named]:
    first: dict[int, Named] = {}
    for named in found:
        known = first.get(id(named.tensor))
        first[id(named.tensor)] = named if known is None else known._replace(aliases=(*known.aliases, named.name))
    return list(first.values())


def _whole(found: Iterable[Named]) -> list[Named]:
    """With what parameters stand for that ZeRO-3 partitions."""
    shown: list[Named] = []
    troubled = []
    for named in found:
        try:
            shown.append(named._replace(tensor=shown_whole(named.tensor)))
        except NotImplementedError as error:
            troubled.append(f"{named.name}: {error}")
    if troubled:
        raise NotImplementedError(
            "parameters that ZeRO-3 partitions must have this rank's part in memory, got others. Use"
            " deepspeed.zero.GatheredParameters(..., modifier_rank=0) for them.\n  " + "\n  ".join(troubled)
        )
    return shown


_held_by, _children_of = attrgetter("_parameters", "_buffers", "_modules"), attrgetter("_modules")
TENSOR, NAME = attrgetter("tensor"), attrgetter("name")


def collect(module: nn.Module, named: type[Named], own: list[Named], kept: list[Named], prefix: str = "") -> bool:
    """Adds the parameters and the buffers of a module and of all inside it to two lists, in the order of ``named_modules()``.
    The kernels' module has the same function, which takes a third of the time.

    Returns:
        Whether that is all to be done: no tensor is there twice, and none is partitioned. This one does not know.
    """
    parameters, buffers, children = _held_by(module)
    for attribute, tensor in parameters.items():
        if tensor is not None:
            own.append(named(prefix + attribute, tensor, (), module, attribute, False))
    for attribute, tensor in buffers.items():
        if tensor is not None:
            kept.append(named(prefix + attribute, tensor, (), module, attribute, True))
    for name, child in children.items():
        if child is not None:
            collect(child, named, own, kept, f"{prefix}{name}.")
    return False


# What every module has, first of all it has: without tensors in it, or with those that are found under their names.
EVERY_MODULE: dict[str, Any] = dict.fromkeys(vars(nn.Module()))
LEAFLESS = (int, float, str, bool, type(None), torch.Size)
"""Types of values that are no tensors and hold none."""


def look_through(
    module: nn.Module, named: type[Named], every: Mapping[str, Any], leafless: tuple[type, ...], tensor: type
) -> tuple[list[Named], list[Named], list[tuple[str, nn.Module]], list[tuple[str, Any, nn.Module]]]:
    """The lists of :func:`collect`, and the last two of :class:`Inside`. The kernels' module has the same function."""
    own, kept, without = list[Named](), list[Named](), frozenset(leafless)
    collect(module, named, own, kept)
    modules, held = list(module.named_modules()), list[tuple[str, Any, nn.Module]]()
    for name, one in modules:
        attributes = vars(one)
        known = len(every) if all(map(eq, attributes, every)) else 0
        for key, value in list(attributes.items())[known:]:  # isinstance may run code, which may change them
            if type(value) in without or not isinstance(value, (tensor, list, tuple, dict)) or key in every:
                continue
            inside: Any = value.values() if isinstance(value, dict) else value
            if isinstance(value, tensor) or not without.issuperset(map(type, inside)):
                held.append((joined(name, key), value, one))
    return own, kept, modules, held


_SHAPE, _DTYPE, _IS_META, _BUFFER = map(attrgetter, ("shape", "dtype", "is_meta", "buffer"))


def tensors_alike(
    named: list[Named],
    known: dict[str, str],
    names: tuple[str, ...],
    shapes: tuple[tuple[int, ...], ...],
    dtypes: tuple[torch.dtype, ...],
    aliases: tuple[tuple[str, ...], ...],
) -> list[Tensor] | None:
    """The tensors of a model, if they are those of a plan in its order, as far as its columns tell. The kernels' module
    has the same function, which takes half of the time.

    Args:
        named: as :func:`named_tensors` has them.
        known: every name of the plan; other buffers are left out.
        names, shapes, dtypes, aliases: the plan's.

    Returns:
        None if they are not, or if some are on meta.
    """
    listed = [one for one in named if not one.buffer or one.name in known] if any(map(_BUFFER, named)) else named
    if not listed or any(map(_IS_META, map(TENSOR, named))):
        return None
    have, tensors, others, *_ = zip(*listed, strict=True)
    columns = have, tuple(map(_SHAPE, tensors)), tuple(map(_DTYPE, tensors)), others
    return list(tensors) if columns == (names, shapes, dtypes, aliases) else None


_collect: Callable[..., bool] = collect
alike: Callable[..., list[Tensor] | None] = tensors_alike
_look_through: Callable[..., Any] = look_through
with suppress(ImportError):
    from .._C import collect as _collect
    from .._C import look_through as _look_through
    from .._C import tensors_alike as alike
