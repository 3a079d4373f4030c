"""The golden values of combination in ``tests/vectors/combined.txt``: what add and lerp make of given elements, for ever.

    python tools/combined_vectors.py --check     every row against the reference; exit status 1 and the rows if one differs
    python tools/combined_vectors.py --write     the file anew; refused where it exists, unless --force

Beside ``golden_vectors.py``, whose columns it uses. Rows are made by ``numerics.reference`` alone; other evaluators are
tested against the file by ``tests/numerics/test_combining.py`` and ``tests/native/core_tests.cpp``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import golden_vectors
import torch
from golden_vectors import DTYPES, FLOATS, SEEDS, STREAMS, Row, digest, distribution_of, short_hex

from weightinit_cuda.numerics import reference
from weightinit_cuda.numerics.combine import Combine, Mode, made_dtype
from weightinit_cuda.numerics.lowering import Kind, Transform, lower

VECTORS = golden_vectors.VECTORS.with_name("combined.txt")

HEADER = """\
# Golden values of combination (docs/numerics.md, section 5). Written by tools/combined_vectors.py from the reference.
# Rows may be added. A row never changes.
#
# Empty lines and lines that start with # are skipped. A row is fourteen columns separated by blanks, three before the eleven of
# format1.txt:
#
#    1 mode          add: x + v; lerp: x + weight (v - x)
#    2 weight        of lerp, as C99 hexadecimal float, rounded for the dtype; 0 for add
#    3 x             the elements before. normal: those of normal(0.0,1.0) in the same dtype, seed, index and count, but of
#                    stream ^ 1. bits: the little-endian bytes of the words of stream ^ 1, from word 0 on, read as elements
#  4-14              of v, as format1.txt has them, but columns 13 and 14 (first, fnv1a64) are those of the result, and for add
#                    columns 10 to 12 (kind, params, integers) are those of float32 where the dtype is narrower
#
"""

DISTRIBUTIONS = (  # add at the end: a row's place decides its seed, stream, index, weight and x
    "normal(0.0,1.0)",
    "uniform(-0.1,0.1)",
    "trunc_normal(0.0,1.0,-2.0,2.0)",
    "constant(0.3)",
    "one_hot(1.0,53,37,37,0,1)",
)
WEIGHTS = (0.25, 0.9990234375, 0.0010000000474974513)  # float32 numbers
PLACES = ((0, 4099), (1, 523), ((1 << 34) - 773, 1999))


class CombinedRow(NamedTuple):
    """One line of the file; the meaning of each column is in :data:`HEADER`."""

    combine: Combine
    x: str
    row: Row

    def __str__(self) -> str:
        mode, weight = self.combine
        return f"{mode.name.lower()} {short_hex(weight)} {self.x} {self.row}"


def parse(line: str) -> CombinedRow:
    """The row of one line."""
    mode, weight, x, rest = line.split(maxsplit=3)
    return CombinedRow(Combine(Mode[mode.upper()], float.fromhex(weight)), x, golden_vectors.parse(rest))


def read(path: Path = VECTORS) -> list[CombinedRow]:
    """All rows of a file."""
    return [parse(line) for line in golden_vectors.lines_of(path)]


def elements(x: str, row: Row) -> torch.Tensor:
    """The elements before."""
    dtype = DTYPES[row.dtype]
    if x == "bits":
        words = reference.bits(row.seed, row.stream ^ 1, -(-row.count * dtype.itemsize // 4), 0, "cpu")
        return words.to(torch.uint32).view(torch.uint8)[: row.count * dtype.itemsize].clone().view(dtype)
    normal = Transform(Kind.NORMAL, (0.0, 1.0))
    return reference.fill(torch.empty(row.count, dtype=dtype), normal, row.seed, row.stream ^ 1, ((1 << 64,), (row.index,)))


def evaluate(line: CombinedRow) -> CombinedRow:
    """The row with the values that the reference gives now."""
    combine, x, row = line
    made = elements(x, row)
    reference.fill(made, row.transform, row.seed, row.stream, ((1 << 64,), (row.index,)), combine)
    first, hashed = digest(made)
    return line._replace(row=replace(row, first=first, hash=hashed))


def lowered(line: CombinedRow) -> Transform:
    """Columns 10 to 12 from columns 1, 4 and 5."""
    distribution = distribution_of(line.row.distribution)
    assert distribution is not None
    return lower(distribution, made_dtype(line.combine.mode, DTYPES[line.row.dtype]))


def rows() -> Iterator[CombinedRow]:
    """Every row of the file, made anew."""
    for number, (mode, text, dtype) in enumerate(product((Mode.ADD, Mode.LERP), DISTRIBUTIONS, FLOATS)):
        weight = WEIGHTS[number % len(WEIGHTS)] if mode is Mode.LERP else 0.0
        (index, n), name = PLACES[number // 2 % len(PLACES)], str(dtype).removeprefix("torch.")
        draw = SEEDS[number % len(SEEDS)], STREAMS[number % len(STREAMS)]
        x = ("normal", "bits")[number // 6 % 2] if mode is Mode.ADD else ("bits", "normal")[number // 6 % 2]
        line = CombinedRow(Combine(mode, weight), x, Row(text, name, *draw, index, n, Transform(Kind.BITS), (), 0))
        yield evaluate(line._replace(row=replace(line.row, transform=lowered(line))))


def check(path: Path) -> int:
    """Compares every row of a file with what lowering and reference give now; the number of rows that differ."""
    kept = read(path)
    now = [evaluate(line._replace(row=replace(line.row, transform=lowered(line)))) for line in kept]
    return golden_vectors.compare(path, kept, now)


def write(path: Path, force: bool) -> int:
    """Writes a file; refuses to replace one."""
    if path.exists() and not force:
        print(f"combined_vectors: {path} exists, and its rows never change. --force is for added rows.", file=sys.stderr)
        return 1
    path.write_text(HEADER + "".join(f"{line}\n" for line in rows()), "ascii")
    return 0


def main(arguments: list[str] | None = None) -> int:
    return golden_vectors.command_line(arguments, __doc__, VECTORS, check, write)


if __name__ == "__main__":
    raise SystemExit(main())
