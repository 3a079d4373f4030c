"""Instructions per value of each kernel and instruction set: a figure of merit that no busy machine disturbs.

``python -m benchmarks.instructions [--update]`` builds ``driver.cpp`` by CMake, counts, and compares with ``counts.json``. Only
the steady state is counted: the difference between a fill of twice as many values and one of as many. Counts depend on the
compiler, so they are compared only with those of the same one. x86-64's scalar and AVX2 kernels run under callgrind, AVX-512's
a step at a time (callgrind does not know it), NEON's under qemu, which writes down every instruction.
"""

from __future__ import annotations

from .counting import COUNTS, Counted, Unavailable, compiler_of, count, deviations, recorded

__all__ = ["COUNTS", "Counted", "Unavailable", "compiler_of", "count", "deviations", "recorded"]
