"""The CUDA kernel without a GPU: how its emulations are built, and the rows of transforms that they run.

Programs go to build/emulation/ and are made anew when their command or the contents of their sources change.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, product
from pathlib import Path

import torch
from conftest import DISTRIBUTIONS, REAL_DTYPES

from weightinit_cuda.numerics.distributions import Distribution, Normal, TruncNormal, Uniform
from weightinit_cuda.numerics.lowering import Kind, Transform, lower

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import ptx_to_c as ptx_to_c  # noqa: E402
import sass_budget as sass_budget  # noqa: E402
import sass_careful as sass_careful  # noqa: E402

BUILD = ROOT / "build" / "emulation"
NATIVE = ROOT / "tests" / "native"
CXX = os.environ.get("CXX", "g++")
CC = os.environ.get("CC", "gcc")
FLAGS = ["-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'csrc'}"]
CPU_SOURCES = (
    "cpu/dispatch.cpp",
    "cpu/blocks.cpp",
    "cpu/parallel.cpp",
    "cpu/cpus.cpp",
    "cpu/fill_scalar.cpp",
    "cuda/table.cpp",
)
CPU = [ROOT / "csrc" / name for name in CPU_SOURCES]
HEADERS = sorted(chain((ROOT / "csrc").rglob("*.h"), NATIVE.rglob("*.h")))

STORAGES = {dtype: i for i, dtype in enumerate(REAL_DTYPES)}  # of csrc/job.h, as uint8, 16, 32, 64 that follow
PATTERN_STORAGES = {
    **{str(dtype).removeprefix("torch."): i for dtype, i in STORAGES.items()},
    "u8": 6,
    "u16": 7,
    "u32": 8,
    "u64": 9,
}

EXTREME: dict[str, Distribution] = {
    "normal_subnormal": Normal(0.0, 1e-39),
    "normal_small": Normal(0.0, 1e-4),  # subnormal in float16 and float8
    "normal_overflowing": Normal(0.0, 30000.0),
    "uniform_narrow": Uniform(1.0, 1.05),
    "uniform_subnormal": Uniform(-1e-39, 2e-39),
    "uniform_below_8": Uniform(0.0, 7.9999995),
    "uniform_8": Uniform(0.0, 8.0),  # from here on the GPU has another program, with 2^-21 <= scale
    "uniform_wide": Uniform(-30000.0, 40000.0),
    "uniform_positive": Uniform(0.0, 1e-4),  # +0 and -0 at the lower bound
    "uniform_negative": Uniform(-1.0, 0.0),
    "trunc_mirrored": TruncNormal(0.0, 1.0, -9.0, -8.0),
}


def run_command(command: Sequence[str]) -> None:
    """Raises AssertionError with what the command printed if it fails."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-4000:]}"


def made(output: Path, command: Sequence[str], sources: Sequence[Path]) -> Path:
    """``output`` as ``command -o output`` makes it; not made again while command and sources stay as they are."""
    BUILD.mkdir(parents=True, exist_ok=True)
    command = [*command, "-o", str(output)]
    digest = hashlib.sha256("\0".join(command).encode())
    for source in sources:
        digest.update(source.read_bytes())
    with output.with_name(output.name + ".stamp").open("a+") as stamp:
        fcntl.flock(stamp, fcntl.LOCK_EX)  # another pytest may be making it
        stamp.seek(0)
        if stamp.read() != digest.hexdigest() or not output.exists():
            stamp.truncate(0)
            run_command(command)
            stamp.write(digest.hexdigest())
    return output


def compiled(source: Path, flags: Sequence[str] = ()) -> Path:
    """The object file of a C++ source that includes csrc."""
    command = [CXX, "-std=c++17", "-O2", *FLAGS, *flags, "-c", str(source)]
    return made(BUILD / f"{source.stem}.o", command, [source, *HEADERS])


def ptx(architecture: int, source: Path) -> Path:
    """What nvcc makes of a kernel, with the build's flags and line numbers. Raises sass_budget.Missing."""
    command = sass_budget.to_ptx(architecture, source)
    return made(BUILD / f"{source.stem}_{architecture}.ptx", command, [source, *HEADERS])


def harness(kernels: Sequence[Path], name: str) -> Path:
    """The program tests/native/emulated_gpu.cpp, with the object files that have gpu_thread()."""
    return linked([NATIVE / "emulated_gpu.cpp", *CPU], kernels, name)


def linked(sources: Sequence[Path], others: Sequence[Path], name: str) -> Path:
    """The program of some C++ sources and object files."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [*pool.map(compiled, sources), *others]
    return made(BUILD / name, [CXX, *map(str, objects), "-ldl", "-lpthread"], objects)


def rows(combining: bool) -> Path:
    """Every kernel and every branch of its parameters, as the lines that emulated_gpu reads; to combine, one line a program."""
    lines = list(dict.fromkeys(chain(_lowered(), _raw())))
    if combining:
        lines = list({(*line.split()[1:3], "_wide" in line): line for line in lines}.values())
    BUILD.mkdir(parents=True, exist_ok=True)
    path = BUILD / ("combining_rows.txt" if combining else "rows.txt")
    path.write_text("\n".join(lines) + "\n")
    return path


def _line(name: str, storage: int, transform: Transform) -> str:
    lists = (",".join(map(float.hex, transform.params)), ",".join(map(str, transform.integers)))
    return " ".join((name, str(storage), str(int(transform.kind)), *(text or "-" for text in lists)))


def _lowered() -> Iterator[str]:
    for (name, distribution), dtype in product((DISTRIBUTIONS | EXTREME).items(), REAL_DTYPES):
        yield _line(f"{name}/{str(dtype).removeprefix('torch.')}", STORAGES[dtype], lower(distribution, dtype))


def _raw() -> Iterator[str]:
    """What no distribution lowers to, though there is a kernel."""
    yield _line("bits/u32", PATTERN_STORAGES["u32"], Transform(Kind.BITS))
    for storage, width in product(STORAGES.values(), (2.0, 2.0**100)):
        scale = width * 2.0 ** (-53 if storage == STORAGES[torch.float64] else -24)
        yield _line(f"uniform_open_{width}/{storage}", storage, Transform(Kind.UNIFORM, (-1.0, scale, -1.0, width - 1.0)))
    pattern = 0x0123456789ABCDEF
    for name, storage in PATTERN_STORAGES.items():
        yield _line(f"constant/{name}", storage, Transform(Kind.CONSTANT, (), (pattern,)))
        yield _line(f"one_hot/{name}", storage, Transform(Kind.ONE_HOT, (), (37, 5, 4, 3, 8, pattern)))


def check(program: Path, section: str, *mode: str) -> None:
    """One section of emulated_gpu; a mode if its kernel is the one that combines.

    Raises:
        AssertionError: with what it printed, if a check failed or none was made.
    """
    done = subprocess.run(
        [program, rows(bool(mode)), section, *mode], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert int(done.stdout.split()[-4]) > 0, done.stdout
