"""What a drop-in call on a GPU costs the host, measured without a GPU: ``python benchmarks/cuda/host_time.py [--json FILE]``.

The native module is compiled anew against a CUDA runtime whose calls do nothing (``stub_runtime.cpp``), and tensors of the CPU
say that they are on a GPU. So everything runs that a GPU's host runs, but for the launch itself. The peer is ``torch.nn.init``
on two elements of the CPU: torch's way to a kernel, and next to no work there. Both in one process, in turns, medians. Needs
g++ and pybind11. A program of its own, not a module of the package: that would load the native module first.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import timeit
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "host_time"
SOURCES = (
    *(f"csrc/{name}.cpp" for name in ("bindings", "plain_tensors", "named_tensors", "cuda/launch", "cuda/table")),
    *(f"csrc/cpu/{name}.cpp" for name in ("dispatch", "blocks", "parallel", "cpus", "fill_scalar")),
    "benchmarks/cuda/stub_runtime.cpp",
)
DEVICE = 0


def build() -> Path:
    """The native module on a runtime that does nothing."""
    import pybind11

    BUILD.mkdir(parents=True, exist_ok=True)
    folders = [
        pybind11.get_include(),
        sysconfig.get_paths()["include"],
        str(ROOT / "csrc"),
        str(ROOT / "tests/native/fake_cuda"),
    ]
    defines = ['-DWEIGHTINIT_VERSION="stub"', '-DWEIGHTINIT_ARCHITECTURES="none"']
    flags = ["-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", "-pthread"]
    command = ["g++", *flags, *defines, *(f"-I{folder}" for folder in folders)]

    def compiled(source: str) -> str:
        result = BUILD / (source.replace("/", "_") + ".o")
        subprocess.run([*command, "-c", str(ROOT / source), "-o", str(result)], check=True)
        return str(result)

    with ThreadPoolExecutor() as pool:
        objects = list(pool.map(compiled, SOURCES))
    module = BUILD / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run(["g++", "-shared", "-pthread", *objects, "-ldl", "-o", str(module)], check=True)
    return module


def install(module: Path) -> None:
    """Makes it the package's native module. Before the package is imported: a module like it cannot be there twice."""
    os.environ["WEIGHTINIT_CPU"] = "scalar"  # no other evaluator is in it
    name = "weightinit_cuda._C"
    spec = importlib.util.spec_from_file_location(name, module)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


class OnGpu:
    """A tensor of the CPU that says it is on a GPU, with the methods that a short call asks for."""

    is_cuda, is_cpu = True, False

    def __init__(self, tensor: Any) -> None:
        self.dtype, self.shape = tensor.dtype, tensor.shape
        for name in ("is_contiguous", "is_inference", "is_neg", "data_ptr", "numel", "size", "dim"):
            setattr(self, name, getattr(tensor, name))

    def get_device(self) -> int:
        return DEVICE


class Generator:
    """As torch's CUDA generator answers."""

    def __init__(self) -> None:
        self.position = 0

    def initial_seed(self) -> int:
        return 1

    def get_offset(self) -> int:
        return self.position

    def set_offset(self, position: int) -> None:
        self.position = position


def play() -> None:
    """The parts of torch.cuda that a call asks, and a device that is known to work."""
    import torch

    from weightinit_cuda.engine import backend, drop_in_cuda

    played: Any = drop_in_cuda
    played.PLAIN_TYPES, played.cuda_stream = {OnGpu}, lambda device: 0
    played.increment_version = lambda tensors: None
    backend._known[DEVICE] = ""
    torch.cuda.current_device = lambda: DEVICE
    torch.cuda.default_generators = (Generator(),)  # type: ignore[assignment]


def microseconds(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int = 30, calls: int = 2000
) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        for call, into in zip((ours, theirs), times, strict=True):
            into.append(timeit.timeit(call, number=calls) / calls * 1e6)
    return statistics.median(times[0]), statistics.median(times[1])


def measure() -> list[dict[str, Any]]:
    import torch

    import weightinit_cuda as wi

    rows = []
    for name, arguments in (("uniform_", (-1.0, 1.0)), ("normal_", (0.0, 0.02)), ("kaiming_uniform_", ())):
        gpu, small = OnGpu(torch.empty(64, 64)), torch.empty(2, 1)
        ours, theirs = getattr(wi.init, name), getattr(torch.nn.init, name)
        before = torch.cuda.default_generators[DEVICE].get_offset()
        ours(gpu, *arguments)
        if torch.cuda.default_generators[DEVICE].get_offset() != before + 4:
            raise RuntimeError(f"{name}: the call did not take the short way, or drew another seed")
        a, b = microseconds(lambda: ours(gpu, *arguments), lambda: theirs(small, *arguments))  # noqa: B023
        rows.append({"function": name, "ours_us": round(a, 2), "nn.init_on_the_cpu_us": round(b, 2), "ratio": round(b / a, 2)})
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    install(build())
    sys.path.insert(0, str(ROOT))
    play()
    rows = measure()
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
