"""The kernels without Python: core_tests and thread_tests here and, for NEON, emulated; and what the compiler made of them.

`make sanitize` and `make neon` build the same program by the same CMake lines. Builds stay in build/ and are incremental.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import emulation
import pytest
import torch
from bitwise import same_bits
from conftest import made, using
from core_builds import AARCH64, FLAGS, NEEDED, built, require
from emulation import NATIVE, ROOT

from weightinit_cuda import engine
from weightinit_cuda.numerics.distributions import Normal, TruncNormal, Uniform

VECTORS = ROOT / "tests" / "vectors"

EMULATOR = {"native": (), "neon": ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")}
each_build = pytest.mark.parametrize("build", FLAGS)


def run_tests(build: str, program: str, *arguments: str) -> tuple[str, int, int]:
    """What the program prints, and its numbers of checks that passed and failed."""
    require(*NEEDED[build])
    command = [*EMULATOR[build], str(built(build) / program), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
    counts = re.search(r"^(\d+) passed, (\d+) failed$", done.stdout, re.MULTILINE)
    assert counts is not None, done.stdout
    passed, failed = map(int, counts.groups())
    assert done.returncode == (failed > 0), done.stdout
    return done.stdout, passed, failed


@each_build
def test_core(build: str) -> None:
    output, passed, failed = run_tests(build, "core_tests", str(VECTORS))
    assert failed == 0, output
    assert passed > 4000
    isas = set(re.findall(r"^(\w+): \d+ passed$", output, re.MULTILINE))
    assert isas == ({"neon", "scalar"} if build == "neon" else set(engine.backend_info().available) or isas)


@each_build
def test_threads(build: str) -> None:
    output, passed, failed = run_tests(build, "thread_tests", *(["emulated"] if EMULATOR[build] else []))
    assert failed == 0, output
    assert passed > 80


def test_core_tests_see_one_digit(tmp_path: Path) -> None:
    """Power of the test above: one digit of a hash, one of a known answer."""
    for path in VECTORS.glob("*.txt"):
        lines = path.read_text("ascii").splitlines()
        last = f"{int(lines[-1][-1], 16) ^ 1:x}"
        (tmp_path / path.name).write_text("\n".join((*lines[:-1], lines[-1][:-1] + last)))
    output, _, failed = run_tests("native", "core_tests", str(tmp_path))
    isas = len(re.findall(r"^\w+: \d+ passed$", output, re.MULTILINE))
    assert failed == 1 + 5 * isas, output  # the generator; a hash of either file and three runs of bits on every ISA


def test_makefile_has_the_same_cmake_line() -> None:
    require("make", *NEEDED["neon"])
    command = ["make", "--no-print-directory", "-n", f"PY={sys.executable}", "neon"]
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}  # not a make's child
    printed = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=True)
    configure = shlex.split(printed.stdout.splitlines()[0])
    assert configure[:7] == ["cmake", "-S", ".", "-B", "build/neon", "-G", "Ninja"]
    assert configure[-4:] == list(AARCH64)


# ---- object code ----------------------------------------------------------------------------------------------------

LIBM = re.compile(
    r"(fma|sqrt|exp|exp2|expm1|log|log2|log1p|sin|cos|sincos|tan|pow|erf|erfc|cbrt|hypot|ldexp|rint|nearbyint)[fl]?"
)
CALLED = {"memcpy", "memset", "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_"}  # all that a kernel may call
X86 = {
    "fused double": r"vfn?m(add|sub)(add|sub)?\d+[ps]d ",
    "fused float": r"vfn?m(add|sub)\d+ps ",
    "approximate": r"v?r(cp|sqrt)",
    "double": r"v?mul[ps]d ",
    "ymm": r".*%ymm",
    "zmm": r".*%zmm",
    "vex": r"v[a-z]",
    "evex": r".*%(zmm|k\d|[xy]mm(1[6-9]|[23]\d))",
}
ARM = {
    "fused double": r"fn?m(la|ls|add|sub)\s+(v\d+\.2d|d\d)",
    "fused float": r"fn?m(la|ls|add|sub)\s+(v\d+\.[24]s|s\d)",
    "approximate": r"fr(ecp|sqrt)[esx]",
    "double": r"fmul\s+(v\d+\.2d|d\d)",
}
HAS = {  # what a build's object file has; every other pattern must be absent
    ("native", "scalar"): {"double"},
    ("native", "avx2"): {"double", "fused float", "vex", "ymm"},
    ("native", "avx512"): {"double", "fused float", "vex", "evex", "ymm", "zmm"},
    ("native", "avx512bf16"): {"fused float", "vex", "evex", "zmm"},
    ("neon", "scalar"): {"double", "fused float"},
    ("neon", "neon"): {"double", "fused float"},
}


def objdump(tool: str, option: str, path: Path) -> list[str]:
    return subprocess.run(
        [tool, option, "--no-show-raw-insn", str(path)], capture_output=True, text=True, check=True
    ).stdout.splitlines()


@pytest.mark.parametrize(("build", "isa"), HAS)
def test_object_code(build: str, isa: str) -> None:
    """No libm, no approximation, float64 never fused; and nothing that another ISA's code could be linked to."""
    if build == "native" and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip(f"what is expected of {isa} is x86-64 code, this machine is {platform.machine()}")
    tool = "objdump" if build == "native" else "aarch64-linux-gnu-objdump"
    require(tool, *NEEDED[build])
    path = built(build) / "CMakeFiles" / "kernels.dir" / "csrc" / "cpu" / f"fill_{isa}.cpp.o"

    code = [line.split("\t", 1)[1] for line in objdump(tool, "-d", path) if re.match(r"\s*[0-9a-f]+:\t", line)]
    patterns = X86 if build == "native" else ARM
    found = {name: [line for line in code if re.match(pattern, line)][:3] for name, pattern in patterns.items()}
    assert {name for name, lines in found.items() if lines} == HAS[build, isa], found

    symbols = [line for line in objdump(tool, "-t", path) if re.match(r"[0-9a-f]{16} ", line)]
    assert {line.split()[-1] for line in symbols if "*UND*" in line} <= CALLED
    shared = [line.split()[-1] for line in symbols if re.match(r"[0-9a-f]{16} ([gu!]|.w)", line)]
    assert any(re.search(rf"_ZN2wi\d+find_(run|bfloat16)_{isa}E", name) for name in shared)
    ours = rf"2wi{len(isa)}{isa}|find_(run|bfloat16|combine|store_columns)_{isa}"
    assert [name for name in shared if not re.search(ours, name)] == []


