"""What the tests share: the table of cases, the evaluators to compare, and equality of bits."""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch

from weightinit_cuda import engine
from weightinit_cuda.engine.job import FillJob
from weightinit_cuda.numerics.distributions import Constant, Distribution, Normal, OneHot, TruncNormal, Uniform
from weightinit_cuda.tensors.boxes import Region

INF = math.inf
ISAS = ("scalar", "avx2", "avx512", "avx512bf16", "neon")
BACKENDS = (*ISAS, "reference")

REAL_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
DTYPES = (*REAL_DTYPES, torch.complex64, torch.complex128)

# Every kernel, every branch of its parameters. Names are the tests' ids.
RANDOM: dict[str, Distribution] = {
    "uniform": Uniform(-0.25, 0.5),
    "uniform_unit": Uniform(0.0, 1.0),  # clamped in every dtype but float32
    "uniform_clamped": Uniform(0.1, 0.3),  # clamped in float32, too
    "normal": Normal(0.1, 0.02),
    "normal_wide": Normal(-3.0, 40.0),
    "trunc_central": TruncNormal(0.0, 1.0, -2.0, 2.0),
    "trunc_central_skew": TruncNormal(0.5, 0.25, 0.25, 1.0),
    "trunc_two_sided": TruncNormal(0.1, 2.0, -5.0, 9.0),
    "trunc_half_infinite": TruncNormal(0.0, 1.0, -1.0, INF),
    "trunc_above": TruncNormal(0.0, 1.0, 1.0, 5.0),
    "trunc_from_mean": TruncNormal(1.0, 3.0, 1.0, 20.0),
    "trunc_below": TruncNormal(0.0, 1.0, -INF, -20.0),
    "trunc_far": TruncNormal(0.0, 1.0, 8.0, 9.0),
}
PLACED: dict[str, Distribution] = {
    "constant": Constant(0.3),
    "one_hot": OneHot(value=1.0, row=14, period=5, limit=4, offset=2, step=2),
}
DISTRIBUTIONS: dict[str, Distribution] = RANDOM | PLACED

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
each_real_dtype = pytest.mark.parametrize("dtype", REAL_DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
each_distribution = pytest.mark.parametrize("distribution", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
each_random = pytest.mark.parametrize("distribution", RANDOM.values(), ids=RANDOM)


def pytest_collection_finish() -> None:
    """What stays until the end, millions of objects, is none of the garbage collector's business: it takes 0.2 s each time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Torch 2.6 refuses some shards below tensor parallelism, so it cannot be asked where their elements lie."""
    try:
        return (yield)
    except (AssertionError, NotImplementedError) as error:
        if str(error).startswith(("_StridedShard currently only allows even sharding", "Strided sharding does not allow")):
            pytest.skip(f"torch {torch.__version__}: {error}")
        raise


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Of `make test-zoo`: how many of each kind were equal."""
    counts = getattr(sys.modules.get("test_recordings"), "COUNTS", None)
    if counts:
        terminalreporter.section("the zoo")
        for kind, number in sorted(counts.items()):
            terminalreporter.write_line(f"{kind:>40} {number:6}")


@contextmanager
def using(backend: str) -> Iterator[None]:
    """Fills on the CPU go through one evaluator. Skips where this machine or build does not have it."""
    info = engine.backend_info()
    with pytest.MonkeyPatch.context() as patch:
        if backend == "reference":
            for module in (engine.backend, engine.native):
                patch.setattr(module, "kernels", None)  # whatever still asks for a kernel fails
            for module in (engine.native, engine.drop_in):
                patch.setattr(module, "plain_tensors", None)
            with engine.reference_only():
                yield
            return
        if info.backend != "native" or backend not in info.available:
            pytest.skip(f"{backend}: this CPU or build has {info.available or 'the reference only'}")
        engine.select_cpu(backend)
        try:
            yield
        finally:
            engine.select_cpu(info.cpu)


def available() -> list[str]:
    """The evaluators that can run here, the plainest first."""
    info = engine.backend_info()
    return [
        backend for backend in BACKENDS if backend == "reference" or (info.backend == "native" and backend in info.available)
    ]


@pytest.fixture(params=available())
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with using(request.param):
        yield request.param


@pytest.fixture
def threads() -> Iterator[None]:
    """Restores torch's number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def fill(
    tensor: torch.Tensor,
    distribution: Distribution,
    seed: int = 20,
    stream: int = 0,
    global_shape: Sequence[int] | None = None,
    offset: Sequence[int] = (),
) -> torch.Tensor:
    """One job through the engine's door."""
    region = None if global_shape is None else Region(tuple(global_shape), tuple(offset))
    engine.fill([FillJob(tensor, distribution, seed, stream, region)])
    return tensor


def made(
    distribution: Distribution,
    dtype: torch.dtype,
    shape: int | Sequence[int],
    seed: int = 20,
    stream: int = 0,
    global_shape: Sequence[int] | None = None,
    offset: Sequence[int] = (),
) -> torch.Tensor:
    """A new contiguous tensor, filled."""
    return fill(torch.empty(shape, dtype=dtype), distribution, seed, stream, global_shape, offset)
