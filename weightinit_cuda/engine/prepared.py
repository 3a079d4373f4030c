"""Jobs checked and lowered once, bound to their memory, to be run again and again under other seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..tensors.torch_private import increment_version, without_modes
from .job import FillJob
from .native import table
from .run import Checked, checked, run, without_overlap
from .words import MASK64

__all__ = ["Prepared"]


class Prepared:
    """Jobs to be run again and again: a call, a copy of the table and the fill.

    Args:
        jobs: as for :func:`fill`. Their tensors are kept alive.
    """

    def __init__(self, jobs: Sequence[FillJob]) -> None:
        with without_modes():
            self._groups = [
                (group, tuple(one.job.tensor for one in group), _table(group)) for group in without_overlap(checked(jobs))
            ]

    def run(self, seed: int) -> None:
        """Fills the memory that the tensors had when the jobs were prepared."""
        seed &= MASK64
        for group, tensors, fill_again in self._groups:
            if fill_again is not None:
                increment_version(tensors)
                fill_again(seed)
                continue
            with without_modes():
                run([_with_seed(one, seed) for one in group])


def _table(group: Sequence[Checked]) -> Callable[[int], None] | None:
    """The kernels' table of a group, if it is plain tensors of one device and nothing else."""
    native = [one.native for one in group if one.native]
    devices = {one.job.tensor.device for one in group}
    return table(devices.pop(), native) if len(native) == len(group) and len(devices) == 1 else None


def _with_seed(one: Checked, seed: int) -> Checked:
    return one._replace(job=one.job._replace(seed=seed), native=one.native and one.native._replace(seed=seed & MASK64))
