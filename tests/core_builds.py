"""The kernels' own test program, built here and cross-compiled for NEON, by the lines of `make sanitize` and `make neon`."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from functools import cache
from pathlib import Path

import pytest
from emulation import ROOT, run_command

PATH = os.pathsep.join(
    (str(Path(sys.executable).parent), os.environ["PATH"])
)  # cmake and ninja may live beside the interpreter
# CMake's cross-compilation, as `make neon` has it.
AARCH64 = (
    "-DCMAKE_SYSTEM_NAME=Linux",
    "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
    "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++",
    "-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64;-L;/usr/aarch64-linux-gnu",
)
FLAGS = {"native": (), "neon": AARCH64}
NEEDED = {
    "native": (os.environ.get("CXX", "c++"), "cmake", "ninja"),
    "neon": ("aarch64-linux-gnu-g++", "qemu-aarch64", "cmake", "ninja"),  # Debian: g++-aarch64-linux-gnu, qemu-user
}


def require(*programs: str) -> None:
    """Skips where a program is missing."""
    missing = [program for program in programs if shutil.which(program.split()[0], path=PATH) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")


@cache
def built(build: str) -> Path:
    """The folder in which core_tests is built."""
    folder = ROOT / "build" / build
    folder.mkdir(parents=True, exist_ok=True)
    switches = ("-DWEIGHTINIT_CORE_TESTS=ON", f"-DWEIGHTINIT_WERROR={os.environ.get('WEIGHTINIT_WERROR', 0)}", *FLAGS[build])
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another pytest may be building it
        run_command(["env", f"PATH={PATH}", "cmake", "-S", ".", "-B", f"build/{build}", "-G", "Ninja", *switches])
        run_command(["env", f"PATH={PATH}", "cmake", "--build", f"build/{build}"])
    return folder
