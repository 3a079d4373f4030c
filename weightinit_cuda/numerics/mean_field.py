r"""What a nonlinearity does to signal and gradient in wide layers: integrals over the normal distribution, in float64.

In a wide layer of random weights pre-activations are normal, so a whole net is two numbers a layer: the variance of its
pre-activations, and the factor :math:`\chi` of the gradient's variance. Gauss-Legendre quadrature on short intervals; no
samples, no tables. Needs ``math`` alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

__all__ = ["NONLINEARITIES", "MeanField", "Nonlinearity", "exact_gain", "gain_for_depth", "mean_field"]

Function = Callable[[float], float]

NODES = 20  # of each interval of width 1 or less: errors below 1e-15 for all functions below (tests, against mpmath)
TAIL = 10.0  # standard deviations; beyond lies 1.5e-23
FINE = 40  # intervals as narrow as the nonlinearity's own features, on each side of 0
FAR = 30.0  # |ln q| beyond which the variance counts as 0 or infinite


class Nonlinearity(NamedTuple):
    """A function of one number, and its slope."""

    value: Function
    slope: Function


def _sigmoid(u: float) -> float:
    return 1 / (1 + math.exp(-u)) if u > -700 else 0.0


def _phi(u: float) -> float:
    return math.exp(-u * u / 2) / math.sqrt(2 * math.pi)


def _below(u: float) -> float:
    return math.erfc(-u / math.sqrt(2)) / 2


def _softplus(u: float) -> float:
    return max(u, 0.0) + math.log1p(math.exp(-abs(u)))


def _mish_slope(u: float) -> float:
    t = math.tanh(_softplus(u))
    return t + u * _sigmoid(u) * (1 - t * t)


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. (2017), as torch has them

NONLINEARITIES = {
    "linear": Nonlinearity(lambda u: u, lambda u: 1.0),
    "relu": Nonlinearity(lambda u: max(u, 0.0), lambda u: float(u > 0)),
    "tanh": Nonlinearity(math.tanh, lambda u: 1 - math.tanh(u) ** 2),
    "sigmoid": Nonlinearity(_sigmoid, lambda u: _sigmoid(u) * _sigmoid(-u)),
    "gelu": Nonlinearity(lambda u: u * _below(u), lambda u: _below(u) + u * _phi(u)),
    "silu": Nonlinearity(lambda u: u * _sigmoid(u), lambda u: _sigmoid(u) * (1 + u * _sigmoid(-u))),
    "mish": Nonlinearity(lambda u: u * math.tanh(_softplus(u)), _mish_slope),
    "selu": Nonlinearity(
        lambda u: SELU_SCALE * (u if u > 0 else SELU_ALPHA * math.expm1(u)),
        lambda u: SELU_SCALE * (1.0 if u > 0 else SELU_ALPHA * math.exp(u)),
    ),
}
"""Functions by the names of ``init.fans.gain``."""


# ---- integrals -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _legendre() -> tuple[tuple[float, float], ...]:
    """Nodes and weights on [-1, 1]: Newton's method on the Legendre polynomial, from Tricomi's approximation."""
    found = []
    for i in range(NODES):
        x = math.cos(math.pi * (i + 0.75) / (NODES + 0.5))
        slope = 1.0
        for _ in range(6):
            before, now = 1.0, x
            for k in range(2, NODES + 1):
                before, now = now, ((2 * k - 1) * x * now - (k - 1) * before) / k
            slope = NODES * (x * now - before) / (x * x - 1)
            x -= now / slope
        found.append((x, 2 / ((1 - x * x) * slope * slope)))
    return tuple(found)


@lru_cache(maxsize=64)
def _points(std: float) -> tuple[tuple[float, float], ...]:
    """Places u and weights p of E[f(u)], u ~ N(0, std^2). An interval ends at 0, where a relu has its corner."""
    edges, step = [0.0], min(1.0, 1 / std)
    while edges[-1] < TAIL:
        edges.append(min(edges[-1] + step, TAIL))
        if len(edges) > FINE:
            step = min(2 * step, 1.0)
    points = []
    for low, high in pairwise(edges):
        for x, weight in _legendre():
            z = (low + high) / 2 + x * (high - low) / 2
            p = weight * (high - low) / 2 * _phi(z)
            points += [(std * z, p), (-std * z, p)]
    return tuple(points)


def _mean(f: Function, variance: float) -> float:
    """E[f(u)], u ~ N(0, variance)."""
    return math.fsum(p * f(u) for u, p in _points(math.sqrt(variance)))


def exact_gain(nonlinearity: str, centred: bool = False) -> float:
    r"""The gain that keeps a second moment of 1: :math:`1 / \sqrt{E[f(z)^2]}`, z ~ N(0, 1), by quadrature.

    Args:
        nonlinearity: ``linear``, ``relu``, ``tanh``, ``sigmoid``, ``gelu``, ``silu``, ``mish`` or ``selu``.
        centred: the variance of f(z) instead of its second moment, for nets that standardise weights (Brock et al., 2021).

    Raises:
        ValueError: no such nonlinearity.

    >>> exact_gain("relu"), exact_gain("relu", centred=True)
    (1.4142135623730947, 1.7128585504496625)
    """
    f = _known("exact_gain", nonlinearity).value
    mean = _mean(f, 1.0) if centred else 0.0
    return 1 / math.sqrt(_mean(lambda u: (f(u) - mean) ** 2, 1.0))


def _known(function: str, nonlinearity: str) -> Nonlinearity:
    if nonlinearity not in NONLINEARITIES:
        raise ValueError(f"{function}: nonlinearity must be one of {sorted(NONLINEARITIES)}, got {nonlinearity!r}.")
    return NONLINEARITIES[nonlinearity]


# ---- depth -----------------------------------------------------------------------------------------------------------


class MeanField(NamedTuple):
    r"""What many wide layers come to.

    Args:
        q: the variance of the pre-activations, the same in all layers from some depth on; 0 or infinite if there is none.
        chi: the factor by which a layer changes the gradient's variance: below 1 it vanishes, above 1 it explodes.
    """

    q: float
    chi: float

    @property
    def depth_scale(self) -> float:
        r"""Layers for a factor of e, :math:`1 / |\ln \chi|`; nets train up to about six of them (Schoenholz et al., 2017)."""
        return 1 / abs(math.log(self.chi)) if self.chi not in (0.0, 1.0) else math.inf * self.chi


def mean_field(nonlinearity: str, gain: float = 1.0, bias_std: float = 0.0) -> MeanField:
    r"""Variance and gradient in wide layers with weights of variance gain^2 / fan_in.

    .. math:: q = \sigma_w^2 E[f(\sqrt q z)^2] + \sigma_b^2, \quad \chi = \sigma_w^2 E[f'(\sqrt q z)^2]

    Args:
        nonlinearity: as for :func:`exact_gain`.
        gain: the weights' standard deviation times the square root of fan_in; 0.577 is torch's default.
        bias_std: standard deviation of the biases.

    Raises:
        ValueError: no such nonlinearity; gain or bias_std is negative or not finite.

    Source: Poole et al. (2016), arXiv:1606.05340; Schoenholz et al. (2017), arXiv:1611.01232.

    >>> q, chi = mean_field("tanh", gain=5 / 3)
    >>> round(q, 4), round(chi, 4)
    (1.1785, 1.2098)
    """
    f = _known("mean_field", nonlinearity)
    if not (0 < gain < math.inf and 0 <= bias_std < math.inf):
        raise ValueError(f"mean_field: gain must be > 0 and bias_std >= 0, both finite, got {gain}, {bias_std}.")

    def grows(log_q: float) -> float:
        """ln of the next layer's variance over this one's."""
        q = math.exp(log_q)
        return math.log(gain * gain * _mean(lambda u: f.value(u) ** 2, q) + bias_std * bias_std) - log_q

    log_q = _where_it_stays(grows)
    q = math.exp(log_q)
    chi = gain * gain * _mean(lambda u: f.slope(u) ** 2, q)
    return MeanField(0.0 if log_q <= -FAR else math.inf if log_q >= FAR else q, chi)


def _where_it_stays(grows: Function) -> float:
    """ln of the variance at which the layers arrive from 1; -FAR or FAR if at none."""
    first = grows(0.0)
    if abs(first) < 1e-12:
        return 0.0
    step = math.copysign(0.5, first)
    near, far = 0.0, step
    while grows(far) * first > 0:
        near, far = far, far + step
        if abs(far) > FAR:
            return math.copysign(FAR, first)
    for _ in range(60):
        middle = (near + far) / 2
        near, far = (middle, far) if grows(middle) * first > 0 else (near, middle)
    return (near + far) / 2


@lru_cache(maxsize=256)
def gain_for_depth(nonlinearity: str, layers: int, widest: float, nats: float) -> float:
    r"""The largest gain up to ``widest`` for which the gradient's variance changes by at most ``nats`` over all layers.

    For functions of slope 1 at 0 whose :math:`\chi` grows from 1 with the gain, such as tanh. Without biases the variance q
    that a gain leads to says the gain: :math:`\sigma_w^2 = q / E[f(\sqrt q z)^2]`, so the search is over q.

    >>> gain_for_depth("tanh", 5, 5 / 3, 3.0) == 5 / 3, round(gain_for_depth("tanh", 50, 5 / 3, 3.0), 3)
    (True, 1.292)
    """
    f = _known("gain_for_depth", nonlinearity)

    def gain_and_chi(log_q: float) -> tuple[float, float]:
        q = math.exp(log_q)
        square = q / _mean(lambda u: f.value(u) ** 2, q)
        return math.sqrt(square), square * _mean(lambda u: f.slope(u) ** 2, q)

    low, high = -FAR, math.log(mean_field(nonlinearity, widest).q)
    if layers * math.log(gain_and_chi(high)[1]) <= nats:
        return widest
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if layers * math.log(gain_and_chi(middle)[1]) <= nats else (low, middle)
    return gain_and_chi(low)[0]
