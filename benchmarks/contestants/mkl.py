"""Intel MKL's vector statistics library (VSL), the PyPI package ``mkl``, through ctypes: Philox, ARS5 and Mersenne Twister.

One stream a thread, 2^40 values apart; a thread fills its part of the tensor in C, without Python's lock. On CPUs that are not
Intel's, MKL may take a slower path than it could: what is measured is what a user of the package gets.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..case import dtype_name
from .peer import Draw, Wanted

__all__ = ["GAUSSIANS", "GENERATORS", "open_mkl"]

# Numbers of mkl_vsl_defines.h: VSL_BRNG_* and VSL_RNG_METHOD_GAUSSIAN_*.
GENERATORS = {"Philox": 16 << 20, "ARS5": 15 << 20, "MT": 8 << 20}
GAUSSIANS = {"BoxMuller2": 1, "ICDF": 2}
UNIFORM_STD = 0
SEQUENTIAL = 1  # MKL_THREADING_SEQUENTIAL: no second OpenMP runtime in this process
APART = 1 << 40  # values between the streams of two threads
LONGEST = 1 << 30  # values a call: VSL counts in 32 bits
ALIGNED = 16  # values that a thread's part is a multiple of


def open_mkl(generator: str, gaussian: str | None, wanted: Wanted) -> Draw | str:
    """One VSL stream a thread.

    Args:
        generator: a name of GENERATORS.
        gaussian: a name of GAUSSIANS; None for uniform.
    """
    if wanted.dtype not in (torch.float32, torch.float64):
        return f"MKL draws no {dtype_name(wanted.dtype)}"
    library = _library()
    if isinstance(library, str):
        return library
    streams = [_stream(library, GENERATORS[generator], wanted.seed, thread) for thread in range(wanted.threads)]
    real, letter = (ctypes.c_float, "s") if wanted.dtype == torch.float32 else (ctypes.c_double, "d")
    function = getattr(library, f"v{letter}Rng{'Gaussian' if gaussian else 'Uniform'}")
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, real, real]
    method = GAUSSIANS[gaussian] if gaussian else UNIFORM_STD

    def fill(stream: ctypes.c_void_p, address: int, count: int) -> None:
        for first in range(0, count, LONGEST):
            size = min(LONGEST, count - first)
            if status := function(method, stream, size, address + first * wanted.dtype.itemsize, 0.0, 1.0):
                raise RuntimeError(f"MKL {function.__name__} must return 0, got {status}.")

    return _shared_out(fill, streams, wanted.dtype.itemsize)


def _shared_out(fill: Callable[[ctypes.c_void_p, int, int], None], streams: Sequence[ctypes.c_void_p], item: int) -> Draw:
    """Each stream fills its part, in a thread of its own; one stream needs no thread."""
    if len(streams) == 1:
        return lambda tensor: fill(streams[0], tensor.data_ptr(), tensor.numel())
    pool = _pool(len(streams))

    def draw(tensor: Tensor) -> None:
        parts = _parts(tensor.numel(), len(streams))
        starts = [tensor.data_ptr() + begin * item for begin, _ in parts]
        list(pool.map(fill, streams, starts, [end - begin for begin, end in parts]))

    return draw


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def _parts(values: int, count: int) -> list[tuple[int, int]]:
    """Contiguous parts of almost equal size, as begin and end."""
    edges = [values * i // count // ALIGNED * ALIGNED for i in range(count)] + [values]
    return list(itertools.pairwise(edges))


def _stream(library: ctypes.CDLL, generator: int, seed: int, thread: int) -> ctypes.c_void_p:
    stream = ctypes.c_void_p()
    status = library.vslNewStream(ctypes.byref(stream), generator, ctypes.c_uint(seed & 0xFFFFFFFF))
    status = status or library.vslSkipAheadStream(stream, ctypes.c_longlong(thread * APART))
    if status:
        raise RuntimeError(f"MKL vslNewStream and vslSkipAheadStream must return 0, got {status}.")
    return stream


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | str:
    path = next(_installed(), None)
    if path is None:
        return "mkl is not installed (pip install mkl)"
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return f"mkl does not load: {error}"
    library.MKL_Set_Threading_Layer(SEQUENTIAL)
    return library


def _installed() -> Iterator[Path]:
    """The package's libmkl_rt, whatever its version's suffix is."""
    with suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("mkl") or ():
            if file.name.startswith("libmkl_rt.so"):
                yield Path(str(file.locate())).resolve()
