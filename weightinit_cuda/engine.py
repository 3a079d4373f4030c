"""The only door to the kernels: takes jobs, picks the backend, fills.

Everything the layouts of torch tensors bring is resolved here (complex, conjugate and negative views, regions, overlaps,
inference mode, version counters). Arguments were checked above, in the words of the user; kernels below only see numbers.
"""

from __future__ import annotations

import operator
import os
import threading
import warnings
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import _disable_current_modes

from ._version import FORMAT
from .checking import check
from .job import FillJob
from .numerics import reference
from .numerics.combine import STORE, Combine, made_dtype, settled
from .numerics.distributions import SPARSE_PLACES, Constant, Distribution, SparseNormal
from .numerics.lowering import Transform, lower
from .numerics.rounding import REAL_DTYPE
from .tensors.boxes import Region

__all__ = ["BackendInfo", "Prepared", "backend_info", "bits", "draw_and_fill", "draw_seed", "fill", "fill_tensor", "select_cpu"]

_MISSING = ""
try:
    from . import _C
except ImportError as error:  # built with WEIGHTINIT_NATIVE=0, or not built at all
    _C = None  # type: ignore[assignment]
    _MISSING = str(error)

# The kernels' names of storage: csrc/job.h.
_STORAGE = {
    torch.float32: 0,
    torch.float64: 1,
    torch.float16: 2,
    torch.bfloat16: 3,
    torch.float8_e4m3fn: 4,
    torch.float8_e5m2: 5,
}
_UINT32 = 8
_MASK64 = 0xFFFFFFFFFFFFFFFF
_LOWEST = -(2**63)
_SMALL = 1 << 15  # elements that one thread fills: kSmall of csrc/cpu/dispatch.h
_get_num_threads = torch.get_num_threads


def _choose_backend() -> bool:
    """Whether the compiled kernels are used; says once why not."""
    wanted = os.environ.get("WEIGHTINIT_BACKEND") or ("native" if _C is not None else "")
    if wanted not in ("", "native", "reference"):
        raise ValueError(f"WEIGHTINIT_BACKEND: must be native or reference, got {wanted!r}.")
    if wanted == "native" and _C is None:
        raise ImportError(f"WEIGHTINIT_BACKEND=native, but the compiled kernels are missing: {_MISSING}.")
    if wanted == "":
        warnings.warn(
            f"weightinit_cuda: the compiled kernels are missing ({_MISSING}); the plain PyTorch reference is used: the same "
            "values, many times slower. Reinstall with a C++ compiler, or set WEIGHTINIT_BACKEND=reference to silence this.",
            RuntimeWarning,
            stacklevel=2,
        )
    return wanted == "native"


def select_cpu(isa: str) -> None:
    """Makes the CPU kernels use one instruction set: scalar, avx2, avx512 or neon. For tests; values do not depend on it.

    Raises:
        ValueError: this build or machine does not have it.
    """
    if _C is None or not _C.select_isa(isa):
        available = _C.available_isas() if _C is not None else []
        raise ValueError(f"WEIGHTINIT_CPU: must be one of {available} on this machine, got {isa!r}.")


_native = _choose_backend()
if _native and os.environ.get("WEIGHTINIT_CPU"):
    select_cpu(os.environ["WEIGHTINIT_CPU"])


class BackendInfo(NamedTuple):
    """What runs the fills."""

    backend: str  # native or reference
    cpu: str  # instruction set in use
    available: tuple[str, ...]  # instruction sets that this build and machine have
    threads: int
    parallel_runtime: str  # the OpenMP runtime found in the process, or why there is none
    cuda: str  # or why there is none
    format: int
    reason: str  # why a fallback was taken; empty if none was


def backend_info() -> BackendInfo:
    """What is compiled in, which instruction set is in use, and why a fallback was taken."""
    reason = "" if _native else _MISSING or "WEIGHTINIT_BACKEND=reference"
    threads = torch.get_num_threads()
    if _C is None:
        return BackendInfo("reference", "torch", (), threads, "torch", "not compiled", FORMAT, reason)
    return BackendInfo(
        backend="native" if _native else "reference",
        cpu=_C.selected_isa() if _native else "torch",
        available=tuple(_C.available_isas()),
        threads=threads,
        parallel_runtime=_C.parallel_runtime(),
        cuda=_C.why_no_cuda() or "native",
        format=FORMAT,
        reason=reason,
    )


