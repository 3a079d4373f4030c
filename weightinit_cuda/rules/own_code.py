"""What a transformers model's own ``_init_weights`` gives its parameters: that code runs, and is watched, on a copy on meta.

``PreTrainedModel.initialize_weights`` calls ``_init_weights`` for one module after the other, inner ones first. So does this,
with a copy of the model whose tensors have no memory, and notes which functions of ``torch.nn.init`` and which fills of torch
reach which parameter. Numbers that the code computes without drawing any are constants, and so are those that only a
constructor of transformers has written. What other constructors did is not seen, and what is computed from draws, or from a
tensor's memory, is no fill; both are said.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ..init.catalog import CATALOG, Function, distribution_of
from ..init.generators import generators_kept
from ..init.patching import recording
from ..numerics.arithmetic import scaled
from ..numerics.distributions import Constant, Distribution, Normal, TruncNormal, Uniform
from ..tensors.boxes import Box, remainder
from ..tensors.named import Named, named_tensors
from ..tensors.torch_private import schema_of, storage_key
from .constants import constants
from .constructors import constructed
from .rule import Fill
from .shadows import Following
from .torch_reset import torch_reset

__all__ = ["BASE", "OwnCode", "is_pretrained"]

BASE = "PreTrainedModel"
_BY_ELEMENT = (Constant, Uniform, Normal, TruncNormal)  # what a part of a tensor may have


def is_pretrained(module: nn.Module) -> bool:
    """It is a model of transformers, or a part that is one."""
    return any(base.__name__ == BASE for base in type(module).__mro__)


class OwnCode:
    """What the models of transformers that a model is, or has in it, give their parameters. Nothing of the model is changed.

    Args:
        model: any module.
    """

    def __init__(self, model: nn.Module) -> None:
        self._found: dict[tuple[int, str], _StandIn] = {}
        for root in _outermost(model):
            self._found.update(_watched(root))

    def fills(self, named: Named) -> list[Fill] | None:
        """What ``_init_weights`` fills a parameter with; None where it does not, or not only."""
        found = self._of(named)
        return found.fills or None if found is not None and not found.why else None

    def leaves(self, named: Named) -> bool:
        """Whether it leaves a parameter as the constructor made it."""
        found = self._of(named)
        return found is not None and found.is_untouched

    def trouble(self, named: Named) -> str:
        """Why it is not known what it gives a parameter; empty where it is."""
        found = self._of(named)
        return "" if found is None else found.why

    def _of(self, named: Named) -> _StandIn | None:
        return self._found.get((id(named.module), named.attribute))


class _StandIn:
    """A tensor on meta in the place of one of the model's, and what is written into it."""

    def __init__(self, named: Named, of: Tensor) -> None:
        made = torch.empty(named.tensor.shape, dtype=named.tensor.dtype, device="meta")
        self.tensor = made if named.buffer else nn.Parameter(made, of.requires_grad)
        self.storage = storage_key(self.tensor.untyped_storage())
        self.fills: list[Fill] = []
        self.why = ""

    @property
    def is_untouched(self) -> bool:
        """Whether nothing is known to have been written into it."""
        return not (self.fills or self.why)

    @property
    def is_filled(self) -> bool:
        """Whether each of its elements is."""
        whole = Box.whole(self.tensor.shape)
        return bool(self.fills) and not remainder(whole, [box or whole for _, box, _ in self.fills])

    def is_in(self, module: nn.Module, attribute: str) -> bool:
        """Whether the module still has it."""
        now = module._parameters.get(attribute)
        return now is not None and storage_key(now.untyped_storage()) == self.storage

    def written(self, view: Tensor, made: Distribution, source: str) -> None:
        """A view of it gets a distribution."""
        if not view.numel():
            return
        box = Box.whole(self.tensor.shape) if _is_reshaped(self.tensor, view, made) else _box_of(self.tensor, view)
        if view.dtype != self.tensor.dtype:
            self.why = f"{source} of other bits"
        elif box is None or (box.shape != tuple(self.tensor.shape) and not isinstance(made, _BY_ELEMENT)):
            self.why = f"{source} of a part"
        elif box.shape == tuple(self.tensor.shape):
            self.fills, self.why = [(made, None, source)], ""
        else:
            self.fills.append((made, box, source))

    def copied(self, view: Tensor, values: Tensor, source: str) -> bool:
        """A view of it gets numbers that the code has computed without drawing; False where these are too many."""
        runs = constants(values.detach().expand(view.shape), view.dtype)
        if runs is None:
            return False
        if view.shape == self.tensor.shape:
            self.fills = []
        for value, box in runs:
            self.written(view[box.slices()], Constant(value), source)
        return True

    def scaled(self, view: Tensor, number: float, divided: bool) -> bool:
        """All of it is multiplied, or divided, by a number; False where what comes out is none of our distributions."""
        if len(self.fills) != 1 or view.shape != self.tensor.shape or view.dtype != self.tensor.dtype:
            return False
        before, box, origin = self.fills[0]
        made = None if box is not None else scaled(before, 1 / number if divided else number)
        if made is not None:
            self.fills = [(made, None, f"{origin}, {'over' if divided else 'times'} {number:.6g}")]
        return made is not None


