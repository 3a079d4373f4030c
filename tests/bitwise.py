"""Equality of tensors, bit for bit: signed zeros and NaN are what their bits are. No other file of the tests compares bits."""

from __future__ import annotations

import torch

__all__ = ["differing", "raw", "same_bits"]


def raw(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor in logical order, on the CPU."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def differing(got: torch.Tensor, expected: torch.Tensor) -> int:
    """How many elements differ in any bit: signed zeros and NaN are what their bits are."""
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    a, b = raw(got), raw(expected)
    if torch.equal(a, b):
        return 0
    size = got.element_size()
    return int((a.view(-1, size) != b.view(-1, size)).any(1).sum())


def same_bits(got: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether dtype, shape and every bit are equal; on any devices."""
    return got.dtype == expected.dtype and got.shape == expected.shape and torch.equal(raw(got), raw(expected))
