"""Residual blocks: which modules add to what they were given, how often, and how much.

A block is a module with siblings of its own class. It is residual if it adds something to its own input; that sum is the
stream from there on. Nothing is guessed from names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from .identity import ByIdentity
from .measures import cells, local, measurable, rms
from .products import tensors_in
from .row import NAN, Row

__all__ = ["Block", "Stream", "stacks"]

_SUMS = ("add", "add_", "__add__", "__radd__", "__iadd__")
_SAME = ("view", "reshape", "to", "contiguous", "float", "type_as", "flatten", "unflatten", "clone", "squeeze", "unsqueeze")


def stacks(model: nn.Module) -> dict[nn.Module, str]:
    """Modules with children that have a sibling of their own class, and the name of what holds them.

    >>> layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    >>> list(stacks(nn.TransformerEncoder(layer, 3)).values())
    ['layers', 'layers', 'layers']
    """
    found = {}
    for name, parent in model.named_modules():
        children = [child for child in parent.children() if next(child.children(), None) is not None]
        for child in children:
            if sum(type(other) is type(child) for other in children) > 1:
                found[child] = name
    return found


@dataclass
class Block:
    """A block that is being run."""

    name: str
    group: str
    before: Tensor | None  # a sample of what it was given
    branches: int = 0
    stream: ByIdentity[bool] = field(default_factory=ByIdentity)


class Stream:
    """Follows the residual stream through the blocks of one forward pass."""

    def __init__(self) -> None:
        self.running: list[Block] = []

    def enter(self, name: str, group: str, given: Any) -> None:
        """A block begins; the first floating-point tensor that it is given is the stream."""
        x = _first(given)
        block = Block(name, group, None if x is None else cells(x, image=False))
        if x is not None:
            block.stream[x] = True
        self.running.append(block)

    def follow(self, function: str, args: Sequence[Any], out: Any) -> None:
        """A function was called: a sum with the stream is the stream, and so is another view of it."""
        if not self.running or not isinstance(out, Tensor):
            return
        stream = self.running[-1].stream
        if function in _SUMS:
            operands = [a for a in args[:2] if isinstance(a, Tensor)]
            if len(operands) == 2 and any(operand in stream for operand in operands) and _same_size(*operands):
                self.running[-1].branches += 1
                stream[out] = True
        elif function in _SAME and args and isinstance(args[0], Tensor) and args[0] in stream:
            stream[out] = True

    def leave(self, name: str, out: Any) -> tuple[Row, Tensor] | None:
        """A module ends; its row and its output, if it is a block and residual."""
        if not self.running or self.running[-1].name != name:
            return None
        block, y = self.running.pop(), _first(out)
        if not block.branches or block.before is None or y is None:
            return None
        row = Row(block.name, "block", branches=block.branches, group=block.group)
        after = cells(y, image=False)
        row.entering = rms(block.before)
        if after.shape == block.before.shape and row.entering > 0:
            row.branch = rms(after - block.before) / row.entering
        else:
            row.branch = NAN
        return row, y


def _same_size(a: Tensor, b: Tensor) -> bool:
    """Else it is a bias, or a mask."""
    return local(a).numel() == local(b).numel()


def _first(values: Any) -> Tensor | None:
    return next((t for t in tensors_in(values) if measurable(t)), None)
