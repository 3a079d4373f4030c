"""How much memory there is, and how much a call takes at its peak: for the demo and the benchmarks.

Linux only; elsewhere both are unknown.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import TypeVar

__all__ = ["available_bytes", "peak_of"]

T = TypeVar("T")


def peak_of(call: Callable[[], T]) -> tuple[T, int | None]:
    """Makes the call; its result, and the most bytes that the process had more during it than before; None where it is unknown.

    Linux forgets a process's peak when 5 is written to clear_refs. What was freed before is given back first, so that it is
    not used again unseen.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w", encoding="ascii") as forget:
            forget.write("5")
        before = _kib("/proc/self/status", "VmRSS")
    except (OSError, AttributeError, StopIteration):
        return call(), None
    result = call()
    return result, max(0, _kib("/proc/self/status", "VmHWM") - before)


def available_bytes() -> int | None:
    """Memory that is free or can be freed at once; None where it is unknown."""
    try:
        return _kib("/proc/meminfo", "MemAvailable")
    except (OSError, StopIteration):
        return None


def _kib(file: str, name: str) -> int:
    """Bytes, of a line in KiB."""
    with open(file, encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
