"""The tensors of a model that a tape knows: parameters, buffers and plain attributes, tied ones and views of others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import compress
from operator import attrgetter
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..numerics.distributions import Constant, Distribution
from ..tensors.boxes import Box, are_apart
from ..tensors.kinds import globs
from ..tensors.named import LEAFLESS, NAME, PLAIN_TYPES, TENSOR, Named
from ..tensors.torch_private import keystr, tree_flatten_with_path
from .tape import FillStep, Memory, Step, View
from .views import box_of

__all__ = ["NOBODY", "Alone", "Found", "Known", "Layered", "Target", "attributes", "kept", "overlapping", "without_elements"]


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


STEPS = attrgetter("steps")


class Layered(NamedTuple):
    """A tensor on meta with one fill of all of it, and constants over boxes of it, later ones over earlier ones."""

    named: Named
    view: View
    fill: Distribution
    over: list[tuple[Box, Distribution]]


class Known(NamedTuple):
    """A tensor on meta, what it is of the tape, and the values of that memory."""

    named: Named
    view: View
    values: Tensor


class Alone(NamedTuple):
    """Tensors on meta, each all of a memory that no other tensor of the model has.

    Args:
        named, memories: those whose memory is plain and filled.
        known: those whose values are known.
        layered: those that are filled as a whole, with constants over parts of it: an embedding whose padding is 0.
    """

    named: list[Named]
    memories: list[Memory]
    known: Sequence[Known] = ()
    layered: Sequence[Layered] = ()

    def tensors(self) -> list[Tensor]:
        return list(map(TENSOR, self.named))

    def names(self) -> list[str]:
        return list(map(NAME, self.named))


NOBODY = Alone([], [])
_FEW = 8  # steps that write to a tensor with constants over a fill


class Found:
    """The tensors of a model.

    Args:
        named: all of them, plain attributes too, in the order of the model.
        plain: for each the plain memory that it is all of, as it is now, or None.
        held: what each is of the tape, by whatever way it was found; None if it is none of the tape's.
        modules: the modules of the model with their names.

    Attributes:
        others: parameters and buffers that are no targets.
        scripted: what modules of TorchScript hold, each with its module and its name there.
    """

    def __init__(
        self,
        named: list[Named],
        plain: list[Memory | None],
        held: Sequence[View | Memory | None],
        modules: list[tuple[str, nn.Module]],
    ) -> None:
        self._named, self._plain, self._held, self.modules = named, plain, held, modules
        self.scripted = [one for _, m in modules if isinstance(m, torch.jit.ScriptModule) for one in _held_by(m)]
        rows = zip(named, held, strict=True) if None in held else ()
        self.others = [one for one, found in rows if found is None and one.attribute]

    @cached_property
    def targets(self) -> list[Target]:
        """What the tape knows, in the order of the model."""
        return _entered(zip(self._named, self._held, strict=True))

    def apart(self, steps: Sequence[Step], *, layers: bool = True) -> tuple[Alone, list[Target], dict[str, View | Memory]]:
        """Those that are alone on a memory, for which no target needs to be made; the other targets; and what each target
        holds that is no view of another one, by name in the order of the model.

        Args:
            steps: the tape.
            layers: whether what is layered may be among those that are alone.
        """
        once = len(set(self._plain)) == len(self._plain) and None not in self._plain
        memories = cast("list[Memory]", self._plain)
        if once and all(map(STEPS, memories)):
            return Alone(self._named, memories), [], dict(zip(map(NAME, self._named), memories, strict=True))
        times = Counter([held.memory if type(held) is View else held for held in self._held])
        alone = [memory is not None and times[memory] == 1 and bool(memory.steps) for memory in self._plain]
        known, layered = dict[int, Known](), dict[int, Layered]()
        for at, one in enumerate(self._held):
            if type(one) is View and times[one.memory] == 1 and _is_whole(self._named[at].tensor, one):
                if (values := one.memory.values) is not None:
                    known[at] = Known(self._named[at], one, values)
                elif layers and (fills := _layers(steps, one)) is not None:
                    layered[at] = Layered(self._named[at], one, *fills)
        others = [not (one or at in known or at in layered) for at, one in enumerate(alone)]
        rest = _entered(zip(compress(self._named, others), compress(self._held, others), strict=True))
        held = {target.named.name: target.held for target in rest if not target.within}
        by_name = {
            named.name: one if not other else held[named.name]
            for named, one, other in zip(self._named, self._held, others, strict=True)
            if not other or named.name in held
        }
        filled = list(compress(self._named, alone)), list(compress(memories, alone))
        return Alone(*filled, [*known.values()], [*layered.values()]), rest, cast("dict[str, View | Memory]", by_name)

    def attributes(self) -> tuple[list[Tensor], list[View | Memory]]:
        """Plain attributes that the tape knows, and what they are there."""
        known = [(n.tensor, held) for n, held in zip(self._named, self._held, strict=True) if not n.attribute]
        return [tensor for tensor, held in known if held is not None], [held for _, held in known if held is not None]

    def names(self) -> list[str]:
        """Of its parameters and buffers, in its order."""
        return [named.name for named in self._named if named.attribute]

    def held(self) -> dict[str, View | Memory]:
        """What each target holds that is no view of another one."""
        return {target.named.name: target.held for target in self.targets if not target.within}


def _held_by(module: nn.Module) -> list[tuple[nn.Module, str, Tensor]]:
    tables = module._parameters, module._buffers
    return [(module, name, tensor) for table in tables for name, tensor in table.items() if tensor is not None]


def _is_whole(tensor: Tensor, held: View) -> bool:
    """Whether a plain tensor on meta is all of its memory."""
    return type(tensor) in PLAIN_TYPES and tensor.is_meta and held.is_resolved and held.is_whole


def _layers(steps: Sequence[Step], held: View) -> tuple[Distribution, list[tuple[Box, Distribution]]] | None:
    """The last fill of all of a memory and what lies over it, if these are constants over a few boxes, and nobody else has what
    it draws. All else is for ``folding``."""
    memory, over = held.memory, list[tuple[Box, Distribution]]()
    if memory.dtype is not held.dtype or not (held.dtype.is_floating_point or held.dtype.is_complex):
        return None
    for number in reversed(memory.steps[-_FEW:]):
        step = steps[number]
        if type(step) is not FillStep or step.known is not None or (distribution := step.distribution) is None:
            return None
        view = step.writes[0]
        box = box_of(held.geometry, view.geometry) if view.dtype is held.dtype and view.is_resolved else None
        if box is None:
            return None
        if view.geometry == held.geometry:
            is_own = not (memory.taken and distribution.is_random)
            return (distribution, over[::-1]) if distribution.one_pass and is_own else None
        if not isinstance(distribution, Constant):
            return None
        over.append((box, distribution))
    return None


def without_elements(targets: Iterable[Target], others: Iterable[Named]) -> list[Named]:
    """Parameters and buffers that no plan needs to list: there is nothing to be filled."""
    named = [*(target.named for target in targets if not target.attribute), *others]
    return [one for one in named if not (is_lazy(one.tensor) or one.tensor.numel())]


def _entered(rows: Iterable[tuple[Named, View | Memory | None]]) -> list[Target]:
    """The targets that named tensors are, by what they hold."""
    entered = _Entered()
    for named, held in rows:
        if held is not None:
            entered.add(named, held)
    return entered.targets


class _Entered:
    def __init__(self) -> None:
        self.targets: list[Target] = []
        self._by_held: dict[View | Memory, Target] = {}
        self._on: defaultdict[Memory, list[Target]] = defaultdict(list)

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
    chosen: set[str] = set()
    wanted = globs(function, "keep", keep)
    named = [*(target.named for target in found.targets), *found.others] if wanted else []
    for glob in wanted:
        matching = {n.name for n in named if any(fnmatchcase(name, glob) for name in (n.name, *n.aliases))}
        if not matching:
            raise ValueError(f"{function}: every glob of keep must match a name of the model, got {glob!r} without one.")
        chosen |= matching
    return chosen


def attributes(held: Iterable[tuple[str, Any, nn.Module]]) -> list[Named]:
    """Tensors that modules hold as plain attributes, in lists and dicts too.

    Args:
        held: :attr:`.Inside.held`.
    """
    return [Named(name + at, tensor, (), module) for name, value, module in held for at, tensor in _leaves(value, set())]


def _leaves(value: Any, met: set[int]) -> list[tuple[str, Tensor]]:
    """The tensors in a value, each with the text that leads to it.

    Args:
        met: the identities of containers that have been looked into: a module may hold its own ``__dict__``.
    """
    if isinstance(value, Tensor):
        return [("", value)]
    if not isinstance(value, dict | list | tuple):
        return [(keystr(at), leaf) for at, leaf in tree_flatten_with_path(value)[0] if isinstance(leaf, Tensor)]
    if id(value) in met:
        return []
    met.add(id(value))
    return [(at + rest, leaf) for at, inner in _inside(value) for rest, leaf in _leaves(inner, met)]


def _inside(value: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> list[tuple[str, Any]]:
    """What a container holds that may hold tensors, each with the text that leads to it."""
    if isinstance(value, dict):
        return [(f"[{key!r}]", inner) for key, inner in value.items() if type(inner) not in LEAFLESS]
    if fields := getattr(value, "_fields", ()):
        return [(f".{name}", inner) for name, inner in zip(fields, value, strict=False) if type(inner) not in LEAFLESS]
    return [(f"[{n}]", inner) for n, inner in enumerate(value) if type(inner) not in LEAFLESS]
