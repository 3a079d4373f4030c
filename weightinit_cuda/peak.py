"""How much memory a call takes at its peak: for the demo and the benchmarks. Linux only; elsewhere nobody knows."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import TypeVar

__all__ = ["peak_of"]

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
        before = _status("VmRSS")
    except (OSError, AttributeError, StopIteration):
        return call(), None
    result = call()
    return result, max(0, _status("VmHWM") - before)


def _status(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
