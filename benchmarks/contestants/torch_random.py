"""torch's own stateless random numbers, ``torch.func._random``: on CUDA since torch 2.12, on CPUs since 2.14."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import torch
from torch import Tensor

from ..case import dtype_name
from .peer import Draw, Wanted

__all__ = ["open_stateless"]


def open_stateless(wanted: Wanted) -> Draw | str:
    """A draw from a key; each call folds the next number into it."""
    try:
        random: Any = importlib.import_module("torch.func._random")
        fill = getattr(random, wanted.call)
        key = random.key(wanted.seed, device=wanted.device)
        fill(key, torch.empty(4, dtype=wanted.dtype, device=wanted.device))
    except (ImportError, AttributeError):
        return f"torch {torch.__version__} has no torch.func._random, or it has no such distribution"
    except NotImplementedError:
        return f"torch {torch.__version__} has no torch.func._random of {dtype_name(wanted.dtype)} on {wanted.device}"
    except Exception as error:  # a peer that does not work here is left out, whatever it raises
        return f"torch.func._random failed: {str(error).splitlines()[0][:120]}"
    counter = itertools.count()

    def draw(tensor: Tensor) -> None:
        fill(random.fold_in(key, next(counter)), tensor, *wanted.arguments)

    return draw
