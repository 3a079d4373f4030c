"""The native module for a machine with a GPU and another Python, built here: ``make gpu-bundle``.

Needs an interpreter of that version with its headers (C extensions of one CPython do not load in another) and nvcc. The module
goes into the tree, where that Python will import it from, and gets a stamp of its sources (``module``). Then a torch for that
Python is installed in build/, and the module has to load beside it without a driver and give the known values.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from . import module

__all__ = ["main"]

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "gpu-bundle"
ASKED = """
import json, os, sys, sysconfig
from importlib.machinery import EXTENSION_SUFFIXES
headers = os.path.join(sysconfig.get_path("include"), "Python.h")
version = "%d.%d" % sys.version_info[:2]
print(json.dumps([sys.implementation.name, version, EXTENSION_SUFFIXES, os.path.exists(headers), headers]))
"""
PROOF = """
import torch
import weightinit_cuda as wi
from weightinit_cuda import engine

info = wi.backend_info()
assert info.backend == "native", info
assert not torch.cuda.is_available(), "a driver was found; this is the proof that none is needed"
words = [hex(word) for word in wi.bits(seed=0, stream=0, n=4).tolist()]
assert words == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"], words
for dtype in (torch.float32, torch.bfloat16, torch.float64):
    made = wi.init.normal_(torch.empty(5003, dtype=dtype), seed=1)
    with engine.reference_only():
        assert torch.equal(made, wi.init.normal_(torch.empty(5003, dtype=dtype), seed=1)), dtype
print(f"beside torch {torch.__version__}: loads without a driver ({info.cuda}); {info.cpu} gives the reference's values")
"""


class BundleError(Exception):
    """There is no bundle; the message says what is missing."""


class Python(NamedTuple):
    """An interpreter with headers, and what the file of a C extension of it is called."""

    executable: str
    version: str
    suffixes: list[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds, proves, and says what the module needs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check.bundle", description=__doc__)
    parser.add_argument("--python", default="3.12", help="a version that is looked for here, or an interpreter (default: 3.12)")
    parser.add_argument("--architectures", default="90-real", help="for which GPUs, in CMake's words (default: 90-real)")
    parser.add_argument("--torch", default="torch==2.11.0", help="what it is proved beside, for pip; none leaves the proof out")
    options = parser.parse_args(arguments)
    try:
        python = wanted(options.python)
        path = built(python, options.architectures, [] if options.torch == "none" else [options.torch])
        size = f"{path.stat().st_size / 1e6:.1f} MB"
        print(f"gpu-bundle: {path.relative_to(ROOT)}, {size}, for {options.architectures}, {needs(path)}", flush=True)
        if options.torch == "none":
            print("gpu-bundle: not proved to load: --torch none")
        else:
            prove(python)
    except BundleError as error:
        print(f"gpu-bundle: {error}", file=sys.stderr)
        return 1
    return 0


def wanted(name: str) -> Python:
    """The interpreter of that name or version."""
    looked = []
    for candidate in _candidates(name):
        answer = subprocess.run([candidate, "-c", ASKED], capture_output=True, text=True, check=False)
        if answer.returncode:
            looked.append(f"{candidate} does not run")
            continue
        implementation, version, suffixes, has_headers, headers = json.loads(answer.stdout)
        if implementation == "cpython" and has_headers:
            return Python(candidate, version, suffixes)
        looked.append(f"{candidate} is {implementation} {version}" + ("" if has_headers else f" without {headers}"))
    raise BundleError(
        f"a CPython {name} with its headers is required, got none (looked at: {'; '.join(looked) or 'nothing of that name'}). "
        "Install one with its headers (a distribution's package -dev; pyenv brings them), or name another: "
        'make gpu-bundle ARGS="--python PATH_OR_VERSION".'
    )


def _candidates(name: str) -> Iterator[str]:
    """A path as it is; a version on PATH, then in pyenv's folder."""
    if not re.fullmatch(r"3\.\d+", name):
        yield from filter(None, [shutil.which(name)])
        return
    yield from filter(None, [shutil.which(f"python{name}")])
    folder = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    yield from map(str, sorted(folder.glob(f"{name}.*/bin/python{name}")))


def built(python: Python, architectures: str, torch: Sequence[str]) -> Path:
    """The module in the tree, made by an environment of its own under build/."""
    environment = FOLDER / f"python{python.version}"
    if not _own(python).exists():
        _run("make a virtual environment", [python.executable, "-m", "venv", str(environment)])
    _run("install what the build needs", [str(_own(python)), "-m", "pip", "install", "-q", *requirements(), *torch])
    switches = {"WEIGHTINIT_CUDA": "1", "WEIGHTINIT_CUDA_ARCHITECTURES": architectures}
    _run("build the module", [str(_own(python)), "setup.py", "-q", "build_ext", "--inplace"], switches)
    path = module.found(python.suffixes)
    if path is None:
        raise BundleError(f"the build must leave weightinit_cuda/_C{python.suffixes[0]}, and did not.")
    if b".nv_fatbin" not in path.read_bytes():
        raise BundleError(f"{path.name} must have code for GPUs, and has none. Is nvcc installed?")
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=False)
    module.set_stamp(path, commit.stdout.strip() or "unknown")
    return path


def requirements() -> list[str]:
    """Of a build, as pyproject.toml says."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r"^requires = (\[.*?\])", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise BundleError("pyproject.toml must have a line `requires = [...]`, and has none.")
    return list(ast.literal_eval(found[1]))


def _own(python: Python) -> Path:
    return FOLDER / f"python{python.version}" / "bin" / "python"


def prove(python: Python) -> None:
    """Loads it in a fresh process, from the tree, with no device visible."""
    switches = {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": str(ROOT)}
    _run("prove that the module loads", [str(_own(python)), "-c", PROOF], switches)


def needs(path: Path) -> str:
    """The newest versions of the C and C++ libraries that it asks for, by the names of their symbols."""
    newest: dict[str, tuple[int, ...]] = {}
    for name, version in re.findall(rb"\0(GLIBC|GLIBCXX)_([0-9.]+)(?=\0)", path.read_bytes()):
        numbers = tuple(map(int, version.split(b".")))
        newest[name.decode()] = max(numbers, newest.get(name.decode(), numbers))
    return "needs " + " and ".join(f"{name} {'.'.join(map(str, version))}" for name, version in newest.items())


def _run(what: str, command: Sequence[str], switches: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=ROOT, env=os.environ | (switches or {}), check=False)
    if done.returncode:
        raise BundleError(f"cannot {what} (exit status {done.returncode}); why is above.")


if __name__ == "__main__":
    sys.exit(main())
