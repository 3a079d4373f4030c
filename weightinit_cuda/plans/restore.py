"""A model set back to its initial values, in place: all of it, chosen tensors, or the elements that a mask names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import SupportsIndex, TypeVar

import torch
from torch import Tensor

from ..tensors.boxes import Box
from ..tensors.kinds import MODEL, TENSORS, globs, must_be
from ..tensors.named import Model, Named, named_tensors
from ..tensors.shards import is_dtensor, mark_written, parts, parts_to_write
from .plan import PLAN, Plan

__all__ = ["restore_"]

Module = TypeVar("Module", bound=Model)


def restore_(
    model: Module,
    plan: Plan,
    *,
    names: str | Sequence[str] | None = None,
    mask: Mapping[str, Tensor] | None = None,
    seed: SupportsIndex | None = None,
) -> Module:
    """Sets a model back to its initial values, in place, as the lottery ticket does: parameters, and buffers that the plan has.

    With a mask, ``w = mask * initial``: pruned elements become 0.

    Args:
        model: a module, or its tensors by name, that fits the plan as in ``plan.apply_``.
        plan: what it was initialised with.
        names: globs (``"layers.*.weight"``) of what to restore; default everything, and then the plan must fit it all.
        mask: boolean tensors by name, True where an element is kept; of the shape of the tensor, and sharded as it is.
        seed: instead of the plan's.

    Returns:
        The model.

    Raises:
        ValueError: the model does not fit the plan, a glob or a mask belongs to nothing that is restored, or a parameter's
            initial values were computed by the model's own code. All such names are listed; nothing is written.

    Source: Frankle, Carbin (2019), The lottery ticket hypothesis, arXiv:1803.03635.

    >>> import torch, weightinit_cuda as wi
    >>> net = torch.nn.Linear(3, 2)
    >>> plan = wi.plan(net, rules="xavier", seed=0)
    >>> keep = torch.tensor([[True, False, True], [False, True, True]])
    >>> wi.restore_(net, plan, mask={"weight": keep}).weight.count_nonzero()
    tensor(4)
    """
    must_be(MODEL, "restore_", model=model)
    must_be(PLAN, "restore_", plan=plan)
    must_be(TENSORS, "restore_", mask=mask or {})
    named = named_tensors(model)
    if names is not None:
        named, plan = _selected(named, plan, globs("restore_", "names", names))
    _require_fills(plan)
    masks = _masks(named, mask or {})
    plan.apply_(model if names is None else {n.name: n.tensor for n in named}, seed=seed)
    for tensor, keep in masks:
        _zero(tensor, keep)
    return model


def _selected(named: Sequence[Named], plan: Plan, globs: Sequence[str]) -> tuple[list[Named], Plan]:
    """The tensors of which a name matches, and the plan of those."""

    def chosen(glob: str) -> set[str]:
        return {n.name for n in named if any(fnmatchcase(name, glob) for name in (n.name, *n.aliases))}

    if idle := [glob for glob in globs if not chosen(glob)]:
        raise ValueError(f"restore_: every glob must match a name of the model, got {', '.join(map(repr, idle))} without one.")
    wanted = {name for glob in globs for name in chosen(glob)}
    kept = [n for n in named if n.name in wanted]
    listed = {entry.name for n in kept for name in (n.name, *n.aliases) if name in plan for entry in plan[name]}
    return kept, replace(plan, entries=tuple(entry for entry in plan if entry.name in listed))


def _require_fills(plan: Plan) -> None:
    computed = dict.fromkeys(e.name for e in plan if not e.distribution.is_fill and not e.buffer)
    if computed:
        raise ValueError(
            "restore_: the plan must know the values of every parameter, got some that the model's own code computes:"
            f" {', '.join(computed)}. Leave them out with names=, or keep a copy."
        )


def _masks(named: Sequence[Named], mask: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Each tensor with its mask, checked."""
    tensors = {name: n.tensor for n in named for name in (n.name, *n.aliases)}
    wrong = [
        f"{name} ({tuple(keep.shape)}, {keep.dtype})"
        for name, keep in mask.items()
        if name not in tensors or keep.dtype != torch.bool or _spread(keep) != _spread(tensors[name])
    ]
    if wrong:
        raise ValueError(
            "restore_: a mask must be a bool tensor with the name, shape and sharding of a tensor that is restored, got "
            + ", ".join(wrong)
        )
    return [(tensors[name], keep) for name, keep in mask.items()]


def _spread(tensor: Tensor) -> tuple[object, ...]:
    """Global shape, and which part of it is here."""
    return tensor.shape, (tensor.device_mesh, tensor.placements) if is_dtensor(tensor) else None


def _zero(tensor: Tensor, keep: Tensor) -> None:
    """+0.0 where the mask is False."""
    with torch.no_grad():
        for number, (local, region) in enumerate(parts_to_write(tensor, "restore_")):
            if is_dtensor(keep):
                kept, _ = parts(keep, "restore_")[number]
            else:
                kept = keep if region is None else keep[Box(region.offset, tuple(local.shape)).slices()]
            values = local.detach()
            if values.itemsize == 1:
                values = values.view(torch.uint8)  # torch masks no float8
            values.masked_fill_(kept.logical_not().to(values.device), 0)
    mark_written(tensor)
