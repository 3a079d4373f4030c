"""Every evaluator gives the same bits: scalar, AVX2, AVX-512, NEON and the plain-PyTorch reference.

Zero differing elements, for every distribution and dtype, whatever the size, address, layout, shard, number of threads, place
in the index space, process or floating-point environment. What runs here is what this CPU and build have; the rest is skipped
with its name. Each test walks the whole of one dimension; `exhaustive` walks the product.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from bitwise import differing, raw
from conftest import (
    BACKENDS,
    DISTRIBUTIONS,
    DTYPES,
    RANDOM,
    available,
    each_distribution,
    each_dtype,
    each_random,
    fill,
    made,
    using,
)

from weightinit_cuda import engine
from weightinit_cuda.engine.job import FillJob
from weightinit_cuda.numerics import reference
from weightinit_cuda.numerics.distributions import Distribution, Normal, TruncNormal, Uniform

# Around one block, one set of 4, 8 and 16 blocks, one tile of 192 blocks, several; and a prime beyond.
SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 383, 384, 385, 767, 768, 769, 1535, 1537, 3073, 20011)
SMALL = tuple(n for n in SIZES if n < 70)
TILE = 20 * 768  # elements that one thread takes at a time
SLAB = 2048 * TILE
NORMAL, UNIFORM, TRUNC = RANDOM["normal"], RANDOM["uniform"], RANDOM["trunc_two_sided"]
CANARY = 0xA5


@pytest.fixture(autouse=True)
def _one_thread(threads: None) -> None:
    """Most tensors here are small, and cores are shared: threads would wait for each other. Tests of threads say how many."""
    torch.set_num_threads(1)


def the_plainest() -> str:
    return available()[0]


def expected_of(distribution: Distribution, dtype: torch.dtype, n: int) -> torch.Tensor:
    with using(the_plainest()):
        return made(distribution, dtype, n)


def guarded(n: int, dtype: torch.dtype, skip: int) -> tuple[torch.Tensor, torch.Tensor]:
    """n elements at a storage offset of ``skip`` elements, and the whole allocation, which is canaries."""
    size = dtype.itemsize
    memory = torch.full(((n + skip + 64) * size,), CANARY, dtype=torch.uint8)
    return memory.view(dtype)[skip : skip + n], memory


def canaries_alive(memory: torch.Tensor, n: int, size: int, skip: int) -> bool:
    outside = torch.cat([memory[: skip * size], memory[(skip + n) * size :]])
    return bool((outside == CANARY).all())


@pytest.mark.parametrize("name", BACKENDS)
def test_evaluator_is_here(name: str) -> None:
    """Says once which evaluators the tests below could not compare."""
    with using(name):
        assert differing(made(NORMAL, torch.float32, 3), expected_of(NORMAL, torch.float32, 3)) == 0


# ---- sizes and addresses --------------------------------------------------------------------------------------------


@each_dtype
@each_distribution
def test_sizes(backend: str, distribution: Distribution, dtype: torch.dtype) -> None:
    """A value does not depend on the size: every tensor is a prefix of the longest, and nothing is written beside it."""
    whole = expected_of(distribution, dtype, max(SIZES))
    for skip, n in enumerate(SMALL if backend == "reference" else SIZES):
        view, memory = guarded(n, dtype, skip % 5)
        fill(view, distribution)
        assert differing(view, whole[:n]) == 0, f"{n=}"
        assert canaries_alive(memory, n, dtype.itemsize, skip % 5), f"{n=}"
    assert differing(made(distribution, dtype, max(SIZES)), whole) == 0


@each_dtype
def test_addresses(backend: str, dtype: torch.dtype) -> None:
    """Any address that the dtype allows, none of them on a 16-byte line but the first."""
    whole = expected_of(NORMAL, dtype, 1601)
    for skip in range(17):
        for n in (5, 37, 801, 1601):
            view, memory = guarded(n, dtype, skip)
            fill(view, NORMAL)
            assert differing(view, whole[:n]) == 0
            assert canaries_alive(memory, n, dtype.itemsize, skip)


@each_dtype
def test_small_and_large_paths_agree(backend: str, dtype: torch.dtype) -> None:
    """The drop-in's path has one kernel call up to 2^15 elements, tiles beyond."""
    torch.set_num_threads(2)
    whole = expected_of(TRUNC, dtype, (1 << 17) + 3)
    for n in ((1 << 15) - 1, 1 << 15, (1 << 15) + 1, TILE - 1, TILE, TILE + 1, (1 << 17) + 3):
        if backend == "reference" and n > TILE:
            continue
        tensor = torch.empty(n, dtype=dtype)
        engine.fill_tensor(tensor, TRUNC, 20)
        assert differing(tensor, whole[:n]) == 0, f"{n=}"


