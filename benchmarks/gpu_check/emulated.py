"""An emulated device: the CPU in the GPU's place, with small sizes. For trying the programs of this folder and of ``cuda`` where
there is no GPU; no figure from here says anything about one, and the device's name says so in every file.

Replaced are the functions of torch.cuda that these programs call, the name of the device, and whatever would be large or slow.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from time import perf_counter
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from .. import shapes

__all__ = ["NAME", "device"]

NAME = "emulated: the CPU in the GPU's place"
MEMORY = 2**32
PROPERTIES = SimpleNamespace(name=NAME, major=9, minor=0, multi_processor_count=1, total_memory=MEMORY, L2_cache_size=4096)
MODEL = [
    shapes.Parameter("weight", (8, 8), "kaiming_uniform_", {"a": 5**0.5}),
    shapes.Parameter("norm", (8,), "ones_", {}),
]


class Event:
    """CUDA's, by the host's clock; no host is ever late."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at = 0.0

    def record(self) -> None:
        self.at = perf_counter()

    def query(self) -> bool:
        return False

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: Event) -> float:
        return (end.at - self.at) * 1e3


TORCH: dict[str, Any] = {
    "Event": Event,
    "Stream": lambda: SimpleNamespace(synchronize=lambda: None),
    "stream": lambda stream: nullcontext(),
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "get_device_properties": lambda device: PROPERTIES,
    "mem_get_info": lambda: (MEMORY, MEMORY),
    "empty_cache": lambda: None,
    "synchronize": lambda: None,
    "_sleep": lambda cycles: None,
}


@contextmanager
def device() -> Iterator[None]:
    """Inside, there is a GPU that is none."""
    with ExitStack() as patches:

        def replace(module: object, **by: Any) -> None:
            for name, value in by.items():
                patches.enter_context(patch.object(module, name, value))

        replace(torch.cuda, **TORCH)
        _benchmarks(replace)
        _stages(replace)
        yield


Replace = Callable[..., None]


def _benchmarks(replace: Replace) -> None:
    """The rows of ``cuda``: a thousandth of the time for each."""
    from ..cuda import cases, session
    from ..cuda.timing import GpuPolicy
    from ..measuring import models

    policy = GpuPolicy(0.001, 1e-5, (2, 3), large_bytes=4096)
    replace(session, DEVICE="cpu", why_not=lambda: "", GpuPolicy=lambda **_: policy)
    for module in (cases, models):
        replace(module, load=lambda name: shapes.load(name)._replace(parameters=MODEL))


def _stages(replace: Replace) -> None:
    """The stages of this folder: every part of each, with few and small items."""
    from . import bits, facts, graphs, gpu_tests, module, timed

    replace(facts, DEVICE="cpu", _said=lambda command: "")
    replace(module, why_not_as_it_is=lambda: "")
    few = tuple(program for program in bits.PROGRAMS[::7] if program.dtype.itemsize == 2) + (bits.PROGRAMS[0],)
    sizes = {name: layout for name, layout in bits.LAYOUTS.items() if layout.count < 80_000}
    replace(bits, DEVICE="cpu", PROGRAMS=few, LAYOUTS=sizes, EDGES=bits.EDGES[:1])
    replace(bits, MANY=2**12, BEYOND=2**22 + 5, PART=2**21, PIECE=501, ROWS=257, COLUMNS=259)
    replace(timed, LARGE=(2**12,), MIDDLE=(2**11,), OTHERS=(2**13, 2**10))
    replace(graphs, DEVICE="cpu", DRAWS=5, captured=lambda call: call)
    replace(gpu_tests, FOLDER=gpu_tests.ROOT / "tests" / "tensors")  # in the place of tests that need a GPU
