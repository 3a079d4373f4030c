"""The tensors of a model that a tape knows: parameters, buffers and plain attributes, tied ones and views of others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import islice
from operator import eq
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..tensors.boxes import are_apart
from ..tensors.kinds import globs
from ..tensors.named import Named
from ..tensors.torch_private import keystr, tree_flatten_with_path
from .tape import Memory, View
from .views import box_of

__all__ = ["Found", "Target", "attributes", "kept", "overlapping"]


@dataclass(eq=False, slots=True)
class Target:
    """A tensor of the model that the tape knows.

    Args:
        named: it, with all of its names.
        held: what it is of the tape: a view, or all of a plain memory.
        objects: tied ones may be several tensors on the same memory.
        within: the name of a tensor that it is a view of.
        attribute: whether it is a plain attribute: not the plan's business.
    """

    named: Named
    held: View | Memory
    objects: list[Tensor]
    within: str = ""
    attribute: bool = False

    @property
    def view(self) -> View:
        return self.held.whole if isinstance(self.held, Memory) else self.held

    @property
    def memory(self) -> Memory:
        return self.held if isinstance(self.held, Memory) else self.held.memory

    def tie(self, named: Named) -> None:
        """One more tensor on the same memory; a plain attribute is no name of a plan."""
        aliases = () if named.attribute == "" else (named.name, *named.aliases)
        if all(named.tensor is not known for known in self.objects):
            self.objects.append(named.tensor)
        self.named = self.named._replace(aliases=(*self.named.aliases, *aliases))


@dataclass(eq=False)
class Found:
    """The targets of a model, and what else it has.

    Args:
        targets: in the order of the model.
        others: its parameters and buffers that are none.
    """

    targets: list[Target] = field(default_factory=list)
    others: list[Named] = field(default_factory=list)
    _by_held: dict[View | Memory, Target] = field(default_factory=dict)
    _on: defaultdict[Memory, list[Target]] = field(default_factory=lambda: defaultdict(list))

    def add(self, named: Named, held: View | Memory) -> None:
        """Enters a tensor, as one more name of another one or as a target."""
        if isinstance(held, View) and held.memory.plain:
            self._look_into(held.memory)
        known = self._by_held.get(held)
        if known is not None:
            known.tie(named)
            return
        target = Target(named, held, [named.tensor], "", not named.attribute)
        self._by_held[held] = target
        self.targets.append(target)
        if isinstance(held, View):
            alike = (t for t in self._on[held.memory] if t.view.dtype == held.dtype)  # others count other elements
            target.within = next((t.named.name for t in alike if box_of(t.view.geometry, held.geometry)), "")
            self._on[held.memory].append(target)

    def without_elements(self) -> list[Named]:
        """Parameters and buffers that no plan needs to list: there is nothing to be filled."""
        named = [*(target.named for target in self.targets if not target.attribute), *self.others]
        return [one for one in named if not (is_lazy(one.tensor) or one.tensor.numel())]

    def _look_into(self, memory: Memory) -> None:
        """A part of plain memory, or a wrapper of it: all that lies there are views from now on."""
        memory.plain = False
        if (whole := self._by_held.pop(memory, None)) is not None:
            whole.held = memory.whole
            self._by_held[whole.held] = whole
            self._on[memory].append(whole)


def overlapping(targets: Sequence[Target]) -> list[str]:
    """The names of tensors that may share some of their elements with others of these, and are no views of them."""
    on: defaultdict[Memory, list[Target]] = defaultdict(list)
    for target in targets:
        if isinstance(target.held, View) and not target.within:
            on[target.memory].append(target)
    found: list[str] = []
    for memory, views in on.items():
        boxes = [box for target in views if (box := box_of(memory.frame, target.view.geometry)) is not None]
        if len(views) > 1 and (len(boxes) < len(views) or not are_apart(boxes)):
            found += [target.named.name for target in views]
    return found


def kept(function: str, found: Found, keep: str | Sequence[str]) -> set[str]:
    """The names of the tensors of which a name matches one of the globs.

    Raises:
        TypeError, ValueError: these are no globs, or one matches nothing.
    """
    named = [*(target.named for target in found.targets), *found.others]
    chosen: set[str] = set()
    for glob in globs(function, "keep", keep):
        matching = {n.name for n in named if any(fnmatchcase(name, glob) for name in (n.name, *n.aliases))}
        if not matching:
            raise ValueError(f"{function}: every glob of keep must match a name of the model, got {glob!r} without one.")
        chosen |= matching
    return chosen


# What every module has, first of all it has: without tensors in it, or with those that are found under their names.
_EVERY_MODULE = dict.fromkeys(vars(nn.Module()))


def attributes(model: nn.Module) -> list[Named]:
    """Tensors that modules hold as plain attributes, in lists and dicts too."""
    found: list[Named] = []
    _collect(model, "", set(), found)
    return found


def _leaves(value: Tensor | list[Any] | tuple[Any, ...] | dict[Any, Any]) -> list[tuple[str, Tensor]]:
    """The tensors in a value, each with the text that leads to it."""
    if isinstance(value, Tensor):
        return [("", value)]
    return [(keystr(at), leaf) for at, leaf in tree_flatten_with_path(value)[0] if isinstance(leaf, Tensor)]


_NO_LEAVES = frozenset((int, float, str, bool, type(None), torch.Size))


def _collect(module: nn.Module, prefix: str, seen: set[int], found: list[Named]) -> None:
    seen.add(id(module))
    held = vars(module)
    known = len(_EVERY_MODULE) if all(map(eq, held, _EVERY_MODULE)) else 0
    for key, value in islice(held.items(), known, None):
        if type(value) in _NO_LEAVES or not isinstance(value, (Tensor, list, tuple, dict)) or key in _EVERY_MODULE:
            continue
        inside = value.values() if isinstance(value, dict) else value
        if isinstance(value, Tensor) or not _NO_LEAVES.issuperset(map(type, inside)):  # sizes of layers: pytree takes its time
            found += [Named(prefix + key + at, tensor, (), module) for at, tensor in _leaves(value)]
    for name, child in module._modules.items():
        if child is not None and id(child) not in seen:
            _collect(child, f"{prefix}{name}.", seen, found)