# ---- memory layouts -------------------------------------------------------------------------------------------------

Layout = Callable[[torch.dtype], torch.Tensor]
LAYOUTS: dict[str, Layout] = {
    "scalar": lambda d: torch.empty((), dtype=d),
    "transposed": lambda d: torch.empty(37, 53, dtype=d).t(),
    "transposed_long": lambda d: torch.empty(3, 5001, dtype=d).t(),
    "permuted": lambda d: torch.empty(5, 7, 11, 3, dtype=d).permute(2, 0, 3, 1),
    "channels_last": lambda d: torch.empty(6, 5, 3, 3, dtype=d).to(memory_format=torch.channels_last),
    "channels_last_3d": lambda d: torch.empty(4, 5, 3, 2, 3, dtype=d).to(memory_format=torch.channels_last_3d),
    "channels_last_1x1": lambda d: torch.empty(6, 50, 1, 1, dtype=d).to(memory_format=torch.channels_last),
    "columns": lambda d: torch.empty(31, 67, dtype=d)[:, 5:29],
    "one_column": lambda d: torch.empty(31, 67, dtype=d)[:, 5],
    "rows_apart": lambda d: torch.empty(31, 67, dtype=d)[::3],
    "steps": lambda d: torch.empty(31, 67, dtype=d)[1::2, 3::5],
    "gaps": lambda d: torch.empty(4000, dtype=d).as_strided((9, 4, 7), (400, 90, 3), 13),
    "gaps_any_order": lambda d: torch.empty(4000, dtype=d).as_strided((7, 9, 4), (3, 400, 90), 1),
    "ones_inside": lambda d: torch.empty(9, 1, 8, 1, dtype=d).permute(3, 2, 1, 0),
    "ones_expanded": lambda d: torch.empty(9, dtype=d)[:, None].expand(9, 1),
    "many_dims": lambda d: torch.empty([2] * 12, dtype=d).permute(*reversed(range(12))),
    "diagonal": lambda d: torch.empty(41, 41, dtype=d).diagonal(),
}


def put_as_bytes(memory: torch.Tensor, like: torch.Tensor, values: torch.Tensor) -> None:
    """What a fill of the view ``like`` does to its memory, by torch's copy; float8 as bytes, which torch copies anywhere."""
    target = memory.as_strided(like.shape, like.stride(), like.storage_offset())
    if memory.element_size() == 1:
        target, values = target.view(torch.uint8), values.view(torch.uint8)
    target.copy_(values)


@each_dtype
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(backend: str, name: str, dtype: torch.dtype) -> None:
    """Logical values are those of a contiguous tensor; memory between the elements is left alone."""
    for distribution in (NORMAL, DISTRIBUTIONS["one_hot"]):
        view = LAYOUTS[name](dtype)
        memory = torch.empty(0, dtype=dtype).set_(view.untyped_storage())
        raw(memory).fill_(CANARY)
        spare = memory.clone()
        fill(view, distribution)
        expected = expected_of(distribution, dtype, view.numel()).view(view.shape)
        assert differing(view, expected) == 0
        put_as_bytes(spare, view, expected)


