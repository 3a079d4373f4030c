"""Code that must not be able to tell that it is recorded: where tensors are, indices, values, seeds.

Eager code says what is right.
"""

from __future__ import annotations

import contextlib
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from recorded import recorded
from torch import Tensor, nn

import weightinit_cuda as wi

pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")


@pytest.fixture(autouse=True)
def nothing_left() -> Any:
    before = vars(Tensor).keys() - {"__slotnames__"}  # which pickle notes
    yield
    assert vars(Tensor).keys() - {"__slotnames__"} == before
    assert len(torch.tensor([x for x in torch.ones(3)])) == 3  # a tensor without dimensions is no sequence  # noqa: C416


def same_as_eager(build: Callable[[], Any]) -> None:
    """Bit for bit, for code that draws nothing, or under seeds of its own."""
    expected = build()
    recording, holder = recorded(build)
    recording.materialize_(holder, device="cpu")
    for key, tensor in (expected if isinstance(expected, dict) else {"w": expected}).items():
        ours = getattr(holder, key)
        assert ours.dtype == tensor.dtype
        assert ours.stride() == tensor.stride()
        torch.testing.assert_close(ours, tensor, rtol=0, atol=0, equal_nan=True)


# ---- where tensors are ------------------------------------------------------------------------------------------------

