"""What a plan is for people and for programs that keep records: a table, a page of a notebook, figures, scalars."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .entry import Entry
from .table import html_of, label, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Readable"]


class Readable:
    """The part of a plan that only shows it."""

    entries: tuple[Entry, ...]
    seed: int
    rules: str
    format: int

    def __str__(self) -> str:
        """A table. Lines that differ only in the numbers of their names (``layers.0`` to ``layers.31``) are one, counted."""
        return table(self.entries, self._title())

    def _repr_html_(self) -> str:
        return html_of(self.entries, self._title())

    def _title(self) -> str:
        sizes = {entry.name: math.prod(entry.shape) for entry in self.entries}
        return f"{self.rules}: {len(sizes)} tensors, {sum(sizes.values()):,} values, seed {self.seed}, format {self.format}"

    def plot(self) -> Figure:
        """The density of each row of the table, as a figure of matplotlib.
        :func:`~.plans.plots.histogram` sets values against them.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from . import plots

        return plots.densities(self.entries)

    def scalars(self, prefix: str = "init/") -> dict[str, float]:
        """The plan as numbers by name, as TensorBoard and W&B take them: how many tensors and values, and the standard
        deviation of each tensor, or of each box of it, whose distribution says one.

        >>> import torch, weightinit_cuda as wi
        >>> wi.plan(torch.nn.Linear(4, 4), "xavier", seed=0).scalars()
        {'init/tensors': 2.0, 'init/values': 20.0, 'init/std/weight': 0.5, 'init/std/bias': 0.0}
        """
        sizes = {entry.name: math.prod(entry.shape) for entry in self.entries}
        found = {f"{prefix}tensors": float(len(sizes)), f"{prefix}values": float(sum(sizes.values()))}
        for entry in self.entries:
            is_constant = entry.distribution.elementwise and not entry.distribution.is_random
            std = 0.0 if is_constant else entry.distribution.standard_deviation()
            if std is not None:
                found[f"{prefix}std/{label(entry, aliases=False)}"] = float(std)
        return found
