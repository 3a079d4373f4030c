"""NumPy's Generator on a bit generator of choice: one thread, float32 and float64, uniform on [0, 1) and standard normal."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor

from ..case import dtype_name
from .peer import Draw, Wanted

__all__ = ["open_numpy"]

DTYPES = {torch.float32: "float32", torch.float64: "float64"}


def open_numpy(bit_generator: str, wanted: Wanted) -> Draw | str:
    """A generator that writes into the tensor's own memory."""
    if importlib.util.find_spec("numpy") is None:
        return "numpy is not installed"
    if wanted.dtype not in DTYPES:
        return f"NumPy draws no {dtype_name(wanted.dtype)}"
    if wanted.call not in ("uniform_", "normal_") or wanted.arguments:
        return "NumPy has no such distribution"
    if wanted.threads != 1:
        return "NumPy fills with one thread: see the row for one"
    random: Any = importlib.import_module("numpy.random")
    generator = random.Generator(getattr(random, bit_generator)(wanted.seed))
    fill = generator.random if wanted.call == "uniform_" else generator.standard_normal
    dtype = DTYPES[wanted.dtype]

    def draw(tensor: Tensor) -> None:
        fill(dtype=dtype, out=tensor.detach().numpy())

    return draw
