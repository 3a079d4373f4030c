"""The CUDA kernel's source, run on the CPU for every thread and block, gives the bits of the CPU backend.

fill_kernel.h is compiled by g++ and run by tests/native/emulated_gpu.cpp, whose sections are the tests here: each is many
launches, of tables that make_table() made. In each, every element is stored exactly once, by aligned stores, and nothing else.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from emulation import BUILD, CXX, FLAGS, HEADERS, NATIVE, check, harness, made

pytestmark = pytest.mark.skipif(shutil.which(CXX) is None, reason=f"no {CXX}")

SECTIONS = ("kinds", "consecutive", "regions", "far_index", "tables", "grids", "seeds", "sequences")


@pytest.fixture(scope="module")
def program() -> Path:
    source, kernel = NATIVE / "emulated_kernel.cpp", BUILD / "emulated_kernel.o"
    watched = ["-fsanitize=thread", "-fno-exceptions", "-Wno-unknown-pragmas"]  # the hooks of emulated_kernel.cpp see every store
    made(
        kernel,
        [CXX, "-std=c++17", "-O2", *FLAGS, *watched, "-c", str(source), f"-o{kernel}"],
        [source, NATIVE / "cuda_shim.h", *HEADERS],
    )
    return harness(kernel, "emulated_gpu", ["-DWI_SEQUENCES"])


@pytest.mark.parametrize("section", SECTIONS)
def test_source(program: Path, section: str) -> None:
    check(program, section)
