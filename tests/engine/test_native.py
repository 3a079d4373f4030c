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

import pytest
from core_builds import AARCH64, FLAGS, NEEDED, built, require
from emulation import ROOT

from weightinit_cuda import engine

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
    assert f"_ZN2wi{len(isa) + 9}find_run_{isa}ENS_4KindENS_7StorageE" in shared
    ours = rf"2wi{len(isa)}{isa}|find_(run|combine|store_columns)_{isa}"
    assert [name for name in shared if not re.search(ours, name)] == []


def test_module_calls_no_libm() -> None:
    require("objdump")
    module = find_spec("weightinit_cuda._C")
    if module is None or module.origin is None:
        pytest.skip("the compiled kernels are missing")
    undefined = [line.split()[-1] for line in objdump("objdump", "-T", Path(module.origin)) if "*UND*" in line]
    assert "memcpy" in undefined
    assert [name for name in undefined if LIBM.fullmatch(name)] == []
