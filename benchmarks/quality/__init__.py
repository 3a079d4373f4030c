"""Suite ``quality``: what the generators draw, judged by statistics; no time is taken.

``laws`` are the exact distributions, ``sources`` who draws, ``findings`` and ``sample`` the statistics, ``session`` joins them.
Statistics never excuse a bit difference: that ours has the right bits is the test suite's business.
"""

from __future__ import annotations

from .session import Plan, QualityRow, measure, power_failures

__all__ = ["Plan", "QualityRow", "measure", "power_failures"]