ANSWERS: dict[str, Callable[[Tensor], Any]] = {
    "device": lambda w: w.device,
    "is_meta": lambda w: (w.is_meta, w.is_cpu, w.is_cuda),
    "get_device": lambda w: w.get_device(),
    "type": lambda w: w.type(),
    "of a parameter": lambda w: nn.Parameter(w).device,
    "of a view": lambda w: w[1:].device,
    "of a result": lambda w: (w + 1).device,
    "of a copy": lambda w: w.to(torch.float64).device,
    "data_ptr": lambda w: (w.data_ptr() != 0, w.data_ptr() == w.data.data_ptr(), w[1:].data_ptr() - w.data_ptr()),
    "tied": lambda w: w.data_ptr() == torch.zeros(3).data_ptr(),
    "to where it is": lambda w: (w.to(w.device) is w, w.cpu() is w, w.to("cpu") is w, w.to(w) is w, w.to(device="cpu") is w),
    "to another dtype": lambda w: (w.to("cpu", torch.float64).tolist(), w.to(torch.ones(1, dtype=torch.int32)).tolist()),
    "to with copy": lambda w: w.to("cpu", copy=True) is w,
    "dlpack device": lambda w: int(w.__dlpack_device__()[0]),
    "a generator there": lambda w: torch.Generator(device=w.device).device,
    "a module there": lambda w: next(nn.Linear(2, 2, device=w.device).parameters()).device,
    "module.to": lambda w: next(nn.Linear(2, 2).to(w.device).parameters()).device,
    "pickled": lambda w: len(pickle.dumps(w)) > 0,
    # values that Python asks for
    "format": lambda w: f"{w.mean():.2f} {w[1]:5.1f}",
    "percent": lambda w: f"{float(w[2]):.1f} %s" % w[1].item(),
    "iterated": lambda w: [x.item() for x in w],
    "sum": lambda w: (sum(w).item(), max(w).item(), sorted(w)[0].item(), list(map(int, w))),
    "math": lambda w: (math.sqrt(w[1]), math.floor(w[2]), round(w[1].item(), 1), complex(w[1])),
    "numpy": lambda w: (np.asarray([x for x in w]).tolist(), np.sqrt(w.numpy()).tolist(), float(np.float32(w[1]))),  # noqa: C416
    "range": lambda w: (list(range(int(w[2]))), [0] * int(w.sum()), torch.arange(int(w[2])).tolist()),
    "in": lambda w: (1.0 in w, bool(w[1] > 0), torch.is_nonzero(w[1])),
    "tensor of a list": lambda w: torch.tensor([x for x in w]).tolist(),  # noqa: C416
    "tensor of a nested list": lambda w: torch.tensor([[w[0], 5.0], [w[1], w[2]]]).tolist(),
    "as_tensor of a list": lambda w: torch.as_tensor([w[2], w[0]]).tolist(),
    "new_tensor of a list": lambda w: w.new_tensor([w[2], w[0]]).tolist(),
    "new": lambda w: w.new([1.0, 2.0]).tolist(),
    "new of sizes": lambda w: w.new(2, 3).shape,
    "apply_": lambda w: w.apply_(lambda x: x * 2).tolist(),
    "map_": lambda w: w.map_(w.clone(), lambda x, y: x + y).tolist(),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_are_eagers(name: str) -> None:
    expected = ANSWERS[name](torch.arange(3.0))
    with wi.deferred():
        assert ANSWERS[name](torch.arange(3.0)) == expected


def adapter() -> dict[str, Tensor]:
    """It copies the weight of a norm if that has one yet."""
    norm, w = nn.BatchNorm1d(3), torch.ones(3)
    norm.weight.data.zero_()
    if norm.weight.device.type != "meta" and not norm.weight.is_meta:
        w.copy_(norm.weight.detach())
    return {"w": w}


def test_branches_on_devices_are_taken() -> None:
    same_as_eager(adapter)


def test_after_the_block_tensors_are_on_meta() -> None:
    with wi.deferred() as recording:
        net, asked = nn.Linear(2, 2), torch.ones(2, device="meta")
        assert not net.weight.is_meta
        assert asked.is_meta
    assert net.weight.is_meta
    assert net.weight.device.type == "meta"
    assert recording.materialize_(net).weight.is_cpu


def test_where_the_code_wants_a_gpu() -> None:
    with wi.deferred():
        w = torch.ones(2, device="cuda")
        assert (w.device.type, w.is_cuda, w.is_cpu, w.type()) == ("cuda", True, False, "torch.cuda.FloatTensor")
        assert w.get_device() == w.device.index
        assert w.cpu().device.type == "cpu"
        assert w.to("cuda") is w


def test_random_values_that_are_formatted_stay() -> None:
    """As with ``item()``: the model holds what the code has seen."""
    seen = []

    def build() -> Tensor:
        w = torch.randn(2)
        seen.append([f"{x:.4f}" for x in w])
        return w

    recording, holder = recorded(build)
    recording.materialize_(holder)
    assert [f"{x:.4f}" for x in holder.w.tolist()] == seen[0]


# ---- indices ----------------------------------------------------------------------------------------------------------

INDICES: dict[str, Any] = {
    "a list": [0, 2],
    "a tuple of numbers": (0, 2),
    "lists": ([0, 1], [1, 2]),
    "a range": range(2),
    "an array": np.array([0, 2]),
    "a number of numpy": np.int64(1),
    "bools": [True, False, True, False],
    "an array of bools": np.array([True, False, True, False]),
    "None": None,
    "ellipsis": (..., [0, 1]),
    "negative": [-1],
    "a list of lists": [[0, 1], [1, 2]],
    "a tensor from outside": torch.tensor([0, 2]),
    "tensors": [torch.tensor(0), torch.tensor(1)],
    "slices in a list": [slice(0, 2)],
    "mixed": (slice(None), [0, 2]),
    "empty": [],
    "a bool": True,
    "a list of one": ([1],),
    "a range in a tuple": (slice(1, 3), range(2)),
}


@pytest.mark.parametrize("name", INDICES)
def test_indices(name: str) -> None:
    def build() -> dict[str, Tensor]:
        w, part = torch.arange(12.0).view(4, 3), torch.zeros(4, 3)
        part[INDICES[name]] = 5.0
        part.data[INDICES[name]] += 1.0
        got = w[INDICES[name]]
        w[INDICES[name]] = got * 2
        return {"got": got, "w": w, "part": part}

    same_as_eager(build)


def test_indices_of_recorded_values() -> None:
    def build() -> Tensor:
        w, order = torch.arange(4.0), torch.tensor([3, 1])
        w[[int(order[0]), order[1].item()]] = torch.tensor([7.0, 8.0])
        w[order.tolist()] *= 2
        return w[torch.argsort(w, descending=True)]

    same_as_eager(build)


def test_errors_of_indices_are_torchs() -> None:
    with wi.deferred():
        w = torch.zeros(3)
        with pytest.raises(IndexError, match="too many indices"):
            w[0, 0]
        with pytest.raises((TypeError, IndexError, ValueError)):
            w["a"]
        with pytest.raises(IndexError):
            w[[5]].tolist()


def test_tensors_without_dimensions_are_no_sequences_in_the_block() -> None:
    """Giving a class a method ``__getitem__`` makes it one, for good: also those that were made meanwhile."""
    with wi.deferred():

        class Made(Tensor):
            pass

        assert torch.tensor([OUTSIDE, OUTSIDE]).tolist() == [2.0, 2.0]
    assert torch.tensor([OUTSIDE.as_subclass(Made), OUTSIDE]).tolist() == [2.0, 2.0]


OUTSIDE = torch.tensor(2.0)


# ---- seeds that the code sets -----------------------------------------------------------------------------------------


def seven() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def twice() -> Tensor:
    g = torch.Generator()
    g.manual_seed(7)
    a = torch.randn(3, generator=g)
    g.manual_seed(7)
    return a - torch.randn(3, generator=g)


def in_a_row() -> Tensor:
    g = seven()
    return torch.stack(
        [torch.rand(20, generator=g), torch.randn(20, generator=g), torch.empty(20).uniform_(-1, 1, generator=g)]
    )


def filled(generator: torch.Generator | None) -> dict[str, Tensor]:
    fills: list[Callable[..., Tensor]] = [
        nn.init.normal_,
        nn.init.trunc_normal_,
        nn.init.kaiming_uniform_,
        nn.init.xavier_normal_,
        nn.init.orthogonal_,
        lambda w, generator: w.t().exponential_(generator=generator).t(),
        lambda w, generator: w[1:].bernoulli_(0.5, generator=generator),
        lambda w, generator: wi.init.normal_(w, generator=generator),
        lambda w, generator: w.copy_(torch.randperm(20, generator=generator).view(4, 5)),
        lambda w, generator: w.copy_(torch.normal(torch.arange(20.0), 2.0, generator=generator).view(4, 5)),
        lambda w, generator: torch.bernoulli(torch.linspace(0, 1, 20).view(4, 5), generator=generator),
        lambda w, generator: torch.multinomial(torch.arange(20.0).view(4, 5), 2, generator=generator),
    ]
    return {f"w{n}": fill(torch.zeros(4, 5), generator=generator) for n, fill in enumerate(fills)}


def default_seed() -> dict[str, Tensor]:
    torch.manual_seed(11)
    return filled(None) | {
        "of a layer": nn.Linear(3, 4).weight.data,
        "randn": torch.randn(5),
        "like": torch.rand_like(torch.ones(3)),
    }


def default_seed_twice() -> Tensor:
    torch.manual_seed(3)
    a = torch.randn(4)
    torch.random.manual_seed(3)
    return a - torch.randn(4)


def state_put_back() -> Tensor:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    a = torch.randn(4)
    torch.set_rng_state(state)
    return a - torch.randn(4)


def forked() -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return torch.randn(6)


SEEDED: dict[str, Callable[[], Any]] = {
    "one seed twice": twice,
    "one draw after the other": in_a_row,
    "a generator": lambda: filled(seven()),
    "torch.manual_seed": default_seed,
    "torch.manual_seed twice": default_seed_twice,
    "a state put back": state_put_back,
    "fork_rng": forked,
}


@pytest.mark.parametrize("name", SEEDED)
def test_what_the_code_seeds_is_torchs(name: str) -> None:
    state = torch.get_rng_state()
    try:
        same_as_eager(SEEDED[name])
    finally:
        torch.set_rng_state(state)


def test_after_a_fork_the_plan_draws() -> None:
    state = torch.get_rng_state()
    with wi.deferred() as recording:
        net = nn.Sequential(nn.Linear(2, 2))
        forked()
        net.append(nn.Linear(2, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(entry.distribution.is_random for entry in recording.plan(net, seed=0))


def test_what_the_code_has_not_seeded_takes_nothing_from_its_seed() -> None:
    """A random value that Python asks for is drawn for the plan, not under the code's seed."""

    def build() -> dict[str, Tensor]:
        w = torch.randn(3)
        torch.manual_seed(2)
        float(w[0])
        return {"seeded": torch.randn(4)}

    same_as_eager(build)


def test_seeding_functions_are_torchs_again() -> None:
    before = torch.manual_seed, torch.get_rng_state, torch.random.set_rng_state
    with wi.deferred():
        assert torch.manual_seed is not before[0]
    assert before == (torch.manual_seed, torch.get_rng_state, torch.random.set_rng_state)


def test_a_dtype_is_not_for_plain_attributes() -> None:
    with wi.deferred() as recording:
        net = nn.Linear(2, 2)
        net.rate, net.outside, net.shared = torch.arange(3.0) / 3, OUTSIDE.clone(), net.weight.data
    recording.materialize_(net, dtype=torch.bfloat16)
    assert net.weight.dtype == net.shared.dtype == torch.bfloat16
    assert net.rate.dtype == net.outside.dtype == torch.float32
    assert torch.equal(net.rate, torch.arange(3.0) / 3)


# ---- expanded tensors -------------------------------------------------------------------------------------------------


def row() -> Tensor:
    return torch.arange(3.0).unsqueeze(0).clone().expand(2, 3)


def through(write: Callable[[Tensor], object]) -> Callable[[], Any]:
    def build() -> dict[str, Tensor]:
        w = row()
        write(w)
        return {"w": w, "copy": w.clone()}

    return build


def of_a_larger_one() -> dict[str, Tensor]:
    y = torch.ones(4, 3)
    y[1].expand(2, 3).fill_(5)
    y[:, :1].expand(4, 2).zero_()
    return {"w": y}


EXPANDED: dict[str, Callable[[], Any]] = {
    "fill_": through(lambda w: w.fill_(2.0)),
    "zero_": through(lambda w: w.zero_()),
    "fill_ of an integer": through(lambda w: w.fill_(7)),
    "constant_": through(lambda w: nn.init.constant_(w, 3.0)),
    "zeros_": through(nn.init.zeros_),
    "one row": through(lambda w: w[0].fill_(4.0)),
    "a column": through(lambda w: w[:, 1].fill_(4.0)),
    "twice": through(lambda w: w.zero_()[1:].fill_(8.0)),
    "of nothing": lambda: torch.empty(1, 3).expand(2, 3).fill_(2.0),
    "of a larger one": of_a_larger_one,
    "a scalar": lambda: torch.zeros(1).expand(5).fill_(1.0),
}


@pytest.mark.parametrize("name", EXPANDED)
def test_expanded_tensors_are_filled(name: str) -> None:
    same_as_eager(EXPANDED[name])


@pytest.mark.parametrize("write", [lambda w: w.normal_(), lambda w: w.uniform_()])
def test_what_torch_refuses_on_expanded_tensors(write: Callable[[Tensor], object]) -> None:
    for block in (contextlib.nullcontext(), wi.deferred()):
        with block, pytest.raises(RuntimeError, match="unsupported operation: more than one element"):
            write(row())
