"""Figures of one tensor: spread between samples, effective rank, root mean squares, twins.

Activations are looked at through a sample of at most 256 x 2048 numbers; gradients and weights whole, a piece at a time. So no
copy of the size of an activation is made. Of a DTensor the local shard is measured.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from ..tensors.shards import is_dtensor
from ..tensors.torch_private import is_transformed
from .row import NAN, Row

__all__ = ["cells", "local", "measurable", "measure", "peak", "rms", "twins"]

SAMPLES, UNITS = 256, 2048  # that are looked at: an effective rank up to 256, 2 MB of float32
PIECE, RUN = 1 << 20, 1 << 12  # elements whose squares are summed at once, and in float32
KEYS = 8  # random projections of a unit's weights that stand for it: two different units agree in none of them by chance
MOST, NEAR = 1024, 8  # units of a layer that are compared, each with its neighbours in the order of its keys
SAME = 1e-5  # of a unit's root mean square: sums in another order leave about 1e-6
NOISE = 1e-12  # of the root mean square: below this there is no spread, only what rounding leaves of equal samples


def local(x: Tensor) -> Tensor:
    """The tensor without its history; of a DTensor what this rank holds; of Apple's GPU, which has no float64, a copy."""
    x = x.detach()
    x = x.to_local() if is_dtensor(x) else x
    return x.cpu() if x.device.type == "mps" else x


def measurable(y: Tensor) -> bool:
    """Numbers of samples and units; not those of ``vmap``, which have no values of their own."""
    numbers = y.is_floating_point() and y.dtype.itemsize > 1  # float8 has no arithmetic
    plain = numbers and y.dim() > 1 and y.layout == torch.strided and not y.is_nested
    return plain and not is_transformed(y)


@lru_cache(maxsize=256)
def _spread(size: int, most: int) -> Tensor | None:
    """Indices all over ``range(size)``, at most ``most``; None for all.

    By the golden ratio, not by a stride: one of the length of a sequence or of an image's row would always meet the same place.
    """
    if size <= most:
        return None
    golden = (math.sqrt(5) - 1) / 2
    return torch.tensor(sorted({int(i * golden % 1 * size) for i in range(most)}))


def cells(x: Tensor, image: bool) -> Tensor:
    """(samples, units): of an image with its channels all is one sample, of sequences each token is one. Halves as float32.

    >>> cells(torch.zeros(2, 3, 4), image=True).shape, cells(torch.zeros(2, 3, 4), image=False).shape
    (torch.Size([2, 12]), torch.Size([6, 4]))
    """
    x = local(x)
    x = x.flatten(1) if image else x.reshape(-1, x.shape[-1])
    rows, columns = _spread(x.shape[0], SAMPLES), _spread(x.shape[1], UNITS)
    if rows is not None and columns is not None:
        x = x[rows.to(x.device)[:, None], columns.to(x.device)]
    elif rows is not None:
        x = x[rows.to(x.device)]
    elif columns is not None:
        x = x[:, columns.to(x.device)]
    return _wide(x)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def peak(x: Tensor) -> float:
    """The largest magnitude; NaN if an element is. Without a temporary of the tensor's size."""
    x = local(x)
    x = x.coalesce().values() if x.is_sparse else x
    if x.numel() == 0:
        return 0.0
    low, high = map(float, x.aminmax())
    return max(-low, high) if low == low else NAN


def measure(row: Row, x: Tensor, image: bool) -> Tensor | None:
    """Fills a row's figures of the forward pass from an output; returns the sample, None where there is nothing to compare."""
    if not math.isfinite(peak(x)):
        row.bad = int((~local(x).isfinite()).sum())
        return None
    sample = cells(x, image)
    row.samples, row.units = sample.shape
    if sample.numel() == 0:
        return None
    row.rms = rms(sample)
    if len(sample) < 2:
        return sample
    centred = sample - sample.mean(0)
    centred -= centred.mean(0)  # again: the mean was rounded, and the spread may be 1e-7 of it
    signal = rms(centred) * math.sqrt(len(sample) / (len(sample) - 1))
    row.signal = signal if signal > NOISE * row.rms else 0.0
    row.shared = max(0.0, 1.0 - (row.signal / row.rms) ** 2) if row.rms > 0 else NAN
    row.rank = _rank(centred / row.signal) if row.signal > 0 else 0.0
    return sample