def draw_seed(tensor: torch.Tensor, generator: torch.Generator | None = None) -> int:
    """One 64-bit seed, drawn where torch would draw the tensor's values: from ``generator``, else its device's default."""
    if generator is None and tensor.is_cpu:
        return int(_seed_cell.tensor.random_(_LOWEST, None).item()) & _MASK64
    if generator is None and tensor.is_cuda:
        generator = torch.cuda.default_generators[tensor.device.index]
    if generator is not None and generator.device.type == "cuda":
        return _draw_cuda_seed(generator)
    device = tensor.device if generator is None else generator.device
    return int(torch.empty((), dtype=torch.int64, device=device).random_(_LOWEST, None, generator=generator).item()) & _MASK64


def _draw_cuda_seed(generator: torch.Generator) -> int:
    """64 bits of the generator's own sequence, made on the host: no kernel, no synchronisation. Advances it by one block of 4.

    torch's CUDA generator is Philox with key ``initial_seed()`` and a position, ``get_offset()``; its kernels use the upper
    half of the counter for threads from 0 on. Counting those from the top keeps our block apart from all of theirs.
    """
    offset = generator.get_offset()
    generator.set_offset(offset + 4)
    w0, w1 = bits(generator.initial_seed(), stream=_MASK64, n=2, start=offset).tolist()
    return int(w0 << 32 | w1)


@lru_cache(maxsize=4096, typed=True)  # typed: different distributions may be equal as tuples
def _native_transform(distribution: Distribution, dtype: torch.dtype) -> Any:
    return _native_of(lower(distribution, dtype))


@lru_cache(maxsize=4096)  # a constant's 0.0 and -0.0 differ in `integers`
def _native_of(transform: Transform) -> Any:
    return _C.Transform(int(transform.kind), list(transform.params), list(transform.integers))


def fill_tensor(tensor: torch.Tensor, distribution: Distribution, seed: int, stream: int = 0) -> None:
    """``fill`` of one tensor that is its own global tensor."""
    address = 0 if isinstance(distribution, _WITH_MORE) or not tensor.is_cpu else _plain_address(tensor)
    if not address:
        return fill((FillJob(tensor, distribution, seed, stream),))
    dtype = tensor.dtype
    transform = _native_transform(distribution, dtype)
    seed, stream = seed & _MASK64, stream & _MASK64
    _increment_version((tensor,))
    _C.fill_contiguous(address, _STORAGE[dtype], tensor.numel(), transform, seed, stream, _get_num_threads())
    return None


def _plain_address(tensor: torch.Tensor) -> int:
    """Where a tensor begins that the kernels can fill as it is; 0 for all that needs more care, or has no elements."""
    if type(tensor) not in _PLAIN or tensor.dtype not in _STORAGE or not _has_kernels(tensor.device):
        return 0
    try:
        if tensor.is_contiguous() and not tensor.is_inference() and not tensor.is_neg():
            return tensor.data_ptr()
    except RuntimeError:  # layouts that have no such thing
        pass
    return 0


class _SeedCell(threading.local):
    """Where a thread's drop-in calls draw their seed: one int64 that is used again and again."""

    def __init__(self) -> None:
        with torch.inference_mode(False), _disable_current_modes():  # an ordinary tensor, whatever the caller is in
            self.tensor = torch.empty((), dtype=torch.int64, device="cpu")
        self.both = self.tensor.random_, self.tensor.data_ptr()  # as a pair: one look-up


_seed_cell = _SeedCell()
_PLAIN = frozenset((torch.Tensor, torch.nn.Parameter, torch.nn.Buffer))  # subclasses may mean other memory than they show
_WITH_MORE = (Constant, SparseNormal)  # not remembered by value, or more than one pass
_increment_version = torch._C._increment_version


