"""The one door: what it refuses and in which words, what it draws, what it tells torch, and what it runs on.

Values are the business of test_backends.py and test_distributions.py. Here: seeds, checks (nothing is written when one job of
several is bad), views, version counters, interruption, the environment, and the fallback. Its threads: test_threads.py.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import pytest
import torch
from bitwise import differing, raw
from conftest import DTYPES, INF, available, each_dtype, each_real_dtype, fill, made, using

import weightinit_cuda as wi
from weightinit_cuda import engine
from weightinit_cuda.engine.job import FillJob
from weightinit_cuda.numerics.distributions import Constant, Distribution, Normal, SparseNormal, TruncNormal, Uniform
from weightinit_cuda.tensors.boxes import Region

NORMAL, UNIFORM = Normal(0.0, 1.0), Uniform(0.0, 1.0)
MASK64 = 2**64 - 1


def constant(value: complex) -> Constant:
    return Constant(cast(float, value))  # a complex value is for complex tensors


@pytest.fixture(params=["native", "reference"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The best compiled kernels, and the reference: the instruction sets differ in nothing that is tested here."""
    if request.param == "native" and available() == ["reference"]:
        pytest.skip("no compiled kernels")
    with using(available()[-2] if request.param == "native" else "reference"):
        yield request.param


