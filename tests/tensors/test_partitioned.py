"""Parameters that ZeRO-3 partitions: a rank fills its own part, with the bits that it has in the whole, or says why it cannot.

The collectives are tested in tests/distributed, DeepSpeed itself in tests/distributed/test_deepspeed.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
import zero3
from bitwise import same_bits
from meshes import rank_of
from torch import Tensor, nn

import weightinit_cuda as wi
from weightinit_cuda.tensors.named import named_tensors


def model() -> nn.Module:
    """Sizes that two and three ranks do not divide; a tied weight; more ranks than elements in a bias."""
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 7), nn.Linear(7, 5, bias=False), nn.Linear(5, 1))
    net.add_module("tied", nn.Linear(7, 5, bias=False))
    net.tied.weight = net[3].weight  # type: ignore[index, union-attr]
    return net


def whole(fill: Callable[[nn.Module], Any]) -> dict[str, Tensor]:
    net = model()
    fill(net)
    return {name: tensor.detach() for name, tensor in net.named_parameters()}


FILLS: dict[str, Callable[[nn.Module], Any]] = {
    "initialize_": lambda net: wi.initialize_(net, rules="kaiming", seed=5),
    "torch": lambda net: wi.initialize_(net, seed=5),
    "apply_": lambda net: wi.plan(model(), rules="xavier", seed=3).apply_(net),
    "bind": lambda net: wi.plan(model(), rules="xavier").bind(net)(seed=4),
    "add_noise_": lambda net: wi.add_noise_(wi.initialize_(net, rules="xavier", seed=1), 0.1, seed=2),
    "lerp_to_init_": lambda net: wi.lerp_to_init_(
        wi.initialize_(net, rules="xavier", seed=1), wi.plan(model(), rules="kaiming", seed=2), 0.5
    ),
    "restore_": lambda net: wi.restore_(
        wi.initialize_(net, seed=1),
        wi.plan(model(), rules="xavier", seed=2),
        names=["0.*", "2.weight"],
        mask={"2.weight": (torch.arange(35) % 3 > 0).view(7, 5)},
    ),
}


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_parts_have_the_bits_of_the_whole(fill: Callable[[nn.Module], Any], ranks: int) -> None:
    expected = whole(fill)
    found: dict[str, list[Tensor]] = {}
    for rank in range(ranks):
        with rank_of(rank, (ranks,)):
            net = zero3.partition(model())
            fill(net)
            for name, parameter in net.named_parameters():
                assert parameter.shape == (0,)
                found.setdefault(name, []).append(parameter.ds_tensor)  # type: ignore[attr-defined]
    for name, tensor in expected.items():
        flat = torch.cat(found[name])
        assert same_bits(flat[: tensor.numel()], tensor.reshape(-1)), name
        assert flat[tensor.numel() :].isnan().all(), "padding was written"


@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
def test_gathered_parameters_and_their_parts(fill: Callable[[nn.Module], Any]) -> None:
    """What is there now, and what remains when DeepSpeed drops it again."""
    expected = whole(fill)
    with rank_of(1, (2,)):
        net = zero3.partition(model())
        start = model()
        for parameter, other in zip(net.parameters(), start.parameters(), strict=True):
            parameter.data, parameter.ds_status = other.data.clone(), zero3.Status.AVAILABLE  # type: ignore[attr-defined]
        fill(net)
        for name, parameter in net.named_parameters():
            assert same_bits(parameter.detach(), expected[name]), name
            part = parameter.ds_tensor  # type: ignore[attr-defined]
            mine = expected[name].reshape(-1)[part.numel() :]
            assert same_bits(part[: mine.numel()], mine), name


class Computed(nn.Module):
    """A padding row, a fused weight, and what only a replay gives."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3, padding_idx=1)
        self.fused = nn.Parameter(torch.cat([torch.randn(2, 5), torch.zeros(1, 5)]))
        self.rates = nn.Parameter(torch.rand(7).exp())


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_recorded_model_that_was_partitioned_since(ranks: int) -> None:
    """Given memory first, as zero.Init(module=...) needs it, then partitioned: each rank fills its part alone."""
    with wi.deferred() as recorded:
        alone = Computed()
    expected = dict(recorded.materialize_(alone, seed=7).named_parameters())
    for rank in range(ranks):
        with rank_of(rank, (ranks,)):
            with wi.deferred() as recorded:
                net = Computed()
            zero3.partition(net.to_empty(device="cpu"))
            recorded.materialize_(net, seed=7)
            for name, parameter in net.named_parameters():
                part = parameter.ds_tensor  # type: ignore[attr-defined]
                mine = expected[name].detach().reshape(-1)[rank * part.numel() :][: part.numel()]
                assert parameter.shape == (0,)
                assert same_bits(part[: mine.numel()], mine), name