def draw_and_fill(tensor: torch.Tensor, distribution: Distribution) -> bool:
    """A drop-in call on a plain CPU tensor: draws the seed from the default generator and fills, in 2 microseconds.

    Returns:
        False, and nothing is drawn or written, for any other tensor: the caller then takes the careful path.
    """
    dtype = tensor.dtype
    storage = _STORAGE.get(dtype)  # the checks of _plain_address once more: a call would cost a tenth of a microsecond
    if storage is None or not _native or type(tensor) not in _PLAIN or type(distribution) in _WITH_MORE or not tensor.is_cpu:
        return False
    try:
        if not tensor.is_contiguous() or tensor.is_inference() or tensor.is_neg():
            return False
        address = tensor.data_ptr()
    except RuntimeError:
        return False
    if not address:
        return False
    transform = _native_transform(distribution, dtype)
    n, (draw, seed) = tensor.numel(), _seed_cell.both
    draw(_LOWEST, None)
    _increment_version((tensor,))  # before the fill, which Ctrl-C may end
    _C.fill_drawn(address, storage, n, transform, seed, 1 if n <= _SMALL else _get_num_threads())
    return True


def fill(jobs: Sequence[FillJob]) -> None:
    """Fills every job's tensor: one parallel pass over all CPU tensors, one launch for each GPU, for each way of combining.

    All jobs are checked before the first element is written. Jobs on the same memory count as if they ran one after another:
    the later one wins, in a pass of its own.

    Raises:
        RuntimeError: overlapping memory, or an inference tensor outside inference mode (as torch).
        NotImplementedError, ValueError: no such layout, dtype, region or distribution; the job is named.
    """
    with _disable_current_modes():
        for apart in _without_overlap([checked for job in jobs if (checked := _plain(job) or _checked(job))]):
            _fill(apart)


class Prepared:
    """Jobs checked and lowered once, to be run again and again under other seeds: a call, a copy of the table and the fill.

    Args:
        jobs: as for :func:`fill`. Their tensors are kept alive.
    """

    def __init__(self, jobs: Sequence[FillJob]) -> None:
        with _disable_current_modes():
            checked = [one for job in jobs if (one := _plain(job) or _checked(job))]
            self._groups = [
                (group, tuple(one.job.tensor for one in group), _table(group)) for group in _without_overlap(checked)
            ]

    def run(self, seed: int) -> None:
        """Fills the memory that the tensors had when the jobs were prepared."""
        seed &= _MASK64
        for group, tensors, table in self._groups:
            if table is not None:
                _increment_version(tensors)
                if table(seed):
                    continue
            with _disable_current_modes():
                _fill([_with_seed(one, seed) for one in group])


def _table(group: Sequence[_Checked]) -> Callable[[int], bool] | None:
    """The kernels' table of a group as a function of the seed, if it is plain tensors of one device and nothing else. False of
    that function: it cannot run now."""
    native = [one.native for one in group if one.native]
    devices = {one.job.tensor.device for one in group}
    if len(native) < len(group) or len(devices) != 1:
        return None
    (device,) = devices
    if device.type == "cpu":
        table = _C.CpuFill(native)

        def run(seed: int) -> bool:
            table.run(seed, _get_num_threads())
            return True

    else:
        launch = _C.CudaLaunch(native)

        def run(seed: int) -> bool:
            with _disable_current_modes():
                return _launch(device, launch.with_seed(seed))

    return run


def _with_seed(one: _Checked, seed: int) -> _Checked:
    native = one.native and (*one.native[:3], seed & _MASK64, *one.native[4:])
    return one._replace(job=one.job._replace(seed=seed), native=native)


class _Checked(NamedTuple):
    """A job that can be run, the bytes it writes, and the kernels' form of it where its tensor is plain."""

    job: FillJob
    extent: tuple[int, int]
    native: tuple[Any, ...] | None = None


def _plain(job: FillJob) -> _Checked | None:
    """What most of a model is, in a few microseconds: a dense tensor that is its own global tensor; None for all else."""
    tensor, distribution, seed, stream, region, _, combine = job
    if region is not None or combine is not STORE or type(distribution) is SparseNormal:
        return None
    address, n = _plain_address(tensor), tensor.numel()
    if not address:
        return None
    transform = _native_of(lower(distribution, tensor.dtype))
    native = address, _STORAGE[tensor.dtype], transform, seed & _MASK64, stream & _MASK64, 0, [(n, 1, 1)]
    return _Checked(job, (address, address + n * tensor.itemsize), native)


