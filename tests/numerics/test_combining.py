"""Combination: what add and lerp make of elements that are there, by every evaluator, against exact arithmetic on integers.

The oracle here knows IEEE-754 from numpy's float32 and float64 and from fractions; made values come from plain fills, which
have tests of their own. `test_perturbing.py` has the functions that users call.
"""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from bitwise import differing, raw
from conftest import DISTRIBUTIONS, REAL_DTYPES, available, each_distribution, each_dtype, each_real_dtype, made, using
from hypothesis import given, settings
from hypothesis import strategies as st

from weightinit_cuda import engine
from weightinit_cuda.engine.job import FillJob
from weightinit_cuda.numerics import reference
from weightinit_cuda.numerics.combine import ADD, STORE, Combine, Mode, lerp, made_dtype, settled
from weightinit_cuda.numerics.distributions import Constant, Distribution, Normal, SparseNormal, TruncNormal, Uniform
from weightinit_cuda.numerics.lowering import lower
from weightinit_cuda.numerics.rounding import FLOAT32, FORMATS, REAL_DTYPE
from weightinit_cuda.tensors.boxes import Region

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import combined_vectors

NORMAL = Normal(0.1, 0.5)
COMBINES = {
    "add": ADD,
    "lerp_0.25": lerp(0.25),
    "lerp_0.3": lerp(0.3),
    "lerp_0.999": lerp(0.999),
    "lerp_-1.5": lerp(-1.5),
    "lerp_1e-9": lerp(1e-9),
}
each_combine = pytest.mark.parametrize("combine", COMBINES.values(), ids=COMBINES)
QUIET_NAN = {
    torch.float64: 0x7FF8000000000000,
    torch.float32: 0x7FC00000,
    torch.float16: 0x7E00,
    torch.bfloat16: 0x7FC0,
    torch.float8_e4m3fn: 0x7F,
    torch.float8_e5m2: 0x7F,
}