def _rank(centred: Tensor) -> float:
    """(sum of eigenvalues)^2 / sum of their squares, of the matrix of products between samples."""
    rows = centred if len(centred) <= centred.shape[1] else centred.T
    gram = rows @ rows.T
    return float(gram.trace() ** 2 / gram.square().sum())


def rms(x: Tensor) -> float:
    """Root mean square of all elements, a piece at a time; squares of 1e-30 are no zeros. Of a sparse gradient too.

    >>> rms(torch.full((3, 2), 1e-30))
    1.000...e-30
    """
    x = local(x)
    highest = peak(x)
    if x.numel() == 0 or not 0 < highest < math.inf:
        return highest if x.numel() else NAN
    flat = (x.coalesce().values() if x.is_sparse else x).reshape(-1)
    scale = 1.0 if 1e-12 < highest < 1e12 else highest
    squares = 0.0
    for begin in range(0, len(flat), PIECE):
        piece = _wide(flat[begin : begin + PIECE])
        squares += _squares(piece if scale == 1.0 else piece / scale)
    return scale * math.sqrt(squares / x.numel())


def _squares(piece: Tensor) -> float:
    """Their sum: in float32 within a run, in float64 over the runs."""
    runs = len(piece) // RUN
    whole = torch.linalg.vector_norm(piece[: runs * RUN].view(runs, RUN), dim=1).double()
    return float(whole.square().sum() + torch.linalg.vector_norm(piece[runs * RUN :]).double().square())


def twins(weight: Tensor, gradient: Tensor, axis: int) -> float:
    """The share of units along ``axis`` that equal another one in weights and in gradients: they stay one under any optimizer.

    Units without weight and without gradient sleep; they may part when they wake, and are not counted.

    >>> w, g = torch.ones(4, 3), torch.tensor([[1.0], [1.0], [2.0], [3.0]]).expand(4, 3)
    >>> twins(w, g, 0), twins(w, g, 1)
    (0.5, 1.0)
    """
    pair = [_units(t, axis) for t in (weight, gradient)]
    if len(pair[0]) < 2 or pair[0].shape != pair[1].shape or pair[0].numel() == 0:
        return NAN
    keys = torch.cat([_keys(units) for units in pair], 1)
    keys = keys[(keys != 0).any(1)]
    keys = keys[keys.sum(1).argsort()]  # equal units come together; NEAR: not always side by side, since no sum is exact
    same = torch.zeros(len(keys), dtype=torch.bool, device=keys.device)
    for distance in range(1, min(NEAR, len(keys) - 1) + 1):
        close = (keys[distance:] - keys[:-distance]).abs().amax(1) <= _tolerance(weight)
        same[distance:] |= close
        same[:-distance] |= close
    return float(same.sum()) / len(pair[0])


def _units(x: Tensor, axis: int) -> Tensor:
    """(units, what they weigh): at most 1024 x 2048, in units of the largest."""
    x = local(x).movedim(axis, 0)[:MOST]
    x = x.flatten(1)
    chosen = _spread(x.shape[1], UNITS)
    x = _wide(x if chosen is None else x[:, chosen.to(x.device)])
    highest = peak(x)
    return x / highest if highest > 0 else x


def _keys(units: Tensor) -> Tensor:
    """Random projections of each unit, in units of their root mean square."""
    size = rms(units) * math.sqrt(units.shape[1]) if units.numel() else 0.0
    return units @ _directions(units.shape[1]).to(units) / (size or 1.0)


@lru_cache(maxsize=64)
def _directions(size: int) -> Tensor:
    return torch.randn(size, KEYS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _tolerance(weight: Tensor) -> float:
    return max(SAME, 4 * torch.finfo(weight.dtype).eps)
