"""What a probe found, for people and programs: verdict, findings and rows; as text, as HTML, and against other rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .comparison import Comparison
from .row import Row
from .text import COLUMNS, left_out, printed, shown
from .verdict import Finding, Level

__all__ = ["ProbeReport"]


@dataclass(frozen=True)
class ProbeReport:
    """What one forward and one backward pass show of an initialisation.

    ``print(report)`` shows the findings and a table; a notebook shows a page.

    Args:
        rows: what each layer, activation, attention and block did, in the order of the forward pass.
        findings: worst first, each with ``level``, ``code``, ``text``, ``layer``, ``value``, ``limit``. Empty if all is well.
        loss: the first loss; None where nobody said what the loss is.
        model: the class of what was probed.
        note: what else there is to know, such as that the inputs were made up.
    """

    rows: list[Row]
    findings: list[Finding]
    loss: float | None = None
    model: str = ""
    note: str = ""
    _compare: Callable[..., Comparison] | None = field(default=None, repr=False, compare=False)

    @property
    def verdict(self) -> Level:
        """``"FAIL"``, ``"WARN"`` or ``"ok"``: the level of the worst finding."""
        return self.findings[0].level if self.findings else "ok"

    def compare(
        self,
        rules: Sequence[Any] = ("torch", "xavier", "kaiming", "lecun", "auto"),
        *,
        seeds: Sequence[int] = (0,),
    ) -> Comparison:
        """Probes the same model under other rules, and ranks them. The model's values are put back afterwards.

        Args:
            rules: what ``initialize_`` takes, each.
            seeds: the worst of them counts.

        Returns:
            The candidates, best first: fewest FAILs, then fewest WARNs, then least change of signal and gradient by depth. A
            set of rules that does not cover the model is last, with its error.

        >>> import torch, weightinit_cuda as wi
        >>> net = torch.nn.Sequential(*(m for _ in range(30) for m in (torch.nn.Linear(64, 64), torch.nn.ReLU())))
        >>> _ = wi.initialize_(net, rules="xavier", seed=0)
        >>> [c.rules for c in wi.probe(net, torch.randn(64, 64)).compare(["xavier", "kaiming"])]
        ['kaiming', 'xavier']
        """
        if self._compare is None:
            raise ValueError("compare: a report of wi.probe() is required, got one without its model.")
        return self._compare(rules, seeds)

    def html(self, path: str | Path) -> Path:
        """Writes one page without scripts or links: findings, figures over depth, the table. Returns its path."""
        from .page import document

        file = Path(path)
        file.write_text(document(self.model, self.findings, self.rows, self.loss, self.note), encoding="utf-8")
        return file

    def _repr_html_(self) -> str:
        from .page import fragment

        return fragment(self.model, self.findings, self.rows, self.loss, self.note)

    def summary(self) -> str:
        """The findings, a line each, under the verdict."""
        loss = "" if self.loss is None else f", first loss {self.loss:.4g}"
        head = f"{self.verdict}: {self.model}, {len(self.rows)} places{loss}"
        return "\n".join([head, *(f"  {finding}" for finding in self.findings), *([f"  {self.note}"] if self.note else [])])

    def table(self, everything: bool = False) -> Any:
        """The rows as a ``rich`` table: the first and the last ones, or all."""
        from rich import box
        from rich.table import Table

        made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for header in COLUMNS:
            made.add_column(header, justify="left" if header in ("layer", "kind") else "right", no_wrap=True)
        for row in self.rows if everything else shown(self.rows):
            cells = [f"... {left_out(self.rows)} more"] if row is None else [cell(row) for cell in COLUMNS.values()]
            made.add_row(*cells)
        return made

    def __str__(self) -> str:
        return f"{self.summary()}\n{printed(self.table())}"
