"""The native module of this Python: the one that lies in the tree, or a new one where it does not fit the sources.

A module from ``bundle`` ends with a stamp, a line that names the sources it was made from (whoever loads an ELF file does not
look there): so a module that was carried to another machine is not mistaken for one of these sources. Knows neither torch nor
what is in the module.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import NamedTuple

__all__ = ["Stamp", "build", "found", "is_of_these_sources", "set_stamp", "sources", "stamp", "why_not_as_it_is"]

ROOT = Path(__file__).resolve().parents[2]
_LINE = re.compile(rb"\nweightinit_cuda of sources ([0-9a-f]{64}) commit ([^\n]*)\n$")


class Stamp(NamedTuple):
    """From what a module was made."""

    sources: str
    commit: str


def found(suffixes: Sequence[str] = EXTENSION_SUFFIXES, root: Path = ROOT) -> Path | None:
    """The module that a Python with these suffixes would import: this one, unless others are given."""
    places = (root / "weightinit_cuda" / f"_C{suffix}" for suffix in suffixes)
    return next((place for place in places if place.exists()), None)


def _files(root: Path) -> list[Path]:
    """All that the build reads."""
    read = [root / "CMakeLists.txt", root / "weightinit_cuda" / "_version.py"]
    for folder in ("csrc", "cmake"):
        read += sorted(path for path in (root / folder).rglob("*") if path.is_file() and path.suffix != ".md")
    return read


def sources(root: Path = ROOT) -> str:
    """The SHA-256 of the sources' names and contents."""
    digest = hashlib.sha256()
    for path in _files(root):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def set_stamp(path: Path, commit: str, root: Path = ROOT) -> None:
    """Ends the module with a stamp of the sources as they are."""
    content = _LINE.sub(b"", path.read_bytes())
    path.write_bytes(content + f"\nweightinit_cuda of sources {sources(root)} commit {commit}\n".encode())


def stamp(path: Path | None = None) -> Stamp | None:
    """The stamp of the module, by default of this Python's; None if it has none, or if there is no module."""
    path = path or found()
    if path is None:
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 512))
        match = _LINE.search(file.read())
    return Stamp(match[1].decode(), match[2].decode()) if match else None


def is_of_these_sources(path: Path, root: Path = ROOT) -> bool:
    """By its stamp; without one, by whether it is newer than every source."""
    if known := stamp(path):
        return known.sources == sources(root)
    return path.stat().st_mtime >= max(file.stat().st_mtime for file in _files(root))


def why_not_as_it_is(root: Path = ROOT) -> str:
    """Why a module has to be built; empty if the one that lies in the tree is taken."""
    path = found(root=root)
    if path is None:
        return f"no module for CPython {sys.version_info.major}.{sys.version_info.minor} lies in the tree"
    return "" if is_of_these_sources(path, root) else f"{path.name} was made from other sources"


def build(architectures: str, root: Path = ROOT) -> int:
    """Compiles the module in place, with CUDA; the compilers' words go to this process's output.

    Args:
        architectures: CMake's words, as 90-real; empty for what the build chooses.

    Returns:
        The exit status of the build.
    """
    environment = os.environ | {"WEIGHTINIT_CUDA": "1"}
    if architectures:
        environment.setdefault("WEIGHTINIT_CUDA_ARCHITECTURES", architectures)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    return subprocess.run(command, cwd=root, env=environment, check=False).returncode
