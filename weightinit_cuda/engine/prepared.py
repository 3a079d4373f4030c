"""Jobs checked and lowered once, bound to their memory, to be run again and again under other seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..tensors.torch_private import increment_version, without_modes
from .job import FillJob
from .native import relauncher
from .run import Batch, batches
from .words import MASK64

__all__ = ["Prepared"]


class Prepared:
    """Jobs to be run again and again: a call, a copy of the table and the fill.

    Args:
        jobs: as for :func:`fill`. Their tensors are kept alive.
    """

    def __init__(self, jobs: Sequence[FillJob]) -> None:
        with without_modes():
            self._batches = [(batch, tuple(batch.plain), _launches(batch)) for batch in batches(jobs)]

    def run(self, seed: int) -> None:
        """Fills the memory that the tensors had when the jobs were prepared."""
        seed &= MASK64
        for batch, plain, launches in self._batches:
            if not batch.others:
                increment_version(plain)
                for launch in launches:
                    launch(seed)
                continue
            with without_modes():
                Batch([job._replace(seed=seed) for job in batch.jobs]).run()


def _launches(batch: Batch) -> list[Callable[[int], None]]:
    """A function of the seed for each device, if the batch is plain tensors and nothing else."""
    return [] if batch.others else [relauncher(device, table) for (device, _), table in batch.tables.items()]
