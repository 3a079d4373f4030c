"""The gates of LSTM, GRU and RNN: how many of their outputs are saturated, layer by layer.

``torch.lstm`` and its kin are one function for all layers and time steps, which shows nothing of its gates. They are computed
again here from its arguments, for a few sequences and steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .measures import local

__all__ = ["CELLS", "FLAT", "SEQUENCES", "Gates", "gates_of_cell", "gates_of_sequence", "weights_at"]

SLOPE = 0.05  # of the steepest: there a gradient loses a factor of 20, as six depth scales do to a variance
FLAT: dict[str, Callable[[Tensor], Tensor]] = {  # from the output: where the slope is below SLOPE of the steepest
    "sigmoid": lambda y: 4 * y * (1 - y) < SLOPE,
    "tanh": lambda y: 1 - y * y < SLOPE,
    "softsign": lambda y: (1 - y.abs()) ** 2 < SLOPE,
    "hardsigmoid": lambda y: (y <= 0) | (y >= 1),
    "hardtanh": lambda y: (y <= y.min()) | (y >= y.max()),
}
SEQUENCES = ("lstm", "gru", "rnn_tanh", "rnn_relu")
CELLS = ("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
STEPS, SAMPLES = 128, 16  # that are computed again


class Gates(NamedTuple):
    """One layer in one direction.

    Args:
        weight: the weights that its inputs meet.
        output: (time, samples, units).
        saturated: share of its gates' outputs where the slope is flat.
    """

    weight: Tensor
    output: Tensor
    saturated: float


class _Step(NamedTuple):
    hidden: Tensor
    cell: Tensor
    flat: Tensor  # one bool for each gate's output


def gates_of_cell(function: str, args: Sequence[Any]) -> Gates:
    """Of a call of ``torch.lstm_cell`` and its kin: (input, state, w_ih, w_hh, b_ih, b_hh)."""
    x, state, w_ih, w_hh, *biases = args
    hidden, cell = state if isinstance(state, (tuple, list)) else (state, state)
    x, hidden, cell, into, back = (local(t).float() for t in (x, hidden, cell, w_ih, w_hh))
    step = _step(function.removesuffix("_cell"), x, hidden, cell, (into, back), _biases(biases))
    return Gates(w_ih, step.hidden[None], float(step.flat.double().mean()))


def gates_of_sequence(function: str, args: Sequence[Any]) -> Iterator[Gates]:
    """Of a call of ``torch.lstm`` and its kin, packed or not; of layers in both directions one after another."""
    at = weights_at(args)
    weights, biased, layers, bidirectional = args[at], args[at + 1], args[at + 2], args[at + 5]
    x = _unpacked(args[0], args[1]) if at == 3 else local(args[0])
    x = x.transpose(0, 1) if at == 2 and args[at + 6] else x
    x = x[:STEPS, :SAMPLES].float()
    directions = 2 if bidirectional else 1
    each = len(weights) // (layers * directions)
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            own = weights[(layer * directions + direction) * each :][:each]
            made = _layer(function, x.flip(0) if direction else x, own, bool(biased))
            made = made._replace(output=made.output.flip(0)) if direction else made
            outputs.append(made.output)
            yield made
        x = torch.cat(outputs, -1)


def weights_at(args: Sequence[Any]) -> int:
    """Where the list of weights is: a packed sequence has its batch sizes before the state."""
    return 3 if isinstance(args[1], Tensor) and not args[1].is_floating_point() else 2


def _unpacked(data: Tensor, sizes: Tensor) -> Tensor:
    """(time, samples, features) of the packed sequences, as long as all that are kept go on."""
    counts = [int(size) for size in sizes[:STEPS]]
    samples = min(counts[0], SAMPLES)
    starts, begin = [], 0
    for count in counts:
        if count >= samples:
            starts.append(local(data)[begin : begin + samples])
        begin += count
    return torch.stack(starts)


def _biases(given: Sequence[Any]) -> list[Tensor | None]:
    found = [None if bias is None else local(bias).float() for bias in given[:2]]
    return found if len(found) == 2 else [None, None]


def _layer(function: str, x: Tensor, own: Sequence[Tensor], biased: bool) -> Gates:
    weights = [local(w).float() for w in own[:2]]
    biases = _biases(own[2:4] if biased else ())
    project = local(own[-1]).float() if len(own) == (5 if biased else 3) else None
    cell = x.new_zeros(x.shape[1], weights[1].shape[0] // {"lstm": 4, "gru": 3}.get(function, 1))
    hidden = x.new_zeros(x.shape[1], weights[1].shape[1])
    outputs, flat = [], []
    for now in x:
        step = _step(function, now, hidden, cell, weights, biases)
        hidden = step.hidden if project is None else step.hidden @ project.T
        cell = step.cell
        outputs.append(hidden)
        flat.append(step.flat.double().mean())
    return Gates(own[0], torch.stack(outputs), float(torch.stack(flat).mean()))


def _step(
    function: str, x: Tensor, hidden: Tensor, cell: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]
) -> _Step:
    """One step of torch's formulas; ``cell`` is the LSTM's only."""
    into, back = (F.linear(a, w, b) for a, w, b in zip((x, hidden), weights, biases, strict=True))
    if function == "lstm":
        i, f, g, o = (into + back).chunk(4, -1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return _Step(o.sigmoid() * cell.tanh(), cell, _flat([i, f, o], g))
    if function == "gru":
        (r, z, n), (back_r, back_z, back_n) = into.chunk(3, -1), back.chunk(3, -1)
        r, z = r + back_r, z + back_z
        n = n + r.sigmoid() * back_n
        return _Step((1 - z.sigmoid()) * n.tanh() + z.sigmoid() * hidden, cell, _flat([r, z], n))
    total = into + back
    if function == "rnn_tanh":
        return _Step(total.tanh(), cell, FLAT["tanh"](total.tanh()))
    return _Step(total.relu(), cell, torch.zeros_like(total, dtype=torch.bool))


def _flat(sigmoids: Sequence[Tensor], tanh: Tensor) -> Tensor:
    return torch.cat([*(FLAT["sigmoid"](s.sigmoid()) for s in sigmoids), FLAT["tanh"](tanh.tanh())], -1)
