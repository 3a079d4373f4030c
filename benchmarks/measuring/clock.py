"""The core's clock, measured: a chain of dependent multiplications takes three cycles each on every x86-64 core in use.

Cycles per value compare kernels across frequencies. Needs a C compiler and x86-64; without them cycles are left out.
"""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

__all__ = ["calibrated_clock"]

LINKS = 20_000  # of the chain: about 20 us
CYCLES = 3  # latency of imul: Intel since 2008, AMD since 2017 (uops.info, "IMUL (R64, R64)")
SOURCE = f"""
void chain(void) {{
    unsigned long x = 3;
    for (int i = 0; i < {LINKS} / 10; i++)
        __asm__ volatile("{"imul %0, %0;" * 10}" : "+r"(x));
}}
"""


def calibrated_clock() -> Callable[[], float] | str:
    """A function that returns the cycles a second of the core it runs on, or why there is none."""
    compiler = shutil.which("cc")
    if platform.machine() not in ("x86_64", "AMD64") or compiler is None:
        return "cycles per value need x86-64 and a C compiler (cc)"
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "clock.so")
        command = [compiler, "-O2", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
        made = subprocess.run(command, input=SOURCE, text=True, capture_output=True, check=False)
        if made.returncode:
            return f"cycles per value: cc failed: {made.stderr.strip()[:200]}"
        chain = ctypes.CDLL(str(library)).chain

    def cycles_per_second() -> float:
        best = float("inf")
        for _ in range(3):  # the least of three: an interrupt lengthens, nothing shortens
            start = perf_counter()
            chain()
            best = min(best, perf_counter() - start)
        return CYCLES * LINKS / best

    return cycles_per_second
