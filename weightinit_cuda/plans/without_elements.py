"""Parameters and buffers without elements: nothing of them could be filled, but files made of a plan have to have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..numerics.distributions import Constant
from ..tensors.named import Named
from .checks import can_fill
from .entry import Entry

__all__ = ["with_those_without_elements"]

_NOTHING = Constant(0.0)


def with_those_without_elements(
    entries: Sequence[Entry], bare: Iterable[Named], names: Iterable[str], stream: Callable[[str], int]
) -> tuple[Entry, ...]:
    """The entries of a plan, and one for each such tensor that has none; not where no fill has its dtype.

    Args:
        entries: of the plan.
        bare: tensors without elements.
        names: of all tensors, in the order of the model.
        stream: of a name.
    """
    by_name: dict[str, list[Entry]] = {}
    for entry in entries:
        by_name.setdefault(entry.name, []).append(entry)
    for name, tensor, aliases, _, _, buffer in bare:
        shape, dtype = tuple(tensor.shape), tensor.dtype
        if name not in by_name and can_fill(_NOTHING, dtype, shape):
            by_name[name] = [Entry(name, shape, dtype, _NOTHING, stream(name), "no elements", None, aliases, buffer)]
    order = dict.fromkeys([*(name for name in names if name in by_name), *by_name])
    return tuple(entry for name in order for entry in by_name[name])
