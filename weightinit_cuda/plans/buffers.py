"""Buffers that no plan has, such as the frequencies of rotary embeddings: computed again by the model's own code.

``to_empty()`` leaves them without values, and nothing in torch says so afterwards. Where a module, or the transformers model
around it, has code for them, it runs on a copy of the module whose parameters are on meta: what it writes into the copy's
buffers is theirs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, SupportsIndex

import torch
from torch import Tensor, nn

from ..init.generators import generators_kept
from ..tensors.boxes import Box
from ..tensors.kinds import MODULE, must_be
from ..tensors.named import Model, Named
from ..tensors.shards import is_dtensor

if TYPE_CHECKING:
    from .plan import Plan

__all__ = ["fill_and_recompute", "must_recompute", "way_off_meta"]

_OWN_CODE = ("init_non_persistent_buffers", "reset_buffers", "rope_init", "reset_parameters")  # timm, torchtune, torch


def must_recompute(function: str, buffers: object) -> bool:
    """Whether that argument asks for it.

    Raises:
        ValueError: it is neither "keep" nor "recompute".
    """
    if not (isinstance(buffers, str) and buffers in ("keep", "recompute")):
        raise ValueError(f'{function}: buffers must be "keep" or "recompute", got {buffers!r}.')
    return buffers == "recompute"


def fill_and_recompute(
    function: str, plan: Plan, model: Model, named: Sequence[Named], tensors: dict[str, Tensor], seed: SupportsIndex | None
) -> None:
    """Fills a model, and gives its other buffers what its own code computes. What the plan says of a part lies over that.

    Args:
        function: that the user called.
        model: with memory.
        named: all of its tensors.
        tensors: those of the plan, by its names.

    Raises:
        TypeError, ValueError: as :func:`_recomputed`; nothing is written.
    """
    filled = {id(tensor) for name, tensor in tensors.items() if _is_filled(plan, name)}
    values = _recomputed(function, model, named, {one.name for one in named if id(one.tensor) in filled})
    plan.fill_(tensors, seed=seed)
    with torch.no_grad():
        for buffer, value in values:
            buffer.tensor.copy_(value)
    plan.fill_({name: tensor for name, tensor in tensors.items() if id(tensor) not in filled}, seed=seed)  # parts of them


def _is_filled(plan: Plan, name: str) -> bool:
    """Whether fills decide every element of a tensor."""
    boxes = [box for entry, left in plan.shares(name) if entry.distribution.is_fill for box in left]
    return sum(box.numel for box in boxes) == Box.whole(plan[name][0].shape).numel


def _recomputed(function: str, model: Model, named: Collection[Named], covered: Collection[str]) -> list[tuple[Named, Tensor]]:
    """Each buffer that is not covered, and its values. Nothing of the model is changed.

    Args:
        function: that the user called.
        model: with memory.
        named: all of its tensors.
        covered: names of those that the plan fills.

    Raises:
        TypeError: the model is no module, whose code could be run.
        ValueError: buffers whose module has no code for them, or code that does not write them; all are named.
    """
    must_be(MODULE, f'{function}(buffers="recompute")', model=model)
    assert isinstance(model, nn.Module)
    wanted = [each for each in named if each.buffer and each.name not in covered and each.tensor.numel()]
    around = dict(_around(model, None))
    by_module: dict[int, tuple[nn.Module, list[Named]]] = {}
    for each in wanted:
        if each.module is not None:
            by_module.setdefault(id(each.module), (each.module, []))[1].append(each)
    found: list[tuple[Named, Tensor]] = []
    problems: list[str] = []
    with generators_kept(), torch.no_grad():
        for module, held in by_module.values():
            values, errors = _of_module(module, [each.attribute for each in held], around.get(id(module)))
            found += [(each, values[each.attribute]) for each in held if each.attribute in values]
            why = f" ({'; '.join(errors)})" if errors else ""
            problems += [
                f"{each.name} {tuple(each.tensor.shape)} of {type(module).__name__}{why}"
                for each in held
                if each.attribute not in values
            ]
    if problems:
        title = f"{function}: buffers must be computable by their modules' own code, got {len(problems)} that are not."
        way = 'Build the model under deferred(), or write them and use buffers="keep".'
        raise ValueError("\n  ".join([f"{title} {way}", *problems]))
    return found


def way_off_meta(function: str, named: Sequence[Named], planned: Mapping[str, str]) -> list[str]:
    """What to do with a model on meta, and which of its buffers would have no values."""
    if not any(tensor.tensor.is_meta for tensor in named):
        return []
    way = "Build the model under deferred() and give it memory with materialize_; or use model.to_empty(device=...)"
    left = [one.name for one in named if one.buffer and one.name not in planned and one.tensor.numel()]
    if not left:
        return [f"{way}."]
    shown = ", ".join(left[:5]) + ", ..." * (len(left) > 5)
    door = "initialize_" if function == "initialize_" else "apply_"
    return [f"{way}, which leaves {len(left)} buffers without values ({shown}): {door}(..., buffers='recompute')."]


def _around(module: nn.Module, outside: nn.Module | None) -> Iterator[tuple[int, nn.Module | None]]:
    """For each module the nearest model of transformers that it is part of."""
    inside = module if hasattr(module, "_init_weights") and hasattr(module, "config") else outside
    yield id(module), inside
    for child in module.children():
        yield from _around(child, inside)


def _of_module(module: nn.Module, names: Collection[str], around: nn.Module | None) -> tuple[dict[str, Tensor], list[str]]:
    """The values of a module's buffers, and what went wrong."""
    ways: list[Callable[[nn.Module], object]] = []
    if callable(of_model := getattr(around, "_init_weights", None)):
        ways.append(of_model)
    ways += [getattr(type(module), name) for name in _OWN_CODE if callable(getattr(type(module), name, None))]
    found: dict[str, Tensor] = {}
    errors: list[str] = []
    for way in ways:
        missing = [name for name in names if name not in found]
        if not missing:
            break
        try:
            found.update(_written(module, missing, way))
        except Exception as error:  # the model's own code, on a copy
            errors.append(f"{getattr(way, '__name__', way)}: {type(error).__name__}: {error}"[:200])
    return found, errors


