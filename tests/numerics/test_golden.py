"""The frozen answers in ``tests/vectors``: Random123's known answers, and what every seed means in format 1.

A row of ``format1.txt`` that fails here is a bug in the code, never in the file (CONTRIBUTING.md, "Golden vectors").
``tests/native/core_tests.cpp`` reads the same files.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import REAL_DTYPES, available, fill, using

import weightinit_cuda as wi
from weightinit_cuda.numerics import coefficients, reference
from weightinit_cuda.numerics.distributions import Normal
from weightinit_cuda.numerics.lowering import Kind, lower

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import golden_vectors
from golden_vectors import VECTORS, Row, distribution_of, evaluate, lowered

ROWS = golden_vectors.read()
each_dtype = pytest.mark.parametrize("dtype", golden_vectors.DTYPES)


def rows_of(dtype: str) -> list[Row]:
    return [row for row in ROWS if row.dtype == dtype]


def by_engine(row: Row) -> Row:
    """The row with the values that a user gets now, from columns distribution to count."""
    distribution = distribution_of(row.distribution)
    if distribution is None:
        made = wi.bits(row.seed, row.stream, row.count, row.index)
    else:
        made = torch.empty(row.count, dtype=golden_vectors.DTYPES[row.dtype])
        fill(made, distribution, row.seed, row.stream, (1 << 64,), (row.index,))
    first, hashed = golden_vectors.digest(made)
    return replace(row, first=first, hash=hashed)


# ---- Philox ---------------------------------------------------------------------------------------------------------


def known_answers() -> list[tuple[int, int, int, int, tuple[int, ...]]]:
    """(rounds, block, stream, seed, words) of every row of philox.txt."""
    rows = []
    for line in (VECTORS.parent / "philox.txt").read_text("ascii").splitlines():
        if line and not line.startswith("#"):
            rounds, *columns = line.split()
            c0, c1, c2, c3, k0, k1, *words = (int(column, 16) for column in columns)
            rows.append((int(rounds), c0 | c1 << 32, c2 | c3 << 32, k0 | k1 << 32, tuple(words)))
    return rows


@pytest.mark.parametrize(("rounds", "block", "stream", "seed", "words"), known_answers())
def test_known_answers(rounds: int, block: int, stream: int, seed: int, words: tuple[int, ...]) -> None:
    """Ten rounds come out, seven do not: the test can tell them apart."""
    signed = block - (block >> 63 << 64)
    generated = reference.philox4x32_10(torch.tensor([signed]), stream, seed)
    assert (tuple(int(w) for w in generated) == words) == (rounds == 10)
    if block < 1 << 62:  # else beyond the last index
        for backend in available():
            with using(backend):
                assert (tuple(wi.bits(seed, stream, 4, 4 * block).tolist()) == words) == (rounds == 10), backend


def test_standard_cpp() -> None:
    """[rand.predef]: the 10000th output of a default std::philox4x32."""
    for backend in available():
        with using(backend):
            assert wi.bits(seed=20111115, stream=0, n=10000)[-1] == 1955073260, backend


# ---- format 1 -------------------------------------------------------------------------------------------------------


@each_dtype
def test_lowering(dtype: str) -> None:
    assert [row for row in rows_of(dtype) if lowered(row.distribution, dtype) != row.transform] == []


@each_dtype
def test_reference_gives_the_golden_values(dtype: str) -> None:
    """From the columns kind, params and integers: the kernels' part alone."""
    assert [row for row in rows_of(dtype) if evaluate(row) != row] == []


@each_dtype
def test_golden_values(dtype: str, backend: str) -> None:
    """From the distribution, as users ask for it, through every evaluator."""
    assert [row for row in rows_of(dtype) if by_engine(row) != row] == []


def test_trunc_normal_that_cuts_nothing_is_normal() -> None:
    cut, normal = "trunc_normal(0.5,0.02,-2.0,2.0)", "normal(0.5,0.02)"
    transforms = {(row.distribution, row.dtype): row.transform for row in ROWS}
    for dtype in map(str, REAL_DTYPES):
        name = dtype.removeprefix("torch.")
        assert transforms[cut, name] == transforms[normal, name] == lower(Normal(0.5, 0.02), golden_vectors.DTYPES[name])