def test_module_calls_no_libm() -> None:
    require("objdump")
    module = find_spec("weightinit_cuda._C")
    if module is None or module.origin is None:
        pytest.skip("the compiled kernels are missing")
    undefined = [line.split()[-1] for line in objdump("objdump", "-T", Path(module.origin)) if "*UND*" in line]
    assert "memcpy" in undefined
    assert [name for name in undefined if LIBM.fullmatch(name)] == []


# ---- bfloat16 by the CPU's own conversion -----------------------------------------------------------------------------


def test_the_conversion_to_bfloat16_is_ours() -> None:
    """For every float32 that is neither subnormal nor NaN, in every floating-point environment."""
    require(emulation.CXX)
    source = NATIVE / "bfloat16_proofs.cpp"
    command = [emulation.CXX, "-std=c++17", "-O3", *emulation.FLAGS, str(source)]
    program = emulation.made(emulation.BUILD / "bfloat16_proofs", command, [source, *emulation.HEADERS])
    done = subprocess.run([str(program)], capture_output=True, text=True)
    if done.returncode == 2:
        pytest.skip("this CPU has no AVX-512 BF16")
    assert done.returncode == 0, done.stdout


# Some have subnormal values, which that conversion would take for 0; the others are next to them.
NEAR_SUBNORMAL = {
    "normal": Normal(0.0, 2.0**-40),
    "normal below": Normal(0.0, 2.0**-41),
    "normal, the mean below": Normal(2.0**-41, 2.0**-40),
    "normal, subnormal": Normal(0.0, 1e-38),
    "normal, half of it": Normal(1e-38, 1e-39),
    "uniform": Uniform(-(2.0**-79), 2.0**-79),
    "uniform below": Uniform(-(2.0**-81), 2.0**-80),
    "uniform, subnormal": Uniform(-1e-38, 3e-38),
    "uniform, clamped": Uniform(1e-40, 3e-38),
    "uniform, one bound": Uniform(1e-39, 1.0),
    "trunc": TruncNormal(0.0, 2.0**-40, -(2.0**-39), 2.0**-39),
    "trunc below": TruncNormal(0.0, 2.0**-41, -(2.0**-40), 2.0**-40),
    "trunc, subnormal": TruncNormal(0.0, 1e-38, -2e-38, 2e-38),
    "trunc, narrow": TruncNormal(0.0, 1.0, -1e-38, 2e-38),
    "trunc, far": TruncNormal(0.0, 1e-38, 3e-38, 1e-37),
}


@pytest.mark.parametrize("name", NEAR_SUBNORMAL)
def test_subnormal_values_stay(name: str) -> None:
    made_by = {}
    for isa in ("scalar", "avx512bf16"):
        with using(isa):
            made_by[isa] = made(NEAR_SUBNORMAL[name], torch.bfloat16, 1 << 16)
    assert same_bits(made_by["scalar"], made_by["avx512bf16"])