@pytest.mark.parametrize("distribution", [NORMAL, UNIFORM, DISTRIBUTIONS["constant"]], ids=["normal", "uniform", "constant"])
def test_large_layouts(distribution: Distribution) -> None:
    """Layouts that span many tiles, by several threads."""
    torch.set_num_threads(3)
    expected = expected_of(distribution, torch.float32, 700 * 1100)
    for isa in available():
        with using(isa):
            for view in (
                torch.empty(1100, 700).t(),
                torch.empty(700, 1300)[:, 77:1177],
                torch.empty(700, 11, 10, 10).to(memory_format=torch.channels_last),
            ):
                assert differing(fill(view, distribution).reshape(-1), expected) == 0


@pytest.mark.parametrize(
    "view",
    [torch.empty(3, 1).expand(3, 4), torch.empty(1).expand(7), torch.empty(5, 1, 2).expand(5, 3, 2)],
    ids=["columns", "one", "middle"],
)
def test_expanded_is_refused(backend: str, view: torch.Tensor) -> None:
    before = view.clone()
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor refers to a single memory location"):
        fill(view, NORMAL)
    assert torch.equal(raw(view), raw(before))


# ---- shards ---------------------------------------------------------------------------------------------------------

Box = tuple[tuple[int, ...], tuple[int, ...]]  # offset and shape
SHARDS: dict[str, tuple[tuple[int, ...], list[Box]]] = {
    "rows": ((37, 53), [((0, 0), (10, 53)), ((10, 0), (27, 53)), ((37, 0), (0, 53))]),
    "columns": ((37, 53), [((0, 0), (37, 1)), ((0, 1), (37, 32)), ((0, 33), (37, 20))]),
    "middle": ((37, 53), [((5, 7), (11, 13)), ((36, 52), (1, 1)), ((3, 0), (1, 53))]),
    "three": (
        (9, 11, 13),
        [((2, 3, 4), (5, 6, 7)), ((0, 0, 12), (9, 11, 1)), ((8, 0, 0), (1, 11, 13)), ((0, 10, 0), (9, 1, 13))],
    ),
    "one_dimension": ((20011,), [((0,), (1,)), ((1,), (1536,)), ((4099,), (15912,)), ((20011,), (0,))]),
    "empty": ((4, 0, 3), [((1, 0, 0), (2, 0, 3))]),
    "long_rows": ((5, 4001), [((1, 1999), (3, 2001)), ((0, 3998), (5, 3))]),
}


@each_dtype
@pytest.mark.parametrize("name", SHARDS)
def test_shards(backend: str, name: str, dtype: torch.dtype) -> None:
    """A shard's elements are those of the slice, in any layout of the shard."""
    global_shape, boxes = SHARDS[name]
    for distribution in (NORMAL, RANDOM["uniform_clamped"], DISTRIBUTIONS["one_hot"]):
        with using(the_plainest()):
            whole = made(distribution, dtype, global_shape)
        for offset, shape in boxes:
            expected = whole[tuple(slice(o, o + n) for o, n in zip(offset, shape, strict=True))]
            assert differing(made(distribution, dtype, shape, global_shape=global_shape, offset=offset), expected) == 0
            turned = torch.empty(shape[::-1], dtype=dtype).permute(*reversed(range(len(shape))))
            assert differing(fill(turned, distribution, global_shape=global_shape, offset=offset), expected) == 0


def test_many_jobs_are_one_pass(backend: str) -> None:
    """A model: jobs of every dtype, size and layout at once give what each gives alone."""
    cases = [
        (dtype, shape, distribution, stream)
        for stream, ((dtype, shape), distribution) in enumerate(
            zip(
                itertools.cycle(itertools.product(DTYPES, [(), (0,), (3,), (70, 40), (257, 300)])),
                list(DISTRIBUTIONS.values()) * 4,
                strict=False,
            )
        )
    ]
    with using(the_plainest()):
        expected = [made(distribution, dtype, shape, 3, stream) for dtype, shape, distribution, stream in cases]
    torch.set_num_threads(2)
    tensors = [torch.empty(shape, dtype=dtype) for dtype, shape, _, _ in cases]
    engine.fill([FillJob(tensor, case[2], 3, case[3]) for tensor, case in zip(tensors, cases, strict=True)])
    assert [differing(*pair) for pair in zip(tensors, expected, strict=True)] == [0] * len(cases)


