"""Sees what a model does in one pass, and keeps numbers only: a function mode for the calls, hooks for names and gradients.

The mode sees every function of torch wherever it is called; module hooks say in which module. Outputs are measured when they
appear, gradients when they arrive (a hook on the tensor); no activation is held. :class:`Observer` is entered for a
forward pass, and again for a backward pass, where checkpointed parts run once more.
"""

from __future__ import annotations

import math
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from ..tensors.torch_private import without_functions
from .attention import sharp_of_scores, sharp_of_sdpa
from .identity import ByIdentity
from .measures import measurable, measure, peak, rms, twins
from .products import NORMS, Product, Weights, tensors_in
from .recurrent import CELLS, FLAT, SEQUENCES, Gates, gates_of_cell, gates_of_sequence, weights_at
from .row import Row
from .stream import Stream, stacks

__all__ = ["Observer"]

ACTIVATIONS = frozenset(
    (
        *FLAT,
        "relu",
        "relu6",
        "leaky_relu",
        "prelu",
        "rrelu",
        "elu",
        "celu",
        "selu",
        "gelu",
        "silu",
        "mish",
        "softplus",
        "hardswish",
    )
)
_SMOOTH = ("gelu", "silu", "swish", "mish")  # classes whose own tanh or sigmoid is no saturating activation
_IMAGES = ("batch_norm", "group_norm", "instance_norm")  # channels are their second axis, whatever came before
_MULTIPLY = ("matmul", "bmm", "baddbmm", "__matmul__", "einsum")
_COMPOSITE = (F.multi_head_attention_forward, torch.autograd.grad)  # in the second checkpointed parts run again
CALLS = 64  # of one weight that are measured: a cell is called at every step of a sequence


