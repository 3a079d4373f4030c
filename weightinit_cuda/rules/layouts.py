"""How a parameter multiplies: which of its axes are inputs and outputs, and how many matrices it stacks.

``nn.init`` reads every weight as (out, in, *kernel). Some are stored otherwise, and some hold several matrices: the three
projections of attention, the gates of an LSTM, the groups of a convolution. The rule sets take fans from here; functions of
``init`` and rules that name them keep torch's reading. Knows modules and shapes, no distributions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import ParametrizationList

from ..init.fans import Axes, fans
from ..tensors.named import Named
from .parametrised import is_part

__all__ = ["TABLES", "Layout", "bias", "layout_of", "lookup", "matrix", "vector_weight"]

TABLES = (nn.Embedding, nn.EmbeddingBag)


class Layout(NamedTuple):
    """``stacked`` matrices along the first axis, each with its inputs and outputs along these axes (None: torch's)."""

    stacked: int = 1
    in_axes: Axes = None
    out_axes: Axes = None

    def shape(self, whole: tuple[int, ...]) -> tuple[int, ...]:
        """Of one of the matrices."""
        return (whole[0] // self.stacked, *whole[1:])

    def fans(self, whole: tuple[int, ...]) -> tuple[int, int]:
        """Of one of the matrices: (fan_in, fan_out).

        >>> Layout(stacked=3).fans((3 * 64, 64))
        (64, 64)
        """
        return fans(self.shape(whole), self.in_axes, self.out_axes)


def layout_of(named: Named) -> Layout | None:
    """The layout of a weight; None if the tensor is none, or nobody can tell.

    Known are the modules of torch.nn, ``Conv1D`` and the stacked experts of transformers, and whatever else has two dimensions
    and ``weight`` in its name.
    """
    module, attribute, dims = named.module, named.attribute, named.tensor.dim()
    if dims < 2 or named.buffer or isinstance(module, ParametrizationList) or is_part(named):
        return None
    if dims == 3 and (experts := _experts(named)):
        return experts
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return Layout(_gates(module) if attribute.startswith(("weight_ih", "weight_hh")) else 1)
    if isinstance(module, nn.MultiheadAttention) and attribute == "in_proj_weight":
        return Layout(stacked=3)
    if isinstance(module, _WITH_LAYOUT):
        return _of_weight(module) if attribute == "weight" else None  # else the parts of weight_norm and their like
    if type(module).__name__ == "Conv1D":
        return Layout(in_axes=0, out_axes=1)
    return Layout() if dims == 2 and "weight" in attribute else None


def _experts(named: Named) -> Layout | None:
    """Matrices stacked by transformers' ``use_experts_implementation``, whose modules say which axis has the inputs."""
    transposed, number = getattr(named.module, "is_transposed", None), named.tensor.shape[0]
    if (
        not isinstance(transposed, bool)
        or getattr(named.module, "num_experts", None) != number
        or "proj" not in named.attribute
    ):
        return None
    return Layout(number, in_axes=1, out_axes=2) if transposed else Layout(number, in_axes=2, out_axes=1)


_WITH_LAYOUT = (nn.Linear, nn.Bilinear, _ConvNd, *TABLES)


def _of_weight(module: Any) -> Layout:
    if isinstance(module, _ConvTransposeNd):
        return Layout(module.groups, in_axes=0, out_axes=1)
    if isinstance(module, _ConvNd):
        return Layout(module.groups)
    if isinstance(module, nn.Bilinear):
        return Layout(in_axes=(1, 2), out_axes=0)
    return Layout(in_axes=0, out_axes=1) if isinstance(module, TABLES) else Layout()


def _gates(module: Any) -> int:
    """How many matrices a recurrent weight stacks."""
    mode = getattr(module, "mode", "")
    if mode == "LSTM" or isinstance(module, nn.LSTMCell):
        return 4
    return 3 if mode == "GRU" or isinstance(module, nn.GRUCell) else 1


# ---- questions for rules -----------------------------------------------------------------------------------------------


def lookup(named: Named) -> bool:
    """A table whose rows are looked up."""
    return isinstance(named.module, TABLES) and named.attribute == "weight"


def matrix(named: Named) -> bool:
    """A weight with inputs and outputs."""
    return layout_of(named) is not None and not lookup(named)


def bias(named: Named) -> bool:
    """A vector called bias, or those of stacked experts."""
    dims = named.tensor.dim()
    return "bias" in named.attribute and (
        dims == 1 or (dims == 2 and isinstance(getattr(named.module, "is_transposed", None), bool))
    )


def vector_weight(named: Named) -> bool:
    """A vector called weight: in language models the scale of a norm, whoever wrote it."""
    return named.tensor.dim() == 1 and named.attribute == "weight" and not isinstance(named.module, nn.PReLU)
