"""Who takes part on a GPU: ours, torch.nn.init, the stores of fill_, cuRAND through CuPy, torch.func._random.

As on the CPU: a function that turns a case and its memory into a call without arguments, or says why there is none. All write
into memory that exists, on torch's current stream.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

import weightinit_cuda as wi
from weightinit_cuda import engine
from weightinit_cuda.distributions import Constant, Distribution, Normal, lower
from weightinit_cuda.job import FillJob

from ..case import Case
from ..contestants import BASELINE, ONE_TENSOR, OURS, PREPARED, Call, Contestant

__all__ = ["FILL", "MODEL", "Model", "model_jobs"]

CURAND_PHILOX = 161  # CURAND_RNG_PSEUDO_PHILOX4_32_10 of curand.h
Model = list[Tensor]


def _ours(case: Case, tensor: Tensor) -> Call | str:
    return partial(getattr(wi.init, case.call), tensor, *case.arguments)


def _torch(case: Case, tensor: Tensor) -> Call | str:
    return partial(getattr(torch.nn.init, case.call), tensor, *case.arguments)


def _fill(case: Case, tensor: Tensor) -> Call | str:
    return partial(tensor.fill_, 0.5)


def _curand(case: Case, tensor: Tensor) -> Call | str:
    if case.dtype != torch.float32:
        return "cuRAND draws float32 and float64"
    if case.call not in ("uniform_", "normal_"):
        return "cuRAND has no such distribution"
    try:
        importlib.import_module("cupy")  # finds the library
        curand: Any = importlib.import_module("cupy_backends.cuda.libs.curand")
        generator = curand.createGenerator(CURAND_PHILOX)
        curand.setStream(generator, torch.cuda.current_stream().cuda_stream)
        if case.call == "uniform_":
            return partial(curand.generateUniform, generator, tensor.data_ptr(), case.values)
        return partial(curand.generateNormal, generator, tensor.data_ptr(), case.values, 0.0, 1.0)
    except ImportError:
        return "CuPy is not installed"
    except Exception as error:  # a peer that does not work here is left out, whatever it raises
        return f"cuRAND through CuPy failed: {error}"


def _stateless(case: Case, tensor: Tensor) -> Call | str:
    """torch's own stateless draws, torch 2.12 and later."""
    try:
        random: Any = importlib.import_module("torch.func._random")
        draw = getattr(random, case.call)
        key = random.key(0, device=tensor.device)
        draw(key, tensor[:4])
    except (ImportError, AttributeError):
        return "torch has no torch.func._random, or it has no such distribution"
    except Exception as error:
        return f"torch.func._random failed: {error}"
    return partial(draw, key, tensor)


FILL: Sequence[Contestant] = (
    Contestant(OURS, _ours),
    Contestant(BASELINE, _torch),
    Contestant("fill_", _fill, draws=False),
    Contestant("cuRAND Philox", _curand),
    Contestant("torch.func._random", _stateless),
)


def _meaning(tensor: Tensor) -> Distribution:
    """As most transformers are initialised: matrices normal, vectors constant."""
    return Normal(0.0, 0.02) if tensor.dim() > 1 else Constant(1.0)


def model_jobs(model: Model) -> list[FillJob]:
    """One fill a parameter, each its own stream."""
    return [FillJob(tensor, _meaning(tensor), seed=0, stream=i) for i, tensor in enumerate(model)]


def _in_one_call(case: Case, model: Model) -> Call | str:
    return partial(engine.fill, model_jobs(model))


def _prepared(case: Case, model: Model) -> Call | str:
    """The launch alone, its table made beforehand: the kernel on a whole model."""
    if (cuda := engine.backend_info().cuda) != "native":
        return f"no CUDA kernels: {cuda}"
    native = [engine._native_job(job, lower(job.distribution, job.tensor.dtype)) for job in model_jobs(model)]
    kernels: Any = vars(engine)["_C"]
    launch = kernels.CudaLaunch(native)
    table = torch.frombuffer(bytearray(launch.bytes()), dtype=torch.uint8).cuda()

    def call(keep: Tensor = table) -> None:
        launch.run(keep.data_ptr(), torch.cuda.current_stream().cuda_stream)

    return call


def _loop(case: Case, model: Model) -> Call | str:
    def call() -> None:
        for tensor in model:
            if tensor.dim() > 1:
                torch.nn.init.normal_(tensor, 0.0, 0.02)
            else:
                torch.nn.init.ones_(tensor)

    return call


def _one_tensor(case: Case, model: Model) -> Call | str:
    """As many values in one tensor: what a model cannot be faster than."""
    free, _ = torch.cuda.mem_get_info()
    if case.bytes > free * 0.9:
        return f"needs {case.bytes >> 20} MiB more"
    whole = torch.empty(case.shape, dtype=case.dtype, device=model[0].device)
    return partial(wi.init.normal_, whole, 0.0, 0.02)


def _foreach_zero(case: Case, model: Model) -> Call | str:
    return partial(torch._foreach_zero_, model)


MODEL: Sequence[tuple[str, Callable[[Case, Model], Call | str]]] = (
    (OURS, _in_one_call),
    (PREPARED, _prepared),
    (BASELINE, _loop),
    (ONE_TENSOR, _one_tensor),
    ("foreach_zero_", _foreach_zero),
)
