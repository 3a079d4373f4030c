"""What several rules do to one model: candidates, best first, as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .depth import growth
from .row import Row
from .text import number, printed
from .verdict import Finding, Level

__all__ = ["Candidate", "Comparison"]

HEADERS = ("rules", "verdict", "signal x", "gradient x", "stream x", "first loss", "findings")


@dataclass(frozen=True)
class Candidate:
    """One set of rules, measured.

    Args:
        rules: its name, or what it is.
        findings: of the worst seed.
        rows: of the worst seed.
        forward: ln of the factor by which the signal changes over the hidden layers; NaN if unknown.
        backward: the same of the gradient.
        loss: the first loss, if there is one.
        error: why the rules cannot fill the model; empty if they can.
    """

    rules: str
    findings: tuple[Finding, ...] = ()
    rows: tuple[Row, ...] = ()
    forward: float = math.nan
    backward: float = math.nan
    loss: float | None = None
    error: str = ""

    @property
    def verdict(self) -> Level | None:
        """The level of the worst finding; None if the rules cannot fill the model."""
        return None if self.error else self.findings[0].level if self.findings else "ok"

    @property
    def cost(self) -> tuple[bool, int, int, float]:
        """What candidates are ranked by: errors, FAILs, WARNs, and the change of signal and gradient by depth."""
        levels = [finding.level for finding in self.findings]
        depth = sum(abs(total) for total in (self.forward, self.backward) if not math.isnan(total))
        return bool(self.error), levels.count("FAIL"), levels.count("WARN"), depth


@dataclass(frozen=True)
class Comparison(Sequence[Candidate]):
    """Candidates, best first; ``print`` and a notebook show them as a table."""

    candidates: tuple[Candidate, ...]

    def __getitem__(self, index: Any) -> Any:
        return self.candidates[index]

    def __len__(self) -> int:
        return len(self.candidates)

    @property
    def best(self) -> Candidate:
        """The first."""
        return self.candidates[0]

    def lines(self) -> Iterator[tuple[str, ...]]:
        """The cells of each candidate: rules, verdict, signal, gradient, stream, loss, what was found."""
        for one in self.candidates:
            stream = max((factor for _, factor, _, _ in growth(one.rows)), default=math.nan)
            factors = (math.exp(one.forward), math.exp(one.backward), stream, math.nan if one.loss is None else one.loss)
            found = one.error or ", ".join(finding.code for finding in one.findings)
            yield one.rules, one.verdict or "-", *(number(factor, ".3g") for factor in factors), found

    def __str__(self) -> str:
        from rich import box
        from rich.table import Table

        made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for header in HEADERS:
            made.add_column(header, justify="right" if header in HEADERS[2:6] else "left", overflow="fold")
        for line in self.lines():
            made.add_row(*line)
        return printed(made)

    def _repr_html_(self) -> str:
        from .page import table

        return table(HEADERS, self.lines())
