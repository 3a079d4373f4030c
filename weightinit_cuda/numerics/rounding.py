"""Exact rounding of rational numbers to the floating-point formats of torch's dtypes.

Kernel parameters and bounds are rounded here, with integers, so that they are the same on every platform. Knows no kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Literal, NamedTuple

import torch

Direction = Literal["nearest", "down", "up"]


_TO_INTEGER: dict[Direction, Callable[[Fraction], int]] = {"nearest": round, "down": math.floor, "up": math.ceil}


class Format(NamedTuple):
    """A binary floating-point format: ``precision`` significant bits, spacing at least ``2**min_exponent``."""

    precision: int
    min_exponent: int
    largest: float
    saturates: bool = False

    def round(self, x: Fraction, direction: Direction = "nearest") -> float:
        """The value of the format nearest to x (ties to even), or the next one at or below / at or above it.

        Beyond the largest finite value: infinity, but the largest value toward zero, and to nearest if the format saturates.
        """
        if x == 0:
            return 0.0
        magnitude = abs(x)
        exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
        if magnitude < Fraction(2) ** exponent:
            exponent -= 1  # now 2**exponent <= magnitude < 2**(exponent + 1)
        spacing = Fraction(2) ** max(exponent - self.precision + 1, self.min_exponent)
        rounded = _TO_INTEGER[direction](x / spacing) * spacing
        if abs(rounded) > Fraction(self.largest):
            toward_zero = direction == ("down" if x > 0 else "up")
            limit = self.largest if toward_zero or (self.saturates and direction == "nearest") else math.inf
            return limit if x > 0 else -limit
        return float(rounded) + 0.0  # no negative zero

    def below(self, value: float) -> float:
        """The value of the format just below a value of the format."""
        return self.round(Fraction(value) - Fraction(2) ** (self.min_exponent - 1), "down")


FORMATS: dict[torch.dtype, Format] = {
    torch.float64: Format(53, -1074, torch.finfo(torch.float64).max),
    torch.float32: Format(24, -149, torch.finfo(torch.float32).max),
    torch.float16: Format(11, -24, 65504.0),
    torch.bfloat16: Format(8, -133, torch.finfo(torch.bfloat16).max),
    torch.float8_e4m3fn: Format(4, -9, 448.0, saturates=True),
    torch.float8_e5m2: Format(3, -16, 57344.0, saturates=True),
}
FLOAT32 = FORMATS[torch.float32]
FLOAT64 = FORMATS[torch.float64]

REAL_DTYPE: dict[torch.dtype, torch.dtype] = {dtype: dtype for dtype in FORMATS} | {
    torch.complex32: torch.float16,
    torch.complex64: torch.float32,
    torch.complex128: torch.float64,
}


@contextmanager
def subnormals_kept() -> Iterator[None]:
    """Subnormal numbers are kept on the calling thread, whatever ``torch.set_flush_denormal`` says; restored after."""
    flushes = torch.full((), 5e-324, dtype=torch.float64, device="cpu").mul(1.0).item() == 0
    if flushes:
        torch.set_flush_denormal(False)
    try:
        yield
    finally:
        if flushes:
            torch.set_flush_denormal(True)