def environment(**settings: str) -> dict[str, str]:
    """Ours without WEIGHTINIT_ variables, with this interpreter's paths and with these settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WEIGHTINIT_")}
    return inherited | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)} | settings


def python(code: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Another interpreter, with the same paths and another environment."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment(**settings), check=False)


# ---- seeds ----------------------------------------------------------------------------------------------------------


@each_dtype
def test_every_bit_of_seed_and_stream_counts(backend: str, dtype: torch.dtype) -> None:
    base = made(NORMAL, dtype, 64, 5, 9)
    for bit in (0, 1, 31, 32, 33, 63):
        assert differing(made(NORMAL, dtype, 64, 5 ^ 1 << bit, 9), base) > 32
        assert differing(made(NORMAL, dtype, 64, 5, 9 ^ 1 << bit), base) > 32
    assert differing(made(NORMAL, dtype, 64, 9, 5), base) > 32


def test_seeds_are_taken_modulo_2_64(backend: str) -> None:
    for number in (-1, -(2**63), 2**64 + 3, -(2**40)):
        if number < 2**64:  # a longer one would be somebody's mistake
            assert torch.equal(wi.bits(number, 0, 9), wi.bits(number & MASK64, 0, 9))
            assert torch.equal(wi.bits(0, number, 9), wi.bits(0, number & MASK64, 9))
        assert differing(made(NORMAL, torch.float32, 9, number), made(NORMAL, torch.float32, 9, number & MASK64)) == 0
        assert differing(made(NORMAL, torch.float32, 9, 0, number), made(NORMAL, torch.float32, 9, 0, number & MASK64)) == 0


def test_draw_seed_is_one_64_bit_draw() -> None:
    generator, twin = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    for tensor in (
        torch.empty(()),
        torch.empty(1000, dtype=torch.bfloat16),
        torch.empty(7, 0),
        torch.empty(3, dtype=torch.complex128),
    ):
        seed = engine.draw_seed(tensor, generator)
        one = torch.empty((), dtype=torch.int64).random_(-(2**63), None, generator=twin)
        assert seed == int(one) & MASK64
        assert torch.equal(generator.get_state(), twin.get_state())


def test_draw_seed_uses_the_default_generator() -> None:
    torch.manual_seed(11)
    seeds = [engine.draw_seed(torch.empty(2)) for _ in range(200)]
    torch.manual_seed(11)
    assert seeds == [engine.draw_seed(torch.empty(5, 5, dtype=torch.float16)) for _ in range(200)]
    assert len(set(seeds)) == 200
    ones = [sum(seed >> bit & 1 for seed in seeds) for bit in range(64)]
    assert min(ones) > 50, "every bit of the seed is drawn"
    assert max(ones) < 150


@pytest.mark.parametrize("shape", [(1,), (1000,), (300, 300)])
@each_dtype
def test_drop_in_calls_advance_the_generator_alike(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    engine.draw_seed(torch.empty(1))
    after_one = torch.get_rng_state()
    for tensor in (torch.empty(shape, dtype=dtype), torch.empty((*shape, 2), dtype=dtype)[..., 0]):
        torch.manual_seed(5)
        wi.init.normal_(tensor)
        assert torch.equal(torch.get_rng_state(), after_one)


# ---- known answers --------------------------------------------------------------------------------------------------


def test_bits_known_answers(backend: str) -> None:
    assert wi.bits(0, 0, 4).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]  # Random123
    assert wi.bits(20111115, 0, 1, 9999).tolist() == [1955073260]  # C++26: the 10000th value of a default std::philox4x32
    assert wi.bits(20111115, 0, 10000)[-1].item() == 1955073260


def test_bits_is_a_uint32_tensor_on_the_cpu(backend: str) -> None:
    words = wi.bits(1, 2, 5)
    assert (words.dtype, words.shape, words.device.type) == (torch.uint32, (5,), "cpu")
    assert wi.bits(1, 2, 0).shape == (0,)
    with pytest.raises(ValueError, match="n must be at least 0, got -1"):
        wi.bits(0, 0, -1)


def test_bits_slices_are_slices(backend: str) -> None:
    words = wi.bits(7, 8, 5000).long()
    for start, n in ((1, 1), (3, 4), (767, 2), (1535, 3000), (4999, 1)):
        assert torch.equal(wi.bits(7, 8, n, start).long(), words[start : start + n])


def test_bits_past_the_last_index(backend: str) -> None:
    """The index has 64 bits. Words beyond the last one are refused, or are those of index 0: not something else."""
    try:
        words = wi.bits(1, 2, 1000, 2**64 - 500).long()
    except ValueError:
        return
    assert torch.equal(words[:500], wi.bits(1, 2, 500, 2**64 - 500).long())
    assert torch.equal(words[500:], wi.bits(1, 2, 500).long())


# ---- what torch is told ---------------------------------------------------------------------------------------------

TARGETS: dict[str, Callable[[], torch.Tensor]] = {
    "plain": lambda: torch.empty(10),
    "parameter": lambda: torch.nn.Parameter(torch.empty(10, 3)),
    "buffer": lambda: torch.nn.Buffer(torch.empty(4)),
    "large": lambda: torch.empty(70000),
    "transposed": lambda: torch.empty(5, 6).t(),
    "complex": lambda: torch.empty(5, dtype=torch.complex64),
    "empty": lambda: torch.empty(0),
    "scalar": lambda: torch.empty((), dtype=torch.bfloat16),
    "non-leaf": lambda: torch.ones(3, requires_grad=True) * 2,
    "view": lambda: torch.empty(10)[2:5],
    "conjugate": lambda: torch.empty(5, dtype=torch.complex64).conj(),
}


@pytest.mark.parametrize("name", TARGETS)
def test_version_counter(backend: str, name: str) -> None:
    """Every fill is one in-place operation to autograd, as torch's are (more bumps are harmless, none is not)."""
    for door in (fill, lambda tensor, distribution: engine.fill_tensor(tensor, distribution, 1)):
        tensor = TARGETS[name]()
        before = tensor._version
        with torch.no_grad():
            door(tensor, NORMAL)
        assert tensor._version > before
        assert tensor._base is None or tensor._base._version == tensor._version


def test_a_fill_between_forward_and_backward_is_noticed(backend: str) -> None:
    weight = torch.nn.Parameter(torch.ones(8))
    loss = (weight * weight).sum()
    fill(weight, NORMAL)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, weight)


def test_a_fill_is_outside_autograd(backend: str) -> None:
    weight = torch.nn.Parameter(torch.ones(8))
    fill(weight, NORMAL)
    assert weight.requires_grad
    assert weight.is_leaf
    assert weight.grad_fn is None
    assert torch.equal(torch.autograd.grad((weight * 3).sum(), weight)[0], torch.full((8,), 3.0))


def test_inference_tensors(backend: str) -> None:
    with torch.inference_mode():
        inside = torch.empty(9)
        fill(inside, NORMAL)
        engine.fill_tensor(inside, NORMAL, 20)
    ordinary = torch.empty(9)
    before = raw(inside).clone()
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside InferenceMode is not allowed"):
        fill(inside, UNIFORM)
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
        engine.fill_tensor(inside, UNIFORM, 1)
    assert torch.equal(raw(inside), before)
    with torch.inference_mode():
        fill(ordinary, NORMAL)
    assert differing(ordinary, inside.clone()) == 0


