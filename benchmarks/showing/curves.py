"""Time against size as a line: overhead + values / rate, and how straight it ends. Plain arithmetic on points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Line", "fitted"]

LARGE = 1 << 20  # values from which on the slope is taken


class Line(NamedTuple):
    """A line through times.

    Args:
        overhead: seconds of a call without values.
        rate: values a second.
        slope: of log time against log size at the large end; 1 is a straight line, more means that large sizes get slower.
    """

    overhead: float
    rate: float
    slope: float


def fitted(points: Sequence[tuple[int, float]]) -> Line | None:
    """Least squares of the relative errors; None for fewer than three points.

    >>> line = fitted([(1000, 2e-6), (10_000, 11e-6), (100_000, 101e-6), (2**20, 1.049576e-3), (2**24, 1.6778216e-2)])
    >>> f"{line.overhead:.3g} {line.rate:.3g} {line.slope:.3f}"
    '1e-06 1e+09 1.000'
    """
    if len(points) < 3:
        return None
    # Minimise the sum of ((overhead + n / rate) / t - 1)^2: normal equations in overhead and 1 / rate.
    a = [(1.0 / t, n / t) for n, t in points]
    s11, s12, s22 = (sum(x[i] * x[j] for x in a) for i, j in ((0, 0), (0, 1), (1, 1)))
    b1, b2 = (sum(x[i] for x in a) for i in (0, 1))
    determinant = s11 * s22 - s12 * s12
    overhead, per_value = (b1 * s22 - b2 * s12) / determinant, (s11 * b2 - s12 * b1) / determinant
    if overhead < 0.0 or per_value <= 0.0:  # within the noise of the points
        overhead, per_value = max(overhead, 0.0), max(per_value, points[-1][1] / points[-1][0])
    large = [point for point in points if point[0] >= LARGE] or list(points[-2:])
    return Line(overhead, 1.0 / per_value, _slope(large if len(large) > 1 else points[-2:]))


def _slope(points: Sequence[tuple[int, float]]) -> float:
    x, y = ([math.log(point[i]) for point in points] for i in (0, 1))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((u - mean_x) * (v - mean_y) for u, v in zip(x, y, strict=True)) / sum((u - mean_x) ** 2 for u in x)
