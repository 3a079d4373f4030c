"""How wide the weights should be: fans and gains.

Everything here is a number computed from a shape or a name: ``init`` and the rules turn it into a distribution. This file
knows no tensors.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

__all__ = ["Axes", "fan", "fans", "gain"]

Axes = int | Sequence[int] | None

FAN_MODES = ("fan_in", "fan_out", "fan_avg", "fan_geo_avg")

GELU = 1.5335304411955353
"""``1 / sqrt(E[gelu(z)^2])``, z ~ N(0, 1) = 1 / sqrt(1/3 + 1 / (2 pi sqrt 3)): 40 digits by mpmath, rounded to float64."""
SILU = 1.676532470331091
"""``1 / sqrt(E[silu(z)^2])``, z ~ N(0, 1); silu(z) = z / (1 + exp(-z)): quadrature by mpmath, rounded to float64."""
MISH = 1.486847581273208
"""``1 / sqrt(E[mish(z)^2])``, z ~ N(0, 1); mish(z) = z tanh(log(1 + exp(z))): quadrature by mpmath, rounded to float64."""

GAINS = {
    **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d", "sigmoid"), 1),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), 1),
    "tanh": 5.0 / 3,
    "relu": math.sqrt(2.0),
    "selu": 3.0 / 4,
    "gelu": GELU,
    "silu": SILU,
    "swish": SILU,
    "mish": MISH,
}


def gain(nonlinearity: str, param: float | None = None) -> float:
    r"""The factor by which weights before a nonlinearity are widened: :math:`g = 1 / \sqrt{E[f(z)^2]}`, z ~ N(0, 1).

    With weights of variance :math:`g^2 / \text{fan\_in}` the second moment of the pre-activations is the same in every layer:
    relu halves the second moment, hence :math:`\sqrt 2`. gelu, silu (swish) and mish follow from the same equation,
    as in He et al. (2015), equation 10. tanh (5/3) and selu (3/4) are torch's table, found by experiment; sigmoid is 1 there.

    Args:
        nonlinearity: name as in ``torch.nn.functional``; besides torch's also ``gelu``, ``silu``, ``swish``, ``mish``.
        param: negative slope of ``leaky_relu``, default 0.01; ignored by the others.

    Returns:
        The gain; the int 1 where torch returns the int 1.

    Raises:
        ValueError: the nonlinearity is unknown, or the negative slope is not a number (a bool is none).

    Source: ``torch.nn.init.calculate_gain``; He et al. (2015), arXiv:1502.01852.

    >>> gain("leaky_relu", 0.2), gain("conv2d"), gain("gelu")
    (1.3867504905630728, 1, 1.5335304411955353)
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2.0 / (1 + _negative_slope(param) ** 2))
    if not isinstance(nonlinearity, str) or nonlinearity not in GAINS:
        raise ValueError(f"Unsupported nonlinearity {nonlinearity}")
    return GAINS[nonlinearity]


def _negative_slope(param: float | None) -> float:
    if param is None:
        return 0.01
    if isinstance(param, bool) or not isinstance(param, (int, float)):
        raise ValueError(f"negative_slope {param} not a valid number")
    return param


def fans(shape: Sequence[int], in_axes: Axes = None, out_axes: Axes = None, batch_axes: Axes = None) -> tuple[int, int]:
    r"""How many inputs one output sees, and how many outputs one input reaches: ``(fan_in, fan_out)``.

    .. math:: \text{fan\_in} = \prod_{\text{in}} n_i \prod_{\text{rest}} n_i, \quad
              \text{fan\_out} = \prod_{\text{out}} n_i \prod_{\text{rest}} n_i

    The rest are the axes of the receptive field. Batch axes count independent weights (experts, heads), in no fan.
    An axis left out is torch's: out is the first axis that has no other part, in the next one. So ``(out, in, *field)`` needs
    no arguments, stacked experts ``(experts, out, in)`` need ``batch_axes=0``, JAX's kernels ``in_axes=-2, out_axes=-1``.

    Args:
        shape: shape of the weight; of the whole weight, where this is a shard.
        in_axes, out_axes, batch_axes: an axis or several, negative ones count from the end. ``()`` says there is none.

    Raises:
        TypeError: an axis is no integer.
        ValueError: fewer than two axes are left to be in and out; an axis is out of range or named twice.

    Source: ``torch.nn.init._calculate_fan_in_and_fan_out``; ``jax.nn.initializers.variance_scaling``.

    >>> fans((256, 128, 3, 3)), fans((8, 64, 256), batch_axes=0), fans((3, 3, 128, 256), in_axes=-2, out_axes=-1)
    ((1152, 2304), (256, 64), (1152, 2304))
    """
    rank = len(shape)
    ins, outs = _axes("in_axes", in_axes, rank), _axes("out_axes", out_axes, rank)
    named = [*(ins or ()), *(outs or ()), *(_axes("batch_axes", batch_axes, rank) or ())]
    field = [axis for axis in range(rank) if axis not in named]
    if len(named) + len(field) > rank:
        raise ValueError(f"fans: an axis can be one of in, out and batch, got {in_axes=}, {out_axes=}, {batch_axes=}")
    if (ins is None) + (outs is None) > len(field):
        raise ValueError("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions")
    outs = (field.pop(0),) if outs is None else outs
    ins = (field.pop(0),) if ins is None else ins
    receptive_field = math.prod(shape[axis] for axis in field)
    fan_in, fan_out = (math.prod(shape[axis] for axis in axes) * receptive_field for axes in (ins, outs))
    return fan_in, fan_out


def _axes(name: str, axes: Axes, rank: int) -> tuple[int, ...] | None:
    """Axes as a tuple of non-negative ints; None stays None."""
    if axes is None:
        return None
    try:
        listed = (axes,) if isinstance(axes, int) else tuple(map(operator.index, axes))
    except TypeError:
        raise TypeError(f"fans: {name} must be an axis or several, got {axes!r:.60}") from None
    for axis in listed:
        if not -rank <= axis < rank:
            raise ValueError(f"fans: {name} must be in [{-rank}, {rank}) for a shape of {rank} dimensions, got {axes}")
    return tuple(axis % rank for axis in listed)


def fan(mode: str, fan_in: int, fan_out: int) -> float:
    """The fan that a variance is divided by: ``fan_in``, ``fan_out``, their mean or their geometric mean.

    Args:
        mode: one of ``"fan_in"``, ``"fan_out"``, ``"fan_avg"``, ``"fan_geo_avg"``.
        fan_in, fan_out: as :func:`fans` returns them.

    Raises:
        ValueError: the mode is another one.

    Source: ``jax.nn.initializers.variance_scaling``.

    >>> [fan(mode, 2, 8) for mode in FAN_MODES]
    [2, 8, 5.0, 4.0]
    """
    if mode not in FAN_MODES:
        raise ValueError(f"Mode {mode} not supported, please use one of {list(FAN_MODES)}")
    return {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}.get(mode, math.sqrt(fan_in * fan_out))
