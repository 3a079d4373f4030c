"""Which weights end a residual branch: found by what a block adds to its input, not by names.

A block is a module with siblings of its own class, as layers of a transformer are. Its graph is traced where ``torch.fx`` can;
else the last weight of each of its parts that gives as many outputs as the block. Knows modules, no distributions.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import fx, nn

from ..tensors.named import Named, joined, named_tensors
from .layouts import layout_of, matrix
from .tracing import graph_of

__all__ = ["BranchEnd", "Stack", "ends_without_a_name", "stacks_of"]

_SUMS = ("add", "add_", "__add__", "__radd__", "__iadd__", "iadd")
_SAME = ("view", "reshape", "to", "contiguous", "float", "type_as", "flatten", "unflatten", "clone", "transpose", "permute")
_INSIDE: dict[type[nn.Module], tuple[str, ...]] = {  # of torch's own blocks
    nn.TransformerEncoderLayer: ("self_attn.out_proj", "linear2"),
    nn.TransformerDecoderLayer: ("self_attn.out_proj", "multihead_attn.out_proj", "linear2"),
    nn.MultiheadAttention: ("out_proj",),
}
_NORMS = ("norm", "ln")  # in the class or the name of a module: a branch begins


class BranchEnd(NamedTuple):
    """A weight that ends a residual branch.

    Args:
        name: of the weight.
        block: the block's number in its stack, from 0.
        seen: how it was found, in words.
    """

    name: str
    block: int
    seen: str


class Stack(NamedTuple):
    """Blocks of one class under one parent, and what ends their residual branches."""

    name: str
    blocks: int
    ends: tuple[BranchEnd, ...]


_Blocks = Sequence[tuple[str, nn.Module]]


def stacks_of(model: nn.Module) -> list[Stack]:
    """The stacks of a model, the outermost ones; ``ends`` is empty where nothing adds to its input.

    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)
    ...     def forward(self, x):
    ...         return x + self.down(self.up(x).relu())
    >>> [stack] = stacks_of(nn.Sequential(Block(), Block()))
    >>> [(end.name, end.block) for end in stack.ends]
    [('0.down.weight', 0), ('1.down.weight', 1)]
    """
    weights = _weights(model)
    return [_stack(name, blocks, weights) for name, blocks in _stacks(model, "")]


def ends_without_a_name(model: nn.Module, known: Collection[str], rules: str) -> dict[str, BranchEnd]:
    """What ends a residual branch in blocks where a set of rules knows fewer than two such weights by name.

    Args:
        known: names of weights that the set's own globs match.
        rules: the set, and what it looks for, as a warning calls them.

    Warns:
        UserWarning: blocks in which nothing ends a branch, by name or by structure.
    """
    found: dict[str, BranchEnd] = {}
    weights: dict[str, Named] = {}
    for name, blocks in _stacks(model, ""):
        if all(_number_inside(block, known) > 1 for block, _ in blocks):
            continue
        weights = weights or _weights(model)
        stack = _stack(name, blocks, weights)
        found |= {end.name: end for end in stack.ends if end.name not in known}
        if not stack.ends and not any(_number_inside(block, known) for block, _ in blocks):
            warnings.warn(
                f"{rules} in the {stack.blocks} blocks of {name or 'the model'}, and nothing there is added to a block's input:"
                " no weight of theirs is narrower by depth. Give these weights a Rule before this set.",
                stacklevel=8,
            )
    return found


def _number_inside(block: str, names: Collection[str]) -> int:
    return sum(name.startswith(f"{block}.") for name in names)


def _weights(model: nn.Module) -> dict[str, Named]:
    """Weights with inputs and outputs, under all of their names."""
    found: dict[str, Named] = {}
    for named in named_tensors(model, buffers=False):
        if matrix(named):
            found |= dict.fromkeys((named.name, *named.aliases), named)
    return found


def _stacks(parent: nn.Module, prefix: str) -> Iterator[tuple[str, _Blocks]]:
    """Names and blocks of each stack, nothing inside of blocks."""
    children = list(parent.named_children())
    large = [(joined(prefix, name), child) for name, child in children if _has_weights(child) and any(child.children())]
    kinds = Counter(type(child) for _, child in large)
    for kind, number in kinds.items():
        if number > 1:
            yield prefix, [(name, child) for name, child in large if type(child) is kind]
    for name, child in large:
        if kinds[type(child)] == 1:
            yield from _stacks(child, name)


def _has_weights(module: nn.Module) -> bool:
    return any(parameter.dim() > 1 for parameter in module.parameters())


def _stack(name: str, blocks: _Blocks, weights: Mapping[str, Named]) -> Stack:
    known: dict[tuple[str, ...], tuple[list[str], str]] = {}  # blocks of the same parts are alike, and looked at once
    found: list[tuple[int, str, str]] = []
    for number, (prefix, block) in enumerate(blocks):
        own = tuple(inner for inner, _ in block.named_parameters())
        if own not in known:
            known[own] = _ends(block, prefix, weights)
        inner, seen = known[own]
        found += [(number, joined(prefix, end), seen) for end in inner if joined(prefix, end) in weights]
    ends = tuple(BranchEnd(weights[end].name, number, seen) for number, end, seen in found)
    return Stack(name, len(blocks), ends)


def _ends(block: nn.Module, prefix: str, weights: Mapping[str, Named]) -> tuple[list[str], str]:
    """Names within the block, and how they were found."""
    for kind, names in _INSIDE.items():
        if isinstance(block, kind):
            return [f"{name}.weight" for name in names], f"of {kind.__name__}"
    try:
        graph = graph_of(block)
    except Exception:
        return list(_by_parts(block, prefix, weights)), "the last weight of its part, as the block is built"
    return list(dict.fromkeys(_by_sums(graph, block))), "its product is added to the block's input"


# ---- by the graph ----------------------------------------------------------------------------------------------------


def _by_sums(graph: fx.Graph, block: nn.Module) -> Iterator[str]:
    """The last weights of whatever is added to the stream."""
    modules = dict(block.named_modules())
    stream = {next(node for node in graph.nodes if node.op == "placeholder")}
    for node in graph.nodes:
        name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
        if node.op not in ("call_method", "call_function"):
            continue
        if name in _SAME and node.args and node.args[0] in stream:
            stream.add(node)
        operands = [operand for operand in node.args[:2] if isinstance(operand, fx.Node)]
        inside = [operand in stream for operand in operands]
        if name in _SUMS and len(operands) == 2 and any(inside):
            stream.add(node)
            for operand in (operand for operand, known in zip(operands, inside, strict=True) if not known):
                yield from _last_weights(operand, modules, stream)


def _last_weights(node: fx.Node, modules: Mapping[str, nn.Module], stream: set[fx.Node]) -> Iterator[str]:
    """The nearest weights before a node, past dropout, norms, reshapes and the like."""
    waiting, seen = [node], set(stream)
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op == "get_attr":
            yield str(node.target)
        elif node.op == "call_module" and (names := _weights_of(str(node.target), modules)):
            yield from names
        else:
            waiting += node.all_input_nodes


def _weights_of(name: str, modules: Mapping[str, nn.Module]) -> list[str]:
    module = modules[name]
    for kind, names in _INSIDE.items():
        if isinstance(module, kind):
            return [f"{name}.{inner}.weight" for inner in names]
    return [f"{name}.{own}" for own, parameter in module.named_parameters(recurse=False) if parameter.dim() > 1]


# ---- by the parts ----------------------------------------------------------------------------------------------------


def _by_parts(block: nn.Module, prefix: str, weights: Mapping[str, Named]) -> Iterator[str]:
    """In the order in which the parts were registered; a norm between weights that stand alone begins another part."""
    parts: list[list[str]] = [[]]
    for name, child in _children(block):
        inner = [own for own, _ in _named_weights(child, name) if joined(prefix, own) in weights]
        if any(child.children()):
            parts += [inner, []]
        elif inner:
            parts[-1] += inner
        elif any(word in f"{name} {type(child).__name__}".lower() for word in _NORMS):
            parts.append([])
    parts = [part for part in parts if part]
    if not parts:
        return
    width = _outputs(weights[joined(prefix, parts[-1][-1])])
    for part in parts:
        if ends := [own for own in part if _outputs(weights[joined(prefix, own)]) == width]:
            yield ends[-1]


def _children(block: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts of a block, or of the one child that holds all of them."""
    children = [(name, child) for name, child in block.named_children() if _has_weights(child)]
    if len(children) == 1 and any(children[0][1].children()):
        name, child = children[0]
        return [(joined(name, inner), part) for inner, part in _children(child)]
    return list(block.named_children())


def _named_weights(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Parameter]]:
    return ((joined(prefix, name), parameter) for name, parameter in module.named_parameters() if parameter.dim() > 1)


def _outputs(named: Named) -> int:
    layout = layout_of(named)
    assert layout is not None  # it is a matrix
    shape = tuple(named.tensor.shape)
    axis = layout.out_axes if isinstance(layout.out_axes, int) else 0
    return shape[axis] // (layout.stacked if axis == 0 else 1)
