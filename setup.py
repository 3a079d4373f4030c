"""Runs CMakeLists.txt for pip. The build is defined there and nowhere else.

Environment: WEIGHTINIT_NATIVE=0 installs the plain-PyTorch reference alone. WEIGHTINIT_CUDA, WEIGHTINIT_CUDA_ARCHITECTURES
and WEIGHTINIT_WERROR are handed to CMake (their meaning is at the top of CMakeLists.txt), and so is CMAKE_ARGS. MAX_JOBS
limits how many compilers run at once. WEIGHTINIT_BUILD_DIR is a folder in which builds for several Pythons share all that
does not depend on Python (tools/build_wheels.py).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCE = Path(__file__).resolve().parent
SWITCHES = {"WEIGHTINIT_CUDA": "auto", "WEIGHTINIT_CUDA_ARCHITECTURES": "", "WEIGHTINIT_WERROR": "0"}
FAILED = """
weightinit_cuda: the native module could not be built: {reason}.
Needed: a C++17 compiler (Debian: apt install g++), CMake >= 3.18, Ninja and pybind11 (pip install cmake ninja pybind11).{where}
To go without native code, set WEIGHTINIT_NATIVE=0: the same bits from the plain-PyTorch reference, many times slower.
"""
SEE_ABOVE = "\nWhat CMake or the compiler said is above. If it is CUDA that fails, WEIGHTINIT_CUDA=0 leaves it out."


def program(*names: str) -> str:
    """The first of the programs on PATH, else beside the interpreter (a virtual environment that is not activated), else ""."""
    found = (shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts")) for name in names)
    return next(filter(None, found), "")


def missing() -> str:
    """Which of the programs that every build needs are not there."""
    compiler = os.environ.get("CXX") or "CMAKE_CXX_COMPILER" in os.environ.get("CMAKE_ARGS", "")
    needed = {
        "no C++ compiler": compiler or program("c++", "g++", "clang++"),
        "no cmake": program("cmake"),
        "no ninja": program("ninja"),
        "no pybind11": find_spec("pybind11"),
    }
    return " and ".join(name for name, found in needed.items() if not found)


def cmake(step: str, *arguments: str | Path) -> None:
    status = "[%f/%t, %e s] "  # of Ninja: done, in all, time
    environment = {"NINJA_STATUS": status} | os.environ
    try:
        subprocess.run([program("cmake"), step, *map(str, arguments)], check=True, env=environment)
    except (OSError, subprocess.CalledProcessError) as error:
        said = f"exit status {error.returncode}" if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise SystemExit(FAILED.format(reason=f"cmake {step}: {said}", where=SEE_ABOVE)) from error


class CMakeBuild(build_ext):
    """Configures, builds and installs the one CMake target. In place it is incremental; for a wheel it starts afresh."""

    def run(self) -> None:
        self.development = bool(self.inplace)  # setuptools builds beside the source even then, and copies
        if shared := os.environ.get("WEIGHTINIT_BUILD_DIR"):
            self.build_temp = shared
        elif not self.inplace:
            shutil.rmtree(self.build_temp, ignore_errors=True)
        super().run()

    def build_extension(self, ext: Extension) -> None:
        if what := missing():
            raise SystemExit(FAILED.format(reason=what, where=""))
        import pybind11

        # Paths are given anew each time, for CMake would remember those of a build environment that is gone.
        cache = {name: os.environ.get(name) or default for name, default in SWITCHES.items()}
        cache |= {"CMAKE_MAKE_PROGRAM": program("ninja"), "Python_EXECUTABLE": sys.executable}
        cache |= {"pybind11_DIR": pybind11.get_cmake_dir(), "WEIGHTINIT_IN_PLACE": str(int(self.development))}
        defines = [
            "-UPython_*",
            "-U_Python_*",
            "-UPYTHON_*",
            "-UPYBIND11_*",
            *(f"-D{name}={value}" for name, value in cache.items()),
        ]
        package = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        cmake("-S", SOURCE, "-B", self.build_temp, "-G", "Ninja", *defines, *shlex.split(os.environ.get("CMAKE_ARGS", "")))
        jobs = self.parallel or os.environ.get("MAX_JOBS")
        cmake("--build", self.build_temp, *(["--parallel", str(jobs)] if jobs else []))
        cmake("--install", self.build_temp, "--prefix", package.parent, *([] if self.development else ["--strip"]))


native = os.environ.get("WEIGHTINIT_NATIVE", "1") != "0"
setup(ext_modules=[Extension("weightinit_cuda._C", sources=[])] if native else [], cmdclass={"build_ext": CMakeBuild})
