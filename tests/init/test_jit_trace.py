"""Fills in torch.jit.trace: each is a node of the graph, that fills in every call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import weightinit_cuda as wi

FILLS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal_": lambda x: wi.init.normal_(x),
    "uniform_": lambda x: wi.init.uniform_(x, -1, 1),
    "trunc_normal_": lambda x: wi.init.trunc_normal_(x),
    "xavier_uniform_": lambda x: wi.init.xavier_uniform_(x),
    "kaiming_normal_": lambda x: wi.init.kaiming_normal_(x, mode="fan_out"),
    "lecun_normal_": lambda x: wi.init.lecun_normal_(x),
    "orthogonal_": lambda x: wi.init.orthogonal_(x),
    "sparse_": lambda x: wi.init.sparse_(x, 0.5),
    "a view": lambda x: wi.init.normal_(x.t()),
    "constant_": lambda x: wi.init.constant_(x, 3.0),
    "zeros_": lambda x: wi.init.zeros_(x),
    "eye_": lambda x: wi.init.eye_(x),
    "a seed": lambda x: wi.init.normal_(x, seed=2**63 + 3, stream="a"),
    "a part": lambda x: wi.init.normal_(x, seed=1, global_shape=(8, 4), offset=(4, 0)),
}
FIXED = {"constant_", "zeros_", "eye_", "a seed", "a part"}


@pytest.mark.parametrize("name", FILLS)
def test_traced_functions_fill(name: str) -> None:
    traced = torch.jit.trace(FILLS[name], (torch.zeros(4, 4),), check_trace=False)
    first, second = traced(torch.full((4, 4), 7.0)), traced(torch.full((4, 4), 7.0))
    assert not (first == 7).any()
    assert torch.equal(first, second) is (name in FIXED)
    if name in FIXED:
        assert torch.equal(first, FILLS[name](torch.full((4, 4), 7.0)))


def test_dirac() -> None:
    traced = torch.jit.trace(lambda x: wi.init.dirac_(x), (torch.zeros(2, 2, 3),), check_trace=False)
    assert torch.equal(traced(torch.full((2, 2, 3), 7.0)), torch.nn.init.dirac_(torch.empty(2, 2, 3)))
