"""The device's square root and division are exactly rounded for every argument the kernels can ask for.

The library cannot be asked for one particular word, so proofs.cu, compiled here by nvcc with the flags of the build, includes
the same headers and compares with nvcc's own exactly rounded operations: for the square root all floats from 1e-30 to 2^25; for
division all floats x in [0, 1) and r in [1, 2^12.5], through the polynomials whose quotient the quantiles take.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import torch
from on_device import on_gpu

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("proofs.cu")


def find_nvcc() -> str | None:
    """As CMakeLists.txt finds it."""
    homes = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    places = [*(os.path.join(home, "bin") for home in (*homes, "/usr/local/cuda")), os.environ.get("PATH", "")]
    return os.environ.get("CUDACXX") or shutil.which("nvcc", path=os.pathsep.join(places))


def command(nvcc: str, architecture: str, library: Path) -> list[str]:
    flags = re.search(r"set\(nvcc_flags ([^)]*)\)", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"))
    assert flags is not None
    shared = ["-shared", "-Xcompiler=-fPIC", "-cudart=static", f"-I{ROOT / 'csrc'}", str(SOURCE), "-o", str(library)]
    return [nvcc, "-std=c++17", "-O3", f"-arch={architecture}", *flags[1].split(), *shared]


NVCC = find_nvcc()
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="no nvcc")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    assert NVCC is not None
    path = tmp_path_factory.mktemp("proofs") / "proofs.so"
    major, minor = torch.cuda.get_device_capability()
    done = subprocess.run(
        command(NVCC, f"sm_{major}{minor}", path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return ctypes.CDLL(str(path))


def pattern(x: float) -> int:
    """The bits of the float32 nearest to x."""
    return int(struct.unpack("<I", struct.pack("<f", x))[0])


@pytest.mark.gpu
@on_gpu[1]
@needs_nvcc
@pytest.mark.parametrize(
    ("claim", "low", "high"),
    [(0, 1e-30, 2.0**25), (1, 0.0, 1.0), (2, 1.0, 2.0**12.5)],
    ids=["sqrt", "division in the centre", "division in the tail"],
)
def test_every_float(library: ctypes.CDLL, claim: int, low: float, high: float) -> None:
    begin, end = pattern(low), pattern(high) + (claim != 1)  # x = 1 belongs to no quantile
    counts = torch.zeros(2, dtype=torch.int64, device="cuda")
    torch.cuda.synchronize()
    where = ctypes.c_void_p(counts.data_ptr())
    error = library.run_proof(ctypes.c_int(claim), ctypes.c_uint64(begin), ctypes.c_uint64(end), where)
    assert error == 0, f"CUDA error {error}"
    assert counts.tolist() == [0, end - begin]


@needs_nvcc
def test_the_proofs_compile(tmp_path: Path) -> None:
    """Without a GPU, too."""
    assert NVCC is not None
    done = subprocess.run(
        command(NVCC, "sm_90", tmp_path / "proofs.so"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]