# ---- what is not plain memory ---------------------------------------------------------------------------------------


def test_meta_tensors_are_left_alone(backend: str) -> None:
    tensor = torch.empty(3, 4, device="meta")
    state = torch.get_rng_state()
    assert fill(tensor, NORMAL) is tensor
    engine.fill([FillJob(tensor, NORMAL, 1), FillJob(target := torch.zeros(3), NORMAL, 1)])
    assert target.abs().sum() > 0
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(NotImplementedError):
        fill(torch.empty(3, dtype=torch.int64, device="meta"), NORMAL)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 5)])
@each_dtype
def test_tensors_without_elements(backend: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    fill(torch.empty(shape, dtype=dtype), NORMAL)
    engine.fill_tensor(torch.empty(shape, dtype=dtype), NORMAL, 1)
    fill(torch.empty(shape, dtype=dtype), NORMAL, global_shape=[n + 4 for n in shape], offset=[2] * len(shape))


def test_expanded_tensors_without_elements(backend: str) -> None:
    """Nothing overlaps where there is nothing: torch's in-place operations accept these."""
    view = torch.empty(1, 0).expand(3, 0)
    view.normal_()
    fill(view, NORMAL)


@pytest.mark.parametrize(
    "distribution", [NORMAL, constant(1 + 2j), SparseNormal(6, 2, 1.0)], ids=["normal", "constant", "sparse"]
)
def test_conjugate_and_negative_views(backend: str, distribution: Distribution) -> None:
    """Logical values are those of an ordinary tensor, whatever the memory behind the view has to hold for that."""
    expected = made(distribution, torch.complex64, (6, 4))
    conjugate = torch.empty(6, 4, dtype=torch.complex64).conj()
    assert conjugate.is_conj()
    assert differing(fill(conjugate, distribution).resolve_conj(), expected) == 0
    engine.fill_tensor(conjugate, distribution, 20)
    assert differing(conjugate.resolve_conj(), expected) == 0
    if isinstance(distribution, Constant):
        distribution = Constant(0.5)
    negative = torch.empty(6, 4, dtype=torch.complex64).conj().imag
    assert negative.is_neg()
    assert differing(fill(negative, distribution).resolve_neg(), made(distribution, torch.float32, (6, 4))) == 0


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_constants(backend: str, dtype: torch.dtype) -> None:
    for value in (1 + 2j, -0.5, 3j, complex(INF, -1), 0):
        expected = torch.full((3, 4), value, dtype=dtype)
        assert torch.equal(made(constant(value), dtype, (3, 4)), expected)
        assert torch.equal(fill(torch.empty(4, 3, dtype=dtype).t(), constant(value)), expected)
        assert torch.equal(made(constant(value), dtype, (3, 4), global_shape=(9, 9), offset=(2, 3)), expected)


@each_real_dtype
def test_constants_have_the_bits_of_fill_(backend: str, dtype: torch.dtype) -> None:
    """Signs of zero, infinities and NaN included; float8 saturates, which torch's fill_ does for some versions only."""
    values = [0.0, -0.0, 1.0, -1.5, 0.1, 1e-7, 1e-45, 400.0, 1e5, INF, -INF]
    for value in [*values, *reversed(values)]:
        got = made(Constant(value), dtype, 3).double()
        expected = torch.full((3,), value).to(torch.float64 if dtype == torch.float64 else torch.float32)
        if dtype == torch.float64:
            expected = torch.full((3,), value, dtype=dtype)
        elif dtype.itemsize == 1:
            expected = expected.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)
        assert torch.equal(got, expected.to(dtype).double()), value
        assert torch.equal(got.signbit(), expected.double().signbit()), value
    assert made(Constant(float("nan")), dtype, 3).double().isnan().all()


@each_dtype
def test_nan_constants_have_the_same_bits(dtype: torch.dtype) -> None:
    results = []
    for name in available():
        with using(name):
            results.append(made(Constant(float("nan")), dtype, 40))
    assert [differing(result, results[0]) for result in results] == [0] * len(results)


