"""What depth does: how the signal changes over the layers, the gradient on its way back, and the stream of residual blocks.

A factor chi a layer makes chi^L over L layers; here the law is fitted to all layers, so that no single one decides.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .row import Row

__all__ = ["Depth", "depths", "growth", "hidden_layers", "slope", "totals"]

SCALES = 6.0  # |ln| of a variance over the whole depth. Schoenholz et al. (2017), fig. 5: nets train up to six depth scales
NORMED = 2.0  # times that, where the gradient grows through norms. Yang et al. (2019): by 1.21 a layer or more, which
# scale-invariant weights bear: stock ResNet-50 has 9.2, and trains


def hidden_layers(rows: Sequence[Row]) -> list[Row]:
    """The layers but the last: the output's scale is the loss's business."""
    return [row for row in rows if row.kind == "weight"][:-1]


def _stacks(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The residual blocks of each stack."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.kind == "block":
            groups[row.group].append(row)
    return groups


def _paths(rows: Sequence[Row]) -> list[list[Row]]:
    """Hidden layers, one above the other: the stream of each stack of residual blocks, and the layers outside of these.

    Inside a branch gradients differ by role, not by depth: in stock BERT those of q and k are 100 times below those of v. And
    between stacks they need not be one above the other: an encoder and a decoder.
    """
    blocks = {row.name.partition("#")[0] for row in rows if row.kind == "block"}

    def inside(name: str) -> bool:
        parts = name.split(".")
        return any(".".join(parts[:end]) in blocks for end in range(1, len(parts)))

    return [[row for row in hidden_layers(rows) if not inside(row.name)], *_stacks(rows).values()]


def slope(places: Sequence[float], values: Sequence[float]) -> float:
    """Of the line that fits best.

    >>> slope([1.0, 2.0, 4.0], [3.0, 5.0, 9.0])
    2.0
    """
    middle, mean = sum(places) / len(places), sum(values) / len(values)
    across = sum((place - middle) * (value - mean) for place, value in zip(places, values, strict=True))
    return across / sum((place - middle) ** 2 for place in places)


def _fit(values: Sequence[float]) -> float:
    """ln(last / first) of the geometric law that fits best.

    >>> round(math.exp(_fit([1.0, 2.0, 4.0, 8.0])), 9)
    8.0
    """
    n = len(values)
    return (n - 1) * slope(range(n), [math.log(value) for value in values]) if n > 1 else 0.0


class Depth(NamedTuple):
    total: float  # ln of the factor over all of its layers; NaN if fewer than two are known
    layers: int
    limit: float = SCALES  # of 2 |total|


def depths(rows: Sequence[Row]) -> tuple[Depth, Depth]:
    """How the signal changes over the hidden layers, and the gradient over the path where it changes most."""
    hidden = hidden_layers(rows)
    forward = [row.signal for row in hidden if row.signal > 0]
    signal = Depth(_fit(forward) if len(forward) > 1 else math.nan, len(hidden))
    gradients = []
    for path in _paths(rows):
        known = [row.gradient for row in path if 0 < row.gradient < math.inf]
        if len(known) > 1:
            total = -_fit(known)
            easy = total > 0 and 2 * sum(row.normed for row in path) > len(path)
            gradients.append(Depth(total, len(path), SCALES * (NORMED if easy else 1)))
    return signal, max(gradients, key=lambda depth: abs(depth.total) / depth.limit, default=Depth(math.nan, 0))


def totals(rows: Sequence[Row]) -> tuple[float, float]:
    """ln of the factors by which the signal (forward) and the gradient (backward) change over the hidden layers; or NaN.

    A stream that grows is judged by itself (:func:`growth`): the norm before each branch undoes it.
    """
    signal, gradient = depths(rows)
    return signal.total, gradient.total


def growth(rows: Sequence[Row]) -> Iterator[tuple[str, float, int, int]]:
    """Of each stack of residual blocks: its name, by how much the stream grows, the number of blocks and of branches."""
    for name, blocks in _stacks(rows).items():
        if len(blocks) > 1 and blocks[0].entering > 0:
            yield name, blocks[-1].rms / blocks[0].entering, len(blocks), sum(block.branches for block in blocks)
