"""Which modules a block makes, which model a module is a part of, and the seed that the parts of one model share.

The whole of a module is the outermost of the modules that the block made, as they are when one of them is first asked for. What
was put together of these after the block is a whole of its own. Knows modules and claims, and nothing of what tensors hold.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from types import FunctionType
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks

from ..engine.backend import kernels
from ..plans.seeds import drawn_seed
from ..tensors.shards import agreed
from .ownership import Claims

__all__ = ["ByModule", "Made", "Whole", "Wholes", "registered"]

T = TypeVar("T")


class Made(NamedTuple):
    """The modules that a thread registers something in, or in something; the tensors that it registers."""

    modules: dict[int, nn.Module]
    tensors: dict[tuple[int, str], Tensor]

    def all_modules(self) -> list[nn.Module]:
        """These modules and all inside them, each once."""
        seen = dict(self.modules)
        found = list(seen.values())
        for module in found:  # which grows
            for child in module._modules.values():
                if child is not None and id(child) not in seen:
                    seen[id(child)] = child
                    found.append(child)
        return found

    def refuse_partitioned(self, error: Exception) -> None:
        """Says what an error means that came while DeepSpeed's ZeRO-3 partitioned parameters of the block.

        Raises:
            NotImplementedError: there are such.
        """
        found = [(self.modules[module], name) for (module, name), tensor in self.tensors.items() if hasattr(tensor, "ds_id")]
        if found:
            names = ", ".join(f"{type(module).__name__}.{name}" for module, name in found)
            raise NotImplementedError(
                f"deferred: the parameters of a block must be whole, got {names}, which deepspeed.zero.Init partitions. Record"
                " the model without it, make another one under it, and fill that one by recording.plan(model).apply_(other)."
            ) from error


@contextmanager
def registered() -> Iterator[Made]:
    """Notes what this thread registers while it is open."""
    made = Made({}, {})
    hooks = Hooks(made.modules, made.tensors) if kernels is None else kernels.Registered(made.modules, made.tensors)
    try:
        with _lock:
            _listening.append(hooks)
            _listen()
        yield made
    finally:
        with _lock:
            if hooks in _listening:  # else Ctrl-C came before
                _listening.remove(hooks)
            _listen()


class Hooks:
    """Note what the thread that made them registers, and copies. The native module has the same (csrc/registered.cpp).

    Args:
        modules, tensors: of :class:`Made`.
    """

    def __init__(self, modules: dict[int, nn.Module], tensors: dict[tuple[int, str], Tensor]) -> None:
        self._modules, self._tensors, self._thread = modules, tensors, threading.get_ident()

    def tensor(self, module: nn.Module, name: str, registered: Tensor | None) -> None:
        if threading.get_ident() == self._thread:
            self._modules[id(module)] = module
            if registered is not None:
                self._tensors[id(module), name] = registered

    def module(self, module: nn.Module, name: str, registered: nn.Module | None) -> None:
        if threading.get_ident() == self._thread:
            self._modules[id(module)] = module
            if registered is not None:
                self._modules[id(registered)] = registered

    def copied(self, module: nn.Module) -> None:
        if threading.get_ident() == self._thread:
            self._modules[id(module)] = module


_lock = threading.Lock()
_listening: list[Any] = []  # the hooks of all threads that are recorded
_handles: list[Any] = []  # of torch's entries for them
_REGISTER = (
    module_hooks.register_module_parameter_registration_hook,
    module_hooks.register_module_buffer_registration_hook,
    module_hooks.register_module_module_registration_hook,
)
_HEARD = attrgetter("tensor", "tensor", "module")


def _listen() -> None:
    """Has torch tell the hooks what is registered, and which modules are copied: such a one is given its tensors, and registers
    nothing.

    All threads share one entry in each of torch's tables: another thread may be going through a table, which fails if an entry
    comes or goes meanwhile. Of the method that copies, the code is exchanged, and not the method: then Python need not look up
    again all that it knows of every class of modules.
    """
    _set_state.__code__ = (_telling if _listening else _torchs).__code__
    while _handles and not _listening:
        _handles[-1].remove()
        _handles.pop()
    for at, calls in enumerate(zip(*map(_HEARD, _listening), strict=True)):
        call = calls[0] if len(calls) == 1 else _each_of(calls)
        if at < len(_handles):
            _handles[at].hooks_dict_ref()[_handles[at].id] = call  # in place
        else:
            _handles.append(_REGISTER[at](call))


def _each_of(calls: Sequence[Callable[..., None]]) -> Callable[..., None]:
    def call(*registered: Any) -> None:
        for one in calls:
            one(*registered)

    return call


def _innermost(function: Any) -> Any:
    """torch.compile, once used in the process, has put its own around torch's."""
    inside = [cell.cell_contents for cell in function.__closure__ or () if isinstance(cell.cell_contents, FunctionType)]
    return _innermost(inside[0]) if inside else function


