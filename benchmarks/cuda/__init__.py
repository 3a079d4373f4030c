"""The benchmarks on a GPU: ``python -m benchmarks --device cuda``. Rows, ratios and targets are those of the CPU's benchmarks.

``cases`` and ``models`` say what is measured, ``contestants`` who takes part, ``timing`` how time is taken, ``session`` joins
them. Needs torch only: a machine with a GPU need not have rich.
"""

from __future__ import annotations

from .session import run

__all__ = ["run"]