# ---- threads --------------------------------------------------------------------------------------------------------


@each_random
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_thread_counts(distribution: Distribution, dtype: torch.dtype) -> None:
    n = 5 * TILE + 77
    torch.set_num_threads(1)
    best = available()[-2] if len(available()) > 1 else "reference"
    with using(best):
        expected = made(distribution, dtype, n)
        for count in range(2, 9):
            torch.set_num_threads(count)
            assert differing(made(distribution, dtype, n), expected) == 0, f"{count} threads"


def test_reference_thread_counts() -> None:
    expected = expected_of(TRUNC, torch.float32, 3 * TILE)
    with using("reference"):
        for count in (1, 3, 8):
            torch.set_num_threads(count)
            assert differing(made(TRUNC, torch.float32, 3 * TILE), expected) == 0


@pytest.mark.parametrize("isa", [isa for isa in available() if isa != "reference"])
def test_python_threads_fill_at_once(isa: str) -> None:
    """The GIL is released and nothing is shared: eight threads, each with its own tensors and its own number of elements."""

    def work(number: int) -> list[torch.Tensor]:
        return [made(distribution, torch.float32, 2 * TILE + number, number) for distribution in (NORMAL, UNIFORM, TRUNC)]

    torch.set_num_threads(2)
    with using(isa):
        expected = [work(number) for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            for _ in range(3):
                for got, want in zip(pool.map(work, range(8)), expected, strict=True):
                    assert [differing(*pair) for pair in zip(got, want, strict=True)] == [0, 0, 0]


def test_choosing_an_isa_while_another_thread_fills() -> None:
    isas = [isa for isa in available() if isa != "reference"]
    if len(isas) < 2:
        pytest.skip("one instruction set only")
    expected = made(NORMAL, torch.float32, 10 * TILE)
    with using(isas[0]), ThreadPoolExecutor(1) as pool:
        results = pool.map(lambda _: made(NORMAL, torch.float32, 10 * TILE), range(20))
        for isa in itertools.islice(itertools.cycle(isas), 400):
            engine.select_cpu(isa)
        assert all(differing(result, expected) == 0 for result in results)


# ---- the index space ------------------------------------------------------------------------------------------------

# Where a half of the counter, of the index or of a signed number overflows. In elements.
EDGES = (2**31, 2**32, 2**33, 2**34, 2**35, 2**62, 2**63, 2**64)


@each_dtype
@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: f"2^{edge.bit_length() - 1}")
def test_index_space(backend: str, dtype: torch.dtype, edge: int) -> None:
    """Values on both sides of the edges of the index space: at odd places, over more than a tile of blocks."""
    whole, edge = (2**63, edge // 2) if dtype.is_complex else (2**64, edge)
    start = min(edge - 1237, whole - 2800)
    for distribution in (NORMAL, RANDOM["trunc_central"]):
        with using("reference"):
            expected = made(distribution, dtype, 2800, global_shape=(whole,), offset=(start,))
        for skip, n in ((0, 2800), (1, 1237), (1233, 9), (1236, 1500)):
            got = made(distribution, dtype, n, global_shape=(whole,), offset=(start + skip,))
            assert differing(got, expected[skip : skip + n]) == 0


@pytest.mark.parametrize("name", ["normal", "one_hot", "constant"])
def test_huge_global_shapes(backend: str, name: str) -> None:
    """A block of a tensor of 2^60 elements: the index of its corner is what counts."""
    distribution = DISTRIBUTIONS[name]
    global_shape, offset = (2**20, 2**20, 2**20), (2**19 + 3, 2**20 - 7, 2**18 + 5)
    got = made(distribution, torch.float32, (2, 5, 9), global_shape=global_shape, offset=offset)
    for i, j in itertools.product(range(2), range(5)):
        start = ((offset[0] + i) * 2**20 + offset[1] + j) * 2**20 + offset[2]
        assert differing(got[i, j], made(distribution, torch.float32, 9, global_shape=(2**60,), offset=(start,))) == 0


@pytest.mark.parametrize("start", [0, 1, 2, 3, 767, 2**32 - 5, 2**34 - 777, 2**34 - 1, 2**63 - 5, 2**64 - 4000, 2**64 - 1999])
def test_bits(backend: str, start: int) -> None:
    for n in (0, 1, 3, 63, 1999):
        words = engine.bits(0xFEDCBA9876543210, 0x0123456789ABCDEF, n, start)
        assert words.dtype == torch.uint32
        assert words.long().tolist() == reference.bits(0xFEDCBA9876543210, 0x0123456789ABCDEF, n, start).tolist()


@each_dtype
def test_seed_and_stream_reach_the_counter_whole(backend: str, dtype: torch.dtype) -> None:
    for seed, stream in ((2**64 - 1, 0), (0, 2**64 - 1), (2**32, 1), (2**63, 2**63), (2**32 - 1, 2**32)):
        with using(the_plainest()):
            expected = made(NORMAL, dtype, 100, seed, stream)
        assert differing(made(NORMAL, dtype, 100, seed, stream), expected) == 0


# ---- processes ------------------------------------------------------------------------------------------------------


class Filled(torch.utils.data.Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        return made(TRUNC, torch.float32, 2 * TILE + 5, index)


@pytest.mark.parametrize("isa", available())
def test_dataloader_workers(isa: str) -> None:
    """Workers are forked after the parent has filled with all its threads."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this system")
    with using(isa):
        expected = torch.stack([made(TRUNC, torch.float32, 2 * TILE + 5, index) for index in range(6)])
        loader = torch.utils.data.DataLoader(
            Filled(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
        )
        assert differing(torch.stack(list(loader)), expected) == 0


FORK = """
    import os, signal, sys, zlib
    import torch
    from weightinit_cuda import engine
    from weightinit_cuda.numerics.distributions import Normal
    from weightinit_cuda.engine.job import FillJob

    def filled():
        tensor = torch.empty(1 << 20)
        engine.fill([FillJob(tensor, Normal(0, 1), 1)])
        return zlib.crc32(tensor.numpy())  # torch's own kernels may hang in a forked child

    torch.set_num_threads(4)
    if "fill" in sys.argv[1]:
        filled()
    if "torch" in sys.argv[1]:  # torch's own pool is started, ours is not asked for
        torch.rand(1 << 22).exp_().sum()
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a child that hangs is killed
        os._exit(0 if filled() == EXPECTED else 3)
    _, status = os.waitpid(child, 0)
    sys.exit(0 if status == 0 else f"the child ended with status {status}")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("before", ["nothing", "fill", "torch"])
def test_fill_in_a_forked_child(before: str) -> None:
    """No threads survive a fork: the child must not wait for any, whatever the parent has run before."""
    expected = zlib.crc32(made(Normal(0, 1), torch.float32, 1 << 20, 1).numpy().tobytes())
    code = textwrap.dedent(FORK).replace("EXPECTED", str(expected))
    done = subprocess.run([sys.executable, "-c", code, before], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


# ---- the floating-point environment ---------------------------------------------------------------------------------

SUBNORMAL: list[tuple[Distribution, torch.dtype]] = [
    (Uniform(0.0, 1e-37), torch.float32),
    (Normal(0.0, 1e-39), torch.float32),
    (TruncNormal(0.0, 1e-39, -2e-39, 2e-39), torch.float32),
    (Uniform(-1e-292, 1e-292), torch.float64),
    (Normal(0.0, 3e-308), torch.float64),
    (Normal(0.0, 1e-5), torch.float16),
    (Normal(0.0, 1e-39), torch.bfloat16),
    (Normal(0.0, 1e-2), torch.float8_e4m3fn),
    (Normal(0.0, 1e-5), torch.float8_e5m2),
]


@pytest.mark.parametrize(("distribution", "dtype"), SUBNORMAL, ids=str)
def test_subnormals(backend: str, distribution: Distribution, dtype: torch.dtype) -> None:
    expected = expected_of(distribution, dtype, 5000)
    wide = expected.double()
    smallest = torch.finfo(dtype).smallest_normal
    assert dtype == torch.float64 or ((wide != 0) & (wide.abs() < smallest)).sum() > 100, "the test has lost its point"
    assert differing(made(distribution, dtype, 5000), expected) == 0


@pytest.mark.parametrize(("distribution", "dtype"), SUBNORMAL, ids=str)
@pytest.mark.parametrize("isa", available())
def test_flush_denormal_does_not_show(isa: str, distribution: Distribution, dtype: torch.dtype) -> None:
    """torch.set_flush_denormal(True) sets the CPU's flags for everybody; the kernels set their own and restore them."""
    with using(isa):
        expected = [made(distribution, dtype, n) for n in (100, 3 * TILE)]
        assert torch.set_flush_denormal(True), "this CPU cannot flush denormals"
        try:
            torch.set_num_threads(2)
            got = [made(distribution, dtype, n) for n in (100, 3 * TILE)]
            assert torch.tensor([1e-39]).mul(1.0).item() == 0, "the flag is the application's, and must be kept"
        finally:
            torch.set_flush_denormal(False)
        assert [differing(*pair) for pair in zip(got, expected, strict=True)] == [0, 0]


# ---- size -----------------------------------------------------------------------------------------------------------


def test_more_than_a_slab() -> None:
    """2^26 elements: more than a slab of tiles. Whole against whole, and the reference at every kind of seam."""
    isas = [isa for isa in available() if isa != "reference"]
    if not isas:
        pytest.skip("no compiled kernels")
    torch.set_num_threads(2)
    n = (1 << 26) + 5
    with using(isas[-1]):
        whole = made(NORMAL, torch.bfloat16, n)
    if len(isas) > 1:
        with using(isas[-2]):
            assert torch.equal(whole.view(torch.int16), made(NORMAL, torch.bfloat16, n).view(torch.int16))
    with using("reference"):
        for seam in (TILE, 3 * TILE, SLAB - TILE, SLAB, SLAB + TILE, 2 * SLAB, n - 30):
            expected = made(NORMAL, torch.bfloat16, 60, global_shape=(n + 60,), offset=(seam - 30,))
            assert differing(whole[seam - 30 : seam + 30], expected[: n - seam + 30]) == 0


def test_more_than_a_slab_in_another_order() -> None:
    """The same through the scattering path: columns of a matrix that is stored by columns."""
    torch.set_num_threads(2)
    rows, columns = 4099, 8193
    view = fill(torch.empty(columns, rows, dtype=torch.bfloat16).t(), UNIFORM)
    flat = made(UNIFORM, torch.bfloat16, rows * columns)
    assert torch.equal(view.contiguous().view(-1).view(torch.int16), flat.view(torch.int16))


# ---- the product ----------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
@each_dtype
@each_distribution
def test_product(distribution: Distribution, dtype: torch.dtype) -> None:
    """Every evaluator, size, address, thread count, layout and shard with each other."""
    sizes = (*range(130), *(n + d for n in (255, 384, 768, 1536, 3072, 6144, TILE, 2 * TILE) for d in (-1, 0, 1)))
    with using(the_plainest()):
        whole = made(distribution, dtype, max(sizes))
    for backend in available():
        with using(backend):
            for n, skip in itertools.product(sizes, (0, 1, 3)):
                if backend == "reference" and n > 3073:
                    continue
                torch.set_num_threads(1 + n % 8)
                view, memory = guarded(n, dtype, skip)
                assert differing(fill(view, distribution), whole[:n]) == 0, (backend, n, skip)
                assert canaries_alive(memory, n, dtype.itemsize, skip)
            for layout in LAYOUTS.values():
                view = layout(dtype)
                assert differing(fill(view, distribution).reshape(-1), whole[: view.numel()]) == 0
            for global_shape, boxes in SHARDS.values():
                with using(the_plainest()):
                    full = made(distribution, dtype, global_shape)
                for offset, shape in boxes:
                    part = full[tuple(slice(o, o + m) for o, m in zip(offset, shape, strict=True))]
                    assert differing(made(distribution, dtype, shape, global_shape=global_shape, offset=offset), part) == 0
