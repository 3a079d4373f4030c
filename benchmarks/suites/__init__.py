"""The suites that take time, by name. A suite is a small file that says which cases there are and why; the runner does the
rest. ``quality`` takes none and is a package of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..case import Case
from . import fill, model, neighbour, scaling

__all__ = ["SUITES", "Suite"]


class Suite(Protocol):
    """(numbers of threads, sizes instead of the suite's own or None, quick, full) -> the rows."""

    def __call__(self, threads: Sequence[int], sizes: Sequence[int] | None, quick: bool, full: bool) -> list[Case]: ...


SUITES: dict[str, Suite] = {
    "fill": fill.cases,
    "model": model.cases,
    "scaling": scaling.cases,
    "neighbour": neighbour.cases,
}
