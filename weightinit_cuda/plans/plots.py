"""Plans as figures of matplotlib, which is optional: what values shall be, and what they are.

A panel stands for a row of the plan's table: all tensors that differ only in the numbers of their names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..numerics.distributions import Distribution
from ..tensors.named import Model, named_tensors
from ..tensors.shards import is_dtensor
from .entry import Entry
from .table import grouped, label, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .plan import Plan

__all__ = ["densities", "histogram"]

PANELS, COLUMNS = 24, 3  # at most, and side by side
SAMPLE = 1 << 16  # values of a tensor that are looked at, evenly spaced
BINS, POINTS = 80, 200
OURS, ASKED = "#9ecae1", "#d62728"


class _Panel(NamedTuple):
    title: str
    distribution: Distribution
    values: Tensor | None


def densities(plan: Iterable[Entry]) -> Figure:
    """The density of each row of a plan's table: what :meth:`.Plan.plot` shows.

    Raises:
        ImportError: matplotlib is not installed.
    """
    return _drawn([_Panel(_title(row, alike), alike[0].distribution, None) for row, alike in grouped(plan).items()])


def histogram(model: Model, plan: Plan) -> Figure:
    """The values of a model against the densities of a plan, a panel for each row of the plan's table.

    Of large tensors some tens of thousands of values are looked at; of DTensors what this rank holds.

    Args:
        model: a module, or tensors by name.
        plan: that it was filled by, or another one.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the model lacks a tensor of the plan, has it in another shape, or has no memory for it; it is named.
    """
    tensors = {name: named.tensor for named in named_tensors(model) for name in (named.name, *named.aliases)}
    for entry in plan:
        tensor = tensors.get(entry.name)
        if tensor is None or tensor.is_meta or tuple(tensor.shape) != tuple(entry.shape):
            got = "none" if tensor is None else "one on meta" if tensor.is_meta else f"shape {tuple(tensor.shape)}"
            raise ValueError(f"histogram: the model must have every tensor of the plan, got {got} ({entry.name}).")
    panels = []
    for row, alike in grouped(plan).items():
        pooled = [_values(tensors[entry.name], entry, plan) for entry in alike]
        panels.append(_Panel(_title(row, alike), alike[0].distribution, torch.cat(pooled)))
    return _drawn(panels)


def _values(tensor: Tensor, entry: Entry, plan: Plan) -> Tensor:
    """A sample of what the entry fills."""
    held: Any = tensor.detach()
    if is_dtensor(held):
        parts = [held.to_local()] if entry.box is None else []
    else:
        boxes = next(boxes for other, boxes in plan.shares(entry.name) if other is entry)
        parts = [held[box.slices()] for box in boxes]
    sampled = [flat[:: max(1, flat.numel() // SAMPLE)] for part in parts if (flat := part.reshape(-1)).numel()]
    real = [torch.view_as_real(one).reshape(-1) if one.is_complex() else one for one in sampled]
    return torch.cat([torch.empty(0), *(one.cpu().float() for one in real)])


def _title(row: Sequence[str], alike: Sequence[Entry]) -> str:
    name = f"{row[0]} x{len(alike)}" if len(alike) > 1 else label(alike[0])
    return f"{visible(name)}\n{row[3]}"


# ---- drawing ---------------------------------------------------------------------------------------------------------


def _drawn(panels: Sequence[_Panel]) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots: matplotlib is required. pip install 'weightinit_cuda[plots]'") from error
    shown = panels[:PANELS]
    rows = max(1, math.ceil(len(shown) / COLUMNS))
    figure = Figure(figsize=(4.2 * COLUMNS, 2.4 * rows + 0.4), layout="constrained")
    for number, panel in enumerate(shown):
        _draw(figure.add_subplot(rows, COLUMNS, number + 1), panel)
    if len(panels) > len(shown):
        figure.suptitle(f"the first {len(shown)} of {len(panels)} rows")
    return figure


def _draw(axes: Any, panel: _Panel) -> None:
    title, distribution, values = panel
    finite = None if values is None else values[values.isfinite()]
    low, high = _range(distribution, finite)
    if finite is not None and values is not None and finite.numel():
        bins = min(BINS, 10 + math.isqrt(finite.numel()))
        axes.hist(finite.numpy(), bins=bins, range=(low, high), density=True, color=OURS, label="values")
        lost = values.numel() - finite.numel()
        title += f"\nstd {finite.std(correction=0).item():.4g}" + (f", {lost} not finite" if lost else "")
    places = [low + (high - low) * i / POINTS for i in range(POINTS + 1)]
    heights = [distribution.density(place) for place in places]
    if all(height is not None for height in heights):
        axes.plot(places, heights, color=ASKED, label="plan")
    elif distribution.elementwise and not distribution.is_random:
        axes.axvline(complex(distribution.numbers()["value"]).real, color=ASKED, label="plan")
    axes.set_xlim(low, high)
    axes.set_title(title, fontsize=8)
    axes.tick_params(labelsize=7)


def _range(distribution: Distribution, values: Tensor | None) -> tuple[float, float]:
    """Where something is to be seen: around the values, else around the middle of the distribution."""
    numbers, std = distribution.numbers(), distribution.standard_deviation()
    if values is not None and values.numel():
        low, high = values.min().item(), values.max().item()
    elif "a" in numbers and math.isfinite(numbers["a"]) and math.isfinite(numbers["b"]):
        low, high = numbers["a"], numbers["b"]
    else:
        centre = complex(numbers.get("mean", numbers.get("value", 0.0))).real
        low, high = centre - 4 * (std or 0.25), centre + 4 * (std or 0.25)
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin
