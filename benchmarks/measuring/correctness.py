"""Before anything is timed: ours equals the reference backend bit for bit, and what the others write is the distribution.

The call that is checked is the call that is timed, on the same tensor with the same threads. Nothing here takes time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

import weightinit_cuda as wi
from weightinit_cuda import engine

from ..case import Case
from ..contestants import Call

__all__ = ["WrongValuesError", "check_distribution", "check_ours"]

SAMPLE = 4096  # values compared at each of three places: the reference makes about 1e6 a second
MOMENTS = 1 << 20  # values that moments are taken of, spread over the tensor
SIGMAS = 6.0  # of the sampling error of mean and standard deviation: one false alarm in 5e8 checks
ROUNDING = 0.01  # more, in units of the standard deviation: bfloat16's own bias, and torch's, are below half of it

FLOAT8_ROUNDING = 0.06  # two or three bits after the point; in [0, 1) what would round to 1 counts as 0.875 or 0.9375


class WrongValuesError(AssertionError):
    """A contestant does not do the work it would be timed for."""


def check_ours(case: Case, tensor: Tensor, call: Call) -> None:
    """Makes the call under a known seed and compares start, middle and end of the tensor with the reference backend.

    Raises:
        WrongValuesError: a bit differs.
    """
    torch.manual_seed(0)
    seed = engine.draw_seed(tensor)
    torch.manual_seed(0)
    call()
    flat, function = tensor.detach().view(-1), getattr(wi.init, case.call)
    size = min(SAMPLE, case.values)
    for start in sorted({0, (case.values - size) // 2, case.values - size}):
        part = flat[start : start + size].cpu()
        expected = torch.empty(case.shape if case.values <= SAMPLE else size, dtype=case.dtype)
        with engine.reference_only():
            if case.call in ("zeros_", "ones_"):
                expected.fill_(float(case.call == "ones_"))
            elif expected.numel() == case.values:
                function(expected, *case.arguments, seed=seed)
            else:
                function(expected, *case.arguments, seed=seed, global_shape=(case.values,), offset=(start,))
        different = int((part.contiguous().view(torch.uint8) != expected.view(-1).view(torch.uint8)).sum())
        if different:
            raise WrongValuesError(f"{case.name}: ours differs from the reference backend in {different} bytes at {start}.")


def check_distribution(case: Case, tensor: Tensor, contestant: str) -> None:
    """Mean, standard deviation and range of what a contestant wrote, as far as the case's distribution is known here.

    Raises:
        WrongValuesError: they are not those of the distribution.
    """
    if case.values < 1024 or case.label not in _MOMENTS:
        return  # small rows: ours was compared with the reference, and nn.init is the other one
    mean, std, kurtosis, lo, hi = _MOMENTS[case.label]
    sample = tensor.detach().view(-1)[:: max(1, case.values // MOMENTS)].double()
    n = sample.numel()
    found_mean, found_std = float(sample.mean()), float(sample.std())
    rounding = FLOAT8_ROUNDING if case.dtype.itemsize == 1 else ROUNDING
    mean_error = SIGMAS * std / math.sqrt(n) + rounding * std
    std_error = SIGMAS * std * math.sqrt((kurtosis - 1) / (4 * n)) + rounding * std
    inside = lo <= float(sample.min()) and float(sample.max()) <= hi
    if not (abs(found_mean - mean) <= mean_error and abs(found_std - std) <= std_error and inside):
        raise WrongValuesError(
            f"{case.name}: {contestant} must write mean {mean:.4g}, std {std:.4g} within [{lo:.4g}, {hi:.4g}], "
            f"got mean {found_mean:.4g}, std {found_std:.4g} within [{float(sample.min()):.4g}, {float(sample.max()):.4g}]."
        )


# Label: mean, standard deviation, kurtosis, range. The normal cut at 2 sigma has variance 1 - 4 phi(2) / erf(sqrt 2) and
# kurtosis (3 - 28 phi(2) / erf(sqrt 2)) / variance^2.
_MOMENTS = {
    "uniform": (0.5, 12**-0.5, 1.8, 0.0, 1.0),
    "normal": (0.0, 1.0, 3.0, -math.inf, math.inf),
    "trunc_normal": (0.0, 0.8796256610342398, 2.3655, -2.0, 2.0),
    "trunc_normal std=.02": (0.0, 0.02, 3.0, -2.0, 2.0),
}
