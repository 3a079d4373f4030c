"""The compiled kernels. Private: use :mod:`weightinit_cuda.engine.run`."""

from collections.abc import Sequence

version: str
max_dims: int

class Transform:
    def __init__(self, kind: int, params: list[float], integers: list[int]) -> None: ...

_Job = tuple[int, int, Transform, int, int, int, list[tuple[int, int, int]]]  # engine.native.NativeJob

def fill_contiguous(
    data: int, storage: int, count: int, transform: Transform, seed: int, stream: int, threads: int
) -> None: ...
def fill_drawn(data: int, storage: int, count: int, transform: Transform, seed: int, threads: int) -> None: ...
def fill(
    jobs: Sequence[_Job],
    threads: int,
    mode: int = 0,
    weight: float = 0.0,
) -> None: ...

class CpuFill:
    def __init__(self, jobs: Sequence[_Job]) -> None: ...
    def run(self, seed: int, threads: int) -> None: ...

def available_isas() -> list[str]: ...
def selected_isa() -> str: ...
def select_isa(name: str) -> bool: ...
def parallel_runtime() -> str: ...
def why_no_cuda() -> str: ...  # of the build; asks no driver

cuda_architectures: str  # as CMake has them; empty without CUDA

# The rest is there only where CUDA is compiled in.
cuda_inline_jobs: int

def why_not_on(device: int) -> str: ...  # makes the device's context
def cuda_drawn_seed(generator_seed: int, position: int) -> int: ...
def cuda_fill_drawn(
    data: int,
    storage: int,
    count: int,
    transform: Transform,
    generator_seed: int,
    position: int,
    stream: int,
    device: int,
) -> None: ...

class CudaLaunch:
    def __init__(
        self,
        jobs: Sequence[_Job],
        mode: int = 0,
        weight: float = 0.0,
    ) -> None: ...
    def __len__(self) -> int: ...
    def with_seed(self, seed: int) -> CudaLaunch: ...
    def bytes(self) -> bytes: ...
    def run(self, far: int, stream: int, device: int = -1) -> None: ...
