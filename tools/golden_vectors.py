"""The golden values of format 1 in ``tests/vectors/format1.txt``: what a stored seed means, for ever, in any language.

    python tools/golden_vectors.py --check     every row against the reference; exit status 1 and the rows if one differs
    python tools/golden_vectors.py --write     the file anew; refused where it exists, unless --force

Rows are made by ``numerics.reference`` alone. Other backends are tested against the file: ``tests/numerics/test_golden.py`` for
the Python module, ``tests/native/core_tests.cpp`` for the kernels without Python.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from weightinit_cuda.numerics import reference  # noqa: E402
from weightinit_cuda.numerics.distributions import (  # noqa: E402
    Constant,
    Distribution,
    Normal,
    OneHot,
    TruncNormal,
    Uniform,
)
from weightinit_cuda.numerics.lowering import Kind, Transform, lower  # noqa: E402

VECTORS = ROOT / "tests" / "vectors" / "format1.txt"

HEADER = """\
# Golden values of weightinit_cuda, format 1. Written by tools/golden_vectors.py from the plain-PyTorch reference.
# Rows may be added. A row that changes is a new format, with a new file.
#
# Empty lines and lines that start with # are skipped. A row is eleven columns separated by blanks:
#
#    1 distribution  what the user asked for: uniform(a,b) on [a, b); normal(mean,std); trunc_normal(mean,std,a,b) on [a, b];
#                    constant(value); one_hot(value,row,period,limit,offset,step); bits(), the raw words. Numbers are decimal
#                    float64 (shortest form) or inf; those of one_hot after the first are integers.
#    2 dtype         storage of an element: float32, float64, float16, bfloat16, float8_e4m3fn, float8_e5m2, uint32
#    3 seed          unsigned 64-bit, hexadecimal
#    4 stream        unsigned 64-bit, hexadecimal
#    5 index         unsigned 64-bit, decimal: position of the first element in the global tensor
#    6 count         elements, consecutive from index on
#    7 kind          the kernel, an enum Kind of csrc/job.h: 0 bits, 1 constant, 2 uniform, 3 uniform that is clamped, 4 normal,
#                    5 central truncated normal, 6 truncated normal, 7 one-hot
#    8 params        what the kernel reads: float64 as C99 hexadecimal floats or inf, separated by commas; - if there are none.
#                    2: low,scale  3: low,scale,lo,hi  4: mean,std  5: scale,center,mean,std,lo,hi
#                    6: base_left,base_right,step,log_ref,mean,std,lo,hi  1, 7: value, for readers only
#    9 integers      unsigned 64-bit, decimal, separated by commas; - if there are none.
#                    1: pattern  6: split  7: row,period,limit,offset,step,pattern (pattern: the value's bits in the dtype)
#   10 first         bits of the first four elements, hexadecimal, separated by commas
#   11 fnv1a64       64-bit FNV-1a hash of all count elements, each in little-endian bytes, hexadecimal:
#                    h = cbf29ce484222325; for each byte: h = (h ^ byte) * 100000001b3 mod 2^64
#
# Columns 2 to 9 determine the bytes; docs/numerics.md says how. Column 1 with 2 determines columns 7 to 9, by
# weightinit_cuda/distributions.py: a port of the kernels alone needs no such step.
"""

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (*FLOATS, torch.uint32)}

DISTRIBUTIONS = (  # add at the end: a row's place decides its seed, stream and index
    "uniform(0.0,1.0)",
    "uniform(-0.1,0.1)",
    "uniform(1.0,2.0)",
    "uniform(1.0,1.05)",  # a few values of a narrow dtype
    "normal(0.0,1.0)",
    "normal(0.5,0.02)",
    "normal(0.0,0.0001)",  # subnormal in float16 and float8
    "normal(0.0,1e-39)",  # subnormal in float32 and bfloat16
    "normal(0.0,30000.0)",  # beyond float16 and float8
    "trunc_normal(0.0,1.0,-2.0,2.0)",  # central
    "trunc_normal(0.0,0.02,-0.02,0.04)",  # central, asymmetric
    "trunc_normal(0.5,1.0,-2.5,4.5)",  # two-sided
    "trunc_normal(0.0,1.0,8.0,9.0)",  # one-sided, far out
    "trunc_normal(0.0,1.0,-9.0,-8.0)",  # its mirror image
    "trunc_normal(0.0,1.0,-inf,0.5)",
    "trunc_normal(0.1,0.5,1.0,inf)",
    "trunc_normal(0.5,0.02,-2.0,2.0)",  # cuts nothing: the transform of normal(0.5, 0.02)
    "trunc_normal(0.0,1e-44,-5e-44,0.0)",  # float32: some values are -0, and stay it at the upper bound
    "constant(0.3)",
    "constant(1.0039062500009095)",  # to bfloat16 by way of float32: a tie, hence 1
    "constant(-inf)",
    "one_hot(1.0,53,37,37,0,1)",  # eye_ of 37 x 53
    "one_hot(1.0,135,4,4,4,9)",  # dirac_ of 12 x 15 x 3 x 3 in 3 groups
)
SEEDS = (0, 1, 0x0123456789ABCDEF, 1 << 32, (1 << 64) - 1)
STREAMS = (0, 0xDAEF894C3BE395ED, 1, (1 << 64) - 1)


@dataclass(frozen=True)
class Row:
    """One line of the file; the meaning of each column is in :data:`HEADER`."""

    distribution: str
    dtype: str
    seed: int
    stream: int
    index: int
    count: int
    transform: Transform
    first: tuple[str, ...]
    hash: int

    def __str__(self) -> str:
        kind, params, integers = self.transform
        head = f"{self.distribution} {self.dtype} {self.seed:#x} {self.stream:#x} {self.index} {self.count} {int(kind)}"
        lists = (",".join(map(short_hex, params)), ",".join(map(str, integers)), ",".join(self.first))
        return " ".join((head, *(text or "-" for text in lists), f"{self.hash:016x}"))


def short_hex(x: float) -> str:
    """C99's hexadecimal form without trailing zeros, as printf's %a has it."""
    return re.sub(r"\.?0*p", "p", x.hex())


def fnv1a64(data: bytes) -> int:
    """Fowler, Noll and Vo's hash 1a: here for being four lines in any language, not for strength."""
    hashed = 0xCBF29CE484222325
    for byte in data:
        hashed = (hashed ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return hashed


def digest(tensor: torch.Tensor) -> tuple[tuple[str, ...], int]:
    """Columns first and fnv1a64 of a tensor."""
    data = bytes(tensor.view(torch.uint8).tolist())
    size = tensor.element_size()
    first = (int.from_bytes(data[i : i + size], "little") for i in range(0, 4 * size, size))
    return tuple(f"{bits:0{2 * size}x}" for bits in first), fnv1a64(data)


def parse(line: str) -> Row:
    """The row of one line."""
    distribution, dtype, seed, stream, index, n, kind, params, integers, first, hashed = line.split()
    transform = Transform(
        Kind(int(kind)),
        tuple(float.fromhex(x) for x in params.split(",") if x != "-"),
        tuple(int(x) for x in integers.split(",") if x != "-"),
    )
    draw = int(seed, 16), int(stream, 16)
    return Row(distribution, dtype, *draw, int(index), int(n), transform, tuple(first.split(",")), int(hashed, 16))


def lines_of(path: Path) -> list[str]:
    """The rows of a file as text."""
    return [line for line in path.read_text("ascii").splitlines() if line and not line.startswith("#")]


def read(path: Path = VECTORS) -> list[Row]:
    """All rows of a file."""
    return [parse(line) for line in lines_of(path)]


def distribution_of(text: str) -> Distribution | None:
    """The distribution that column 1 names; None for bits()."""
    name, numbers = text.rstrip(")").split("(")
    args = [float(number) for number in numbers.split(",") if number]
    match name:
        case "uniform":
            return Uniform(*args)
        case "normal":
            return Normal(*args)
        case "trunc_normal":
            return TruncNormal(*args)
        case "constant":
            return Constant(*args)
        case "one_hot":
            return OneHot(args[0], *map(int, args[1:]))
        case "bits":
            return None
    raise ValueError(f"golden_vectors: unknown distribution {text!r}.")


def lowered(distribution: str, dtype: str) -> Transform:
    """The transform of columns 7 to 9, from columns 1 and 2."""
    meant = distribution_of(distribution)
    return Transform(Kind.BITS) if meant is None else lower(meant, DTYPES[dtype])


def evaluate(row: Row) -> Row:
    """The row with the values that the reference gives now."""
    made = torch.empty(row.count, dtype=torch.int32 if row.dtype == "uint32" else DTYPES[row.dtype])
    reference.fill(made, row.transform, row.seed, row.stream, ((1 << 64,), (row.index,)))
    first, hashed = digest(made)
    return replace(row, first=first, hash=hashed)


def requests() -> Iterator[tuple[str, str, int, int]]:
    """(distribution, dtype, index, count) of every row: each pair from 0 on, and once more from a harder place."""
    pairs = [("bits()", "uint32")] * 5 + [(text, dtype) for text in DISTRIBUTIONS for dtype in DTYPES if dtype != "uint32"]
    yield "bits()", "uint32", (1 << 64) - 1001, 1001
    for number, (text, dtype) in enumerate(pairs):
        wrap = 1 << 33 if dtype == "float64" else 1 << 34  # the first element of block 2^32
        yield text, dtype, 0, 4099
        places = (wrap - 773, 1999), (1, 523), ((1 << 34) + 12345, 1025), (3 * wrap - 2, 300), ((1 << 62) + 7, 777)
        yield text, dtype, *places[number % len(places)]


def rows() -> Iterator[Row]:
    """Every row of the file, made anew."""
    for number, (text, dtype, index, n) in enumerate(requests()):
        seed, stream = SEEDS[number % len(SEEDS)], STREAMS[number % len(STREAMS)]
        yield evaluate(Row(text, dtype, seed, stream, index, n, lowered(text, dtype), (), 0))


def check(path: Path) -> int:
    """Compares every row of a file with what lowering and reference give now; the number of rows that differ."""
    kept = read(path)
    return compare(path, kept, [evaluate(replace(row, transform=lowered(row.distribution, row.dtype))) for row in kept])


def compare(path: Path, kept: Sequence[object], now: Sequence[object]) -> int:
    """Shows the rows that differ; their number."""
    differing = [(old, new) for old, new in zip(kept, now, strict=True) if old != new]
    for old, new in differing:
        print(f"- {old}\n+ {new}")
    print(f"{path.name}: {len(kept)} rows, {len(differing)} differ")
    return len(differing)


def write(path: Path, force: bool) -> int:
    """Writes a file; refuses to replace one."""
    if path.exists() and not force:
        print(
            f"golden_vectors: {path} exists. A changed value is a new format: raise FORMAT, keep this file, write another.\n"
            "Only rows that no one can have stored (added, or before the first release) justify --force.",
            file=sys.stderr,
        )
        return 1
    text = HEADER
    group = ""
    for row in rows():
        family = row.distribution.partition("(")[0]
        text += ("" if family == group else "\n") + f"{row}\n"
        group = family
    path.write_text(text, "ascii")
    return 0


def main(arguments: list[str] | None = None) -> int:
    return command_line(arguments, __doc__, VECTORS, check, write)


def command_line(
    arguments: list[str] | None,
    description: str | None,
    file: Path,
    check: Callable[[Path], int],
    write: Callable[[Path, bool], int],
) -> int:
    """Checks or writes a file of rows."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="compare the file with the reference")
    action.add_argument("--write", action="store_true", help="write the file")
    parser.add_argument("--force", action="store_true", help="with --write: replace a file that exists")
    parser.add_argument("--file", type=Path, default=file, help=f"instead of tests/vectors/{file.name}")
    options = parser.parse_args(arguments)
    return write(options.file, options.force) if options.write else int(check(options.file) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