def test_parts_of_complex_tensors(backend: str) -> None:
    """real and imag are strided views like any other."""
    tensor = torch.zeros(50, dtype=torch.complex64)
    fill(tensor.imag, NORMAL)
    assert torch.equal(tensor.imag, made(NORMAL, torch.float32, 50))
    assert not tensor.real.any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sparse_normal_everywhere(backend: str, dtype: torch.dtype) -> None:
    """Zeros at the same places in every dtype, layout and shard; every column has as many as asked for."""
    distribution = SparseNormal(23, 7, 0.5)
    whole = made(distribution, dtype, (23, 11))
    zero = whole.to(torch.complex128 if dtype.is_complex else torch.float64) == 0
    assert zero.sum(0).tolist() == [7] * 11 or dtype.itemsize == 1
    assert differing(fill(torch.empty(11, 23, dtype=dtype).t(), distribution), whole) == 0
    part = made(distribution, dtype, (9, 4), global_shape=(23, 11), offset=(8, 5))
    assert differing(part, whole[8:17, 5:9]) == 0


def sevens(tensor: torch.Tensor) -> FillJob:
    return FillJob(tensor, Constant(7.0), 1)


OVERLAPS: dict[str, Callable[[torch.Tensor], list[FillJob]]] = {
    "the same twice": lambda t: [FillJob(t, NORMAL, 1), FillJob(t, NORMAL, 2)],
    "a part later": lambda t: [FillJob(t, NORMAL, 1), sevens(t[:5])],
    "a part earlier": lambda t: [sevens(t[:5]), FillJob(t, NORMAL, 1)],
    "one element": lambda t: [FillJob(t[:9], NORMAL, 1), sevens(t[8, -1:]), FillJob(t[9:], NORMAL, 2)],
    "three deep": lambda t: [sevens(t[3:]), FillJob(t[2:8], NORMAL, 1), sevens(t[7:9]), FillJob(t[:4], NORMAL, 2)],
    "columns": lambda t: [FillJob(t[:, ::2], NORMAL, 1), sevens(t[:, 1::2]), FillJob(t[:, :1], NORMAL, 2)],
    "empty and meta": lambda t: [
        FillJob(t[:0], NORMAL, 1),
        sevens(t),
        FillJob(t.to("meta"), NORMAL, 1),
        FillJob(t[:1], NORMAL, 1),
    ],
}


@pytest.mark.parametrize("jobs", OVERLAPS.values(), ids=OVERLAPS)
def test_jobs_on_the_same_memory(jobs: Callable[[torch.Tensor], list[FillJob]], backend: str, threads: None) -> None:
    """As if one after another, whatever the threads do."""
    torch.set_num_threads(4)
    for shape in ((11, 300), (11, 7000)):
        together, one_by_one = torch.zeros(shape), torch.zeros(shape)
        for job in jobs(one_by_one):
            engine.fill([job])
        for _ in range(20):
            engine.fill(jobs(together.zero_()))
            assert differing(together, one_by_one) == 0


def test_jobs_side_by_side_are_one_pass() -> None:
    whole = torch.empty(4, 100)
    for jobs in ([sevens(row) for row in whole.flip(0)], [sevens(whole[0]), sevens(whole[2:]), sevens(whole[1])], []):
        assert [batch.jobs for batch in engine.run.batches(jobs)] == [jobs]
        assert list(engine.run.without_overlap(jobs)) == [jobs]


# ---- refusals -------------------------------------------------------------------------------------------------------

Refusal = tuple[Callable[[], FillJob], type[Exception], str]


def job(tensor: torch.Tensor, distribution: Distribution = NORMAL, region: Region | None = None, seed: int = 1) -> FillJob:
    return FillJob(tensor, distribution, seed, 0, region, "layers.0.weight")


