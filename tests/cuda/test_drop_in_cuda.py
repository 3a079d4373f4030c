"""The short way of a drop-in call on a GPU: when it is taken, and what it hands over. The kernels and torch.cuda are played."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from weightinit_cuda.engine import backend, drop_in, drop_in_cuda, words
from weightinit_cuda.numerics.distributions import Distribution, Normal, Orthogonal, Uniform

DEVICE = 1


class Generator:
    """torch's CUDA generator, as far as it is asked."""

    device = torch.device("cuda", DEVICE)

    def __init__(self) -> None:
        self.position = 40

    def initial_seed(self) -> int:
        return 0xFEDCBA9876543210

    def get_offset(self) -> int:
        return self.position

    def set_offset(self, position: int) -> None:
        self.position = position


class Played:
    """A tensor of the CPU that says it is on a GPU."""

    is_cuda, is_cpu = True, False

    def __init__(self, tensor: torch.Tensor, device: int = DEVICE) -> None:
        self.tensor, self.index = tensor, device

    def get_device(self) -> int:
        return self.index

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tensor, name)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the native module is called with."""
    made = list[tuple[Any, ...]]()
    monkeypatch.setattr(drop_in_cuda, "kernels", SimpleNamespace(cuda_fill_drawn=lambda *arguments: made.append(arguments)))
    monkeypatch.setattr(drop_in_cuda, "native_transform", lambda distribution, dtype: (distribution, dtype))
    monkeypatch.setattr(drop_in_cuda, "PLAIN_TYPES", {Played})
    monkeypatch.setattr(drop_in_cuda, "increment_version", lambda tensors: None)
    monkeypatch.setattr(drop_in_cuda, "cuda_stream", lambda device: 77)
    monkeypatch.setattr(backend, "native", True)
    monkeypatch.setattr(backend, "_known", {0: "no code", DEVICE: ""})
    monkeypatch.setattr(torch.cuda, "current_device", lambda: DEVICE)
    monkeypatch.setattr(torch.cuda, "default_generators", [Generator(), Generator()])
    return made


def drawn(tensor: object, distribution: Distribution) -> bool:
    played: Any = tensor
    return drop_in.draw_and_fill(played, distribution)


def test_what_is_handed_over(calls: list[tuple[Any, ...]]) -> None:
    tensor, distribution = torch.empty(30, 7, dtype=torch.bfloat16), Uniform(-2.0, 3.0)
    assert drawn(Played(tensor), distribution)
    assert drawn(Played(tensor), distribution)
    first, second = calls
    transform = (distribution, torch.bfloat16)
    assert first == (tensor.data_ptr(), 3, 210, transform, Generator().initial_seed(), 40, 77, DEVICE)
    assert second == (*first[:5], 44, *first[6:])
    assert torch.cuda.default_generators[DEVICE].get_offset() == 48


@pytest.mark.parametrize(
    ("tensor", "distribution"),
    [
        (Played(torch.empty(3), device=0), Normal(0.0, 1.0)),  # cannot be filled by the kernels
        (Played(torch.empty(3), device=2), Normal(0.0, 1.0)),  # was never asked
        (Played(torch.empty(3, 4).T), Normal(0.0, 1.0)),
        (Played(torch.empty(0)), Normal(0.0, 1.0)),
        (Played(torch.empty(3, dtype=torch.int64)), Normal(0.0, 1.0)),
        (Played(torch.empty(3, 3)), Orthogonal(1.0)),
        (torch.empty(3, device="meta"), Normal(0.0, 1.0)),
    ],
)
def test_anything_else_takes_the_careful_way(tensor: object, distribution: Distribution, calls: list[tuple[Any, ...]]) -> None:
    assert not drawn(tensor, distribution)
    assert calls == []
    assert torch.cuda.default_generators[DEVICE].get_offset() == 40


def test_another_device_is_the_current_one(calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert not drawn(Played(torch.empty(3)), Normal(0.0, 1.0))
    assert calls == []


@pytest.mark.skipif(not hasattr(backend.kernels, "cuda_drawn_seed"), reason="built without CUDA")
@pytest.mark.parametrize("position", [0, 4, 40, 6, 7, 2**34 - 4, 2**34, 2**34 - 1, 2**62])
def test_the_seed_is_that_of_the_careful_way(position: int) -> None:
    generator: Any = Generator()
    generator.position = position
    assert backend.kernels.cuda_drawn_seed(generator.initial_seed(), position) == words.draw_seed(torch.empty(0), generator)
