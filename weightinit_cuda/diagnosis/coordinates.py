r"""``wi.coordinate_check``: whether a few steps of training change a wide net's activations as much as a narrow one's.

The test of a parametrisation by width: under muP the change of every activation is of order 1 at any width, under the standard
one it grows, and so the learning rate found on a small net is too large for a wide one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..tensors.kinds import FUNCTION, NUMBER, SEQUENCE, may_be, must_be
from .depth import slope
from .observing import Observer
from .passing import Question, as_before, loss_of, unwrapped
from .text import number, printed

__all__ = ["CoordinateCheck", "coordinate_check"]

Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class CoordinateCheck:
    """By how much each layer's output changes in a few steps, at several widths.

    Args:
        widths: that were compared.
        changes: of each layer, root mean square of the change of its output at each width, a geometric mean over seeds.
        steps: of the optimiser, before the change was measured.
    """

    widths: tuple[int, ...]
    changes: dict[str, tuple[float, ...]]
    steps: int

    @property
    def exponents(self) -> dict[str, float]:
        """The power of the width by which the change of each layer grows; 0 under muP."""
        logs = [math.log(width) for width in self.widths]
        return {
            name: slope(logs, [math.log(change) for change in found]) if min(found) > 0 else math.nan
            for name, found in self.changes.items()
        }

    @property
    def worst(self) -> tuple[str, float]:
        """The layer whose change depends most on the width, and its exponent."""
        return max(self.exponents.items(), key=lambda item: abs(item[1]))

    def lines(self) -> Iterator[tuple[str, ...]]:
        """The cells of each layer: its name, its change at each width, its exponent."""
        for name, exponent in self.exponents.items():
            yield name, *(number(change, ".3g") for change in self.changes[name]), number(exponent, "+.2f")

    def __str__(self) -> str:
        from rich import box
        from rich.table import Table

        made = Table(title=f"change after {self.steps} steps", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for header in self._headers:
            made.add_column(header, justify="left" if header == "layer" else "right")
        for line in self.lines():
            made.add_row(*line)
        return printed(made)

    def _repr_html_(self) -> str:
        from .page import curves, table

        return curves("change of each layer, by width", self.changes) + table(self._headers, self.lines())

    @property
    def _headers(self) -> list[str]:
        return ["layer", *(f"width {width}" for width in self.widths), "exponent"]

    def html(self, path: str | Path) -> Path:
        """Writes a page with the plot and the table; returns its path."""
        from .page import page

        file = Path(path)
        file.write_text(page("Coordinate check", self._repr_html_()), encoding="utf-8")
        return file


def coordinate_check(
    make: Callable[[int], nn.Module],
    widths: Sequence[int],
    *inputs: Any,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    loss: Loss | None = None,
    target: Any = None,
    steps: int = 3,
    seeds: Sequence[int] = (0, 1, 2),
) -> CoordinateCheck:
    """Trains nets of several widths for a few steps on one batch, and compares how far their activations move.

    Args:
        make: gives an initialised net of a width, drawn from torch's generator, which each seed sets.
        widths: two or more.
        inputs: a batch, for every width.
        optimizer: gives the optimiser of a net, such as ``lambda net: torch.optim.Adam(wi.rules.mup_groups(net, base, 1e-2))``.
        loss, target: as for :func:`probe`; one of them is needed unless the output has a ``loss``.
        steps: of the optimiser.
        seeds: over which the changes are averaged.

    Returns:
        The changes with their exponents: near 0 at every width under muP.

    Raises:
        ValueError: fewer than two widths, no loss, or nets whose layers have other names.

    Source: Yang et al., Tensor Programs V (2022), arXiv:2203.03466, appendix D.1.
    """
    must_be(FUNCTION, "coordinate_check", make=make, optimizer=optimizer)
    may_be(FUNCTION, "coordinate_check", loss=loss)
    must_be(SEQUENCE, "coordinate_check", widths=widths, seeds=seeds)
    must_be(NUMBER, "coordinate_check", steps=steps)
    if len(set(widths)) < 2 or steps < 1 or not seeds:
        raise ValueError(
            f"coordinate_check: two widths, a step and a seed or more are required, got {list(widths)}, {steps}, {list(seeds)}."
        )
    found: list[dict[str, float]] = []
    for width in widths:
        logs: dict[str, list[float]] = {}
        for seed in seeds:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                net = unwrapped(make(width))
            for name, change in _changes(net, Question(inputs, {}, loss, target, seed=seed), optimizer, steps).items():
                logs.setdefault(name, []).append(math.log(change) if change > 0 else -math.inf)
        found.append({name: math.exp(sum(values) / len(values)) for name, values in logs.items()})
    if any(changes.keys() != found[0].keys() for changes in found):
        raise ValueError("coordinate_check: the same layers at every width are required, got other names.")
    return CoordinateCheck(tuple(widths), {name: tuple(changes[name] for changes in found) for name in found[0]}, steps)


def _changes(
    net: nn.Module, question: Question, optimizer: Callable[[nn.Module], torch.optim.Optimizer], steps: int
) -> dict[str, float]:
    """Of each layer, root mean square of what training adds to its output."""
    before = _outputs(net, question)
    stepper = optimizer(net)
    with as_before(net, question.seed):
        for _ in range(steps):
            stepper.zero_grad()
            value = loss_of(question, net(*question.inputs))
            if value is None:
                raise ValueError("coordinate_check: a loss is required, got none. Give loss=, or target=.")
            torch.autograd.backward(value)
            stepper.step()
    after = _outputs(net, question)
    return {name: float((after[name] - y).square().mean().sqrt()) for name, y in before.items()}


def _outputs(net: nn.Module, question: Question) -> dict[str, Tensor]:
    observer = Observer(net)
    observer.kept = {}
    try:
        with as_before(net, question.seed), torch.no_grad(), observer:
            net(*question.inputs)
    finally:
        observer.close()
    return observer.kept
