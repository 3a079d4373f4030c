"""The seed of a whole model and the names of its streams: given, or drawn so that calls differ and ranks agree.

Without ``seed=`` it is 64 bits of torch's default generator, as in the functions of ``init``, so that ``torch.manual_seed``
governs it. Ranks that share DTensors take the one of the first of them. Plain tensors say nothing of other ranks, so nothing is
communicated for them: there ``torch.manual_seed`` has to be called alike on all ranks, or ``seed=`` given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import SupportsIndex

import torch
from torch import Tensor

from .. import engine
from ..init.arguments import seed_of
from ..tensors.shards import agreed
from ..tensors.torch_private import without_modes

__all__ = ["drawn_seed", "prefix_of", "seed_or_drawn"]


def seed_or_drawn(function: str, seed: SupportsIndex | None, tensors: Iterable[Tensor]) -> int:
    """The seed as 64 bits; if it is None, one that all ranks of the tensors' meshes have."""
    return agreed(drawn_seed(), tensors) if seed is None else seed_of(function, seed)


def drawn_seed() -> int:
    """64 bits of torch's default generator of the CPU, whatever the devices of the model are."""
    with without_modes():
        return engine.draw_seed(torch.empty(0, device="cpu"))


def prefix_of(function: str, prefix: object) -> str:
    """The name of a part in its whole; a dot at its end, as ``state_dict(prefix=)`` wants it, is left out.

    Raises:
        TypeError: it is no string.
        ValueError: a part of it between dots is empty.
    """
    if not isinstance(prefix, str):
        raise TypeError(
            f"{function}: prefix must be the name of a module, such as 'layers.0', got {prefix!r} ({type(prefix).__name__})."
        )
    name = prefix.removesuffix(".")
    if prefix and "" in name.split("."):
        raise ValueError(
            f"{function}: prefix must be the name of a module, such as 'layers.0', got {prefix!r}, of which a part is empty."
        )
    return name
