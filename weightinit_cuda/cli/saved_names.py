"""The names and shapes that transformers gives a model's tensors in files, where these are not the model's own.

Experts that lie in one tensor of the model are saved apart, and some models have older names in files. transformers converts a
state dict when it saves; here that is done for one tensor at a time, so that no model has to be in memory.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..numerics.distributions import Computed
from ..plans.entry import Entry
from ..plans.plan import Plan

__all__ = ["SavedNames", "saved_names"]

Values = Callable[[str], Tensor]


class SavedNames(NamedTuple):
    """What becomes of the tensors of a model in files.

    Args:
        names: for each name in the model those in files: several where a tensor is saved in parts.
        shapes: of the tensors in files.
        moved: the names in files of tensors that are not just renamed.
        convert: a tensor of the model, by its name, as files have it.
    """

    names: Mapping[str, Sequence[str]]
    shapes: Mapping[str, tuple[int, ...]]
    moved: frozenset[str]
    convert: Callable[[str, Tensor], Mapping[str, Tensor]]

    def renamed(self, plan: Plan, names: Sequence[str], values: Values) -> tuple[Plan, Values]:
        """The plan of these tensors, and the values that it does not say, under the names of files."""
        entries = [entry for name in names for saved in self.names[name] for entry in self._renamed(plan[name], saved)]
        origins = {saved: name for name in names for saved in self.names[name]}
        converted: dict[str, Mapping[str, Tensor]] = {}  # of the last one

        def value(saved: str) -> Tensor:
            origin = origins[saved]
            if origin not in converted:
                converted.clear()
                converted[origin] = self.convert(origin, values(origin))
            return converted[origin][saved].contiguous()

        return Plan(tuple(entries), plan.seed, plan.rules), value

    def _renamed(self, entries: Sequence[Entry], saved: str) -> list[Entry]:
        first = entries[0]
        if saved in self.moved:
            part = Computed(f"saved form of {first.name}")
            return [Entry(saved, self.shapes[saved], first.dtype, part, first.stream, first.source, buffer=first.buffer)]
        aliases = tuple(other for alias in first.aliases for other in self.names.get(alias, ()))
        return [entry._replace(name=saved, aliases=aliases) for entry in entries]


def saved_names(model: nn.Module) -> SavedNames | None:
    """What ``save_pretrained`` does to the names of a model on meta; None if nothing.

    None, too, where a tensor of a file is made of several of the model: from_pretrained reads the model's own names as well.
    """
    try:
        loading: Any = importlib.import_module("transformers.core_model_loading")
    except ImportError:  # transformers 4 has no conversions
        return None

    def convert(name: str, tensor: Tensor) -> Mapping[str, Tensor]:
        converted: Mapping[str, Tensor] = loading.revert_weight_conversion(model, {name: tensor})
        return converted

    state = model.state_dict()
    together = loading.revert_weight_conversion(model, dict(state))
    if together.keys() == state.keys():
        return None
    try:
        apart = {name: convert(name, tensor) for name, tensor in state.items()}
    except Exception:  # an operation that needs several tensors; each has its own way to say so
        return None
    shapes = {saved: tuple(tensor.shape) for made in apart.values() for saved, tensor in made.items()}
    if shapes != {saved: tuple(tensor.shape) for saved, tensor in together.items()}:
        return None
    moved = {saved for name, made in apart.items() for saved, tensor in made.items() if tensor is not state[name]}
    return SavedNames({name: list(made) for name, made in apart.items()}, shapes, frozenset(moved), convert)
