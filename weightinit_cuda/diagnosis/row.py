"""One line of a probe: what one layer, activation, attention or block did to the signal, and to the gradient.

The bottom of ``diagnosis``: plain numbers, nothing of a tensor. NaN says that a figure does not apply or was not seen; a table
shows it as an empty cell. ``docs/probe.md`` says what each figure means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["NAN", "Row", "Seen"]

NAN = math.nan


@dataclass
class Row:
    """What was seen at one place, once.

    Args:
        name: of the weight that was multiplied, else of the module in which it happened. A second use of the same weight is
            ``name#2``.
        kind: ``"weight"`` (a product with a weight), ``"table"`` (an embedding), ``"attention"``, ``"gates"`` (one layer of an
            LSTM, GRU or RNN), ``"block"`` (a residual block), else an activation: ``"relu"``, ``"sigmoid"``, ...
        samples: that were compared: images, rows of a batch, or tokens; at most 256.
        units: that a sample has in the output: features, or pixels of all channels; at most 2048.
        rms: root mean square of the output.
        signal: standard deviation of the output between samples, root mean square over units: what tells samples apart.
        step: signal over the signal of the layer before.
        shared: part of the output's mean square that all samples have in common, 0 to 1.
        rank: effective rank of the samples, (sum of eigenvalues)^2 / sum of squares: 1 if they differ in one direction only.
        saturated: share of outputs where the slope is below 5 % of the steepest; of attention, share of the queries that give
            one key more than 0.99.
        dead: share of a ReLU's units that are off for every sample.
        gradient: root mean square of the gradient that arrives at the output.
        weight: root mean square of the weight.
        weight_gradient: root mean square of its gradient.
        twins: share of the units that have the weights and the gradients of another one.
        input_twins: share of its inputs that it cannot tell apart, by the same measure: units of the layer before.
        branch: of a residual block, root mean square of what it adds over that of what it was given.
        branches: how many sums into the residual stream the block makes.
        entering: root mean square of what the block was given.
        group: the name of the stack that the block is in.
        normed: whether a norm takes the output: its scale, and so the weight's, does not matter then.
        bad: how many of the outputs are infinite or NaN.
        bad_gradient: whether the gradient is infinite or NaN somewhere.
    """

    name: str
    kind: str
    samples: int = 0
    units: int = 0
    rms: float = NAN
    signal: float = NAN
    step: float = NAN
    shared: float = NAN
    rank: float = NAN
    saturated: float = NAN
    dead: float = NAN
    gradient: float = NAN
    weight: float = NAN
    weight_gradient: float = NAN
    twins: float = NAN
    input_twins: float = NAN
    branch: float = NAN
    branches: int = 0
    entering: float = NAN
    group: str = ""
    normed: bool = False
    bad: int = 0
    bad_gradient: bool = False

    @property
    def relative_gradient(self) -> float:
        """Gradient over weight: how large a step of size 1 would be. NaN for a weight of zeros.

        >>> Row("fc.weight", "weight", weight=0.5, weight_gradient=0.01).relative_gradient
        0.02
        """
        return self.weight_gradient / self.weight if self.weight > 0 else NAN


@dataclass
class Seen:
    """What a pass showed.

    Args:
        rows: in the order of the forward pass.
        loss: its value; None where there is none.
        classes: that it tells apart; None where nobody knows.
        asleep: names of weights of zeros that have a gradient: what lies before them wakes after one step.
    """

    rows: list[Row]
    loss: float | None = None
    classes: int | None = None
    asleep: list[str] = field(default_factory=list)
