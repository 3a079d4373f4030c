"""Integrals over the normal distribution: against mpmath, closed forms, wide random nets, and the papers' numbers."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch

from weightinit_cuda.init import fans
from weightinit_cuda.numerics.mean_field import NONLINEARITIES, exact_gain, gain_for_depth, mean_field

EXACT = {
    "linear": lambda z: z,
    "relu": lambda z: max(z, mpmath.mpf(0)),
    "tanh": mpmath.tanh,
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "gelu": lambda z: z * mpmath.ncdf(z),
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
    "mish": lambda z: z * mpmath.tanh(mpmath.log1p(mpmath.exp(z))),
    "selu": lambda z: mpmath.mpf("1.0507009873554805") * (z if z > 0 else mpmath.mpf("1.6732632423543772") * mpmath.expm1(z)),
}


def mean(f, std=1):  # type: ignore[no-untyped-def]
    """In 30 digits."""
    with mpmath.workdps(30):
        return mpmath.quad(lambda z: f(std * z) * mpmath.npdf(z), [-14, -4, -1, 0, 1, 4, 14])


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_gains_to_the_last_digits(name: str) -> None:
    f = EXACT[name]
    first, second = mean(f), mean(lambda z: f(z) ** 2)
    assert exact_gain(name) == pytest.approx(float(1 / mpmath.sqrt(second)), rel=4e-16)
    assert exact_gain(name, centred=True) == pytest.approx(float(1 / mpmath.sqrt(second - first**2)), rel=2e-15)


def test_gains_that_are_often_quoted_were_sampled() -> None:
    """relu 1.7139589, gelu 1.7015043, silu 1.7881293 are right to three digits."""
    assert exact_gain("relu", centred=True) == pytest.approx(1 / math.sqrt(1 / 2 - 1 / (2 * math.pi)), rel=1e-15)
    exact = {"relu": 1.7128586, "gelu": 1.7009262, "silu": 1.7871872}
    assert {name: round(exact_gain(name, centred=True), 7) for name in exact} == exact


@pytest.mark.parametrize("name", ["gelu", "silu", "mish", "relu"])
def test_the_table_of_init_is_the_integral(name: str) -> None:
    assert fans.gain(name) == pytest.approx(exact_gain(name), rel=4e-16)


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_slopes_are_derivatives(name: str) -> None:
    f = NONLINEARITIES[name]
    for u in (-30.0, -3.0, -0.7, -0.1, 0.2, 1.0, 5.0, 40.0):
        h = 1e-6 * max(1, abs(u))
        assert f.slope(u) == pytest.approx((f.value(u + h) - f.value(u - h)) / (2 * h), abs=2e-9), u


@pytest.mark.parametrize(("name", "gain"), [("tanh", 2.0), ("sigmoid", 4.0), ("tanh", 5 / 3), ("selu", 1.0)])
def test_fixed_points(name: str, gain: float) -> None:
    q, chi = mean_field(name, gain)
    assert q == pytest.approx(float(gain**2 * mean(lambda z: EXACT[name](z) ** 2, mpmath.sqrt(q))), rel=1e-12)
    assert chi == pytest.approx(
        gain**2 * float(mean(lambda z: NONLINEARITIES[name].slope(float(z)) ** 2, mpmath.sqrt(q))), rel=1e-9
    )


def test_ends_of_the_range() -> None:
    assert mean_field("relu", math.sqrt(2)) == pytest.approx((1.0, 1.0), rel=1e-12)
    assert mean_field("relu", 1.0) == pytest.approx((0.0, 0.5), rel=1e-12)
    assert mean_field("relu", 2.0) == pytest.approx((math.inf, 2.0), rel=1e-12)
    assert mean_field("tanh", 0.5).q == 0.0
    assert mean_field("tanh", 0.5).depth_scale == pytest.approx(1 / math.log(4))
    assert mean_field("linear", 1.0).depth_scale > 1e12


def test_wide_nets_do_what_the_integrals_say() -> None:
    """Poole et al. (2016): q* and chi at sigma_w 2; and the sigmoids of the guide."""
    generator = torch.Generator().manual_seed(0)
    for f, name, gain in ((torch.tanh, "tanh", 2.0), (torch.sigmoid, "sigmoid", 4.0)):
        q, chi = mean_field(name, gain)
        u = math.sqrt(q) * torch.randn(8, 1000, generator=generator)
        for _ in range(6):
            w = torch.randn(1000, 1000, generator=generator) * gain / math.sqrt(1000)
            back = u.sub(0).requires_grad_()
            u = f(back) @ w.T
            [g] = torch.autograd.grad(u, back, torch.randn(u.shape, generator=generator))
        assert float(u.square().mean()) == pytest.approx(q, rel=0.05), name
        assert float(g.square().mean()) == pytest.approx(chi, rel=0.05), name


def test_tanh_by_depth() -> None:
    gains = [gain_for_depth("tanh", layers, 5 / 3, 3.0) for layers in (1, 15, 16, 50, 200)]
    assert gains[:2] == [5 / 3, 5 / 3]
    assert gains == sorted(gains, reverse=True)
    assert gains[2] < 5 / 3
    for layers, gain in zip((16, 50, 200), gains[2:], strict=True):
        assert layers * math.log(mean_field("tanh", gain).chi) == pytest.approx(3.0, abs=1e-6)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"exact_gain: nonlinearity must be one of .*'gelu'.*, got 'elu'"):
        exact_gain("elu")
    for gain, bias in ((0.0, 0.0), (-1.0, 0.0), (math.nan, 0.0), (1.0, -1.0), (math.inf, 0.0)):
        with pytest.raises(ValueError, match="mean_field: gain must be > 0"):
            mean_field("tanh", gain, bias)
