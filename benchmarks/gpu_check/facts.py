"""What is there: the GPU and its driver, torch, tools and packages (stage ``device``); the native module (stage ``build``)."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from . import module
from .files import write_json
from .stages import Status

__all__ = ["build", "device"]

Answer = tuple[Status, str]
DEVICE = "cuda"
PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "scipy",
    "pytest",
    "rich",
    "cupy-cuda13x",
    "cupy-cuda12x",
    "jax",
    "cmake",
    "ninja",
    "pybind11",
)
TOOLS = ("nvidia-smi", "nvcc", "ncu", "cmake", "ninja", "g++")


def device(file: Path, seconds: float) -> Answer:
    """Writes what is known of the machine. Imports nothing of the library, so that no module is needed yet."""
    facts: dict[str, Any] = {
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "tools": {name: path for name in TOOLS if (path := shutil.which(name))},
        "nvidia_smi": _said(["nvidia-smi"]),
        "gpu": None,
    }
    why = "" if torch.cuda.is_available() else f"no GPU: torch {torch.__version__} finds no CUDA device"
    if not why:
        try:
            facts["gpu"] = _gpu()
        except Exception as error:
            why = f"no GPU: {type(error).__name__}: {str(error).splitlines()[0]}"
    write_json(file, facts)
    absent = [name for name in ("triton", "cupy", "pytest", "rich", "ncu") if not _is_there(name, facts)]
    if absent:
        print(f"not installed, so what needs them is left out or plainer: {', '.join(absent)}")
    if why:
        return Status.UNUSABLE, why
    gpu = facts["gpu"]
    driver = f", driver {gpu['driver']}" if gpu["driver"] else ""
    return Status.FINE, f"{gpu['name']}, {gpu['capability']}{driver}, CUDA {facts['cuda']}, torch {facts['torch']}"


def _gpu() -> dict[str, Any]:
    """Of the current device, after it has done something."""
    torch.zeros(1, device=DEVICE).add_(1).sum().item()
    of = torch.cuda.get_device_properties(torch.cuda.current_device())
    free, whole = torch.cuda.mem_get_info()
    return {
        "name": of.name,
        "capability": f"{of.major}.{of.minor}",
        "processors": of.multi_processor_count,
        "cache": getattr(of, "L2_cache_size", None),
        "memory": [free, whole],
        "driver": _said(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "-i", "0"]).strip(),
        "devices": torch.cuda.device_count(),
    }


def build(file: Path, seconds: float) -> Answer:
    """Takes the module that lies in the tree, or builds one; writes what it is, and how long the first fill takes."""
    facts: dict[str, Any] = {"built_because": module.why_not_as_it_is()}
    if facts["built_because"]:
        print(f"building, since {facts['built_because']}", flush=True)
        start = perf_counter()
        of = torch.cuda.get_device_properties(torch.cuda.current_device())
        facts["build_status"] = module.build(f"{of.major}{of.minor}-real")
        facts["build_seconds"] = round(perf_counter() - start, 1)
        write_json(file, facts)
    path = module.found()
    known = module.stamp()
    facts |= {"module": path.name if path else None, "commit": known.commit if known else None}
    facts["of_these_sources"] = path is not None and module.is_of_these_sources(path)
    status, said = _first_fill(facts)
    write_json(file, facts)
    return status, said


def _first_fill(facts: dict[str, Any]) -> Answer:
    """Imports the library only now, for whether its kernels are there is decided at import."""
    import weightinit_cuda as wi
    from weightinit_cuda import engine

    tensor = torch.empty(1 << 20, device=DEVICE)  # a device is asked only once something is on it
    usable, info = engine.has_kernels(tensor.device), wi.backend_info()
    facts |= {"version": wi.__version__, "format": wi.FORMAT, "backend": info._asdict()}
    if not usable:
        return Status.UNUSABLE, f"no kernels for this GPU: {info.cuda}; module {facts['module']}"
    start = perf_counter()
    wi.init.normal_(tensor, seed=1)
    torch.cuda.synchronize()
    facts["first_fill_seconds"] = round(perf_counter() - start, 4)
    how = f"built in {facts['build_seconds']} s" if facts["built_because"] else "found"
    return Status.FINE, f"{facts['module']}, {how}; first fill {facts['first_fill_seconds']} s"


def _said(command: list[str]) -> str:
    """What a program prints; empty if there is none, or if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_there(name: str, facts: dict[str, Any]) -> bool:
    return any(of.split("-")[0] == name for of in (*facts["packages"], *facts["tools"]))