def _checked(job: FillJob) -> _Checked | None:
    """Any job, checked; None if it leaves the tensor as it is."""
    if job.region is not None:  # shapes and offsets as Python integers, which do not overflow
        job = job._replace(region=Region(*(tuple(map(operator.index, numbers)) for numbers in job.region)))
    check(job)
    combine = settled(job.combine, REAL_DTYPE[job.tensor.dtype])
    return combine and _Checked(job._replace(combine=combine), _extent(job.tensor))


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """Addresses of the first byte and of the one after the last; (0, 0) where there is no memory to write."""
    if tensor.is_meta or tensor.numel() == 0:
        return 0, 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    begin = tensor.data_ptr()
    return begin, begin + (last + 1) * tensor.itemsize


def _without_overlap(jobs: Sequence[_Checked]) -> Iterator[Sequence[_Checked]]:
    """The jobs in order, cut before each one whose memory may overlap that of a job since the last cut."""
    in_order = sorted(job.extent for job in jobs)
    if all(end <= begin for (_, end), (begin, _) in pairwise(in_order)):
        yield jobs
        return
    first, since = 0, list[tuple[int, int]]()  # `since` is sorted, and its extents are apart
    for number, job in enumerate(jobs):
        at = bisect(since, job.extent)
        if any(begin < job.extent[1] and job.extent[0] < end for begin, end in since[max(at - 1, 0) : at + 1]):
            yield jobs[first:number]
            first, since, at = number, [], 0
        since.insert(at, job.extent)
    yield jobs[first:]


def _fill(jobs: Sequence[_Checked]) -> None:
    native: dict[tuple[torch.device, Combine], list[Any]] = {}
    by_reference: list[tuple[FillJob, Transform]] = []
    copies: list[tuple[torch.Tensor, torch.Tensor]] = []
    for job, (begin, end), plain in jobs:
        if plain is not None:
            native.setdefault((job.tensor.device, STORE), []).append(plain)
            continue
        if begin == end:
            continue
        for part in _real_parts(_resolved(job, copies)):
            transform = lower(part.distribution, made_dtype(part.combine.mode, part.tensor.dtype))
            if _has_kernels(part.tensor.device) and part.tensor.dim() <= _C.max_dims:
                native.setdefault((part.tensor.device, part.combine), []).append(_native_job(part, transform))
            else:
                by_reference.append((part, transform))
    if written := [job.tensor for job, _, _ in jobs if not (job.tensor.is_meta or job.tensor.is_inference())]:
        _increment_version(tuple(written))
    for (device, combine), native_jobs in native.items():
        if device.type == "cpu":
            _C.fill(native_jobs, torch.get_num_threads(), *combine)
        else:
            _fill_cuda(device, native_jobs, combine)
    for part, transform in by_reference:
        reference.fill(part.tensor, transform, part.seed, part.stream, part.region, part.combine)
    with torch.no_grad():
        for tensor, made in copies:
            tensor.copy_(made)
        for job, _, _ in jobs:
            if isinstance(job.distribution, SparseNormal) and not job.tensor.is_meta:
                _write_zeros(job, job.distribution)


def _has_kernels(device: torch.device) -> bool:
    """Whether the compiled kernels write to this device; the reference writes to all others."""
    return _native and (device.type == "cpu" or (device.type == "cuda" and _cuda_works()))


@lru_cache(maxsize=1)
def _cuda_works() -> bool:
    return torch.version.hip is None and not _C.why_no_cuda()


def _fill_cuda(device: torch.device, jobs: list[Any], combine: Combine = STORE) -> None:
    """One launch on the device's current stream; several while a graph is captured, if the table is large."""
    if _launch(device, _C.CudaLaunch(jobs, *combine)):
        return
    if len(jobs) == 1:
        raise RuntimeError("fill: too many separate runs to capture in a CUDA graph. Make the tensor contiguous first.")
    for begin in range(0, len(jobs), _C.cuda_inline_jobs):
        _fill_cuda(device, jobs[begin : begin + _C.cuda_inline_jobs], combine)


def _launch(device: torch.device, launch: Any) -> bool:
    """No synchronisation, and no allocation if the table fits into the kernel's parameters.

    Returns:
        False, and nothing is launched, for a larger table while a graph is captured: its host memory would have to outlive it.
    """
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream(device).cuda_stream
        if len(launch) <= _C.cuda_inline_jobs:
            launch.run(0, stream)
        elif torch.cuda.is_current_stream_capturing():
            return False
        else:
            pinned = torch.frombuffer(bytearray(launch.bytes()), dtype=torch.uint8).pin_memory()
            table = pinned.to(device, non_blocking=True)  # kept until the launch is queued
            launch.run(table.data_ptr(), stream)
    return True


