"""Which weights a call multiplies by, and along which axis its units lie; which tensors are weights at all.

Weights are known by identity: parameters, and whatever is computed from parameters and buffers alone (a transposed view, a
chunk, a cast, a pruning mask, weight_norm, a parametrization). So functional calls, tied and parametrised weights are seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from .identity import ByIdentity
from .recurrent import CELLS, SEQUENCES

__all__ = ["NORMS", "Product", "Weights", "tensors_in"]


class Product(NamedTuple):
    """A multiplication of samples by weights.

    Args:
        weight: the operand; None where it is no parameter (a network makes it).
        kind: ``"weight"`` or ``"table"``.
        units: the operand's axis of outputs; None where equal ones are no twins.
        inputs: its axis of inputs; None likewise.
        image: whether the output has its channels first.
    """

    weight: Tensor | None
    kind: str = "weight"
    units: int | None = 0
    inputs: int | None = 1
    image: bool = False


_TABLES = ("embedding", "embedding_bag")
_BY_ROWS = ("linear", "bilinear")
_MATRICES = ("matmul", "mm", "bmm", "addmm", "baddbmm", "__matmul__", "__rmatmul__", "einsum", "tensordot")
NORMS = {"layer_norm": 2, "rms_norm": 2, "group_norm": 2, "batch_norm": 3, "instance_norm": 3}  # where the scale is
_SCALINGS = ("mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply")


def tensors_in(values: Any) -> Iterator[Tensor]:
    """The tensors in arguments: of lists, tuples and mappings each member."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from tensors_in(value)
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from tensors_in(value)


class Weights:
    """The parameters of a model and what was computed from them alone, with their names.

    Args:
        model: any module.
    """

    def __init__(self, model: nn.Module) -> None:
        self.names = ByIdentity[str]()
        self._constants = ByIdentity[bool]()  # buffers, and what is computed from them alone
        self.factors = ByIdentity[bool]()  # those that scale something
        for prefix, module in model.named_modules():
            self.add(prefix, module)

    def add(self, prefix: str, module: nn.Module) -> None:
        """A module's own parameters as they are now: FSDP2 puts gathered ones in their place for a forward pass."""
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in self.names:
                self.names[parameter] = f"{prefix}.{name}".lstrip(".").replace("_orig_mod.", "")
        for _, buffer in module.named_buffers(recurse=False):
            self._constants[buffer] = True

    def derive(self, given: Iterable[Tensor], out: Any) -> bool:
        """Notes what was computed from weights alone, under the name of the largest; returns whether it was."""
        sources = list(given)
        if not sources or not all(self._known(tensor) for tensor in sources):
            return False
        weights = [tensor for tensor in sources if tensor in self.names]
        for made in tensors_in(out):
            if not weights:
                self._constants[made] = True
            elif made not in self.names:
                self.names[made] = self.names.get(max(weights, key=Tensor.numel)) or ""
        return bool(weights)

    def _known(self, tensor: Tensor) -> bool:
        return tensor in self.names or tensor in self._constants

    def product(self, function: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Product | None:
        """What a call multiplies by; None if it is no product with weights."""
        if function in _BY_ROWS or function.startswith("conv") or function in _TABLES:
            at = 2 if function == "bilinear" else 1
            weight = kwargs.get("weight", args[at] if len(args) > at else None)
            return self._of_layer(function, weight, args, kwargs) if isinstance(weight, Tensor) else None
        if function in _MATRICES:
            return self._of_matrices(function, args, kwargs)
        return Product(None) if function in SEQUENCES or function in CELLS else None  # weights: of the rows of their gates

    def _of_layer(self, function: str, weight: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Product:
        known = weight if weight in self.names else None
        if function in _TABLES:
            return Product(known, "table", None, None)
        if not function.startswith("conv"):
            return Product(known)
        groups = kwargs.get("groups", args[6] if len(args) > 6 else 1)
        if "transpose" in function:
            return Product(known, units=1 if groups == 1 else None, inputs=0, image=True)
        return Product(known, inputs=1 if groups == 1 else None, image=True)

    def _of_matrices(self, function: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Product | None:
        operands = list(tensors_in((args, kwargs)))
        operands = operands[1:] if function in ("addmm", "baddbmm") else operands
        if function == "__rmatmul__":
            operands.reverse()
        places = [i for i, tensor in enumerate(operands) if tensor.dim() > 1 and tensor in self.names]
        if not places or all(self._known(tensor) for tensor in operands):  # of weights alone: a weight that is being made
            return None
        weight = operands[places[-1]]
        if function == "einsum":
            axes = _einsum_axes(args[0], places[-1]) if isinstance(args[0], str) else (None, None)
        else:
            axes = (-1, -2) if places[-1] > 0 else (-2, -1)
        return Product(weight, "weight", *(axes if weight.dim() == 2 and function != "tensordot" else (None, None)))

    def new_factors(
        self, function: str, args: Sequence[Any], kwargs: Mapping[str, Any], product: Product | None
    ) -> Iterator[Tensor]:
        """Weights that scale an activation for the first time: of products, gammas of norms, gates of branches.

        Zeros there put to sleep what lies before them.
        """
        found: Iterable[Any] = () if product is None else (product.weight,)
        if function in _SCALINGS:
            found = args
        elif (at := NORMS.get(function)) is not None:
            found = (kwargs.get("weight", args[at] if len(args) > at else None),)
        for factor in found:
            if (
                isinstance(factor, Tensor)
                and factor.is_floating_point()
                and factor in self.names
                and factor not in self.factors
            ):
                self.factors[factor] = True
                yield factor


def _einsum_axes(equation: str, place: int) -> tuple[int | None, int | None]:
    """The axes of a weight that are outputs and inputs.

    >>> _einsum_axes("bi,oi->bo", 1), _einsum_axes("io, b i -> b o", 0)
    ((0, 1), (1, 0))
    """
    terms, _, result = equation.replace(" ", "").partition("->")
    letters = terms.split(",")[place]
    units = [i for i, letter in enumerate(letters) if letter in result]
    if len(letters) != 2 or len(units) != 1:
        return None, None
    return units[0], 1 - units[0]
