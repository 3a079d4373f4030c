"""Runs jobs: checks all of them, cuts them apart where memory overlaps, groups them by device, and fills.

Everything the layouts of torch tensors bring is resolved here (complex, conjugate and negative views, regions, overlaps,
inference mode, version counters). Arguments were checked above, in the words of the user; kernels below only see numbers.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect
from collections.abc import Iterator, Sequence
from itertools import pairwise, repeat
from typing import Any

import torch

from ..numerics.combine import STORE, Combine, made_dtype, settled
from ..numerics.distributions import Distribution, Normal, SparseNormal
from ..numerics.lowering import Transform, lower
from ..numerics.rounding import REAL_DTYPE
from ..tensors.boxes import Region
from ..tensors.torch_private import increment_version, without_modes
from . import backend, native
from .checks import check
from .job import FillJob
from .orthogonal import computing_dtype, orthogonal_matrix
from .sparse import write_zeros
from .words import MASK64

__all__ = ["Batch", "batches", "fill", "fill_whole", "without_overlap"]

_new = tuple.__new__  # what a NamedTuple's name calls, in half the time: a model has thousands of tensors


def fill(jobs: Sequence[FillJob]) -> None:
    """Fills every job's tensor: one parallel pass over all CPU tensors; on each GPU one launch for each size of an
    element, and one for each way of combining.

    All jobs are checked before the first element is written. Jobs on the same memory count as if they ran one after another:
    the later one wins, in a pass of its own.

    Raises:
        RuntimeError: overlapping memory, or an inference tensor outside inference mode (as torch).
        NotImplementedError, ValueError: no such layout, dtype, region or distribution; the job is named.
    """
    with without_modes():
        for batch in batches(jobs):
            batch.run()


def fill_whole(
    tensors: list[torch.Tensor],
    distributions: list[Distribution],
    seed: int,
    streams: list[int],
    names: list[str],
    more: Sequence[FillJob] = (),
) -> None:
    """:func:`fill` of jobs on whole tensors, which come as columns, and of a few more: no job is made of what is plain."""
    if backend.native and tensors:
        gathered = native.plain_tensors.gather_whole(tensors, distributions, streams, seed & MASK64, more)
        if not gathered.others and gathered.apart(()):
            increment_version(tuple(gathered.tensors))
            with without_modes():
                for device, table in gathered.tables:
                    native.launch(device, table)
            return
        others = [
            FillJob(tensors[i], distributions[i], seed, streams[i], None, names[i]) if isinstance(i, int) else i
            for i in gathered.others
        ]
        with without_modes():
            batch = Batch(others, gathered)
            if batch.apart():
                batch.run()
                return
    fields = zip(tensors, distributions, repeat(seed), streams, repeat(None), names, repeat(STORE), strict=False)
    fill([*map(_new, repeat(FillJob), fields), *more])


def batches(jobs: Sequence[FillJob]) -> Iterator[Batch]:
    """The jobs in order, all checked before the first batch; cut before each one whose memory may overlap that of one since the
    last cut."""
    whole = Batch(jobs)
    if whole.apart():
        yield whole
    else:
        yield from map(Batch, without_overlap(jobs))


class Batch:
    """Jobs of one pass, checked: those on plain tensors, which are most of a model, in the form of the kernels.

    Args:
        jobs: as for :func:`fill`.
        gathered: what the kernels' module has made of them and more; the jobs are then those that are left.

    Attributes:
        plain: the plain tensors.
        tables: the kernels' jobs on them, by device and way of combining.
        others: the jobs that are more than that, without those that leave their tensors as they are.
    """

    def __init__(self, jobs: Sequence[FillJob], gathered: Any = None) -> None:
        self.jobs = jobs
        self.plain: Sequence[torch.Tensor] = ()
        self.tables: dict[tuple[torch.device, Combine], Any] = {}
        if backend.native:
            self._gathered = native.plain_tensors.gather(jobs) if gathered is None else gathered
            self.plain = self._gathered.tensors
            self.tables = {(device, STORE): table for device, table in self._gathered.tables}
            jobs = self._gathered.others if gathered is None else jobs
        self.others = [one for job in jobs if (one := _checked(job))]

    def apart(self) -> bool:
        """Whether no two jobs may write the same memory."""
        extents = [_extent(job.tensor) for job in self.others]
        if self.plain:
            apart: bool = self._gathered.apart(extents)
            return apart
        in_order = sorted(extents)
        return all(end <= begin for (_, end), (begin, _) in pairwise(in_order))

    def run(self) -> None:
        """Fills; once, since the tables are used up."""
        written = [job.tensor for job in self.others if not (job.tensor.is_meta or job.tensor.is_inference())]
        if self.plain or written:
            increment_version((*self.plain, *written))
        filled = [job for job in self.others if _writes(job)]
        self._run_kernels([job for job in filled if not job.distribution.linear_algebra])
        if not filled:
            return
        with torch.no_grad():
            for job in filled:
                if isinstance(job.distribution, SparseNormal):
                    write_zeros(job, job.distribution)
            _write_orthogonal([job for job in filled if job.distribution.linear_algebra])

    def _run_kernels(self, jobs: Sequence[FillJob]) -> None:
        """What one pass makes: by the kernels, else by the reference; constants of integers by torch."""
        by_reference: list[tuple[FillJob, Transform]] = []
        copies: list[tuple[torch.Tensor, torch.Tensor]] = []
        for job in jobs:
            if job.tensor.dtype not in REAL_DTYPE:
                job.tensor.detach().fill_(job.distribution.numbers()["value"])
                continue
            for part in _real_parts(_resolved(job, copies)):
                transform = lower(part.distribution, made_dtype(part.combine.mode, part.tensor.dtype))
                if native.fits(part.tensor):
                    key = part.tensor.device, part.combine
                    self.tables.setdefault(key, native.Table()).append(native.native_job(part, transform))
                else:
                    by_reference.append((part, transform))
        for (device, combine), table in self.tables.items():
            native.launch(device, table, combine)
        if by_reference:
            from ..numerics import reference  # not at import: a program that has the kernels does not need it
        for part, transform in by_reference:
            reference.fill(part.tensor, transform, part.seed, part.stream, part.region, part.combine)
        for tensor, made in copies:
            with torch.no_grad():
                tensor.copy_(made)


def _checked(job: FillJob) -> FillJob | None:
    """Any job, checked; None if it leaves the tensor as it is."""
    if job.region is not None:  # shapes and offsets as Python integers, which do not overflow
        job = job._replace(region=Region(*(tuple(map(operator.index, numbers)) for numbers in job.region)))
    check(job)
    combine = settled(job.combine, REAL_DTYPE.get(job.tensor.dtype, torch.float32))
    return combine and job._replace(combine=combine)


def _writes(job: FillJob) -> bool:
    begin, end = _extent(job.tensor)
    return begin != end


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """Addresses of the first byte and of the one after the last; (0, 0) where there is no memory to write."""
    if tensor.is_meta or tensor.numel() == 0:
        return 0, 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    begin = tensor.data_ptr()
    return begin, begin + (last + 1) * tensor.itemsize


def without_overlap(jobs: Sequence[FillJob]) -> Iterator[Sequence[FillJob]]:
    """The jobs in order, cut before each one whose memory may overlap that of a job since the last cut."""
    first, since = 0, list[tuple[int, int]]()  # `since` is sorted, and its extents are apart
    for number, job in enumerate(jobs):
        extent = _extent(job.tensor)
        at = bisect(since, extent)
        if any(begin < extent[1] and extent[0] < end for begin, end in since[max(at - 1, 0) : at + 1]):
            yield jobs[first:number]
            first, since, at = number, [], 0
        since.insert(at, extent)
    yield jobs[first:]


def _resolved(job: FillJob, copies: list[tuple[torch.Tensor, torch.Tensor]]) -> FillJob:
    """The job on memory that means what it holds: a lazily conjugated or negated view is filled aside and copied after."""
    tensor = job.tensor.detach()
    if tensor.is_neg() or tensor.is_conj():
        made = tensor.resolve_conj().resolve_neg()
        copies.append((tensor, made))
        tensor = made
    return job._replace(tensor=tensor)


def _write_orthogonal(jobs: Sequence[FillJob]) -> None:
    """Each matrix is made whole, once for all parts of it that are written one after another."""
    made: tuple[object, torch.Tensor] | None = None
    for job in jobs:
        tensor = job.tensor.detach()
        shape = tuple(job.region.global_shape if job.region else tensor.shape)
        key = job.distribution, job.seed, job.stream, shape, tensor.dtype, tensor.device
        if made is None or made[0] != key:
            gaussian = torch.empty((shape[0], math.prod(shape[1:])), dtype=computing_dtype(tensor.dtype), device=tensor.device)
            fill([FillJob(gaussian, Normal(0.0, 1.0), job.seed, job.stream)])
            gain = job.distribution.numbers()["gain"]
            factor = gain if isinstance(gain, complex) else float(gain)  # torch takes no integers of more than 64 bits
            matrix = orthogonal_matrix(gaussian).mul_(factor).reshape(shape)
            made = key, matrix
        tensor.copy_(made[1] if job.region is None else made[1][job.region.slices(tensor.shape)])


def _real_parts(job: FillJob) -> list[FillJob]:
    """The job as fills of real tensors: a complex tensor of n elements is a real one of 2 n."""
    if not job.tensor.is_complex():
        return [job]
    real = torch.view_as_real(job.tensor)
    if parts := job.distribution.complex_parts():
        return [job._replace(tensor=real[..., i], distribution=part) for i, part in enumerate(parts)]
    region = job.region and Region((*job.region.global_shape, 2), (*job.region.offset, 0))
    return [job._replace(tensor=real, region=region)]
