"""What follows each layer of a model: which nonlinearity, another layer, or nothing that could be seen.

Three ways to look, the best that works: the graph of ``torch.fx`` (of the model, else of the largest parts that it can trace);
the order of calls in a run on meta, where an example input is given; the order in a ``Sequential``. Nothing is computed and
nothing of the model changes. Knows no distributions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from ..tensors.torch_private import tree_map

__all__ = ["RECURRENT", "Follows", "Seen", "following", "graph_of", "look"]


class Follows(NamedTuple):
    """What comes after a layer.

    Args:
        nonlinearity: as :func:`weightinit_cuda.init.fans.gain` knows it; ``"linear"`` if another layer or the output comes
            first; empty if nothing could be seen.
        slope: of leaky_relu.
        seen: the same in words.
    """

    nonlinearity: str
    slope: float | None
    seen: str


# Names of modules and functions, lower case without underscores: the nonlinearity whose gain is theirs, or nearest.
_KNOWN = {
    **dict.fromkeys(("relu", "relu6", "elu", "celu", "softplus", "relusquared"), "relu"),
    **dict.fromkeys(("leakyrelu", "prelu", "rrelu"), "leaky_relu"),
    **dict.fromkeys(("sigmoid", "logsigmoid", "hardsigmoid", "glu"), "sigmoid"),
    **dict.fromkeys(("tanh", "hardtanh", "softsign"), "tanh"),
    **dict.fromkeys(("silu", "swish", "hardswish", "swiglu"), "silu"),
    **dict.fromkeys(("gelu", "geglu"), "gelu"),
    "mish": "mish",
    "selu": "selu",
}
_LONGEST_FIRST = sorted(_KNOWN, key=len, reverse=True)
_LAYERS = re.compile(r"linear|bilinear|conv\d?d|conv_transpose\dd|conv_tbc")  # functions that multiply by weights
LONGEST = 200  # characters of an error that is passed on
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_ENCODERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


class _Activation(NamedTuple):
    nonlinearity: str
    slope: float | None


def _nonlinearity(name: str) -> str:
    """By the end of the name: ``QuickGELUActivation`` is gelu."""
    plain = name.lower().replace("_", "").removesuffix("activation")
    return next((_KNOWN[known] for known in _LONGEST_FIRST if plain.endswith(known)), "")


def _activation_module(module: nn.Module) -> _Activation | None:
    own = next(module.parameters(), None)
    name = "" if own is not None and not isinstance(module, nn.PReLU) else _nonlinearity(type(module).__name__)
    if not name:
        return None
    slopes = [getattr(module, key) for key in ("negative_slope", "init", "lower", "upper") if hasattr(module, key)]
    return _Activation(name, sum(slopes) / len(slopes) if name == "leaky_relu" and slopes else None)


def _activation_function(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Activation | None:
    kind = _nonlinearity(name)
    if kind != "leaky_relu":
        return _Activation(kind, None) if kind else None
    slope = kwargs.get("negative_slope", args[1] if len(args) > 1 else None)
    return _Activation(kind, slope if isinstance(slope, float) else None)


def _is_layer(module: nn.Module) -> bool:
    """It multiplies by weights of its own."""
    return any(parameter.dim() > 1 for parameter in module.parameters(recurse=False)) and not isinstance(module, nn.PReLU)


# ---- the graph -------------------------------------------------------------------------------------------------------


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return super().is_leaf_module(m, module_qualified_name) or _activation_module(m) is not None


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Takes back what a forward pass with stand-ins leaves in attributes of the modules."""
    before = [(module, dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)


def graph_of(part: nn.Module) -> fx.Graph:
    """The calls of a module's forward; activations and modules of torch.nn are one node each.

    Raises:
        Exception: fx cannot trace it; whatever its forward raises on stand-ins.
    """
    with _unchanged(part):
        return _Tracer().trace(part)


def _by_graph(part: nn.Module, prefix: str) -> dict[str, Follows]:
    """Every layer that the traced part calls.

    Raises:
        Exception: fx cannot trace it; whatever its forward raises on stand-ins.
    """
    graph = graph_of(part)
    modules = dict(part.named_modules())
    found: dict[str, Follows] = {}
    for node in graph.nodes:
        layer = _layer_of(node, modules)
        if layer is not None and (after := _after(node, modules, prefix, layer)) is not None:
            found.setdefault(_join(prefix, layer), after)
    return found


def _layer_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> str | None:
    """The module whose weights a node brings in: called, or read from outside of its call."""
    if node.op == "call_module" and any(map(_is_layer, modules[str(node.target)].modules())):
        return str(node.target)
    if node.op == "get_attr" and isinstance(module := modules.get(str(node.target).rpartition(".")[0]), nn.Module):
        return str(node.target).rpartition(".")[0] if _is_layer(module) else None
    return None


def _after(start: fx.Node, modules: Mapping[str, nn.Module], prefix: str, layer: str) -> Follows | None:
    """The nearest nonlinearity or layer behind a node, past norms, additions, reshapes and the like; None: beyond this part."""
    name = _join(prefix, layer)
    nearest, seen = list(start.users), {start}
    if start.op == "get_attr":  # the call that multiplies by it is the layer itself
        nearest = [user for node in nearest for user in (node.users if _multiplies(node) else (node,))]
    while nearest:
        for node in nearest:
            if node.op == "output":
                return None if prefix else _follows(name, None, "the output of the model")
            if (found := _stop(node, modules, prefix)) is not None:
                activation, label = found
                return _follows(name, activation, label)
        seen.update(nearest)
        nearest = [user for node in nearest for user in node.users if user not in seen]
    return _follows(name, None, "nothing")


def _multiplies(node: fx.Node) -> bool:
    return node.op == "call_function" and bool(_LAYERS.fullmatch(getattr(node.target, "__name__", "")))


def _stop(node: fx.Node, modules: Mapping[str, nn.Module], prefix: str) -> tuple[_Activation | None, str] | None:
    """Whether the search ends here: at a nonlinearity, or at a layer (None)."""
    if node.op == "call_module":
        module, name = modules[str(node.target)], _join(prefix, str(node.target))
        label = f"{name} {type(module).__name__}"
        if (activation := _activation_module(module)) is not None:
            return activation, label
        return (None, label) if any(map(_is_layer, module.modules())) else None
    if _multiplies(node):
        return None, str(node)
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    activation = _activation_function(name, node.args, node.kwargs)
    return activation and (activation, name)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name


def _follows(layer: str, activation: _Activation | None, label: str) -> Follows:
    if activation is None:
        return Follows("linear", None, f"no nonlinearity follows ({layer or 'weight'} -> {label})")
    return Follows(*activation, f"{activation.nonlinearity} follows ({layer or 'weight'} -> {label})")


# ---- the order of calls ----------------------------------------------------------------------------------------------


class _Calls(TorchFunctionMode):
    """Layers and nonlinearities in the order in which a run meets them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, Follows] = {}
        self.waiting: str | None = None

    def listen(self, name: str, module: nn.Module) -> list[RemovableHandle]:
        label, activation = f"{name} {type(module).__name__}, in order of calls", _activation_module(module)

        def before(module: nn.Module, args: object) -> None:
            self.stop(activation, label)

        def after(module: nn.Module, args: object, output: object) -> None:
            self.waiting = None if name in self.found else name

        hooks = [module.register_forward_pre_hook(before)] if activation or _is_layer(module) else []
        return [*hooks, module.register_forward_hook(after)] if _is_layer(module) else hooks

    def stop(self, activation: _Activation | None, label: str) -> None:
        if self.waiting is not None:
            self.found[self.waiting] = _follows(self.waiting, activation, label)
        self.waiting = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if (activation := _activation_function(name, args, kwargs or {})) is not None:
            self.stop(activation, f"{name}, in order of calls")
        return func(*args, **(kwargs or {}))


def _by_calls(model: nn.Module, example: Sequence[Any]) -> dict[str, Follows]:
    """As seen in one run on meta.

    Raises:
        Exception: whatever the model's forward raises on meta.
    """
    calls = _Calls()
    hooks = [hook for name, module in model.named_modules() for hook in calls.listen(name, module)]
    state = {name: tensor.to("meta") for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    inputs = tree_map(lambda leaf: leaf.to("meta") if isinstance(leaf, Tensor) else leaf, tuple(example))
    try:
        with torch.no_grad(), torch.device("meta"), _unchanged(model), calls:
            functional_call(model, state, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    calls.stop(None, "the output of the model")
    return calls.found


# ---- together --------------------------------------------------------------------------------------------------------


def following(model: nn.Module, example: Sequence[Any] = ()) -> dict[str, Follows]:
    """What follows each layer, by the layer's qualified name; layers that no way could see are left out.

    Args:
        model: any module, on any device.
        example: positional inputs, for models that fx cannot trace. They are only looked at for shapes and dtypes.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Dropout(), nn.Tanh(), nn.Linear(3, 1))
    >>> [(name, after.seen) for name, after in following(net).items()]
    [('0', 'tanh follows (0 -> 2 Tanh)'), ('3', 'no nonlinearity follows (3 -> the output of the model)')]
    """
    return look(model, example).found


class Seen(NamedTuple):
    """What was seen, and why no more.

    Args:
        found: what follows each layer.
        why: what the model raised when it was traced, or run on its example; empty if one of them went well.
    """

    found: dict[str, Follows]
    why: str = ""


def look(model: nn.Module, example: Sequence[Any] = ()) -> Seen:
    """What :func:`following` returns, and what hindered it."""
    why = ""
    try:
        found = _by_graph(model, "")
    except Exception as error:
        found, why = {}, f"torch.fx cannot trace it: {_words(error)}"
        if example:
            try:
                found, why = _by_calls(model, example), ""
            except Exception as error:
                found, why = {}, f"it does not run on this example: {_words(error)}"
        found = {**_by_parts(model, ""), **found}
    return Seen({**found, **dict(_inside(model))}, why)


def _words(error: Exception) -> str:
    """An error in one line, the root cause of it."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:LONGEST] + '...' if len(text) > LONGEST else text}".rstrip(": ")