LAYOUTS: dict[str, Refusal] = {
    "coo": (lambda: job(torch.eye(3).to_sparse()), NotImplementedError, "the tensor must be strided, got layout"),
    "csr": (lambda: job(torch.eye(3).to_sparse_csr()), NotImplementedError, "the tensor must be strided, got layout"),
    "integers": (lambda: job(torch.empty(3, dtype=torch.int32)), NotImplementedError, "torch.int32"),
    "bool": (lambda: job(torch.empty(3, dtype=torch.bool)), NotImplementedError, "torch.bool"),
    "float8_fnuz": (lambda: job(torch.empty(3, dtype=torch.float8_e4m3fnuz)), NotImplementedError, "float8_e4m3fnuz"),
    "expanded": (lambda: job(torch.empty(1, 3).expand(4, 3)), RuntimeError, "more than one element of the written-to tensor"),
}
REGIONS: dict[str, Refusal] = {
    "too few dimensions": (
        lambda: job(torch.empty(2, 3), region=Region((9,), (0,))),
        ValueError,
        r"as many dimensions.*\(9,\) and \(0,\).*\(2, 3\).*layers\.0\.weight",
    ),
    "too many offsets": (lambda: job(torch.empty(2), region=Region((9,), (0, 0))), ValueError, "as many dimensions"),
    "negative offset": (lambda: job(torch.empty(2), region=Region((9,), (-1,))), ValueError, r"inside global_shape.*\(-1,\)"),
    "beyond the end": (
        lambda: job(torch.empty(2, 3), region=Region((9, 9), (0, 7))),
        ValueError,
        r"inside global_shape.*\(9, 9\).*\(0, 7\).*\(2, 3\).*layers\.0\.weight",
    ),
    "smaller than the shard": (lambda: job(torch.empty(5), region=Region((4,), (0,))), ValueError, "inside global_shape"),
    "negative shape": (lambda: job(torch.empty(0), region=Region((-1,), (-1,))), ValueError, "inside global_shape"),
    "beyond 2^64 elements": (
        lambda: job(torch.empty(2, 3), region=Region((2**40, 2**40), (2**30, 0))),
        ValueError,
        "global_shape",
    ),
    "index beyond 2^64": (lambda: job(torch.empty(4), region=Region((2**64 + 2,), (2**64 - 2,))), ValueError, "global_shape"),
}
BOUNDS: dict[str, Refusal] = {
    "none inside": (
        lambda: job(torch.empty(4, dtype=torch.bfloat16), TruncNormal(0, 1, 1.001, 1.002)),
        ValueError,
        r"must hold a value of torch\.bfloat16.*1\.001.*1\.002",
    ),
    "none inside float8": (
        lambda: job(torch.empty(4, dtype=torch.float8_e4m3fn), TruncNormal(480, 10, 450, 500)),
        ValueError,
        "must hold a value of torch.float8_e4m3fn",
    ),
    "reversed": (lambda: job(torch.empty(4), TruncNormal(0, 1, 2, -2)), ValueError, "trunc_normal_"),
}
REFUSALS = LAYOUTS | REGIONS | BOUNDS


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(backend: str, name: str) -> None:
    make, error, words = REFUSALS[name]
    with pytest.raises(error, match=words):
        engine.fill([make()])


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("position", ["last", "first", "middle"])
def test_nothing_is_written_when_one_job_is_bad(backend: str, name: str, position: str) -> None:
    make, error, _ = REFUSALS[name]
    good = [torch.full((6, 4), 7.0, dtype=dtype) for dtype in (torch.float32, torch.complex64)]
    jobs = [FillJob(good[0], NORMAL, 1), FillJob(good[1], constant(1j), 1), FillJob(good[0], SparseNormal(6, 1, 1.0), 1)]
    jobs.insert({"first": 0, "middle": 1, "last": 3}[position], make())
    versions = [tensor._version for tensor in good]
    with pytest.raises(error):
        engine.fill(jobs)
    for tensor, version in zip(good, versions, strict=True):
        assert torch.equal(tensor, torch.full_like(tensor, 7.0))
        assert tensor._version == version


def test_freed_storage_is_refused() -> None:
    """FSDP frees the storage of a parameter between uses: a fill of it must not reach address 0."""
    code = """
        import torch
        from weightinit_cuda import engine
        from weightinit_cuda.numerics.distributions import Normal
        from weightinit_cuda.engine.job import FillJob

        tensor = torch.empty(100)
        tensor.untyped_storage().resize_(0)
        normal = Normal(0, 1)
        for door in (lambda: engine.fill([FillJob(tensor, normal, 1)]), lambda: engine.fill_tensor(tensor, normal, 1)):
            try:
                door()
            except RuntimeError as error:
                print("refused:", error)
    """
    done = python(code)
    assert done.returncode == 0, f"status {done.returncode}\n{done.stderr}"
    assert done.stdout.count("refused:") == 2


def test_more_dimensions_than_kernels_have(backend: str) -> None:
    """torch has no limit of its own below 64: a tensor of many dimensions is filled, whatever its layout."""
    for shape in ([1] * 40, [1] * 30 + [2, 3, 2], [2] * 3 + [1] * 30):
        expected = made(NORMAL, torch.float32, int(np.prod(shape))).view(shape)
        assert differing(made(NORMAL, torch.float32, shape), expected) == 0
        turned = torch.empty(shape[::-1]).permute(*reversed(range(len(shape))))
        assert differing(fill(turned, NORMAL), expected) == 0
        assert made(NORMAL, torch.complex64, shape).shape == tuple(shape)


