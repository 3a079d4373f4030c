"""A plan with the memory of a model, to be filled under one seed after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from .. import engine
from ..engine.job import FillJob
from ..tensors.shards import is_spread, mark_written, parts_to_write

__all__ = ["Bound"]


class Bound:
    """Tensors with the jobs that fill them, as their memory was when this was made."""

    def __init__(self, tensors: Mapping[str, Tensor], jobs: Sequence[FillJob]) -> None:
        self._prepared = engine.Prepared(jobs)
        self._plain = tuple(tensor for tensor in tensors.values() if not is_spread(tensor))
        self._spread = [tensor for tensor in tensors.values() if is_spread(tensor)]
        self.places = self.places_now()

    def places_now(self) -> tuple[list[int], list[int]]:
        """Where the tensors' memory is now, and how many elements lie there."""
        shards = tuple(part for tensor in self._spread for part, _ in parts_to_write(tensor))
        local = self._plain + shards
        return list(map(Tensor.data_ptr, local)), list(map(Tensor.numel, local))

    def run(self, seed: int) -> None:
        self._prepared.run(seed)
        for tensor in self._spread:
            mark_written(tensor)