def test_partitioning_inside_the_block_is_refused_by_name() -> None:
    refused = pytest.raises(NotImplementedError, match=r"must be whole, got Linear\.weight, which deepspeed\.zero")
    with rank_of(1, (2,)), refused, wi.deferred():
        zero3.partition(nn.Linear(3, 5))


def test_other_errors_in_the_block_are_the_codes_own() -> None:
    with pytest.raises(RuntimeError, match=r"^mine$"), wi.deferred():
        raise RuntimeError("mine")


@pytest.mark.parametrize("moved", ["a part", "gathered", "in flight"])
def test_bound_plans_notice_what_moves(moved: str) -> None:
    expected = whole(FILLS["bind"])
    with rank_of(1, (2,)):
        net = zero3.partition(model())
        fill = wi.plan(model(), rules="xavier").bind(net)
        fill(seed=3)
        for parameter, other in zip(net.parameters(), model().parameters(), strict=True):
            if moved == "a part":
                parameter.ds_tensor.data = torch.full_like(parameter.ds_tensor, float("nan"))  # type: ignore[attr-defined]
            else:
                parameter.data = other.data.clone()
                parameter.ds_status = zero3.Status.AVAILABLE if moved == "gathered" else zero3.Status.INFLIGHT  # type: ignore[attr-defined]
        if moved == "in flight":
            with pytest.raises(NotImplementedError, match="being gathered"):
                fill(seed=4)
            return
        fill(seed=4)
        for name, parameter in net.named_parameters():
            part = parameter.ds_tensor  # type: ignore[attr-defined]
            mine = expected[name].reshape(-1)[part.numel() :]
            assert same_bits(part[: mine.numel()], mine), name
            if moved == "gathered":
                assert same_bits(parameter.detach(), expected[name]), name


def test_a_part_that_is_the_whole_is_moved_once() -> None:
    """A world of one: the gathered parameter and its part may be the same memory."""
    expected = whole(FILLS["add_noise_"])
    with rank_of(0, (1,)):
        net = zero3.partition(model())
        for parameter in net.parameters():
            parameter.data = parameter.ds_tensor.view(parameter.ds_shape)  # type: ignore[attr-defined]
            parameter.ds_status = zero3.Status.AVAILABLE  # type: ignore[attr-defined]
        FILLS["add_noise_"](net)
        assert all(same_bits(p.detach(), expected[name]) for name, p in net.named_parameters())


def test_fingerprint_of_a_single_process() -> None:
    with rank_of(0, (1,)):
        net = FILLS["initialize_"](zero3.partition(model()))
        assert wi.fingerprint(net) == wi.fingerprint(
            whole(FILLS["initialize_"]) | {"tied.weight": net.tied.weight.ds_tensor.view(5, 7)}
        )


TROUBLES: dict[str, Callable[[Any], object]] = {
    "NVMe": lambda p: setattr(p.ds_tensor, "status", zero3.Status.NOT_AVAILABLE),
    "gathered": lambda p: setattr(p, "ds_status", zero3.Status.INFLIGHT),
    "quantised": lambda p: setattr(p, "ds_tensor", as_part(p.ds_tensor.to(torch.int8), p)),
    "MiCS": lambda p: setattr(p, "comm", object()),
    "second partition": lambda p: setattr(p, "ds_secondary_tensor", p.ds_tensor),
    "in each part": lambda p: setattr(p.ds_tensor, "ds_numel", 1),
}


def as_part(flat: Any, parameter: Any) -> Tensor:
    flat.ds_numel, flat.status = parameter.ds_tensor.ds_numel, parameter.ds_tensor.status
    return flat  # type: ignore[no-any-return]


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("call", ["initialize_", "apply_", "fingerprint", "add_noise_"])
def test_parts_out_of_reach_are_named(call: str, trouble: str) -> None:
    with rank_of(0, (2,)):
        net = zero3.partition(model())
        TROUBLES[trouble](net[2].weight)  # type: ignore[index]
        before = [p.ds_tensor.clone() for p in net.parameters()]  # type: ignore[attr-defined]
        run = FILLS.get(call, wi.fingerprint)
        with pytest.raises(NotImplementedError, match=f"(?s)GatheredParameters.*2.weight: .*{trouble}"):
            run(net)
        for parameter, kept in zip(net.parameters(), before, strict=True):
            assert same_bits(parameter.ds_tensor, kept)  # type: ignore[attr-defined]


def test_no_operator_takes_it_for_its_elements() -> None:
    with rank_of(0, (2,)):
        tensors = named_tensors(zero3.partition(model()))
        assert [tuple(t.tensor.shape) for t in tensors] == [tuple(p.shape) for p in model().parameters()]
        for use in (torch.sum, torch.clone, lambda x: x.add_(1), lambda x: x + 1):
            with pytest.raises(NotImplementedError, match="GatheredParameters"):
                use(tensors[0].tensor)
        assert dist.is_initialized()
