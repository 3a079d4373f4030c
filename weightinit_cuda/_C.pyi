"""The compiled kernels. Private: use :mod:`weightinit_cuda.engine.run`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

version: str
max_dims: int

class Transform:
    def __init__(self, kind: int, params: list[float], integers: list[int]) -> None: ...

_Job = tuple[int, int, Transform, int, int, int, list[tuple[int, int, int]]]  # engine.native.NativeJob

class Table:  # a list of jobs is one, too; a fill on the CPU empties it
    def __init__(self, jobs: Sequence[_Job] = ()) -> None: ...
    def append(self, job: _Job) -> None: ...
    def __len__(self) -> int: ...

_Jobs = Table | Sequence[_Job]

def fill_contiguous(
    data: int, storage: int, count: int, transform: Transform, seed: int, stream: int, threads: int
) -> None: ...
def fill(jobs: _Jobs, threads: int, mode: int = 0, weight: float = 0.0) -> None: ...

class CpuFill:
    def __init__(self, jobs: _Jobs) -> None: ...
    def run(self, seed: int, threads: int) -> None: ...

class Gathered:
    tables: list[tuple[torch.device, Table]]
    tensors: list[torch.Tensor]
    others: list[Any]
    def apart(self, extents: Sequence[tuple[int, int]]) -> bool: ...

class PlainTensors:
    def __init__(
        self,
        types: tuple[type, ...],
        storage: Mapping[torch.dtype, int],
        store: object,
        transform_of: Callable[[Any, torch.dtype], Transform | None],
        has_kernels: Callable[[torch.device], bool],
        increment_version: Callable[[tuple[torch.Tensor]], None],
        threads: Callable[[], int],
    ) -> None: ...
    def gather(self, jobs: Sequence[Any]) -> Gathered: ...
    def gather_whole(
        self, tensors: list[torch.Tensor], distributions: list[Any], streams: list[int], seed: int, jobs: Sequence[Any]
    ) -> Gathered: ...
    def fill(self, tensor: torch.Tensor, distribution: Any, seed: int, stream: int) -> bool: ...

_Drawn = Callable[[torch.Tensor, Callable[..., Any], tuple[Any, ...]], bool]
_Called = Callable[[Any, tuple[Any, ...], int], bool]
_Method = Callable[[Any, tuple[str, str], torch.Tensor, tuple[Any, ...], dict[str, Any]], bool]

def short_calls(
    *,
    plain_tensors: PlainTensors,
    seed_cell: Any,
    lowest: int,
    tracers: tuple[Callable[[], Any], ...],
    transforms: Callable[[], Any],
    overridden: Callable[[Any], bool],
    grad_enabled: Callable[[], bool],
    forward: Callable[[], bool],
) -> tuple[_Drawn, _Called, _Method]: ...

class TapeParts:
    def __init__(
        self,
        *,
        types: tuple[type, ...],
        memory: object,
        fill_step: object,
        empty: Callable[..., torch.Tensor],
        without_dispatch: Callable[..., Any],
        dispatch_modes: Callable[[], int],
        function_modes: Callable[[], int],
        grad_enabled: Callable[[], bool],
        data: Callable[[torch.Tensor], torch.Tensor],
        cpu: torch.device,
        meta: torch.device,
        is_own: Callable[[Any], bool],
    ) -> None: ...

class PlainTape:
    depth: int
    def __init__(self, parts: TapeParts, steps: list[Any], memories: dict[int, Any], seeding: object) -> None: ...
    def plain_memory(self, tensor: torch.Tensor) -> Any: ...
    def make(self, args: tuple[Any, ...], named: dict[str, Any], distribution: object) -> torch.Tensor | None: ...
    def fill(self, tensor: torch.Tensor, distribution: object) -> bool: ...
    def called(self, function: object, args: tuple[Any, ...], own: int) -> bool: ...
    def data(self, tensor: torch.Tensor) -> torch.Tensor | None: ...
    def held_by(
        self, modules: list[torch.nn.Module]
    ) -> tuple[list[dict[str, Any]], list[tuple[dict[str, Any], torch.nn.Module, str, torch.Tensor]]]: ...

class Registered:
    def __init__(self, modules: dict[int, torch.nn.Module], tensors: dict[tuple[int, str], torch.Tensor]) -> None: ...
    def tensor(self, module: torch.nn.Module, name: str, registered: torch.Tensor | None) -> None: ...
    def module(self, module: torch.nn.Module, name: str, registered: torch.nn.Module | None) -> None: ...
    def copied(self, module: torch.nn.Module) -> None: ...

class ModuleAttributes:
    def __init__(
        self,
        module: type[torch.nn.Module],
        parameter: type[torch.nn.Parameter],
        tensor: type[torch.Tensor],
        names: dict[str, Any],
        fresh: dict[str, Any],
    ) -> None: ...
    def begin(self, module: torch.nn.Module) -> bool: ...
    def set(self, module: torch.nn.Module, name: str, value: object) -> bool: ...
    def parameter(self, module: torch.nn.Module, name: str, value: torch.nn.Parameter | None) -> bool: ...
    def buffer(self, module: torch.nn.Module, name: str, value: torch.Tensor | None) -> bool: ...
    def child(self, module: torch.nn.Module, name: str, value: torch.nn.Module | None) -> bool: ...

class Subscripts:
    def __init__(self, kind: type, base: type, like: type) -> None: ...
    def put(self, methods: dict[str, Callable[..., Any]]) -> None: ...
    def remove(self, methods: dict[str, Callable[..., Any]]) -> None: ...

def collect(module: torch.nn.Module, named: type[tuple[Any, ...]], own: list[Any], kept: list[Any]) -> None: ...
def look_through(
    module: torch.nn.Module, named: type[tuple[Any, ...]], every: dict[str, Any], leafless: tuple[type, ...], tensor: type
) -> tuple[list[Any], list[Any], list[tuple[str, torch.nn.Module]], list[tuple[str, Any, torch.nn.Module]]]: ...
def tensors_alike(
    named: list[Any],
    known: dict[str, str],
    names: tuple[str, ...],
    shapes: tuple[tuple[int, ...], ...],
    dtypes: tuple[torch.dtype, ...],
    aliases: tuple[tuple[str, ...], ...],
) -> dict[str, torch.Tensor] | None: ...
def streams_of(names: list[str], domain: bytes) -> list[int]: ...
def available_isas() -> list[str]: ...
def selected_isa() -> str: ...
def select_isa(name: str) -> bool: ...
def parallel_runtime() -> str: ...
def take_position(generator: object, count: int) -> int: ...
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
    def __init__(self, jobs: _Jobs, mode: int = 0, weight: float = 0.0) -> None: ...
    def __len__(self) -> int: ...
    def with_seed(self, seed: int) -> CudaLaunch: ...
    def bytes(self) -> bytes: ...
    def run(self, far: int, stream: int, device: int = -1) -> None: ...
