"""The numbers behind tensors on meta: those of the same code on the CPU, or none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from weightinit_cuda.rules.shadows import MOST, Following, Shadows


def filled_parts(p: Tensor) -> Tensor:
    made = torch.zeros_like(p)
    made[:2] = -5.0
    made[1].mul_(2)
    return made


def overwritten(p: Tensor) -> Tensor:
    made = torch.ones(3, device=p.device)
    return made.copy_(p[0]).fill_(2.0)


KNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "arange": lambda p: torch.arange(1, 4, dtype=torch.float32, device=p.device)[None, :].log().expand(4, -1),
    "parts": filled_parts,
    "like": lambda p: torch.ones_like(p) * -10,
    "of shape": lambda p: p.new_full((2,), 3.0) - 1,
    "slices": lambda p: torch.arange(4.0, device=p.device).exp()[1::2],
    "stack": lambda p: torch.stack([torch.zeros(2, device=p.device), torch.arange(2.0, device=p.device)]).t(),
    "by a real one": lambda p: torch.zeros(3, device=p.device) + torch.tensor(2.0),
    "float64": lambda p: torch.arange(3.0, device=p.device).double() / 3,
}


def foreach(p: Tensor) -> Tensor:
    made = torch.ones(3, device=p.device)
    torch._foreach_mul_([made], [2.0])
    return made


UNKNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "memory": lambda p: p * 0,
    "empty": lambda p: torch.empty_like(p).clone(),
    "draw": lambda p: torch.rand(3, device=p.device) * 0,
    "draw in place": lambda p: torch.zeros(3, device=p.device).normal_(),
    "written by memory": lambda p: torch.ones(3, device=p.device).add_(p[0]),
    "copied from memory": lambda p: torch.ones(3, device=p.device).copy_(p[0]),
    "several at once": foreach,
    "other bits": lambda p: torch.ones(3, device=p.device).view(torch.int32),
    "large": lambda p: torch.ones(MOST + 1, device=p.device),
}


def followed(make: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor | None]:
    with Following() as watch, torch.no_grad():
        made = make(torch.empty(4, 3, device="meta"))
        return made, watch.shadows.numbers(made)


@pytest.mark.parametrize("name", KNOWN)
def test_numbers_are_those_of_the_cpu(name: str) -> None:
    made, numbers = followed(KNOWN[name])
    assert made.is_meta
    assert numbers is not None
    right = KNOWN[name](torch.empty(4, 3))
    assert numbers.dtype == right.dtype
    assert numbers.stride() == right.stride()
    assert torch.equal(numbers, right)


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known(name: str) -> None:
    made, numbers = followed(UNKNOWN[name])
    assert made.is_meta
    assert numbers is None


def test_what_was_written_by_memory_stays_unknown() -> None:
    assert followed(overwritten)[1] is None


def test_a_real_tensor_has_its_own() -> None:
    real = torch.ones(2)
    assert Shadows().numbers(real) is real
