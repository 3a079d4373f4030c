"""The CUDA kernel's source, run on the CPU for every thread and block, gives the bits of the CPU backend.

fill_kernel.h and combine_kernel.h are compiled by g++ and run by tests/native/emulated_gpu.cpp, whose sections are the tests
here: each is many launches, of tables that make_parts() made. In each, every element is stored exactly once, by aligned stores,
and nothing else.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from emulation import BUILD, CPU, CXX, FLAGS, HEADERS, NATIVE, ROOT, check, compiled, harness, linked, made, run_command

pytestmark = pytest.mark.skipif(shutil.which(CXX) is None, reason=f"no {CXX}")

SECTIONS = ("kinds", "consecutive", "regions", "far_index", "tables", "grids")
WATCHED = ["-fsanitize=thread", "-fno-exceptions", "-Wno-unknown-pragmas"]  # the hooks of watched.h see every store


@pytest.fixture(scope="module")
def program() -> Path:
    return harness([compiled(NATIVE / "emulated_kernels.cpp", WATCHED)], "emulated_gpu")


@pytest.mark.parametrize("section", SECTIONS)
def test_source(program: Path, section: str) -> None:
    check(program, section)


@pytest.mark.parametrize("section", SECTIONS[1:])
@pytest.mark.parametrize("mode", ["add", "lerp"])
def test_combining_source(program: Path, mode: str, section: str) -> None:
    check(program, section, mode)


def test_launches() -> None:
    """csrc/cuda/launch.cpp on a runtime that is played: what it loads, launches and says, and the bits."""
    fake = [f"-I{NATIVE / 'fake_cuda'}", '-DWEIGHTINIT_ARCHITECTURES="80-real 90"']
    played = [compiled(source, fake) for source in (NATIVE / "launch_tests.cpp", ROOT / "csrc" / "cuda" / "launch.cpp")]
    run_command([str(linked(CPU, [*played, compiled(NATIVE / "emulated_kernels.cpp", WATCHED)], "launch_tests"))])


def test_scalar_device() -> None:
    source = NATIVE / "scalar_device_proofs.cpp"
    command = [CXX, "-std=c++17", "-O3", "-march=native", "-fno-trapping-math", *FLAGS, str(source)]
    run_command([str(made(BUILD / "scalar_device_proofs", command, [source, *HEADERS]))])