def _by_parts(part: nn.Module, prefix: str) -> dict[str, Follows]:
    """Of the largest parts that can be traced; between children of a Sequential by their order."""
    found: dict[str, Follows] = {}
    for name, child in part.named_children():
        if next(child.children(), None) is None and child.__module__.startswith("torch.nn."):
            continue  # a single layer shows nothing of what follows it
        inner = _join(prefix, name)
        try:
            found |= _by_graph(child, inner)
        except Exception:
            found |= _by_parts(child, inner)
    if isinstance(part, nn.Sequential):
        found |= dict(_by_order(list(part.named_children()), prefix))
    return found


def _by_order(children: Sequence[tuple[str, nn.Module]], prefix: str) -> Iterator[tuple[str, Follows]]:
    for number, (name, child) in enumerate(children):
        for after, module in children[number + 1 :] if _is_layer(child) else ():
            activation, layer = _activation_module(module), any(map(_is_layer, module.modules()))
            if activation or layer:
                label = f"{_join(prefix, after)} {type(module).__name__}"
                yield _join(prefix, name), _follows(_join(prefix, name), activation, label)
                break


def _inside(model: nn.Module) -> Iterator[tuple[str, Follows]]:
    """Modules of torch.nn whose nonlinearity is inside them."""
    for name, module in model.named_modules():
        if isinstance(module, RECURRENT):
            yield name, Follows("sigmoid", None, f"{type(module).__name__}'s own recurrence")
        elif isinstance(module, nn.MultiheadAttention):
            for inner in (name, _join(name, "out_proj")):
                yield inner, Follows("linear", None, "no nonlinearity follows in MultiheadAttention")
        elif isinstance(module, _ENCODERS):
            kind: Any = module.activation
            activation = (
                _activation_module(kind) if isinstance(kind, nn.Module) else _activation_function(kind.__name__, (), {})
            )
            yield _join(name, "linear1"), _follows(_join(name, "linear1"), activation, "activation")
            yield _join(name, "linear2"), _follows(_join(name, "linear2"), None, "residual")