class Observer(TorchFunctionMode):
    """Watches one pass of a model.

    Args:
        model: any module.
        still: whether dropout is left out: its draw is no property of the weights.
    """

    def __init__(self, model: nn.Module, still: bool = True) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self.asleep: list[str] = []  # weights of zeros that got a gradient: what lies before them wakes after one step
        self.weights = Weights(model)
        self.watching = True
        self.kept: dict[str, Tensor] | None = None  # a dictionary keeps the sample of each product's output, by name
        self._still = still
        self._stream = Stream()
        self._where: list[tuple[str, nn.Module]] = [("", model)]
        self._calls: Counter[tuple[str, str]] = Counter()
        self._images = ByIdentity[bool]()  # whether channels come first, where it is known
        self._products = ByIdentity[Row]()  # their rows
        self._softmaxes = ByIdentity[Row]()  # their rows, until they multiply something
        self._open: set[Callable[..., Any]] = set()
        self._blocks = stacks(model)
        self._once: set[nn.Module] = set()  # modules with children that were called: called again they are blocks
        self._handles: list[RemovableHandle] = []
        for name, module in model.named_modules():
            if name and not isinstance(module, torch.jit.ScriptModule):  # which takes no hooks
                self._handles += self._listen(name, module)

    def close(self) -> None:
        """Takes the hooks away."""
        for handle in self._handles:
            handle.remove()

    # ---- modules ----------------------------------------------------------------------------------------------------

    def _listen(self, name: str, module: nn.Module) -> list[RemovableHandle]:
        parent = next(module.children(), None) is not None
        shown = name.replace("_orig_mod.", "")

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self.watching:
                self._where.append((shown, module))
                with without_functions():
                    self.weights.add(name, module)
                    if parent and (module in self._blocks or module in self._once):
                        self._stream.enter(shown, self._blocks.get(module, shown), (args, kwargs))
                    elif parent:
                        self._once.add(module)

        def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
            if self.watching:
                self._where.pop()
                with without_functions():
                    if (found := self._stream.leave(shown, out)) is not None:
                        self._record(*found, image=self._is_image(found[1]))

        return [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after, with_kwargs=True),
        ]

    # ---- functions --------------------------------------------------------------------------------------------------

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if func in _COMPOSITE and func not in self._open:
            return self._opened(func, args, kwargs)
        if self._still and "dropout" in name:
            return args[0] if args else kwargs["input"]
        if self._still:
            args, kwargs = _without_dropout(name, args, kwargs)
        out = func(*args, **kwargs)
        if self.watching and name != "__get__":
            self._see(name, args, kwargs, out)
        elif self.watching:  # W.T, W.mT, W.data
            self.weights.derive(tensors_in(args), out)
        return out

    def _opened(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls what is one function to a mode with its inner calls in sight: it does not ask whether anybody overrides it."""
        globals_ = {**func.__globals__, "has_torch_function": lambda _: False}
        inner = types.FunctionType(func.__code__, globals_, func.__name__, func.__defaults__, func.__closure__)
        inner.__kwdefaults__ = func.__kwdefaults__
        self._open.add(func)
        try:
            with self:
                return inner(*args, **kwargs)
        finally:
            self._open.discard(func)

    def _see(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
        given = list(tensors_in(args)) + list(tensors_in(kwargs))
        if not given:
            return
        self._stream.follow(name, args, out)
        product = self.weights.product(name, args, kwargs)
        for factor in self.weights.new_factors(name, args, kwargs, product):
            self._on_gradient(factor, partial(self._wakes, factor))
        derived = self.weights.derive(given, out)
        y = next(tensors_in(out), None)
        if y is None or not measurable(y):
            return
        kind = name.rstrip("_")
        self._note_layout(name, product, given[0], y)
        if name in NORMS and (row := self._products.get(given[0])) is not None:
            row.normed = True
        elif product is not None:
            self._see_product(name, args, product, y)
        elif kind in ACTIVATIONS and not derived:
            self._see_activation(kind, y)
        elif not derived:
            self._see_attention(name, args, kwargs, given[0], y)

    def _see_product(self, name: str, args: Sequence[Any], product: Product, y: Tensor) -> None:
        for gates in _gates(name, args):
            row = Row(self.weights.names.get(gates.weight) or self._where[-1][0], "gates", saturated=gates.saturated)
            if self._record(row, gates.output, image=False):
                self._await(row, gates.weight, Product(gates.weight, inputs=None))
        weight = product.weight
        label = None if weight is None else self.weights.names.get(weight)
        row = Row(label or self._where[-1][0], product.kind)
        if self._record(row, y, bool(self._images.get(y))):
            self._products[y] = row
            if weight is not None:
                self._await(row, weight, product)

    def _see_activation(self, kind: str, y: Tensor) -> None:
        where, module = self._where[-1]
        own = type(module).__name__.lower()
        kind = next((smooth for smooth in _SMOOTH if smooth in own), kind)
        self._record(Row(where, kind), y, self._is_image(y))

    def _see_attention(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], x: Tensor, y: Tensor) -> None:
        if name == "scaled_dot_product_attention":
            with without_functions():
                row = Row(self._where[-1][0], "attention", saturated=sharp_of_sdpa(args, kwargs))
            self._record(row, y, image=False)
        elif name == "softmax" and y.dim() > 2 and (kwargs.get("dim", args[1] if len(args) > 1 else None)) in (-1, y.dim() - 1):
            row = Row(self._where[-1][0], "attention", saturated=sharp_of_scores(x, y))
            if y.dim() == 4:
                self._record(row, y, image=False)
            else:
                self._softmaxes[y] = row
        elif name == "to" and (waiting := self._softmaxes.get(x)) is not None:
            self._softmaxes[y] = waiting
        elif name in _MULTIPLY:
            for operand in tensors_in(args):
                if (waiting := self._softmaxes.pop(operand)) is not None:
                    self._record(waiting, operand, image=False)

    def _note_layout(self, name: str, product: Product | None, x: Tensor, y: Tensor) -> None:
        """Channels come first after a convolution or a batch norm, last after a linear; elementwise functions keep it."""
        if product is not None:
            self._images[y] = product.image
        elif name in _IMAGES:
            self._images[y] = True
        elif (first := self._images.get(x)) is not None and x.shape == y.shape:
            self._images[y] = first

    def _is_image(self, y: Tensor) -> bool:
        known = self._images.get(y)
        return y.dim() > 3 if known is None else known

    # ---- rows -------------------------------------------------------------------------------------------------------

    def _record(self, row: Row, y: Tensor, image: bool) -> bool:
        """Measures an output, now and when its gradient arrives; False if this place was seen often enough."""
        key = row.name, row.kind
        self._calls[key] += 1
        if self._calls[key] > CALLS:
            return False
        if self._calls[key] > 1:
            row.name += f"#{self._calls[key]}"
        sample = measure(row, y, image)
        if self.kept is not None and sample is not None and row.kind in ("weight", "table"):
            self.kept[row.name] = sample
        if sample is not None and sample.numel():
            if row.kind in FLAT:
                row.saturated = float(FLAT[row.kind](sample).float().mean())
            if row.kind in ("relu", "relu6") and len(sample) > 1:
                row.dead = float((sample == 0).all(0).double().mean())
        self._on_gradient(y, partial(self._arrived, row))
        self.rows.append(row)
        return True

    def _arrived(self, row: Row, gradient: Tensor) -> None:
        with without_functions():
            row.gradient = rms(gradient)
            row.bad_gradient = not math.isfinite(row.gradient)

    def _await(self, row: Row, weight: Tensor, product: Product) -> None:
        """Measures a weight now, and again with its gradient when that arrives: FSDP2 has the values at these times only."""
        row.weight = rms(weight)
        self._on_gradient(weight, partial(self._weigh, row, weight, product))

    def _weigh(self, row: Row, weight: Tensor, product: Product, gradient: Tensor) -> None:
        """Twins among the weight's outputs, and among its inputs."""
        with without_functions():
            row.weight_gradient = rms(gradient)
            if product.units is not None:
                row.twins = twins(weight, gradient, product.units)
            if product.inputs is not None:
                row.input_twins = twins(weight, gradient, product.inputs)

    def _wakes(self, factor: Tensor, gradient: Tensor) -> None:
        with without_functions():
            if peak(factor) == 0 < peak(gradient):
                self.asleep.append(self.weights.names.get(factor) or "")

    def _on_gradient(self, tensor: Any, call: Callable[[Tensor], None]) -> None:
        """Of a leaf the call is taken back by ``close``; of another tensor it goes with the graph."""
        if tensor.requires_grad:
            handle = tensor.register_hook(call)
            if tensor.is_leaf:
                self._handles.append(handle)


def _gates(name: str, args: Sequence[Any]) -> Iterator[Gates]:
    if name in CELLS:
        yield gates_of_cell(name, args)
    elif name in SEQUENCES:
        yield from gates_of_sequence(name, args)


def _without_dropout(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a function that can drop something, changed so that it does not."""
    at = None
    if name == "scaled_dot_product_attention":
        kwargs, at = ({**kwargs, "dropout_p": 0.0}, None) if len(args) < 5 else (kwargs, 4)
    elif name in SEQUENCES:
        at = weights_at(args) + 3
    return (args if at is None else (*args[:at], 0.0, *args[at + 1 :])), kwargs
