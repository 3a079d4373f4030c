"""Plain tensors, read in C++: which are taken, that memory that is shared is seen, and the streams of many names."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from bitwise import differing
from conftest import REAL_DTYPES
from hypothesis import given
from hypothesis import strategies as st

from weightinit_cuda import engine
from weightinit_cuda.engine import FillJob, drop_in, native
from weightinit_cuda.engine.backend import has_kernels
from weightinit_cuda.init import schemes
from weightinit_cuda.init.catalog import CATALOG
from weightinit_cuda.numerics.combine import ADD, STORE
from weightinit_cuda.numerics.distributions import Constant, Distribution, Normal, SparseNormal, Uniform
from weightinit_cuda.numerics.streams import DOMAIN, stream_of
from weightinit_cuda.tensors.boxes import Region
from weightinit_cuda.tensors.named import PLAIN_TYPES
from weightinit_cuda.tensors.torch_private import increment_version

NORMAL = Normal(0.0, 1.0)

needs_kernels = pytest.mark.skipif(not engine.backend.native, reason="no compiled kernels")


class Subclass(torch.Tensor):
    pass


def inference() -> torch.Tensor:
    with torch.inference_mode():
        return torch.zeros(4)


NOT_PLAIN: dict[str, Callable[[], torch.Tensor]] = {
    "integers": lambda: torch.zeros(4, dtype=torch.int64),
    "complex": lambda: torch.zeros(4, dtype=torch.complex64),
    "transposed": lambda: torch.zeros(4, 3).T,
    "expanded": lambda: torch.zeros(1).expand(4),
    "negative": lambda: torch._neg_view(torch.zeros(4)),
    "inference": inference,
    "meta": lambda: torch.empty(4, device="meta"),
    "empty": lambda: torch.empty(0),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "rows": lambda: torch.eye(3).to_sparse_csr(),
    "subclass": lambda: torch.zeros(4).as_subclass(Subclass),
    "no tensor": lambda: 3,  # type: ignore[dict-item,return-value]
}


class Quiet(torch.Tensor):
    """A tensor that does not show its memory in one call, as in older releases of torch."""

    __dlpack_c_exchange_api__ = None


def readers() -> list[Any]:
    """What reads plain tensors, by one call and by many."""
    if not engine.backend.native:
        return []
    asking = engine.backend.kernels.PlainTensors(
        (Quiet, *PLAIN_TYPES), native.STORAGE, STORE, native._of_one_pass, has_kernels, increment_version, torch.get_num_threads
    )
    return [native.plain_tensors, asking]


READERS = pytest.mark.parametrize("plain_tensors", readers(), ids=["in one call", "by methods"][: len(readers())])

PLAIN: dict[str, Callable[[], torch.Tensor]] = {
    "number": lambda: torch.zeros(()),
    "row": lambda: torch.zeros(4, 3)[2],
    "one of many strides": lambda: torch.zeros(5, 1, 7)[:, :, 3:4][2:3],
    "parameter": lambda: torch.nn.Parameter(torch.zeros(3, 2)),
    "on one storage": lambda: torch.zeros(40)[3:9].view(2, 3),
    "copied when written": lambda: torch._lazy_clone(torch.zeros(4)),
}


@needs_kernels
@READERS
@pytest.mark.parametrize("dtype", REAL_DTYPES, ids=str)
@pytest.mark.parametrize("make", PLAIN.values(), ids=PLAIN)
def test_what_is_plain_is_filled(plain_tensors: Any, make: Callable[[], torch.Tensor], dtype: torch.dtype) -> None:
    tensor = make().to(dtype) if dtype != torch.float32 else make()
    version, expected = tensor._version, torch.empty(tensor.shape, dtype=dtype)
    assert plain_tensors.fill(tensor, Uniform(1.0, 2.0), 5, 6)
    engine.fill([FillJob(expected, Uniform(1.0, 2.0), 5, 6)])
    assert differing(tensor.detach(), expected) == 0
    assert tensor._version == version + 1


def test_columns_are_filled_as_jobs_are() -> None:
    def tensors() -> list[torch.Tensor]:
        return [
            torch.empty(5, 3),
            torch.empty(3, 5).T,
            torch.empty(4, dtype=torch.complex64),
            torch.empty(2, dtype=torch.int64),
            torch.empty(7, dtype=torch.bfloat16),
            torch.empty(0),
        ]

    distributions: list[Distribution] = [NORMAL, Uniform(0.0, 1.0), NORMAL, Constant(3.0), NORMAL, NORMAL]
    columns, jobs, streams, names = tensors(), tensors(), list(range(2**64 - 6, 2**64)), list("abcdef")
    more = [torch.empty(3), torch.empty(3)]
    engine.fill_whole(columns, distributions, 2**64 - 1, streams, names, [FillJob(more[0], NORMAL, 1, 1)])
    rows = zip(jobs, distributions, streams, strict=True)
    engine.fill([*(FillJob(tensor, made, 2**64 - 1, at) for tensor, made, at in rows), FillJob(more[1], NORMAL, 1, 1)])
    for one, other in zip([*columns, more[0]], [*jobs, more[1]], strict=True):
        assert torch.equal(one, other)
    assert [tensor._version for tensor in columns] == [tensor._version for tensor in jobs]


def test_columns_on_one_memory_are_filled_one_after_another() -> None:
    whole, expected = torch.empty(8), torch.empty(8)
    engine.fill_whole([whole, whole[2:4], whole[3:5]], [NORMAL, NORMAL, Constant(1.0)], 3, [1, 2, 3], ["a", "b", "c"])
    for part, distribution, stream in ((expected, NORMAL, 1), (expected[2:4], NORMAL, 2), (expected[3:5], Constant(1.0), 3)):
        engine.fill_tensor(part, distribution, 3, stream)
    assert torch.equal(whole, expected)


def test_columns_are_checked_before_any_is_written() -> None:
    first, wrong = torch.zeros(3), torch.zeros(1).expand(4)
    with pytest.raises(RuntimeError, match="more than one element"):
        engine.fill_whole([first, wrong], [NORMAL, NORMAL], 1, [1, 2], ["a", "b"])
    assert not first.any()
    engine.fill_whole([], [], 1, [], [])


@needs_kernels
def test_columns_have_one_length() -> None:
    with pytest.raises(ValueError, match="one length"):
        native.plain_tensors.gather_whole([torch.zeros(3)], [], [1], 0, ())


@needs_kernels
@READERS
@pytest.mark.parametrize("make", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_what_is_not_plain_is_left_to_others(plain_tensors: Any, make: Callable[[], torch.Tensor]) -> None:
    tensor, state = make(), torch.get_rng_state()
    assert not plain_tensors.fill(tensor, NORMAL, 1, 0)
    assert not drop_in.drawn(tensor, lambda dtype: NORMAL, (getattr(tensor, "dtype", None),))
    assert torch.equal(torch.get_rng_state(), state)
    job = FillJob(tensor, NORMAL, 1)
    gathered = plain_tensors.gather([job])
    assert gathered.others == [job]
    assert not gathered.tensors
    assert not any(len(table) for _, table in gathered.tables)


@needs_kernels
def test_jobs_that_are_more_than_plain_are_left_to_others() -> None:
    tensor = torch.zeros(4, 4)
    jobs = [
        FillJob(tensor, NORMAL, 1, region=Region((8, 4), (4, 0))),
        FillJob(tensor, NORMAL, 1, combine=ADD),
        FillJob(tensor, SparseNormal(4, 1, 1.0), 1),
    ]
    plain = FillJob(tensor, NORMAL, 1)
    gathered = native.plain_tensors.gather([jobs[0], plain, *jobs[1:]])
    assert gathered.others == jobs
    assert [id(one) for one in gathered.tensors] == [id(tensor)]


@needs_kernels
@pytest.mark.parametrize("wrong", [3, [3], [(1, 2)], [None], [tuple(range(7))]], ids=str)
def test_lists_of_something_else_are_refused(wrong: Any) -> None:
    if wrong == [tuple(range(7))]:
        assert native.plain_tensors.gather(wrong).others == wrong
        return
    with pytest.raises((TypeError, ValueError)):
        native.plain_tensors.gather(wrong)


@needs_kernels
def test_references_are_given_back() -> None:
    tensor, distribution = torch.zeros(8), Normal(0.0, 3.0)
    job = FillJob(tensor, distribution, 1, 2)
    scheme, row, args = schemes.normal_, CATALOG["normal_"], (torch.float32, 0.0, 3.0)
    engine.fill([job])
    objects: list[object] = [tensor, distribution, job, torch.float32, scheme, row, args, *args, None, True, False, 2]
    gc.collect()
    before = [sys.getrefcount(one) for one in objects]
    for _ in range(1000):
        native.plain_tensors.gather([job])
        native.plain_tensors.fill(tensor, distribution, 1, 2)
        native.plain_tensors.fill(torch.float32, distribution, 1, 2)
        assert drop_in.drawn(tensor, scheme, args)
        assert drop_in.called(row, (tensor, 0.0, 3.0, None), 3)
        assert drop_in.method(row, ("mean", "std"), tensor, (0.0,), {"std": 3.0})
    after = [sys.getrefcount(one) for one in objects]
    assert all(abs(a - b) < 500 for a, b in zip(after, before, strict=True)), (before, after)


def test_many_distributions_take_turns(backend: str) -> None:
    """More of them than are remembered, in two dtypes."""
    distributions: list[Distribution] = [Uniform(-1.0 - n, 1.0 + n) for n in range(40)]
    distributions += [Constant(float(n)) for n in range(40)]
    for dtype in REAL_DTYPES:
        jobs = [FillJob(torch.zeros(9, dtype=dtype), d, 3, n) for n, d in enumerate(distributions * 3)]
        jobs += [FillJob(torch.zeros(5), d, 3, n) for n, d in enumerate(distributions)]
        engine.fill(jobs)
        for job in jobs[::7]:
            alone = torch.zeros_like(job.tensor)
            engine.fill_tensor(alone, job.distribution, job.seed, job.stream)
            assert differing(alone, job.tensor) == 0


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6)), max_size=7), st.integers(0, 7))
def test_shared_memory_is_seen(pieces: list[tuple[int, int]], plain: int) -> None:
    """Some as plain tensors, the others by their extents: apart if no two of them are on one byte."""
    if not engine.backend.native:
        pytest.skip("no compiled kernels")
    memory = torch.zeros(64)
    tensors = [memory[at : at + size] for at, size in pieces]
    gathered = native.plain_tensors.gather([FillJob(tensor, NORMAL, 1) for tensor in tensors[:plain]])
    extents = [(tensor.data_ptr(), tensor.data_ptr() + 4 * tensor.numel()) for tensor in tensors[plain:]]
    taken = [index for at, size in pieces for index in range(at, at + size)]
    assert gathered.apart([*extents, (0, 0)]) == (len(taken) == len(set(taken)))


def test_streams_of_many_names(backend: str) -> None:
    names = ["x" * n for n in range(400)] + ["größe.weight", "层.0.weight", "", "a\0b", "layers.0.attn.wq.weight"]
    assert engine.streams_of(names) == [stream_of(name) for name in names]
    with pytest.raises(UnicodeEncodeError):
        engine.streams_of(["fine", "\ud800"])


@needs_kernels
def test_streams_refuse_what_is_no_text() -> None:
    for wrong in ([3], [None], [b"name"]):
        with pytest.raises(TypeError):
            engine.backend.kernels.streams_of(wrong, DOMAIN)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="16 bytes"):
        engine.backend.kernels.streams_of(["name"], b"x" * 17)
