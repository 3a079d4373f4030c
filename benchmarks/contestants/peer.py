"""What a peer is: it is told what is wanted, and gives a function that draws it, or the reason why it has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Draw", "Peer", "Wanted"]

Draw = Callable[[Tensor], object]  # writes the generator's next values to the tensor, or returns an array of that shape


class Wanted(NamedTuple):
    """What a peer is asked for.

    Args:
        call: name of the function in torch.nn.init; a peer draws its default arguments' distribution.
        arguments: what follows the tensor in that call; peers that are no drop-in take none.
        dtype: of the values.
        threads: that may be used.
        seed: of the generator.
        device: "cpu" or "cuda": where the values are wanted.
    """

    call: str
    arguments: tuple[float, ...]
    dtype: torch.dtype
    threads: int = 1
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class Peer:
    """A name, as tables show it, how it is opened, and for which calls and devices it is considered at all."""

    name: str
    open: Callable[[Wanted], Draw | str]
    calls: tuple[str, ...] = ("uniform_", "normal_", "trunc_normal_")
    devices: tuple[str, ...] = ("cpu",)

    def considers(self, call: str, device: str) -> bool:
        """Whether it takes part at all, or says why it does not."""
        return call in self.calls and device in self.devices