@each_dtype
def test_rows_cover_format_1(dtype: str) -> None:
    """Every kernel there is, from 0, from odd indices, across the end of 2^32 blocks and beyond."""
    rows, wrap = rows_of(dtype), 1 << 33 if dtype == "float64" else 1 << 34
    kinds = {Kind.CONSTANT, Kind.UNIFORM_CLAMPED, Kind.NORMAL, Kind.TRUNC_NORMAL, Kind.ONE_HOT}
    more = {"float32": {Kind.UNIFORM, Kind.TRUNC_NORMAL_CENTRAL}, "float64": set()}.get(dtype, {Kind.TRUNC_NORMAL_CENTRAL})
    assert {row.transform.kind for row in rows} == ({Kind.BITS} if dtype == "uint32" else kinds | more)
    assert {0, 1} <= {row.index for row in rows}
    assert any(row.index % 2 == 1 and row.index > 1 << 34 for row in rows)
    assert any(row.index < wrap < row.index + row.count for row in rows)


# ---- the power of these tests ---------------------------------------------------------------------------------------


def test_the_hash_is_fnv1a() -> None:
    """The answers of its authors (draft-eastlake-fnv, appendix C)."""
    assert golden_vectors.fnv1a64(b"") == 0xCBF29CE484222325
    assert golden_vectors.fnv1a64(b"a") == 0xAF63DC4C8601EC8C
    assert golden_vectors.fnv1a64(b"foobar") == 0x85944171F73967E8


@pytest.mark.parametrize("place", [0, 4, 2048, 4098])
def test_one_bit_of_one_element_shows(place: int) -> None:
    row = next(row for row in ROWS if row.transform.kind is Kind.NORMAL and row.dtype == "float32" and row.count == 4099)
    made = torch.empty(row.count)
    reference.fill(made, row.transform, row.seed, row.stream)
    assert golden_vectors.digest(made) == (row.first, row.hash)
    made.view(torch.int32)[place] ^= 1
    first, hashed = golden_vectors.digest(made)
    assert hashed != row.hash
    assert (first != row.first) == (place < 4)


TABLES = [name for name in vars(coefficients) if isinstance(getattr(coefficients, name), tuple)]


@pytest.mark.parametrize("name", TABLES)
def test_one_unit_in_one_coefficient_shows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table, dtype = list(getattr(coefficients, name)), f"float{name[-2:]}"
    at = max(range(len(table)), key=lambda i: abs(table[i]))
    table[at] += math.ulp(table[at]) * (1 if dtype == "float64" else 2**29)
    monkeypatch.setattr(coefficients, name, tuple(table))
    assert any(evaluate(row) != row for row in rows_of(dtype))


def test_tool_checks_and_refuses_to_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = rows_of("float8_e5m2")[0]
    kept = tmp_path / "kept.txt"
    kept.write_text(f"# a comment\n\n{row}\n")
    assert golden_vectors.read(kept) == [row]
    assert golden_vectors.main(["--check", "--file", str(kept)]) == 0
    assert golden_vectors.main(["--write", "--file", str(kept)]) == 1
    assert "new format" in capsys.readouterr().err
    for changed in (replace(row, hash=row.hash ^ 1), replace(row, transform=row.transform._replace(params=(0.0,)))):
        kept.write_text(f"{changed}\n")
        assert golden_vectors.main(["--check", "--file", str(kept)]) == 1
        assert f"- {changed}\n+ {row}\n" in capsys.readouterr().out


def test_tool_writes_the_file_that_is_kept(tmp_path: Path) -> None:
    assert golden_vectors.main(["--write", "--file", str(tmp_path / "new.txt")]) == 0
    assert (tmp_path / "new.txt").read_text("ascii") == VECTORS.read_text("ascii")
