"""What is known early, or is a fill with constants over it, is what the plan and single values say, or an error as before."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import weightinit_cuda as wi


def module(**tensors: Tensor) -> nn.Module:
    made = nn.Module()
    for name, tensor in tensors.items():
        made.register_buffer(name, tensor)
    return made


def looked_at() -> nn.Module:
    w = torch.empty(3)
    repr(w)
    return module(w=w)


def looked_at_in_part() -> nn.Module:
    x = torch.empty(4)
    x[:2] = 1
    x.tolist()
    return module(w=x)


def made_of_it() -> nn.Module:
    w = torch.empty(3)
    repr(w)
    return module(y=w * 2)


def grown() -> nn.Module:
    x = torch.arange(4)
    return module(x=x.resize_(6))


@pytest.mark.parametrize("build", [looked_at, looked_at_in_part, made_of_it, grown])
def test_what_nobody_has_written_is_no_value_whoever_has_looked(build: Callable[[], nn.Module]) -> None:
    with wi.deferred() as recorded:
        made = build()
    with pytest.raises(ValueError, match="only allocates"):
        recorded.materialize_(made, seed=0)
    assert all(tensor.is_meta for tensor in made.buffers())


def test_what_is_shown_stays_the_same() -> None:
    with wi.deferred():
        x = torch.empty(4)
        x[1] = 2
        assert x.tolist() == x.tolist() == [0, 2, 0, 0]
        x[2] = 3
        assert x.tolist() == [0, 2, 3, 0]


def every_other() -> nn.Module:
    net = nn.Linear(8, 8, bias=False)
    with torch.no_grad():
        net.weight[:, ::2].zero_()
    return net


def diagonal() -> nn.Module:
    net = nn.Linear(8, 8, bias=False)
    with torch.no_grad():
        net.weight.diagonal().zero_()
    return net


def many() -> nn.Module:
    net = nn.Linear(20, 20, bias=False)
    with torch.no_grad():
        for at in range(20):
            net.weight[at, at].zero_()
    return net


def crossing() -> nn.Module:
    net = nn.Linear(6, 6, bias=False)
    with torch.no_grad():
        net.weight[2].fill_(1)
        net.weight[:, 3].fill_(2)
        net.weight[1:4].fill_(3)
    return net


def other_dtype() -> nn.Module:
    w = torch.empty(2, 2)
    w.view(torch.int32).fill_(0x3F800000)
    return module(w=w)


def conjugated() -> nn.Module:
    z = torch.empty(3, dtype=torch.complex64)
    z.conj().normal_()
    return module(w=z)


@pytest.mark.parametrize("build", [every_other, diagonal, many, crossing, other_dtype, conjugated])
def test_values_are_the_same_by_every_way(build: Callable[[], nn.Module]) -> None:
    with wi.deferred() as recorded:
        whole = nn.ModuleDict({"a": build()})
    value = recorded.values(whole, seed=0)
    before = {name: value(name) for name in recorded.plan(whole, seed=0).names()}
    recorded.materialize_(whole, seed=0)
    state = whole.state_dict(keep_vars=True)
    assert all(torch.equal(state[name], held) for name, held in before.items())
    recorded.materialize_(whole, seed=0)
    assert all(torch.equal(state[name], held) for name, held in before.items())


def test_constants_lie_on_the_same_elements_in_another_layout() -> None:
    with wi.deferred() as recorded:
        net = nn.Conv2d(8, 8, 3)
        with torch.no_grad():
            net.weight[0].zero_()
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    recorded.materialize_(net, seed=0)
    assert (net.weight[0] == 0).all()
    assert (net.weight[1:] != 0).all()


def test_nothing_is_settled_before_all_is_made() -> None:
    with wi.deferred() as recorded:
        x = torch.zeros(4, dtype=torch.int8)
        x[0].fill_(300)
        made = module(a=torch.randn(3).exp(), x=x)
    with pytest.raises((RuntimeError, ValueError)):
        recorded.materialize_(made, seed=0)
    assert all(tensor.is_meta for tensor in made.buffers())


def test_a_copy_that_is_a_function_leaves_what_it_is_of() -> None:
    with wi.deferred() as recorded:
        x, y = torch.arange(3.0), torch.arange(3.0) + 5
        made = module(x=x, y=y, z=torch.ops.aten.copy(x, y))
    recorded.materialize_(made)
    assert (made.x.tolist(), made.z.tolist()) == ([0, 1, 2], [5, 6, 7])


def test_copies_have_gradients() -> None:
    with wi.deferred():
        w = torch.ones(2, requires_grad=True)
        w.grad = torch.ones(2)
        assert copy.deepcopy(w).grad is not None


def test_all_views_of_nothing_are_cast() -> None:
    with wi.deferred() as recorded:
        w = torch.ones(4)
        made = module(w=w, a=w[:0], b=w[:0])
    recorded.materialize_(made, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in made.buffers()} == {torch.bfloat16}