def bits(seed: int, stream: int, n: int, start: int = 0) -> torch.Tensor:
    """The raw 32-bit words of ``stream`` under ``seed``, as the kernels use them.

    Word ``i`` of the result is word ``(start + i) % 4`` of Philox block ``(start + i) // 4``.

    Args:
        seed, stream: 64-bit numbers.
        n: how many words.
        start: index of the first one, 64-bit.

    Returns:
        A uint32 tensor of n words on the CPU.

    >>> import weightinit_cuda as wi
    >>> [hex(word) for word in wi.bits(seed=0, stream=0, n=4).tolist()]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    seed, stream, start = seed & _MASK64, stream & _MASK64, start & _MASK64
    if n < 0:
        raise ValueError(f"bits: n must be at least 0, got {n}.")
    if start + n > 2**64:
        raise ValueError(f"bits: start + n must be at most 2**64, got {start} + {n}.")
    with _disable_current_modes():
        if not _native:
            return reference.bits(seed, stream, n, start, "cpu").to(torch.uint32)
        words = torch.empty(n, dtype=torch.uint32, device="cpu")
    if n:
        transform = _C.Transform(0, [], [])
        _C.fill([(words.data_ptr(), _UINT32, transform, seed, stream, start, [(n, 1, 1)])], torch.get_num_threads())
    return words


def _resolved(job: FillJob, copies: list[tuple[torch.Tensor, torch.Tensor]]) -> FillJob:
    """The job on memory that means what it holds: a lazily conjugated or negated view is filled aside and copied after."""
    tensor = job.tensor.detach()
    if tensor.is_neg() or tensor.is_conj():
        made = tensor.resolve_conj().resolve_neg()
        copies.append((tensor, made))
        tensor = made
    return job._replace(tensor=tensor)


def _real_parts(job: FillJob) -> list[FillJob]:
    """The job as fills of real tensors: a complex tensor of n elements is a real one of 2 n."""
    if not job.tensor.is_complex():
        return [job]
    real = torch.view_as_real(job.tensor)
    if isinstance(job.distribution, Constant):
        value = complex(job.distribution.value)
        parts = (real[..., 0], Constant(value.real)), (real[..., 1], Constant(value.imag))
        return [job._replace(tensor=part, distribution=constant) for part, constant in parts]
    region = job.region and Region((*job.region.global_shape, 2), (*job.region.offset, 0))
    return [job._replace(tensor=real, region=region)]


def _write_zeros(job: FillJob, sparse: SparseNormal) -> None:
    """The zeros of every column, from its own words: the same for any part of the matrix. A million words at a time."""
    rows, zeros, _ = sparse
    first_row, first_column = job.region.offset if job.region else (0, 0)
    mine = slice(first_row, first_row + job.tensor.shape[0])
    columns_at_once = max(1, (1 << 20) // max(rows, 1))
    for begin in range(0, job.tensor.shape[1] if zeros else 0, columns_at_once):
        part = job.tensor.detach()[:, begin : begin + columns_at_once]
        words = bits(job.seed, job.stream ^ SPARSE_PLACES, part.shape[1] * rows, (first_column + begin) * rows)
        keys = (words.to(torch.int64).view(-1, rows) << 31) + torch.arange(rows, device="cpu")  # distinct, ordered as words
        places = keys <= keys.kthvalue(zeros, dim=1, keepdim=True).values
        if part.dtype.itemsize == 1:
            part = part.view(torch.uint8)  # torch masks no float8
        part.masked_fill_(places[:, mine].T.to(part.device), 0)


def _native_job(job: FillJob, transform: Transform) -> tuple[Any, ...]:
    """The job as csrc/job.h has it: address, and for each dimension its size, stride and step in the global index."""
    tensor = job.tensor
    shape, offset = job.region or (tensor.shape, (0,) * tensor.dim())
    index, step = 0, 1
    dims: list[tuple[int, int, int]] = []
    for n, stride, whole, at in reversed(tuple(zip(tensor.shape, tensor.stride(), shape, offset, strict=True))):
        dims.append((n, stride, step))
        index += at * step
        step *= whole
    seed, stream = job.seed & _MASK64, job.stream & _MASK64
    return (tensor.data_ptr(), _STORAGE[tensor.dtype], _native_of(transform), seed, stream, index, dims[::-1])