def any_bits(shape: int | tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Elements of any kind: NaN with payloads, infinities, subnormal numbers, both zeros."""
    shape = (shape,) if isinstance(shape, int) else shape
    generator = torch.Generator().manual_seed(seed)
    data = torch.randint(0, 256, (math.prod(shape) * dtype.itemsize,), dtype=torch.uint8, generator=generator)
    return data.view(dtype).reshape(shape)


def ordinary(shape: int | tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Elements of the size of the values that are made, some equal to them."""
    return made(Normal(0.0, 0.6), dtype, shape, seed=4)


def combined(
    tensor: torch.Tensor, distribution: Distribution, combine: Combine, region: Region | None = None, seed: int = 20
) -> torch.Tensor:
    """Through the engine's door, in place."""
    engine.fill([FillJob(tensor, distribution, seed, 7, region, combine=combine)])
    return tensor


def expected_of(x: torch.Tensor, distribution: Distribution, combine: Combine) -> torch.Tensor:
    """By the plain reference from a plain fill: what a copy and torch's operations would give."""
    real = REAL_DTYPE[x.dtype]
    how = settled(combine, real)
    assert how is not None
    v = made(distribution, x.dtype if x.is_complex() else made_dtype(how.mode, real), x.shape, 20, 7)
    if not x.is_complex():
        return reference.combined(x, v, how)
    parts = torch.view_as_real(x.resolve_conj()).contiguous(), torch.view_as_real(v)
    return torch.view_as_complex(reference.combined(*parts, how))


# ---- exact arithmetic -----------------------------------------------------------------------------------------------


def exact_fma(w: float, d: float, x: float) -> float:
    """The nearest float32 of w d + x, signs of zero included."""
    if not (math.isfinite(d) and math.isfinite(x)):
        return float(np.float32(w) * np.float32(d) + np.float32(x))
    exact = Fraction(w) * Fraction(d) + Fraction(x)
    if exact == 0:
        minus = math.copysign(1, x) < 0 and math.copysign(1, w) * math.copysign(1, d) < 0 and w * d == 0
        return -0.0 if minus else 0.0
    return math.copysign(FLOAT32.round(abs(exact)), exact)


def exact(x: float, v: float, combine: Combine, dtype: torch.dtype) -> float:
    """x' before it is rounded to a narrow dtype."""
    number = np.float64 if dtype == torch.float64 else np.float32
    a, b = number(x), number(v)
    with np.errstate(all="ignore"):
        if combine.mode is Mode.ADD:
            return float(a + b)
        if dtype == torch.float64:
            return float(number(combine.weight) * (b - a) + a)
        return exact_fma(float(np.float32(combine.weight)), float(b - a), float(a))


def bits_of(value: float, dtype: torch.dtype) -> int:
    """The bits of a value rounded to nearest even, by integers."""
    if math.isnan(value):
        return QUIET_NAN[dtype]
    form = FORMATS[dtype]
    magnitude = form.round(Fraction(abs(value))) if math.isfinite(value) else form.largest if form.saturates else math.inf
    data = bytes(torch.tensor([magnitude], dtype=torch.float64).to(dtype).view(torch.uint8).tolist())  # exact
    sign = (1 << (8 * dtype.itemsize - 1)) if math.copysign(1, value) < 0 else 0
    return int.from_bytes(data, "little") | sign


def elements(tensor: torch.Tensor) -> list[int]:
    data, size = bytes(raw(tensor).tolist()), tensor.itemsize
    return [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]


@each_real_dtype
@each_combine
@pytest.mark.parametrize("distribution", [NORMAL, Constant(0.0), Uniform(-1.0, 1.0)], ids=["normal", "zero", "uniform"])
def test_exact(dtype: torch.dtype, combine: Combine, distribution: Distribution) -> None:
    """Every kind of element, and elements of like size, where the roundings decide."""
    n = 300
    x = torch.cat((any_bits(n, dtype).view(torch.uint8), ordinary(n, dtype).view(torch.uint8))).view(dtype)
    v = made(distribution, made_dtype(combine.mode, dtype), 2 * n, 20, 7)
    expected = [
        bits_of(exact(a, b, combine, dtype), dtype) for a, b in zip(x.double().tolist(), v.double().tolist(), strict=True)
    ]
    for backend in available():
        with using(backend):
            assert elements(combined(x.clone(), distribution, combine)) == expected, backend


@each_real_dtype
def test_the_oracle_tells_roundings_apart(dtype: torch.dtype) -> None:
    """Power of the test above: neither a v that is rounded first, nor a product that is rounded, gives the same."""
    n = 60000
    x, wide = ordinary(n, dtype), torch.float64 if dtype == torch.float64 else torch.float32
    if dtype.itemsize < 4:
        rounded_first = reference.convert(x.to(wide) + made(NORMAL, dtype, n, 20, 7).to(wide), dtype)
        assert differing(combined(x.clone(), NORMAL, ADD), rounded_first) > 0
    if dtype != torch.float64:
        v = made(NORMAL, dtype, n, 20, 7).to(wide)
        two_roundings = reference.convert(x.to(wide) + np.float32(0.3).item() * (v - x.to(wide)), dtype)
        assert differing(combined(x.clone(), NORMAL, lerp(0.3)), two_roundings) > 0


def test_nan_and_infinity() -> None:
    """The rows of docs/numerics.md, section 5, by hand."""
    inf = math.inf
    for dtype in REAL_DTYPES:
        form = FORMATS[dtype]
        top = form.largest if form.saturates else inf
        x = torch.tensor([math.nan, -0.0, 0.0, inf, -inf], dtype=torch.float64).to(dtype)
        if dtype == torch.float8_e4m3fn:
            x = torch.tensor([math.nan, -0.0, 0.0, 448.0, -448.0]).to(dtype)  # it has no infinity
        for backend in available():
            with using(backend):
                added = combined(x.clone(), Constant(0.0), ADD)
                assert elements(added) == [bits_of(e, dtype) for e in (math.nan, 0.0, 0.0, top, -top)]
                moved = combined(x.clone(), Constant(0.0), lerp(0.5))[3:].double()
                assert moved.tolist() == [224.0, -224.0] if dtype == torch.float8_e4m3fn else moved.isnan().all()


# ---- every kernel ---------------------------------------------------------------------------------------------------


@each_dtype
@each_distribution
def test_every_kernel_combines(backend: str, dtype: torch.dtype, distribution: Distribution) -> None:
    for combine, x in itertools.product((ADD, lerp(0.3)), (any_bits(1700, dtype), ordinary(1700, dtype))):
        assert differing(combined(x.clone(), distribution, combine), expected_of(x, distribution, combine)) == 0


@each_dtype
def test_weight_0_leaves_and_weight_1_stores(backend: str, dtype: torch.dtype) -> None:
    x = any_bits(999, dtype)
    for distribution in DISTRIBUTIONS.values():
        kept = x.clone()
        assert differing(combined(kept, distribution, lerp(0.0)), x) == 0
        assert kept._version == 0, "nothing was written"
        assert differing(combined(x.clone(), distribution, lerp(1.0)), made(distribution, dtype, 999, 20, 7)) == 0


def test_weights_are_rounded_once() -> None:
    """To float32 where the arithmetic is float32: there a weight may become 0 or 1."""
    assert [settled(lerp(w), torch.bfloat16) for w in (1e-60, 1 - 1e-9)] == [None, STORE]
    assert [settled(lerp(w), torch.float64) for w in (1e-60, 1 - 1e-9)] == [lerp(1e-60), lerp(1 - 1e-9)]
    assert settled(lerp(0.3), torch.float32) == lerp(np.float32(0.3).item())


@each_real_dtype
def test_adding_to_zero_is_filling(backend: str, dtype: torch.dtype) -> None:
    got = combined(torch.zeros(5000, dtype=dtype), Normal(0.0, 0.7), ADD)
    assert differing(got, made(Normal(0.0, 0.7), dtype, 5000, 20, 7)) == 0


@each_real_dtype
@each_combine
def test_initial_values_stay_initial_values(backend: str, dtype: torch.dtype, combine: Combine) -> None:
    if combine.mode is Mode.LERP:
        x = made(NORMAL, dtype, 3000, 20, 7)  # as numbers: of -0 lerp makes +0
        assert torch.equal(combined(x.clone(), NORMAL, combine).double(), x.double())


# ---- places ---------------------------------------------------------------------------------------------------------

TILE, PORTION = 20 * 768, 1536  # elements: of a task, and of what is made before it is combined


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize("combine", [ADD, lerp(0.3)], ids=["add", "lerp"])
def test_sizes_and_addresses(backend: str, dtype: torch.dtype, combine: Combine) -> None:
    """Any size from any address that the dtype allows; nothing beside it is touched."""
    largest = 2 * PORTION + 70
    x = any_bits(largest, dtype, 1)
    whole = expected_of(x, NORMAL, combine)
    for n in (*range(70), *(m + d for m in (128, 768, PORTION, 2 * PORTION) for d in (-1, 0, 1)), largest):
        for skip in (0, 1, 3):
            memory = any_bits(n + 16, dtype, 2)
            before, view = memory.clone(), memory[skip : skip + n]
            raw_view = view.view(torch.uint8)
            raw_view.copy_(x[:n].view(torch.uint8))
            combined(view, NORMAL, combine)
            assert differing(view, whole[:n]) == 0, (n, skip)
            assert differing(memory[:skip], before[:skip]) == differing(memory[skip + n :], before[skip + n :]) == 0


def layouts(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    def fresh(*shape: int) -> torch.Tensor:
        return any_bits(shape, dtype, 3)

    views = {
        "0-dim": fresh(1)[0],
        "transposed": fresh(61, 83).t(),
        "every third": fresh(4000, 3)[:, 1],
        "rows with gaps": fresh(50, 70)[:, 5:47],
        "channels_last": fresh(3, 5, 6, 7).permute(0, 3, 1, 2),
        "expanded and cut": fresh(9, 4, 11, 2).permute(2, 0, 3, 1)[1:8, ::2],
        "empty": fresh(1)[:0],
        "27 dimensions": fresh(4096).reshape(*(2,) * 12, *(1,) * 15),
        "tiles": fresh(300, 700).t(),
    }
    if dtype.is_complex:
        views |= {"conjugate": fresh(40, 30).conj(), "negative": fresh(40, 30).conj().imag, "real": fresh(40, 30).real}
    return views


def plain(view: torch.Tensor) -> torch.Tensor:
    """A contiguous copy; of float8 by bytes, since torch copies those in every layout."""
    if view.itemsize == 1:
        return view.view(torch.uint8).clone(memory_format=torch.contiguous_format).view(view.dtype)
    return view.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)


@each_dtype
@pytest.mark.parametrize("combine", [ADD, lerp(0.3)], ids=["add", "lerp"])
def test_layouts(backend: str, dtype: torch.dtype, combine: Combine) -> None:
    for name, view in layouts(dtype).items():
        if backend == "reference" and name == "tiles":
            continue
        x = plain(view)
        assert differing(plain(combined(view, NORMAL, combine)), expected_of(x, NORMAL, combine)) == 0, name


@each_dtype
@pytest.mark.parametrize("combine", [ADD, lerp(0.3)], ids=["add", "lerp"])
def test_shards_are_parts_of_the_whole(backend: str, dtype: torch.dtype, combine: Combine) -> None:
    shape = (23, 6, 31)
    x = any_bits(shape, dtype, 5)
    whole = combined(x.clone(), TruncNormal(0.0, 1.0, -2.0, 2.0), combine)
    for offset, size in (((0, 0, 0), (5, 6, 31)), ((5, 0, 0), (18, 6, 31)), ((3, 2, 7), (9, 3, 20)), ((0, 5, 30), (23, 1, 1))):
        box = tuple(slice(o, o + n) for o, n in zip(offset, size, strict=True))
        shard = combined(x[box].clone(), TruncNormal(0.0, 1.0, -2.0, 2.0), combine, Region(shape, offset))
        assert differing(shard, whole[box]) == 0


@pytest.mark.parametrize("edge", [2**32, 2**34, 2**35, 2**63, 2**64], ids=lambda edge: f"2^{edge.bit_length() - 1}")
@each_real_dtype
def test_index_space(backend: str, dtype: torch.dtype, edge: int) -> None:
    start = min(edge - 1237, 2**64 - 2800)
    x, region = any_bits(2800, dtype, 6), Region((2**64,), (start,))
    v = made(NORMAL, made_dtype(Mode.ADD, dtype), 2800, 20, 7, region.global_shape, region.offset)
    assert differing(combined(x.clone(), NORMAL, ADD, region), reference.combined(x, v, ADD)) == 0


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_threads(backend: str, dtype: torch.dtype) -> None:
    x = any_bits(4 * TILE + 77, dtype, 7)
    expected = expected_of(x, NORMAL, ADD)
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        assert differing(combined(x.clone(), NORMAL, ADD), expected) == 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_cut_gives_the_same(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(REAL_DTYPES))
    combine = data.draw(st.sampled_from(list(COMBINES.values())))
    n = data.draw(st.integers(1, 4000))
    cuts = sorted({0, n, *data.draw(st.lists(st.integers(0, n), max_size=5))})
    x = any_bits(n, dtype, data.draw(st.integers(0, 9)))
    whole, parts = combined(x.clone(), NORMAL, combine), x.clone()
    jobs = [FillJob(parts[a:b], NORMAL, 20, 7, Region((n,), (a,)), combine=combine) for a, b in itertools.pairwise(cuts)]
    engine.fill(data.draw(st.permutations(jobs)))
    assert differing(parts, whole) == 0


# ---- calls ----------------------------------------------------------------------------------------------------------


def test_modes_mixed_in_one_call(backend: str) -> None:
    """Each as it would be alone, and those on the same memory one after another."""
    tensors = [any_bits(700 + i, dtype, i) for i, dtype in enumerate(REAL_DTYPES * 3)]
    modes = [STORE, ADD, lerp(0.3), lerp(0.0), lerp(1.0)]
    jobs = [FillJob(t, NORMAL, i, combine=modes[i % 5]) for i, t in enumerate(tensors)]
    jobs += [FillJob(tensors[1][100:], NORMAL, 99, combine=ADD), FillJob(tensors[1], Uniform(0, 1), 98, combine=lerp(0.5))]
    alone = [t.clone() for t in tensors]
    for i, t in enumerate(alone):
        engine.fill([FillJob(t, NORMAL, i, combine=modes[i % 5])])
    engine.fill([jobs[-2]._replace(tensor=alone[1][100:])])
    engine.fill([jobs[-1]._replace(tensor=alone[1])])
    engine.fill(jobs)
    assert [differing(a, b) for a, b in zip(tensors, alone, strict=True)] == [0] * len(tensors)


def test_bad_jobs_are_refused_before_anything_is_written() -> None:
    with torch.inference_mode():
        inference = torch.ones(3)
    bad = {
        "more than one element": FillJob(torch.ones(1).expand(4), NORMAL, 0, combine=ADD, name="w"),
        "inference": FillJob(inference, NORMAL, 0, combine=ADD),
        r"finite, got nan \(w\)": FillJob(torch.ones(3), NORMAL, 0, combine=lerp(math.nan), name="w"),
        r"SparseNormal.*\(w\)": FillJob(torch.ones(3, 3), SparseNormal(3, 1, 1.0), 0, combine=ADD, name="w"),
        "got torch.int64": FillJob(torch.ones(3, dtype=torch.int64), NORMAL, 0, combine=ADD),
    }
    for message, job in bad.items():
        good = torch.ones(5)
        with pytest.raises((RuntimeError, ValueError, NotImplementedError), match=message):
            engine.fill([FillJob(good, NORMAL, 0, combine=ADD), job])
        assert good.eq(1).all()
        assert good._version == 0


def test_autograd_knows_that_it_was_written() -> None:
    x = torch.ones(3, requires_grad=True)
    y = x.exp().sum()
    combined(x, NORMAL, ADD)
    assert x._version == 1
    assert x.is_leaf
    y.backward()  # exp saved its result, not x
    product = (x * x).sum()
    combined(x, NORMAL, ADD)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


@pytest.mark.parametrize("isa", available())
def test_flush_denormal_does_not_show(isa: str) -> None:
    with using(isa):
        for dtype in REAL_DTYPES:
            x = any_bits(3000, dtype, 8)
            expected = combined(x.clone(), Normal(0.0, 1e-39), ADD)
            assert torch.set_flush_denormal(True)
            try:
                got = combined(x.clone(), Normal(0.0, 1e-39), ADD)
            finally:
                torch.set_flush_denormal(False)
            assert differing(got, expected) == 0


def test_native_refuses_what_cannot_be_combined() -> None:
    if engine.backend.kernels is None:
        pytest.skip("no compiled kernels")
    words = torch.zeros(4, dtype=torch.int32)
    job = (words.data_ptr(), 8, engine.backend.kernels.Transform(0, [], []), 0, 0, 0, [(4, 1, 1)])
    for mode, message in ((1, "combined"), (2, "combined"), (3, "mode"), (-1, "mode")):
        with pytest.raises(ValueError, match=message):
            engine.backend.kernels.fill([job], 1, mode, 0.5)
    assert not words.any()


# ---- golden rows ----------------------------------------------------------------------------------------------------

ROWS = combined_vectors.read()


def test_golden_rows_by_the_reference() -> None:
    assert [row for row in ROWS if combined_vectors.evaluate(row) != row] == []
    assert [row for row in ROWS if combined_vectors.lowered(row) != row.row.transform] == []


def test_golden_rows(backend: str) -> None:
    for line in ROWS:
        combine, x, row = line
        distribution = combined_vectors.distribution_of(row.distribution)
        assert distribution is not None
        tensor = combined_vectors.elements(x, row)
        region = Region((1 << 64,), (row.index,))
        engine.fill([FillJob(tensor, distribution, row.seed, row.stream, region, combine=combine)])
        first, hashed = combined_vectors.digest(tensor)
        assert line._replace(row=replace(row, first=first, hash=hashed)) == line


def test_golden_rows_cover_the_modes() -> None:
    seen = {(row.combine.mode, row.row.dtype, row.x) for row in ROWS}
    dtypes = [str(dtype).removeprefix("torch.") for dtype in REAL_DTYPES]
    assert seen == set(itertools.product((Mode.ADD, Mode.LERP), dtypes, ("normal", "bits")))
    assert len({row.combine.weight for row in ROWS}) > 3


def test_tool_checks_and_refuses_to_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row, kept = ROWS[5], tmp_path / "kept.txt"
    kept.write_text(f"# a comment\n\n{row}\n")
    assert combined_vectors.read(kept) == [row]
    assert combined_vectors.main(["--check", "--file", str(kept)]) == 0
    assert combined_vectors.main(["--write", "--file", str(kept)]) == 1
    kept.write_text(f"{row._replace(row=replace(row.row, hash=1))}\n")
    assert combined_vectors.main(["--check", "--file", str(kept)]) == 1
    assert f"+ {row}" in capsys.readouterr().out
    assert combined_vectors.main(["--write", "--file", str(tmp_path / "new.txt")]) == 0
    assert (tmp_path / "new.txt").read_text() == combined_vectors.VECTORS.read_text()


def test_lowering_of_what_is_added_is_that_of_float32() -> None:
    """Bounds of a narrow dtype would be wrong for a value that is not rounded to it."""
    uniform = Uniform(0.0, 1.0)
    assert lower(uniform, torch.bfloat16) != lower(uniform, made_dtype(Mode.ADD, torch.bfloat16))
    zeros = combined(torch.zeros(1 << 15, dtype=torch.bfloat16), uniform, ADD)
    assert zeros.max() == 1.0, "x + v is rounded like any sum, to 1 if v is near it"