def test_numpy_numbers_in_a_region(backend: str) -> None:
    """Products of numpy integers wrap silently at 2^63; a region's must not."""
    plain = made(NORMAL, torch.float32, (1, 3), global_shape=(2**31, 2**33), offset=(2**31 - 1, 5))
    numbers = [np.int64(n) for n in (2**31, 2**33, 2**31 - 1, 5)]
    assert differing(made(NORMAL, torch.float32, (1, 3), global_shape=numbers[:2], offset=numbers[2:]), plain) == 0


AMBIENT = """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    import weightinit_cuda as wi
    from weightinit_cuda import engine
    from weightinit_cuda.numerics.distributions import *
    from weightinit_cuda.engine.job import FillJob

    distributions = (Normal(0, 1), OneHot(1.0, 4, 3, 3, 0, 1), Constant(0.5), SparseNormal(3, 1, 1.0), Uniform(0, 1))
    for context in (torch.device("meta"), FakeTensorMode()):
        fake = isinstance(context, FakeTensorMode)  # torch refuses real tensors in this mode; bits has none of the caller's
        tensors = [] if fake else [torch.empty(3, 4) for _ in distributions]
        with context:
            words = wi.bits(0, 0, 4)
            for tensor, distribution in zip(tensors, distributions):
                engine.fill([FillJob(tensor, distribution, 1)])
        assert words.device.type == "cpu" and (fake or words.tolist()[0] == 0x6627E8D5), context
        for tensor, distribution in zip(tensors, distributions):
            expected = torch.empty(3, 4)
            engine.fill([FillJob(expected, distribution, 1)])
            assert torch.equal(tensor, expected), (context, distribution)
"""


@pytest.mark.parametrize("backend_name", ["native", "reference"])
def test_ambient_devices_and_modes_do_not_show(backend_name: str) -> None:
    """A default device or an active mode is for the caller's tensors, not for ours: no null pointer reaches a kernel."""
    done = python(AMBIENT, WEIGHTINIT_BACKEND=backend_name)
    assert done.returncode == 0, f"status {done.returncode}\n{done.stderr}"


# ---- interruption ---------------------------------------------------------------------------------------------------


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C raises, even where the tests run in the background of a shell that has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("door", ["fill", "fill_tensor"])
def test_interrupt_during_a_fill(door: str, ctrl_c: None) -> None:
    """Ctrl-C is honoured between slabs of tiles; autograd is told that the tensor has been written."""
    if available() == ["reference"]:
        pytest.skip("no compiled kernels")
    tensor = torch.zeros(200_000_000, dtype=torch.bfloat16)
    first = tensor[:1].view(torch.int16).numpy()

    def interrupt() -> None:
        while first[0] == 0:  # until the kernels have begun, which is when they have let go of the GIL
            pass
        signal.raise_signal(signal.SIGINT)

    other = threading.Thread(target=interrupt)
    other.start()

    def run() -> None:
        if door == "fill":
            fill(tensor, Constant(1.0))
        else:
            engine.fill_tensor(tensor, Normal(5.0, 0.1), 1)
        other.join()

    with pytest.raises(KeyboardInterrupt):
        run()
    other.join()
    assert tensor[0] != 0
    assert tensor._version > 0


@pytest.mark.parametrize("backend_name", ["native", "reference"])
def test_interrupt_a_long_list_of_jobs(backend_name: str) -> None:
    """Half a minute of work in one call ends promptly."""
    code = """
        import signal
        import sys
        import torch
        from weightinit_cuda import engine
        from weightinit_cuda.numerics.distributions import Normal
        from weightinit_cuda.engine.job import FillJob

        signal.signal(signal.SIGINT, signal.default_int_handler)
        tensor = torch.empty(int(sys.argv[1]))
        jobs = [FillJob(tensor, Normal(0, 1), 1)] * 4000
        print("ready", flush=True)
        engine.fill(jobs)
    """
    if backend_name == "native" and available() == ["reference"]:
        pytest.skip("no compiled kernels")
    size = str(1 << 25 if backend_name == "native" else 1 << 20)
    environment = os.environ | {
        "WEIGHTINIT_BACKEND": backend_name,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), size],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=20)
        assert "KeyboardInterrupt" in errors
        assert child.returncode in (1, 130, -signal.SIGINT)
    finally:
        child.kill()
        child.wait()


