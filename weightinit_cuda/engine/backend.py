"""Which evaluator runs the fills, and why: the compiled kernels where they are there, else the plain-PyTorch reference.

Chosen once at import (``WEIGHTINIT_BACKEND``, ``WEIGHTINIT_CPU``). Values do not depend on it.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import NamedTuple

import torch

from .._version import FORMAT

__all__ = ["BackendInfo", "backend_info", "has_kernels", "is_known_to_work", "kernels", "reference_only", "select_cpu"]

_MISSING = ""
try:
    from .. import _C as kernels
except ImportError as error:  # built with WEIGHTINIT_NATIVE=0, or not built at all
    kernels = None  # type: ignore[assignment]
    _MISSING = "no _C was built" if "circular import" in str(error) else str(error)  # what Python suspects of a missing module


def _hidden() -> str:
    """The folder of an installed copy with kernels that this one, in a source tree, hides: Python looks there first."""
    here = Path(__file__).resolve().parents[1]
    for folder in sys.path:
        other = Path(folder or os.curdir).resolve() / here.name
        if other != here and any((other / f"_C{suffix}").is_file() for suffix in EXTENSION_SUFFIXES):
            return str(other)
    return ""


def _advice() -> str:
    """What to do about missing kernels."""
    if hidden := _hidden():
        tree = Path(__file__).resolve().parents[2]
        return f"They are in {hidden}, which the source tree {tree} hides. Run Python in another folder, or `make build`"
    return "Reinstall with a C++ compiler"


def _choose_backend() -> bool:
    """Whether the compiled kernels are used; says once why not."""
    wanted = os.environ.get("WEIGHTINIT_BACKEND") or ("native" if kernels is not None else "")
    if wanted not in ("", "native", "reference"):
        raise ValueError(f"WEIGHTINIT_BACKEND: must be native or reference, got {wanted!r}.")
    if wanted == "native" and kernels is None:
        raise ImportError(f"WEIGHTINIT_BACKEND=native, but the compiled kernels are missing: {_MISSING}. {_advice()}.")
    if wanted == "":
        warnings.warn(
            f"weightinit_cuda: the compiled kernels are missing ({_MISSING}); the plain PyTorch reference is used: the same "
            f"values, many times slower. {_advice()}, or set WEIGHTINIT_BACKEND=reference to silence this.",
            RuntimeWarning,
            stacklevel=2,
        )
    return wanted == "native"


def select_cpu(isa: str) -> None:
    """Makes the CPU kernels use one instruction set: scalar, avx2, avx512, avx512bf16 or neon.

    For tests; values do not depend on it.

    Raises:
        ValueError: this build or machine does not have it.
    """
    if kernels is None or not kernels.select_isa(isa):
        available = kernels.available_isas() if kernels is not None else []
        raise ValueError(f"WEIGHTINIT_CPU: must be one of {available} on this machine, got {isa!r}.")


native = _choose_backend()
if native and os.environ.get("WEIGHTINIT_CPU"):
    select_cpu(os.environ["WEIGHTINIT_CPU"])


@contextmanager
def reference_only() -> Iterator[None]:
    """Inside, all fills of the process are made by the reference: for tests and benchmarks, which compare."""
    global native
    before, native = native, False
    try:
        yield
    finally:
        native = before


class BackendInfo(NamedTuple):
    """What runs the fills."""

    backend: str  # native or reference
    cpu: str  # instruction set in use
    available: tuple[str, ...]  # instruction sets that this build and machine have
    threads: int
    parallel_runtime: str  # what runs the threads, and the CPUs that they may use
    cuda: str  # or why there is none
    format: int
    reason: str  # why a fallback was taken; empty if none was

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{name}</th><td>{escape(str(value))}</td></tr>" for name, value in self._asdict().items())
        return f'<table style="font-family:monospace;text-align:left">{rows}</table>'


def backend_info() -> BackendInfo:
    """What is compiled in, which instruction set is in use, and why a fallback was taken."""
    hidden = f"; kernels are hidden in {folder}" if kernels is None and (folder := _hidden()) else ""
    reason = "" if native else f"{_MISSING}{hidden}" or "WEIGHTINIT_BACKEND=reference"
    threads = torch.get_num_threads()
    if kernels is None:
        return BackendInfo("reference", "torch", (), threads, "torch", "not compiled", FORMAT, reason)
    return BackendInfo(
        backend="native" if native else "reference",
        cpu=kernels.selected_isa() if native else "torch",
        available=tuple(kernels.available_isas()),
        threads=threads,
        parallel_runtime=kernels.parallel_runtime(),
        cuda=_why_no_cuda() or "native",
        format=FORMAT,
        reason=reason,
    )


def has_kernels(device: torch.device) -> bool:
    """Whether the compiled kernels write to this device; the reference writes to all others."""
    if device.type == "cuda" and native and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return not _why_not_on(torch.cuda.current_device() if device.index is None else device.index)
    return native and device.type == "cpu"


def is_known_to_work(index: int) -> bool:
    """Whether a GPU was asked, and the compiled kernels write to it."""
    return native and _known.get(index) == ""


def _why_no_cuda() -> str:
    """Why no GPU is filled by the kernels, as far as is known without asking a driver: a process that has asked one can fork no
    child that uses a GPU. (torch counts devices by NVML.)"""
    if why := kernels.why_no_cuda():
        return why
    if not torch.cuda.device_count():
        return f"no GPU that torch {torch.__version__} finds; compiled for {kernels.cuda_architectures}"
    return next(filter(None, _known.values()), "")


_known: dict[int, str] = {}  # of each device that was asked, why it is not filled by the kernels; empty if it is


def _why_not_on(index: int) -> str:
    """The same of one device, which is asked when its first tensor comes. Warns if the reference takes over."""
    if index not in _known:
        _known[index] = "torch is built for ROCm" if torch.version.hip else kernels.why_no_cuda() or kernels.why_not_on(index)
        if _known[index]:
            warnings.warn(
                f"weightinit_cuda: tensors on cuda:{index} are filled by the plain PyTorch reference: the same values, many "
                f"times slower. The kernels cannot run there: {_known[index]}. Install from source on this machine, which "
                "compiles them for its GPUs, or update the driver.",
                RuntimeWarning,
                stacklevel=2,
            )
    return _known[index]
