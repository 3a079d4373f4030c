"""The tensors of a model that a tape knows: parameters, buffers and plain attributes, tied ones and views of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ..tensors.named import Named, joined
from ..tensors.torch_private import keystr, tree_flatten_with_path
from .tape import View
from .views import box_of

__all__ = ["Target", "attributes", "container", "tied"]


class Target(NamedTuple):
    """A tensor of the model that the tape knows."""

    named: Named
    view: View
    objects: tuple[Tensor, ...]  # tied ones may be several tensors on the same memory
    within: str = ""  # the name of a tensor that it is a view of
    attribute: bool = False  # a plain attribute: not the plan's business


def attributes(model: nn.Module) -> Iterator[Named]:
    """Tensors that modules hold as plain attributes, in lists and dicts too."""
    for prefix, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, (Tensor, list, tuple, dict)) and key not in ("_parameters", "_buffers", "_modules"):
                name = joined(prefix, key)
                leaves = [((), value)] if isinstance(value, Tensor) else tree_flatten_with_path(value)[0] if value else ()
                yield from (Named(name + keystr(path), leaf, (), module) for path, leaf in leaves if isinstance(leaf, Tensor))


def tied(target: Target, named: Named) -> Target:
    """One more tensor on the same memory; a plain attribute is no name of a plan."""
    aliases = () if named.attribute == "" else (named.name, *named.aliases)
    objects = target.objects if any(named.tensor is t for t in target.objects) else (*target.objects, named.tensor)
    return target._replace(named=target.named._replace(aliases=(*target.named.aliases, *aliases)), objects=objects)


def container(view: View, targets: Sequence[Target]) -> str:
    """The name of a tensor on the same memory that holds all of this one."""
    return next((t.named.name for t in targets if box_of(t.view.geometry, view.geometry)), "")
