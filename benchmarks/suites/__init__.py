"""The suites by name. A suite is a small file that says which cases there are and why; the runner does the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..case import Case
from . import fill

__all__ = ["SUITES"]

# (numbers of threads, sizes instead of the suite's own or None, quick) -> the rows
SUITES: dict[str, Callable[[Sequence[int], Sequence[int] | None, bool], list[Case]]] = {"fill": fill.cases}