def _written(module: nn.Module, names: Collection[str], way: Callable[[nn.Module], object]) -> dict[str, Tensor]:
    """What a function writes into these buffers of a copy of the module."""
    found = _run(module, names, way, 0)
    if all(map(_can_be_nan, found.values())):
        return found
    again = _run(module, names, way, 77)  # integers that nobody has written tell by that they are others
    return {name: value for name, value in found.items() if _can_be_nan(value) or _are_equal(value, again.get(name))}


def _run(module: nn.Module, names: Collection[str], way: Callable[[nn.Module], object], integer: int) -> dict[str, Tensor]:
    """The buffers that a function has written, of a copy in which all were nan, or that integer: what it reads from others
    before it writes them is no value."""
    memo: dict[int, object] = {id(each): nn.Parameter(each.to("meta"), each.requires_grad) for each in module.parameters()}
    memo |= {id(config): config for config in [getattr(module, "config", None)] if config is not None}
    memo |= {id(each): _unwritten(each, integer) for each in module.buffers()}
    twin = copy.deepcopy(module, memo)
    before = {name: twin.get_buffer(name) for name in names}
    versions = {name: buffer._version for name, buffer in before.items()}
    with generators_kept():
        way(twin)
    written = {name: _if_written(twin._buffers.get(name), before[name], versions[name]) for name in names}
    return {name: after for name, after in written.items() if after is not None}


def _can_be_nan(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _are_equal(value: Tensor, other: Tensor | None) -> bool:
    return other is not None and value.dtype == other.dtype and bool((value == other).all())


def _unwritten(buffer: Tensor, integer: int) -> Tensor:
    made = torch.empty_like(buffer)
    return made.fill_(torch.nan if _can_be_nan(made) else integer)


def _if_written(after: Tensor | None, before: Tensor, version: int) -> Tensor | None:
    """The buffer, if something wrote all of it."""
    if after is None or after.is_meta or after.shape != before.shape or (after is before and after._version == version):
        return None
    if is_dtensor(after) != is_dtensor(before):  # neither can be copied into the other
        return None
    return None if bool(after.isnan().any()) else after
