"""Fills by the compiled kernels: jobs in the form that they take, and the launches.

What each number of a job means is in `csrc/job.h`. Knows no arguments of users: all was checked before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from ..numerics.combine import STORE, Combine
from ..numerics.distributions import Distribution
from ..numerics.lowering import Transform, lower
from ..tensors.named import PLAIN_TYPES
from ..tensors.torch_private import increment_version, without_modes
from .backend import has_kernels, kernels
from .job import FillJob

__all__ = [
    "STORAGE",
    "NativeJob",
    "Table",
    "fits",
    "launch",
    "native_job",
    "native_transform",
    "plain_tensors",
    "relauncher",
    "write_words",
]

# The kernels' names of storage: csrc/job.h.
STORAGE = {
    torch.float32: 0,
    torch.float64: 1,
    torch.float16: 2,
    torch.bfloat16: 3,
    torch.float8_e4m3fn: 4,
    torch.float8_e5m2: 5,
}
_UINT32 = 8
_MASK64 = 0xFFFFFFFFFFFFFFFF
get_num_threads = torch.get_num_threads


class NativeJob(NamedTuple):
    """A job as csrc/job.h has it.

    Args:
        address: of the first element.
        storage: what an element is in memory.
        transform: what to write.
        seed, stream: 64 bits each.
        first: index of the first element in the global tensor.
        dims: size, stride in memory and step in the global index of each dimension, the outermost first.
    """

    address: int
    storage: int
    transform: Any
    seed: int
    stream: int
    first: int
    dims: list[tuple[int, int, int]]


def native_transform(distribution: Distribution, dtype: torch.dtype) -> Any:
    """The kernels' form of a distribution, remembered by it."""
    return distribution.form(dtype, lambda: native_of(lower(distribution, dtype)))


def _of_one_pass(distribution: Distribution, dtype: torch.dtype) -> Any:
    """The kernels' form of what one pass makes; None for all else."""
    return native_transform(distribution, dtype) if distribution.one_pass else None


@lru_cache(maxsize=4096)  # a constant's 0.0 and -0.0 differ in `integers`
def native_of(transform: Transform) -> Any:
    """A transform as the kernels take it."""
    return kernels.Transform(int(transform.kind), list(transform.params), list(transform.integers))


def fits(tensor: torch.Tensor) -> bool:
    """Whether the kernels can write a real tensor of any strides."""
    return has_kernels(tensor.device) and tensor.dim() <= kernels.max_dims


def native_job(job: FillJob, transform: Transform) -> NativeJob:
    """Any job that :func:`fits`."""
    tensor = job.tensor
    shape, offset = job.region or (tensor.shape, (0,) * tensor.dim())
    index, step = 0, 1
    dims: list[tuple[int, int, int]] = []
    for n, stride, whole, at in reversed(tuple(zip(tensor.shape, tensor.stride(), shape, offset, strict=True))):
        dims.append((n, stride, step))
        index += at * step
        step *= whole
    seed, stream = job.seed & _MASK64, job.stream & _MASK64
    return NativeJob(tensor.data_ptr(), STORAGE[tensor.dtype], native_of(transform), seed, stream, index, dims[::-1])


def write_words(words: torch.Tensor, seed: int, stream: int, start: int) -> None:
    """The raw words of a stream from ``start`` on, into a uint32 tensor of the CPU."""
    job = NativeJob(words.data_ptr(), _UINT32, kernels.Transform(0, [], []), seed, stream, start, [(words.numel(), 1, 1)])
    kernels.fill([job], get_num_threads())


def launch(device: torch.device, jobs: Any, combine: Combine = STORE) -> None:
    """A table of jobs: one parallel pass on the CPU; on a GPU, on its current stream, one launch for each size of an element,
    one in all to combine."""
    if device.type == "cpu":
        kernels.fill(jobs, get_num_threads(), *combine)
    else:
        _launch(device, kernels.CudaLaunch(jobs, *combine))


def _launch(device: torch.device, launch: Any) -> None:
    """No synchronisation; and no allocation if the table fits into the kernels' parameters, or while a graph is captured, which
    its memory would have to outlive: then its rows travel in the parameters of as many launches as it takes."""
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream(device).cuda_stream
        if len(launch) <= kernels.cuda_inline_jobs or torch.cuda.is_current_stream_capturing():
            launch.run(0, stream, device.index)
        else:
            pinned = torch.frombuffer(bytearray(launch.bytes()), dtype=torch.uint8).pin_memory()
            table = pinned.to(device, non_blocking=True)  # kept until the launch is queued
            launch.run(table.data_ptr(), stream, device.index)


def relauncher(device: torch.device, jobs: Any) -> Callable[[int], None]:
    """A table of jobs as a function of the seed."""
    if device.type == "cpu":
        prepared = kernels.CpuFill(jobs)
        return lambda seed: prepared.run(seed, get_num_threads())
    prepared_launch = kernels.CudaLaunch(jobs)

    def run(seed: int) -> None:
        with without_modes():
            _launch(device, prepared_launch.with_seed(seed))

    return run


Table: Any = kernels and kernels.Table
"""Jobs for one device, in the form of the kernels."""

plain_tensors: Any = kernels and kernels.PlainTensors(
    tuple(PLAIN_TYPES), STORAGE, STORE, _of_one_pass, has_kernels, increment_version, get_num_threads
)
"""The plain tensors of jobs: dense, of this library's dtypes, each a global tensor of its own. Read without torch's headers."""
