"""cuRAND's Philox, through CuPy, on torch's current stream."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from ..case import dtype_name
from .peer import Draw, Wanted

__all__ = ["open_curand"]

PHILOX = 161  # CURAND_RNG_PSEUDO_PHILOX4_32_10 of curand.h
DTYPES = {torch.float32: "", torch.float64: "Double"}


def open_curand(wanted: Wanted) -> Draw | str:
    """A host-side generator, which goes on from call to call."""
    if wanted.dtype not in DTYPES:
        return f"cuRAND draws no {dtype_name(wanted.dtype)}"
    try:
        importlib.import_module("cupy")  # finds the library
        curand: Any = importlib.import_module("cupy_backends.cuda.libs.curand")
        generator = curand.createGenerator(PHILOX)
        curand.setPseudoRandomGeneratorSeed(generator, wanted.seed)
        curand.setStream(generator, torch.cuda.current_stream().cuda_stream)
    except ImportError:
        return "CuPy is not installed"
    except Exception as error:  # a peer that does not work here is left out, whatever it raises
        return f"cuRAND through CuPy failed: {error}"
    uniform = wanted.call == "uniform_"
    fill = getattr(curand, f"generate{'Uniform' if uniform else 'Normal'}{DTYPES[wanted.dtype]}")
    parameters = () if uniform else (0.0, 1.0)

    def draw(tensor: Tensor) -> None:
        fill(generator, tensor.data_ptr(), tensor.numel(), *parameters)

    return draw
