"""An emulated device: the CPU in the GPU's place, with small sizes, to try the programs of this folder and of ``cuda`` with.

No figure from here says anything about a GPU, and the device's name says so in every file. Replaced are the functions of
torch.cuda that these programs call, the name of the device, and whatever would be large or slow, in modules that are loaded.
"""

from __future__ import annotations

import sys
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
        for name, put in REPLACED.items():
            if f"benchmarks.{name}" in sys.modules:
                put(sys.modules[f"benchmarks.{name}"], replace)
        yield


Replace = Callable[..., None]


def _session(session: Any, replace: Replace) -> None:
    """Rows get a thousandth of their time."""
    policy = session.GpuPolicy(0.001, 1e-5, (2, 3), large_bytes=4096)
    replace(session, DEVICE="cpu", why_not=lambda: "", GpuPolicy=lambda **_: policy)


def _shapes(module: Any, replace: Replace) -> None:
    """All models are this small one, under their own names."""
    replace(module, load=lambda name: shapes.load(name)._replace(parameters=MODEL))


def _bits(bits: Any, replace: Replace) -> None:
    """Some programs and layouts, every part of the check."""
    programs = (bits.PROGRAMS[0], *(program for program in bits.PROGRAMS[::7] if program.dtype.itemsize == 2))
    layouts = {name: layout for name, layout in bits.LAYOUTS.items() if layout.elements < 80_000}
    replace(bits, DEVICE="cpu", PROGRAMS=programs, LAYOUTS=layouts, EDGES=bits.EDGES[:1])
    replace(bits, MANY=2**12, FAR=2**17, BEYOND=2**18 + 5, PART=2**17, PIECE=501, ROWS=257, COLUMNS=259)


REPLACED: dict[str, Callable[[Any, Replace], None]] = {
    "cuda.session": _session,
    "cuda.cases": _shapes,
    "measuring.models": _shapes,
    "gpu_check.module": lambda module, replace: replace(module, why_not_as_it_is=lambda: ""),
    "gpu_check.facts": lambda facts, replace: replace(facts, DEVICE="cpu", _said=lambda command: ""),
    "gpu_check.bits": _bits,
    "gpu_check.timed": lambda timed, replace: replace(timed, LARGE=(2**12,), MIDDLE=(2**11,), OTHERS=(2**13, 2**10)),
    "gpu_check.graphs": lambda graphs, replace: replace(graphs, DEVICE="cpu", DRAWS=5, captured=lambda call: call),
    "gpu_check.gpu_tests": lambda tests, replace: replace(tests, PLACE="tests/tensors/test_boxes.py"),  # these need no GPU
}
