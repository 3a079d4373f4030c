"""Runs CMakeLists.txt for pip. The build is defined there and nowhere else.

Environment: WEIGHTINIT_NATIVE=0 installs the plain-PyTorch reference alone. WEIGHTINIT_CUDA, WEIGHTINIT_CUDA_ARCHITECTURES
and WEIGHTINIT_WERROR are handed to CMake (their meaning is at the top of CMakeLists.txt), and so is CMAKE_ARGS.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCE = Path(__file__).resolve().parent
SWITCHES = {"WEIGHTINIT_CUDA": "auto", "WEIGHTINIT_CUDA_ARCHITECTURES": "", "WEIGHTINIT_WERROR": "0"}
FAILED = """
weightinit_cuda: the native module could not be built (cmake {step}: {error}).
The compiler's or CMake's own message is above. Needed: a C++17 compiler, CMake >= 3.18 and Ninja.
If it is CUDA that fails, WEIGHTINIT_CUDA=0 leaves it out. WEIGHTINIT_NATIVE=0 installs without native code:
the same bits from the plain-PyTorch reference, but far slower.
"""


def program(name: str) -> str:
    """The program on PATH, else beside the interpreter (a virtual environment that is not activated)."""
    return shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts")) or name


def cmake(step: str, *arguments: str | Path) -> None:
    try:
        subprocess.run([program("cmake"), step, *map(str, arguments)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = f"exit status {error.returncode}" if isinstance(error, subprocess.CalledProcessError) else error
        raise SystemExit(FAILED.format(step=step, error=reason)) from error


class CMakeBuild(build_ext):
    """Configures, builds and installs the one CMake target. In place it is incremental; for a wheel it starts afresh."""

    def run(self) -> None:
        if not self.inplace:
            shutil.rmtree(self.build_temp, ignore_errors=True)
        super().run()

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        # Paths are given anew each time, for CMake would remember those of a build environment that is gone.
        cache = {name: os.environ.get(name) or default for name, default in SWITCHES.items()}
        cache |= {"CMAKE_MAKE_PROGRAM": program("ninja"), "Python_EXECUTABLE": sys.executable}
        cache |= {"pybind11_DIR": pybind11.get_cmake_dir()}
        defines = [f"-D{name}={value}" for name, value in cache.items()]
        package = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        cmake("-S", SOURCE, "-B", self.build_temp, "-G", "Ninja", *defines, *shlex.split(os.environ.get("CMAKE_ARGS", "")))
        cmake("--build", self.build_temp)
        cmake("--install", self.build_temp, "--prefix", package.parent)


native = os.environ.get("WEIGHTINIT_NATIVE", "1") != "0"
setup(ext_modules=[Extension("weightinit_cuda._C", sources=[])] if native else [], cmdclass={"build_ext": CMakeBuild})
