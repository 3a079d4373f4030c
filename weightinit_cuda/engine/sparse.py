"""The zeros of a sparse matrix: in every column at the smallest of its own words, so the same for any part of the matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from ..numerics.distributions import SPARSE_PLACES, SparseNormal
from .job import FillJob
from .words import MASK64, bits

__all__ = ["smallest", "write_zeros"]

_WORDS_AT_ONCE = 1 << 20
_SAME_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_ROUNDS = 8  # measured: after as many, 1 column of 50 is left, and more rounds cost more than selecting in these
_WORTH_IT = 1 << 14  # words; below, the calls of a round cost more than a selection


def write_zeros(job: FillJob, sparse: SparseNormal) -> None:
    """The zeros of a job's tensor, which may be a part of the matrix; a million words at a time."""
    rows, zeros = sparse.rows, sparse.zeros
    first_row, first_column = job.region.offset if job.region else (0, 0)
    mine = slice(first_row, first_row + job.tensor.shape[0])
    columns_at_once = max(1, _WORDS_AT_ONCE // max(rows, 1))
    for begin in range(0, job.tensor.shape[1] if zeros else 0, columns_at_once):
        part = job.tensor.detach()[:, begin : begin + columns_at_once]
        stream = (job.stream ^ SPARSE_PLACES) & MASK64
        words = bits(job.seed & MASK64, stream, part.shape[1] * rows, (first_column + begin) * rows)
        places = smallest((words.view(torch.int32) ^ -(2**31)).view(-1, rows), zeros)
        _write(part, places[:, mine])


def _write(part: Tensor, places: Tensor) -> None:
    """Zeros at the places, (columns, rows), of a matrix."""
    if not (part.is_complex() or part.is_neg()):  # else its bits are not its values
        part = part.view(_SAME_SIZE[part.dtype.itemsize])  # no kernel masks float8
    if places.numel() < _WORTH_IT or part.is_floating_point() or part.is_complex():
        part.masked_fill_(places.T.to(part.device), 0)
    else:  # bits times 0 or 1: half the time of a masked fill
        part.mul_((~places).T.to(part.dtype, memory_format=torch.contiguous_format).to(part.device))


def smallest(words: Tensor, number: int) -> Tensor:
    """Where the ``number`` smallest words of each row are; of equal ones the first.

    Words are random, so the limit below which there are as many is guessed, and guessed again where there are not: counting
    costs a fifteenth of selecting. In the rows that are left after some rounds, they are selected.

    Args:
        words: int32, (n, m).
        number: 1 to m.

    Returns:
        A mask, (n, m).
    """
    rounds = _ROUNDS if words.numel() >= _WORTH_IT else 0
    limits = torch.empty_like(words[:, :1])
    left = torch.arange(len(words), device=words.device)
    low, high = torch.full_like(limits, -(2.0**31), dtype=torch.float64), torch.full_like(limits, 2.0**31, dtype=torch.float64)
    below, upto = torch.zeros_like(low), torch.full_like(low, words.shape[1])  # how many words are below low, and below high
    rest = words
    for _ in range(rounds):
        guess = low + (high - low) * (number + 0.5 - below) / (upto - below + 1)
        limits[left] = limit = guess.to(torch.int32)
        counted = (rest < limit).view(torch.uint8).sum(1, keepdim=True, dtype=torch.int32)
        missed = (counted != number).squeeze(1).nonzero().squeeze(1)
        if not len(missed):
            return words < limits
        few = counted < number
        low, below = torch.where(few, guess, low)[missed], torch.where(few, counted, below)[missed]
        high, upto = torch.where(few, high, guess)[missed], torch.where(few, upto, counted)[missed]
        rest, left = rest[missed], left[missed]
    places = words < limits if rounds else torch.empty_like(words, dtype=torch.bool)
    keys = (rest.to(torch.int64) << 31) + torch.arange(words.shape[1], device=words.device)  # distinct, ordered as words
    places[left] = keys <= keys.kthvalue(number, dim=1, keepdim=True).values
    return places
