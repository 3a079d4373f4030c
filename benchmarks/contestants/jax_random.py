"""JAX's random numbers, jitted, by threefry or by rbg. A call folds a counter into the key, as a training loop would."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..case import dtype_name
from .peer import Draw, Wanted

__all__ = ["open_jax"]

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def open_jax(implementation: str, wanted: Wanted) -> Draw | str:
    """A jitted function for the tensor's shape; it returns an array of JAX's own. The first call compiles."""
    if importlib.util.find_spec("jax") is None:
        return "jax is not installed (pip install jax)"
    if wanted.dtype not in DTYPES:
        return f"JAX draws no {dtype_name(wanted.dtype)} by default"
    if wanted.call not in ("uniform_", "normal_") or wanted.arguments:
        return "measured for uniform and normal only"
    if wanted.threads != os.cpu_count():
        return "XLA's threads cannot be limited in this process: see the row for all cores"
    jax: Any = importlib.import_module("jax")
    made = _compiled(wanted.call, DTYPES[wanted.dtype])
    key, counter = jax.random.key(wanted.seed, impl=implementation), itertools.count()

    def draw(tensor: Tensor) -> Any:
        return made(key, next(counter), tuple(tensor.shape)).block_until_ready()

    return draw


@cache
def _compiled(call: str, dtype: str) -> Any:
    """(key, count, shape) -> values; compiled once for each shape and kind of key."""
    jax: Any = importlib.import_module("jax")
    values = jax.random.uniform if call == "uniform_" else jax.random.normal

    def values_of(key: Any, count: int, shape: tuple[int, ...]) -> Any:
        return values(jax.random.fold_in(key, count), shape, dtype)

    return jax.jit(values_of, static_argnums=2)