# ---- what it runs on ------------------------------------------------------------------------------------------------


def test_backend_info() -> None:
    info = wi.backend_info()
    assert info.format == wi.FORMAT == 1
    assert info.backend in ("native", "reference")
    assert info.threads == torch.get_num_threads()
    if info.backend == "native":
        assert info.cpu in info.available
        assert info.available[-1] == "scalar"
        assert info.reason == ""
    else:
        assert info.reason


def test_select_cpu_refuses_what_is_not_here() -> None:
    before = wi.backend_info().cpu
    with pytest.raises(ValueError, match=r"WEIGHTINIT_CPU: must be one of .* got 'sse2'"):
        engine.select_cpu("sse2")
    assert wi.backend_info().cpu == before


SHOW = "import weightinit_cuda as wi; i = wi.backend_info(); print(i.backend, i.cpu, i.reason, wi.bits(0, 0, 1).tolist())"


@pytest.mark.parametrize("name", available())
def test_environment_chooses(name: str) -> None:
    setting = {"WEIGHTINIT_BACKEND": "reference"} if name == "reference" else {"WEIGHTINIT_CPU": name}
    done = python(SHOW, **setting)
    assert done.returncode == 0, done.stderr
    assert "[1713891541]" in done.stdout
    assert done.stdout.startswith("reference" if name == "reference" else f"native {name}")
    assert "RuntimeWarning" not in done.stderr
    assert ("WEIGHTINIT_BACKEND=reference" in done.stdout) == (name == "reference")


@pytest.mark.parametrize("setting", ["WEIGHTINIT_BACKEND=gpu", "WEIGHTINIT_CPU=sse2"])
def test_environment_is_checked(setting: str) -> None:
    name, value = setting.split("=")
    done = python(SHOW, **{name: value})
    assert done.returncode == 1
    assert re.search(rf"ValueError: {name}: must be .*'{value}'", done.stderr)


def test_empty_settings_are_none() -> None:
    """As a CI file leaves variables that have no value."""
    info = wi.backend_info()
    done = python(SHOW, WEIGHTINIT_BACKEND="", WEIGHTINIT_CPU="")
    assert done.returncode == 0, done.stderr
    assert "compiled kernels are missing" not in done.stderr or info.backend == "reference"
    assert done.stdout.startswith(info.backend)


BLOCKED = """
    import sys, warnings

    class NoExtension:
        def find_spec(self, name, path=None, target=None):
            if name == "weightinit_cuda._C":
                raise ImportError("blocked by the test")

    sys.meta_path.insert(0, NoExtension())
    warnings.simplefilter("always")
    import torch
    import weightinit_cuda as wi
    from weightinit_cuda import engine, init
    import weightinit_cuda.engine

    info = wi.backend_info()
    assert (info.backend, info.available) == ("reference", ()), info
    assert "blocked by the test" in info.reason
    init.normal_(tensor := torch.empty(1000, dtype=torch.bfloat16), seed=20)
    init.uniform_(torch.empty(10))
    init.sparse_(torch.empty(10, 10), 0.5)
    init.orthogonal_(torch.empty(4, 4))
    try:
        engine.select_cpu("scalar")
    except ValueError:
        pass
    print(tensor.view(torch.int16).tolist())
"""


def test_without_the_extension() -> None:
    done = python(BLOCKED)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the compiled kernels are missing") == 1
    assert "RuntimeWarning" in done.stderr
    expected = wi.init.normal_(torch.empty(1000, dtype=torch.bfloat16), seed=20).view(torch.int16).tolist()
    assert done.stdout.strip() == str(expected)


def test_without_the_extension_on_purpose() -> None:
    done = python(BLOCKED, WEIGHTINIT_BACKEND="reference")
    assert done.returncode == 0, done.stderr
    assert "RuntimeWarning" not in done.stderr
    done = python(BLOCKED, WEIGHTINIT_BACKEND="native")
    assert done.returncode == 1
    assert "ImportError: WEIGHTINIT_BACKEND=native, but the compiled kernels are missing: blocked by the test" in done.stderr