_set_state = _innermost(nn.Module.__setstate__)
_torchs = FunctionType(_set_state.__code__, _set_state.__globals__)


def _told(self: nn.Module, state: dict[str, object]) -> None:
    _torchs(self, state)
    for hooks in list(_listening):
        hooks.copied(self)


def _telling(self: nn.Module, state: dict[str, object]) -> None:
    """Runs among the names of torch.nn."""
    torch.sys.modules["weightinit_cuda.recording.wholes"]._told(self, state)  # type: ignore[attr-defined]


@dataclass(eq=False)
class Whole:
    """One model.

    Args:
        root: gives its outermost module, while that exists.
        made: whether the block has made that one.
        claims: what its tensors hold, once somebody needs it; from then on its parts are bound to that.
        seed: once it is drawn.
    """

    root: Callable[[], nn.Module | None]
    made: bool = True
    claims: Claims | None = None
    seed: int | None = None


class ByModule(Generic[T]):
    """Something for each of many modules, or tensors, none of which it keeps alive. It asks for no word when one goes, which
    would take most of the time; one that has the place of another that is gone is told from it."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[ref[Any], T]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, module: nn.Module | Tensor) -> T | None:
        known = self._known.get(id(module))
        return known[1] if known is not None and known[0]() is module else None

    def update(self, modules: Sequence[nn.Module | Tensor], things: Iterable[T]) -> None:
        self._known.update(zip(map(id, modules), zip(map(ref, modules), things, strict=False), strict=True))

    def alive(self) -> list[nn.Module]:
        """The modules that are still there."""
        return [module for there, _ in self._known.values() if (module := there()) is not None]


class Wholes:
    """The models of a tape.

    Args:
        modules: that the block has made.
    """

    def __init__(self, modules: ByModule[Any]) -> None:
        self._modules = modules
        self._places = ByModule[tuple[Whole, str]]()
        self._needed: list[Whole] = []

    def place(self, model: nn.Module, inside: Sequence[tuple[str, nn.Module]] = ()) -> tuple[Whole, str]:
        """The whole of a module, and the name that the module has there; "" is the whole itself.

        Args:
            inside: the modules of the model with their names, if the caller has them.
        """
        place = self._place(model)
        if place is None:
            self._look(model, inside)
            place = self._place(model)
        if place is None:
            if any(self._place(one) is not None for one in model.modules()):
                self._places.update([model], [(Whole(ref(model), made=False), "")])
            else:
                self._enter(model)  # they hold tensors as plain attributes only
            place = self._places.get(model)
            assert place is not None
        return place

    def _place(self, module: nn.Module) -> tuple[Whole, str] | None:
        """As it is known. A whole that is gone, and was never needed, was only scaffolding."""
        place = self._places.get(module)
        return None if place is None or (place[0].claims is None and place[0].root() is None) else place

    def _enter(self, root: nn.Module, inside: Sequence[tuple[str, nn.Module]] = ()) -> None:
        """Gives a module, and those inside it that have no place yet, their places in one whole."""
        whole = Whole(ref(root))
        named = inside or list(root.named_modules())
        if self._places:
            named = [(name, module) for name, module in named if self._place(module) is None]
        self._places.update([module for _, module in named], [(whole, name) for name, _ in named])

    def _look(self, model: nn.Module, inside: Sequence[tuple[str, nn.Module]]) -> None:
        """Enters modules that have no place yet."""
        alive = self._modules.alive()
        below: set[int] = set()
        for module in alive:
            if children := module._modules:
                below.update(map(id, children.values()))
        for root in alive:
            if id(root) not in below and self._place(root) is None:
                self._enter(root, inside if root is model else ())

    def needed(self, whole: Whole) -> None:
        """Notes that a model has its claims from now on."""
        if whole not in self._needed:
            self._needed.append(whole)

    def others(self, whole: Whole) -> list[Claims]:
        """The claims of the models that were needed before."""
        return [other.claims for other in self._needed if other is not whole and other.claims is not None]

    def seed(self, function: str, whole: Whole, tensors: Iterable[Tensor]) -> int:
        """The seed of a model: drawn once, and that of the model whose copies it holds.

        Raises:
            ValueError: it holds copies from models whose seeds were drawn apart.
        """
        linked = whole.claims.linked if whole.claims is not None else []
        seeds = {other.seed for other in self._needed if other.claims in linked and other.seed is not None}
        if whole.seed is None and len(seeds) > 1:
            raise ValueError(
                f"{function}: models that hold copies of each other must have one seed, got one with copies from models whose"
                f" seeds were drawn apart ({', '.join(map(str, sorted(seeds)))}). Make all of them parts of one module, or give"
                " all of them one seed=."
            )
        if whole.seed is None:
            whole.seed = seeds.pop() if seeds else drawn_seed()
        whole.seed = agreed(whole.seed, tensors)
        return whole.seed
