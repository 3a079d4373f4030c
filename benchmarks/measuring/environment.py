"""What a number depends on besides the code: machine, library versions, commit, and how busy the machine was."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import weightinit_cuda as wi

__all__ = ["environment"]

VERSIONS = ("torch", "numpy", "scipy", "jax", "mkl", "transformers", "timm")


def environment(threads: Sequence[int]) -> dict[str, Any]:
    """The environment as it goes into the JSON file."""
    backend = wi.backend_info()
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "huge_pages": _huge_pages(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in VERSIONS},
        "weightinit_cuda": wi.__version__,
        "format": wi.FORMAT,
        "backend": backend.backend,
        "isa": backend.cpu,
        "parallel_runtime": backend.parallel_runtime,
        "threads": list(threads),
    }


def _commit() -> str:
    """The commit of the source tree, marked if it was changed since; WEIGHTINIT_COMMIT for a tree that has no git."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("WEIGHTINIT_COMMIT", "unknown")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    numbers = [f"{name} {named[name]}" for name in ("cpu family", "model", "stepping") if name in named]
    return ", ".join([named.get("model name", platform.machine()), *numbers])  # virtual machines hide the name


def _huge_pages() -> str:
    try:
        choices = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="ascii")
    except OSError:
        return "unknown"
    return choices.partition("[")[2].partition("]")[0]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
