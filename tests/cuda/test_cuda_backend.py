"""Which GPUs the kernels fill, and how a table is launched: the Python half, on kernels and a torch.cuda that are played."""

from __future__ import annotations

import contextlib
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from weightinit_cuda.engine import backend, native

WORKS, FAILS = torch.device("cuda", 0), torch.device("cuda", 1)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The devices that were asked, in order: the second one can load no kernel."""
    devices: list[int] = []

    def why_not_on(index: int) -> str:
        devices.append(index)
        return "" if index == 0 else "no code (a device of compute capability 7.0)"

    played = SimpleNamespace(
        why_no_cuda=lambda: "", why_not_on=why_not_on, cuda_architectures="80-real 90", selected_isa=lambda: "scalar"
    )
    played.available_isas = lambda: ["scalar"]
    played.parallel_runtime = lambda: "none"
    monkeypatch.setattr(backend, "kernels", played)
    monkeypatch.setattr(backend, "native", True)
    monkeypatch.setattr(backend, "_known", {})
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return devices


def test_each_device_is_asked_once(asked: list[int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(backend.has_kernels(WORKS) for _ in range(3))
    with pytest.warns(RuntimeWarning, match="cuda:1 .* many times slower.* no code .*7.0.*update the driver") as said:
        assert not any(backend.has_kernels(FAILS) for _ in range(3))
    assert len(said) == 1
    assert backend.has_kernels(WORKS)
    assert asked == [0, 1]
    assert "7.0" in backend.backend_info().cuda


def test_no_device_is_asked_before_torch_has(asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has asked one can fork no child that uses a GPU."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert backend.backend_info().cuda == "native"
    assert not backend.has_kernels(WORKS)  # a fake tensor's
    assert asked == []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert backend.backend_info().cuda.startswith("no GPU that torch ")
    monkeypatch.setattr(backend.kernels, "why_no_cuda", lambda: "built without CUDA")
    assert backend.backend_info().cuda == "built without CUDA"


class Launch:
    """A table of so many rows; notes how it is launched."""

    def __init__(self, rows: int) -> None:
        self.rows, self.runs = rows, list[tuple[bool, int, int]]()

    def __len__(self) -> int:
        return self.rows

    def bytes(self) -> bytes:
        return b"row" * self.rows

    def run(self, far: int, stream: int, device: int) -> None:
        self.runs.append((far != 0, stream, device))


@pytest.mark.parametrize("rows", [12, 13])
@pytest.mark.parametrize("capturing", [False, True])
def test_a_capture_allocates_nothing(rows: int, capturing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows: one view of seven dimensions has any number of them."""
    monkeypatch.setattr(native, "kernels", SimpleNamespace(cuda_inline_jobs=12))
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=5))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_, **__: tensor)
    launch: Any = Launch(rows)
    native._launch(FAILS, launch)
    assert launch.runs == [(rows > 12 and not capturing, 5, 1)]