class _Watch(Following):  # type: ignore[no-untyped-call]
    """Sees what is written into stand-ins: calls of ``torch.nn.init`` as a recorder, all else as operators."""

    def __init__(self, stand_ins: list[_StandIn]) -> None:
        super().__init__()
        self._stand_ins = {each.storage: each for each in stand_ins}
        self.source = ""

    def begins(self, source: str) -> None:
        """The code for one module is about to run."""
        self.source = source
        self.shadows.begin()

    def value(self, tensor: Tensor) -> Tensor:
        raise NotImplementedError("values of tensors are asked for")

    def seeded(self, generator: torch.Generator | None) -> bool:
        return False

    def called(self, function: Function, args: tuple[Any, ...], own: int) -> bool:
        tensor: Tensor = args[0]
        stand_in = self._of(tensor)
        if stand_in is None:
            return False
        try:
            made = function.distribution(tensor.dtype, tuple(tensor.shape), *args[1:own])
        except Exception:
            return False  # torch words it
        if own > 1 and self.shadows.are_drawn():
            stand_in.why = f"{self.source} computes it ({function.name})"
        else:
            stand_in.written(tensor, made, self.source)
        return True

    def _of(self, tensor: Tensor) -> _StandIn | None:
        return None if not tensor.is_meta else self._stand_ins.get(storage_key(tensor.untyped_storage()))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {**dict(zip((each.name for each in schema_of(func).arguments), args, strict=False)), **(kwargs or {})}
        for argument in schema_of(func).arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                written = given.get(argument.name)
                for view in written if isinstance(written, list) else [written]:
                    if isinstance(view, Tensor) and view.numel() and (stand_in := self._of(view)) is not None:
                        self._operator(schema_of(func).name.removeprefix("aten::"), stand_in, view, list(given.values())[1:])
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _operator(self, name: str, stand_in: _StandIn, view: Tensor, others: list[Any]) -> None:
        """An operator that writes to a stand-in, and what it is given beside it."""
        value = self._number(others[0]) if others else None
        if name == "zero_":
            stand_in.written(view, Constant(0.0), self.source)
        elif self.shadows.are_drawn():
            stand_in.why = f"{self.source} computes it ({name})"
        elif name == "copy_":
            table = self.shadows.numbers(others[0])
            if table is None or not stand_in.copied(view, table, self.source):
                stand_in.why = f"{self.source} computes it (copy_)"
        elif name == "fill_" and value is not None:
            stand_in.written(view, Constant(float(value)), self.source)
        elif name in ("normal_", "uniform_") and others[2:] in ([], [None]):
            numbers = dict(zip(CATALOG[name].own, others, strict=False))
            stand_in.written(view, distribution_of(name, view.dtype, tuple(view.shape), numbers), self.source)
        elif not (name in ("mul_", "div_") and value and stand_in.scaled(view, float(value), name == "div_")):
            stand_in.why = f"{self.source} computes it ({name})"

    def _number(self, value: object) -> float | None:
        """A number that an operator is given, as it is or as a tensor; None where it is none, or not known."""
        if isinstance(value, Tensor):
            known = None if value.dim() else self.shadows.numbers(value)
            value = None if known is None else known.item()
        return value if isinstance(value, int | float) else None


def _watched(root: nn.Module) -> Iterator[tuple[tuple[int, str], _StandIn]]:
    """The parameters of a model of transformers, by the module and attribute that hold them."""
    held = {named: _actual(named) for named in named_tensors(root)}
    stand_ins = {named.name: _StandIn(named, actual) for named, actual in held.items()}
    inside = list(root.modules())
    try:
        memo: dict[int, Any] = {  # whose numbers are the model's, not the code's
            id(each): each.to("meta") for module in inside for each in vars(module).values() if isinstance(each, Tensor)
        }
        memo |= {id(actual): stand_ins[named.name].tensor for named, actual in held.items()}
        memo |= {id(config): config for module in inside if (config := getattr(module, "config", None)) is not None}
        twin = copy.deepcopy(root, memo)
        _untie(twin)
        _run(twin, list(stand_ins.values()))
    except Exception as error:  # of the model's own code
        for stand_in in stand_ins.values():
            stand_in.why = stand_in.why or _words(error)
    _from_constructor(root, [named for named in held if not named.buffer], stand_ins)
    for named in held:
        if named.module is not None and not named.buffer:
            yield (id(named.module), named.attribute), stand_ins[named.name]


def _from_constructor(root: nn.Module, parameters: list[Named], stand_ins: dict[str, _StandIn]) -> None:
    """What a constructor has left in a parameter that ``_init_weights`` fills in part; and the numbers that only that of the
    model writes, where no layer of torch holds them."""
    left = [named for named in parameters if not (stand_ins[named.name].why or stand_ins[named.name].is_filled)]
    bare = [named for named in left if not torch_reset(named)]
    made = constructed(root) if any(named.tensor.numel() for named in bare) else {}
    for named in left:
        stand_in, numbers = stand_ins[named.name], made.get(named.name)
        parts, stand_in.fills = stand_in.fills, []
        if parts and (reset := torch_reset(named)):
            stand_in.fills = list(reset)
        elif numbers is not None and numbers.shape == named.tensor.shape:
            stand_in.copied(stand_in.tensor, numbers, f"{type(named.module).__name__}.__init__")
        if parts and not stand_in.fills:
            stand_in.why = f"{parts[0][2]} of a part"
        stand_in.fills += parts


def _untie(twin: nn.Module) -> None:
    """Models tie weights after ``_init_weights`` has run: what it gives to the tied ones meanwhile is lost."""
    for name in getattr(twin, "all_tied_weights_keys", None) or ():
        path, _, attribute = name.rpartition(".")
        module = twin.get_submodule(path)
        if (tied := module._parameters.get(attribute)) is not None:
            module._parameters[attribute] = nn.Parameter(torch.empty_like(tied), tied.requires_grad)


def _run(twin: nn.Module, stand_ins: list[_StandIn]) -> None:
    watch = _Watch(stand_ins)
    by_tensor = {id(each.tensor): each for each in stand_ins}
    with ExitStack() as stack:
        stack.enter_context(generators_kept())
        stack.enter_context(torch.no_grad())
        stack.enter_context(recording(watch))
        stack.enter_context(watch)
        for module, around in _inner_first(twin, twin, set()):
            base = next(each for each in type(around).__mro__ if "_init_weights" in vars(each))
            watch.begins(f"{base.__name__}._init_weights, {type(module).__name__}")
            before = dict(module._parameters)
            try:
                around._init_weights(module)  # type: ignore[operator]
                why = ""
            except Exception as error:  # of the model's own code
                why = _words(error)
            for attribute, tensor in before.items():
                stand_in = by_tensor.get(id(tensor))
                if stand_in is not None and (why or not stand_in.is_in(module, attribute)):
                    stand_in.why = why or f"{watch.source} puts another in its place"


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:120]


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    if is_pretrained(module):
        yield module
    else:
        for child in module.children():
            yield from _outermost(child)


def _inner_first(module: nn.Module, around: nn.Module, seen: set[int]) -> Iterator[tuple[nn.Module, nn.Module]]:
    """The modules, each once, and the model of transformers in which each is: as ``initialize_weights`` goes through them."""
    if id(module) in seen:
        return
    seen.add(id(module))
    for child in module.children():
        yield from _inner_first(child, child if is_pretrained(child) else around, seen)
    yield module, around


def _actual(named: Named) -> Tensor:
    """What the module holds: not ``named.tensor`` where that shows a partitioned one as a whole."""
    assert named.module is not None
    held = named.module._buffers if named.buffer else named.module._parameters
    actual = held[named.attribute]
    assert actual is not None
    return actual


def _box_of(whole: Tensor, view: Tensor) -> Box | None:
    """The box of a contiguous tensor that a view of it is; None if it is none."""
    start, rest = [], int(view.storage_offset())
    for stride in whole.stride():
        at, rest = divmod(rest, stride) if stride else (0, rest)
        start.append(at)
    extent, dims = [1] * whole.dim(), {stride: d for d, stride in enumerate(whole.stride()) if whole.shape[d] > 1}
    for size, stride in zip(view.shape, view.stride(), strict=True):
        if size > 1:
            d = dims.pop(stride, None)
            if d is None or start[d] + size > whole.shape[d]:
                return None
            extent[d] = size
    return None if rest or not view.numel() else Box(tuple(start), tuple(extent))


def _is_reshaped(whole: Tensor, view: Tensor, made: Distribution) -> bool:
    """Whether the view is all of a tensor in another shape, which is nothing to what fills it element by element."""
    same = view.shape != whole.shape and view.numel() == whole.numel() and view.storage_offset() == whole.storage_offset()
    return same and view.is_contiguous() and whole.is_contiguous() and isinstance(made, _BY_ELEMENT)
